"""The agent by itself: on every Python it must run on, equal to the host's own worker, and never left behind."""

import ast
import base64
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import targets.agent
from targets import host, steady
from targets.agent import counters, guard, model, protocol, timing
from targets.drivers.agent_pack import agent_bytes
from targets.records import Artifact, HostSnapshot, TensorSpec
from targets.runtimes.base import seeded_inputs
from tests.targets.agent_making import answer, files_in, gone, job_line, start, wait_for

SOURCES = sorted(Path(targets.agent.__file__).parent.glob("*.py"))
RUNTIMES = {"numpy", "onnxruntime", "openvino", "targets"}
PYTHONS = {
    version: sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for version in ("3.6", "3.8", "3.11", "3.12", "3.13")
}
SLEEPER = "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('up', flush=True); time.sleep(600)"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_part_is_python_3_6(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in names}
    assert tops - set(sys.stdlib_module_names) <= RUNTIMES
    assert not names & {"__future__", "dataclasses"}  # came with 3.7
    later = [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]
    called = {key.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for key in node.keywords}
    assert not later and not called & {"capture_output", "text", "missing_ok", "dirs_exist_ok"}


def test_the_parser_in_that_mode_refuses_what_3_6_lacks():
    with pytest.raises(SyntaxError):
        ast.parse("if (n := 1): pass", feature_version=(3, 6))


@pytest.mark.parametrize("version", PYTHONS)
def test_it_says_what_the_device_is(tmp_path, version):
    found = PYTHONS[version]
    if not found:
        pytest.skip(f"no Python {version} under ~/.pyenv/versions")
    tool = tmp_path / "trtexec"
    tool.write_text("#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v8201]' \"$@\"\nexit 1\n")
    tool.chmod(0o755)
    job = job_line(tmp_path / "work", tool=str(tool), ask_tool=True)
    told = answer(start(tmp_path, job, str(found[-1])), job)
    assert told["python"].startswith(version + ".")
    assert told["session_id"] == job["session_id"]
    assert told["result"]["tools"]["trtexec"] == str(tool)
    assert told["result"]["texts"]["trtexec"].startswith("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] --help")
    assert files_in(tmp_path / "work") == []


@pytest.mark.parametrize("version", ["3.6", "3.13"])
def test_tools_run_there_too(tmp_path, version):
    found = PYTHONS[version]
    if not found:
        pytest.skip(f"no Python {version} under ~/.pyenv/versions")
    made = tmp_path / "work" / "engines" / "a.plan"
    script = "import pathlib, sys; pathlib.Path('made').write_text('x'); pathlib.Path('out.json').write_text('[1]')"
    step = {"argv": [sys.executable, "-c", script], "timeout_s": 30, "skip_if": str(made)}
    job = job_line(tmp_path / "work", task="tools", model={"name": "model.onnx", "files": []})
    folder = tmp_path / "work" / "sessions" / job["session_id"]
    step.update(keep=[[str(folder / "made"), str(made)]], returns={"out": str(folder / "out.json")}, sample=True)
    job["steps"] = [step, step]
    told = answer(start(tmp_path, job, str(found[-1])), job)["result"]
    assert [each.get("skipped", False) for each in told["steps"]] == [False, True]
    assert told["steps"][0]["returncode"] == 0 and list(told["steps"][0]["files"]) == ["out"]
    assert made.read_text() == "x"
    assert files_in(folder) == ["answer.json"]  # until it is fetched


def test_packing_is_the_same_each_time():
    assert agent_bytes() == agent_bytes.__wrapped__()


@given(st.lists(st.integers(1_000, 200_000_000), max_size=450))
def test_its_warm_up_rule_is_the_hosts(samples):
    assert timing.is_steady(samples) == steady.is_steady(samples)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50), st.sampled_from([25, 50]))
def test_its_percentile_is_numpys(values, percent):
    assert protocol.percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)), rel=1e-12)


