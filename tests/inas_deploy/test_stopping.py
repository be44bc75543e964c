"""How a command ends before its time: Ctrl-C while it is still imported, and a run that can or cannot go on."""

import subprocess
import sys

import pytest

from inas_deploy.commands import running
from targets.errors import FailureKind, SessionFailed
from targets.measure import Progress
from targets.plan import BenchPlan
from tests.inas_deploy.running import ROOT, environment
from tests.targets.making import variant

IMPORTING = """
import runpy, sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == "inas_deploy.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
sys.argv = [sys.argv[1], "doctor"]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("module", ["inas_deploy", "inas_deploy.bench"])
def test_an_interrupt_while_importing_is_no_traceback(module):
    words = [sys.executable, "-P", "-c", IMPORTING, module]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (130, "", "")


@pytest.mark.parametrize(("stand_in", "goes_on"), [(None, True), ("virtual", True), ("recorded", False)])
def test_only_what_can_go_on_says_so(monkeypatch, capsys, tmp_path, stand_in, goes_on):
    one = variant().model_copy(update={"stand_in": stand_in})

    def measure(plan, *_, on_progress, **__):
        on_progress(Progress("session", 1, 3, one))
        raise SessionFailed("the recording ends here", FailureKind.TOOL_ERROR)

    monkeypatch.setattr(running, "measure", measure)
    plan = BenchPlan(variants=(one,), sessions=3, seconds=0.1)
    with pytest.raises(SessionFailed):
        running.run_plan(plan, {}, str(tmp_path / "x.sqlite"), resume=False, quiet=True)
    assert ("--resume" in capsys.readouterr().err) == goes_on
