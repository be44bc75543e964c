"""The plugin in pytest runs of its own: what a project that installs the kit sees."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.chain import write_chain
from tests.inas_deploy.running import ROOT, run

pytest_plugins = ["pytester"]
QUICK = "sessions=3, seconds=0.05"


@pytest.fixture
def project(pytester, monkeypatch):
    """A project with a model; the plugin is loaded by name, whether or not it is installed as an entry point."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_chain(pytester.path / "net.onnx", 2)
    pytester.makefile(
        ".toml",
        devices="""
        [devices.bench]
        tags = ["quiet"]
        [devices.pixel]
        transport = "adb"
        host = "127.0.0.1:9"
        key_file = "adbkey"
        tags = ["android"]
        """,
    )
    return pytester


def given(project, source, *options):
    project.makepyfile("import pytest\n" + source)
    words = ["-p", "inas_deploy.pytest_plugin", "-rs", "--junitxml=out.xml", "-Werror::pytest.PytestWarning"]
    return project.runpytest_subprocess(*words, *options)


def properties(project):
    """Properties of each test in the JUnit file."""
    cases = ElementTree.parse(project.path / "out.xml").iter("testcase")
    return {c.get("name"): {p.get("name"): p.get("value") for p in c.iter("property")} for c in cases}


def test_a_measurement_and_its_properties(project):
    done = given(
        project,
        f"""
def test_local(measured):
    found = measured("net.onnx", {QUICK})
    assert found.stats.sessions == 3 and measured.target.device.name == "local"

@pytest.mark.device("quiet")
def test_tagged(target):
    assert target.device.name == "bench"

def test_plain():
    pass
""",
    )
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines(["*bench: 1 tests, 0 measurements*", "*local: 1 tests, 1 measurements*"])
    found = properties(project)
    assert found["test_plain"] == {}
    assert found["test_tagged"] == {"inas.device": "bench"}
    local = found["test_local"]
    assert local["inas.device"] == "local"
    assert "onnxruntime" in local["inas.versions"]
    assert local["inas.verdict"].startswith(("valid", "weak"))
    assert 0 < float(local["inas.p10_ms"]) <= float(local["inas.p50_ms"])
    assert not (project.path / "inas_results.sqlite").exists()


def test_skips_say_why(project):
    done = given(
        project,
        """
from targets.inventory import LOCAL
from targets.leases.registry import open_leases

@pytest.mark.device("android")
def test_unreachable(target):
    raise AssertionError("ran")

@pytest.mark.device("jetson")
def test_unknown():
    raise AssertionError("ran without a device")

def test_gate(measured):
    measured.gate("net.onnx")

@pytest.fixture
def held():
    with open_leases("x.sqlite").acquire(LOCAL.lease_key):
        yield

@pytest.mark.device("local")
def test_leased(held, target):
    raise AssertionError("ran")
""",
    )
    done.assert_outcomes(skipped=4)
    done.stdout.fnmatch_lines_random(
        [
            "SKIPPED*pixel*",
            "SKIPPED*no device or tag is called 'jetson'*",
            "SKIPPED*no --baseline FILE is given",
            "SKIPPED*in use*",
        ]
    )


def test_device_options_choose_and_stand_ins_are_named(project):
    project.makefile(".toml", other='[devices.pretend]\nstand_in = "virtual"\ntags = ["lab"]\n[devices.second]\n')
    done = given(
        project,
        """
def test_each(target):
    pass

@pytest.mark.device("lab")
def test_lab(target):
    assert target.device.name == "pretend"

@pytest.mark.device("local")
def test_local(target):
    raise AssertionError("ran")
""",
        "--devices=other.toml",
        "--device=lab",
        "--device=second",
    )
    done.assert_outcomes(passed=3, skipped=1)
    done.stdout.fnmatch_lines(
        ["*pretend (STAND-IN: virtual): 2 tests*", "*second: 1 tests*", "SKIPPED*leaves no device*'local'*"]
    )
    assert properties(project)["test_lab[pretend]"]["inas.stand_in"] == "virtual"
    done = given(project, "def test_each(target): pass", "--device=nothing")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "no device or tag is called 'nothing'" in done.stderr.str()
    assert "inventory.py" not in done.stderr.str() + done.stdout.str()  # one line, no traceback


def test_an_unmarked_test_fails_where_its_device_is_away(project):
    done = given(project, "def test_it(target): pass", "--device=pixel")
    done.assert_outcomes(errors=1)
    assert "Traceback" not in done.stdout.str()


def test_a_gate_against_a_baseline(project):
    settings = ["--sessions", "2", "--seconds", "0.05", "--no-per-op"]
    saved = run("bench", "--model", "net.onnx", *settings, "--save-baseline", "base.json", cwd=project.path)
    assert saved.returncode == 0, saved.stderr
    done = given(
        project,
        """
def test_gate(measured):
    found = measured.gate("net.onnx", sessions=2, seconds=0.05)
    assert (found.answer, found.method) == ("same", "same file")
""",
        "--baseline=base.json",
    )
    done.assert_outcomes(passed=1)


def test_the_plugin_is_light():
    program = (
        "import sys, json, inas_deploy.pytest_plugin; "
        "print(json.dumps([n for n in ('pytest', 'numpy', 'onnx', 'pydantic', 'targets') if n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout) == [], done.stderr