def test_its_inputs_are_the_hosts():
    specs = tuple(
        TensorSpec(name=dtype, shape=(2, 3, 5), dtype=dtype)
        for dtype in ("float32", "float16", "int64", "bool", "uint8")
    )
    artifact = Artifact(path="", format="onnx", sha256="", source_sha256="", inputs=specs)
    mine, how = model.seeded_inputs([spec.model_dump() for spec in specs])
    assert how == "seeded"
    for name, array in seeded_inputs(artifact).items():
        assert mine[name].dtype == array.dtype and np.array_equal(mine[name], array)


def test_its_counters_fit_the_hosts_record():
    told = counters.HostWatch().snapshot()
    record = HostSnapshot.model_validate(told["host"])
    own = host.HostWatch().snapshot()
    assert {key for key, value in record if value is not None} == {key for key, value in own if value is not None}


def stopped(tmp_path, **more):
    """An agent whose tool runs, with a grandchild: process, job and both numbers."""
    step = {"argv": [sys.executable, "-c", SLEEPER], "timeout_s": 600, "keep": [], "returns": {}}
    job = job_line(tmp_path / "work", task="tools", steps=[step], model={"name": "m", "files": []}, **more)
    process = start(tmp_path, job)
    tool = []

    def running():
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        tool[:] = [pid for pid in children if b"subprocess.Popen" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return tool and Path(f"/proc/{tool[0]}/task/{tool[0]}/children").read_text().split()

    wait_for(running)
    grandchild = Path(f"/proc/{tool[0]}/task/{tool[0]}/children").read_text().split()[0]
    return process, int(tool[0]), int(grandchild)


@pytest.mark.parametrize("how", ["the host closes the line", "the agent is killed", "the deadline passes"])
def test_nothing_stays_behind(tmp_path, how):
    process, tool, grandchild = stopped(tmp_path, deadline_s=3.0 if how.startswith("the deadline") else 300.0)
    if how == "the host closes the line":
        process.stdin.close()
    elif how == "the agent is killed":
        os.killpg(process.pid, signal.SIGKILL)
    assert gone(process.pid) and gone(tool) and gone(grandchild)
    process.wait()
    wait_for(lambda: not list((tmp_path / "work" / "sessions").iterdir()))
    error = process.stderr.read().decode()
    assert ("inas_agent: the host is gone" in error) == (how == "the host closes the line")
    assert ("inas_agent: stopped at its deadline of 3 s" in error) == (how == "the deadline passes")


def test_a_tool_that_takes_too_long_is_a_timeout(tmp_path):
    step = {"argv": [sys.executable, "-c", SLEEPER], "timeout_s": 0.5, "keep": [], "returns": {}}
    job = job_line(tmp_path / "work", task="tools", steps=[step], model={"name": "m", "files": []})
    told = answer(start(tmp_path, job), job)
    assert told["failure"]["kind"] == "timeout"
    assert files_in(tmp_path / "work") == []


def test_endless_output_is_cut_in_the_middle(tmp_path):
    script = "import sys\nprint('first')\nfor _ in range(130): sys.stdout.write('x' * 65536)\nprint('last')"
    step = {"argv": [sys.executable, "-c", script], "timeout_s": 60, "keep": [], "returns": {}}
    job = job_line(tmp_path / "work", task="tools", steps=[step], model={"name": "m", "files": []})
    told = answer(start(tmp_path, job), job)["result"]["steps"][0]
    text = zlib.decompress(base64.b64decode(told["log"])).decode()
    assert text.startswith("first\n") and text.endswith("last\n")
    assert "bytes left out]" in text and len(text) < 5 * 2**20


def test_a_finished_answer_is_given_again_and_not_to_another_question(tmp_path):
    counter = tmp_path / "runs"
    script = f"open({str(counter)!r}, 'a').write('x')"
    step = {"argv": [sys.executable, "-c", script], "timeout_s": 30, "keep": [], "returns": {}}
    job = job_line(tmp_path / "work", task="tools", steps=[step], model={"name": "m", "files": []}, echo={"a": 1})
    first = answer(start(tmp_path, job), job)
    again = {**job, "nonce": "0" * 32}
    assert answer(start(tmp_path, again), again) == first
    assert counter.read_text() == "x"
    other = {**job, "echo": {"a": 2}}
    assert answer(start(tmp_path, other), other)["echo"] == {"a": 2}
    assert counter.read_text() == "xx"


def test_a_second_agent_waits_for_the_first(tmp_path):
    script = "import time; time.sleep(1.5)"
    step = {"argv": [sys.executable, "-c", script], "timeout_s": 30, "keep": [], "returns": {}}
    job = job_line(tmp_path / "work", task="tools", steps=[step], model={"name": "m", "files": []}, wait_s=30)
    first = start(tmp_path, job)
    folder = tmp_path / "work" / "sessions" / job["session_id"]
    wait_for(lambda: folder.is_dir() and guard.try_claim(folder) is None)
    second = start(tmp_path, job)
    assert answer(first, job) == answer(second, job)


def test_sweeping_spares_what_lives_and_what_is_young(tmp_path):
    sessions = tmp_path / "work" / "sessions"
    for name in ("1" * 32, "2" * 32, "3" * 32, "4" * 32):
        (sessions / name).mkdir(parents=True)
        (sessions / name / "left.log").write_text("x")
    (sessions / ("2" * 32) / "answer.json").write_text("{}")
    (sessions / ("3" * 32) / "answer.json").write_text("{}")
    os.utime(sessions / ("3" * 32) / "answer.json", (1, 1))
    held = guard.try_claim(sessions / ("4" * 32))
    job = job_line(tmp_path / "work", task="sweep")
    assert answer(start(tmp_path, job), job)["result"] == {"removed": 2}
    os.close(held)
    assert files_in(sessions) == ["2" * 32 + "/answer.json", "4" * 32 + "/left.log"]


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", ""])
def test_a_file_beside_the_model_stays_in_the_session(tmp_path, name):
    file = {"name": name, "path": "/etc/passwd", "sha256": "0" * 64}
    with pytest.raises(protocol.Refused):
        model.stage_model({"files": [file]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changed_on_the_device_is_refused(tmp_path):
    (tmp_path / "cached").write_text("other")
    (tmp_path / "session").mkdir()
    file = {"name": "model.onnx", "path": str(tmp_path / "cached"), "sha256": "0" * 64}
    with pytest.raises(protocol.Refused, match="not the file that was sent"):
        model.stage_model({"files": [file]}, tmp_path / "session")


def test_two_files_of_one_name_are_refused(tmp_path):
    files = []
    for text in (b"graph", b"weights"):
        place = tmp_path / text.decode()
        place.write_bytes(text)
        files.append({"name": "model.onnx", "path": str(place), "sha256": hashlib.sha256(text).hexdigest()})
    (tmp_path / "session").mkdir()
    with pytest.raises(protocol.Refused, match="graph on the device is not the file that was sent"):
        model.stage_model({"files": files}, tmp_path / "session")


def test_its_peak_memory_is_its_own_and_not_that_of_who_started_it():
    script = "from targets.agent.counters import peak_rss_mb; print(peak_rss_mb())"
    large = "x = b'x' * 2**28; import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    done = subprocess.run([sys.executable, "-c", large, script], capture_output=True, check=True)
    assert 4 < float(done.stdout) < 200
    assert counters.peak_rss_mb(resource.RUSAGE_CHILDREN) > 200


def test_no_job_is_no_answer(tmp_path):
    process = start(tmp_path, job_line(tmp_path / "work", session_id="../../x"))
    process.wait(30)
    assert (process.returncode, process.stdout.read()) == (1, b"")
    assert "session_id must be 32 hexadecimal digits" in process.stderr.read().decode()
    assert json.dumps(files_in(tmp_path)) == '["inas_agent.pyz"]'


def test_a_host_that_no_longer_listens_does_not_keep_the_guard_from_clearing_up(tmp_path):
    process, tool, grandchild = stopped(tmp_path)
    process.stderr.close()
    process.stdout.close()
    process.stdin.close()
    assert gone(process.pid) and gone(tool) and gone(grandchild)
    process.wait()
    wait_for(lambda: not list((tmp_path / "work" / "sessions").iterdir()))
