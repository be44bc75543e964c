"""The commands of the sample workflows run, step by step, in a project of their own: a planted regression fails the
gate, and a change that costs nothing does not.

Steps called Install are not run: the kit is here. Everything else that a job runs is, with shorter sessions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from benchmarks.chain import write_chain
from tests.devices.stopping import stop_virtual_devices

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
QUICK = {"PAIRS": "8", "SESSIONS": "8", "BASELINE_SESSIONS": "3", "TIMED_S": "0.05", "WAIT_S": "600"}
TEST = """
import pytest

@pytest.mark.device("{tag}")
def test_the_model_runs(measured):
    assert measured("model.onnx", sessions=2, seconds=0.05).stats.samples > 0
"""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the step that failed, and what all printed."""

    failed: str
    text: str


def workflow(name):
    return yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))


def run_job(name, job, folder, **more) -> Outcome:
    """Run a job's steps as a runner does: after a failure only those whose ``if`` says so."""
    whole = workflow(name)
    known = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    settings = {**whole["env"], **{key: value for key, value in QUICK.items() if key in whole["env"]}, **more}
    env = {**os.environ, "PATH": known, "PYTHONPATH": str(ROOT), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    # Where the kit is installed its plugin loads by itself; from a checkout it is named.
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p inas_deploy.pytest_plugin", "COLUMNS": "120"}
    failed, texts = "", []
    for step in whole["jobs"][job]["steps"]:
        if "run" not in step or step["name"] == "Install" or (failed and "if" not in step):
            continue
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=folder,
            env={**env, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        texts.append(f"$ {step['name']}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        failed = failed or (step["name"] if done.returncode else "")
    text = "\n".join(texts)
    assert "Traceback" not in text, text
    return Outcome(failed, text)


def git(folder, *words):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A clone of a repository whose main branch holds ``model.onnx``."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed, and the workflow takes the old model from it")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # virtual devices of others are not to be stopped
    origin = tmp_path / "origin"
    origin.mkdir()
    write_chain(origin / "model.onnx", 3)
    (origin / "tests" / "hardware").mkdir(parents=True)
    (origin / "tests" / "hardware" / "test_model.py").write_text(TEST.format(tag="board"))
    git(origin, "init")
    git(origin, "add", ".")
    git(origin, "commit", "-m", "a model")
    git(tmp_path, "clone", str(origin), "clone")
    yield tmp_path / "clone"
    stop_virtual_devices()


def test_every_run_step_has_a_name_and_every_setting_is_used():
    for path in sorted(EXAMPLES.glob("*.yml")):
        whole = workflow(path.name)
        steps = [step for job in whole["jobs"].values() for step in job["steps"] if "run" in step]
        assert all("name" in step for step in steps)
        commands = "\n".join(step["run"] for step in steps)
        assert [key for key in whole["env"] if f"${key}" not in commands] == []


@pytest.mark.parametrize(("blocks", "seed", "failing"), [(9, 0, "Gate"), (3, 1, "")], ids=["regression", "A/A"])
def test_virtual_board(project, blocks, seed, failing):
    write_chain(project / "model.onnx", blocks, seed=seed)
    outcome = run_job("hil-virtual.yml", "latency", project, GITHUB_BASE_REF="main")
    assert outcome.failed == failing, outcome.text
    summary = (project / "summary.md").read_text(encoding="utf-8")
    assert ("SLOWER" in summary) == bool(failing)
    assert "STAND-IN" in summary
    if not failing:
        assert 'name="inas.stand_in" value="virtual"' in (project / "hardware.xml").read_text(encoding="utf-8")


def test_self_hosted_devices(project):
    (project / "devices.toml").write_text('[devices.bench]\ntags = ["ci"]\n')
    more = {"DEVICES": str(project / "devices.toml")}
    measured = run_job("hil-self-hosted.yml", "baseline", project, **more)
    assert measured.failed == "", measured.text
    unchanged = run_job("hil-self-hosted.yml", "gate", project, **more)
    assert unchanged.failed == "", unchanged.text
    write_chain(project / "model.onnx", 9)
    slower = run_job("hil-self-hosted.yml", "gate", project, **more)
    assert slower.failed == "Gate", slower.text
    assert "REGRESSION: 1 of 1 slower" in (project / "summary.md").read_text(encoding="utf-8")
