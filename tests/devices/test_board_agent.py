"""The agent over a real sshd: same record as on this host, nothing left behind when the line is cut."""

import subprocess
import sys
from pathlib import Path

import pytest

from targets.drivers.agent import AgentDriver
from targets.errors import FailureKind, SessionFailed
from targets.runtimes.registry import get_runtime
from targets.session import run_session
from targets.tflite_files import tflite_artifact
from targets.transports.local import LocalTransport
from targets.transports.registry import open_transport
from tests.targets.agent_making import files_in, timing, tiny, wait_for

TFLITE = Path(__file__).resolve().parents[1] / "targets" / "fixtures" / "tflite" / "tiny.tflite"


@pytest.fixture
def transport(board, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with open_transport(board) as opened:
        yield opened


def left(transport):
    """What lies in the sessions folder."""
    return files_in(Path(transport.work_folder) / "sessions")


def agents():
    """Processes that run the agent, in this container."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(words) == 3 and words[1].endswith(b".pyz"):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tflite"])
def test_a_session_is_the_same_record_as_here(board, transport, tmp_path, runtime):
    package = {"tflite": "ai_edge_litert"}.get(runtime, runtime)
    pytest.importorskip(package, reason=f"{package} is not installed, and the board runs this host's packages")
    artifact = tflite_artifact(TFLITE) if runtime == "tflite" else tiny(tmp_path)
    job = timing(artifact, runtime=runtime)
    driver = AgentDriver(board, transport, runtime)
    there = driver.run_session(job)
    here = run_session(LocalTransport(), job.model_copy(update={"session_id": "0" * 32}))
    assert there.actual == here.actual
    assert there.versions == here.versions == get_runtime(runtime).versions()
    assert driver.versions()[runtime] in there.versions.values()
    absent = {name for name, value in there if value in (None, (), {})}
    assert absent <= {"summary", "energy_mj", "reference_ns"}
    assert [reading.phase for reading in there.readings] == ["before", "after"]
    assert there.settings == job.settings and there.session_id == job.session_id
    driver.close()
    assert left(transport) == []


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_profile_is_joined_to_modules(board, transport, tmp_path, runtime):
    pytest.importorskip(runtime, reason=f"{runtime} is not installed, and the board runs this host's packages")
    driver = AgentDriver(board, transport, runtime)
    profile = driver.run_profile(timing(tiny(tmp_path), "profile", seconds=0.2, runtime=runtime))
    assert profile.runtime == runtime and len(profile.ops) > 3
    assert profile.attributed_share > 0.9
    assert sum(op.share for op in profile.ops) == pytest.approx(1.0, abs=1e-6)
    driver.close()
    assert left(transport) == []


def test_a_client_that_is_killed_leaves_nothing(board, tmp_path):
    """The client dies without a word in the middle of a session: the board notices by itself."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from targets.drivers.agent import AgentDriver\nfrom targets.inventory import Device\n"
        "from targets.transports.registry import open_transport\nfrom tests.targets.agent_making import timing, tiny\n"
        "device = Device.model_validate_json(sys.argv[1])\n"
        "driver = AgentDriver(device, open_transport(device), 'onnxruntime')\n"
        "driver.run_session(timing(tiny(sys.argv[2]), seconds=600))\n"
    )
    before = set(agents())
    root = Path(__file__).resolve().parents[2]
    client = subprocess.Popen([sys.executable, "-c", script, board.model_dump_json(), str(tmp_path)], cwd=root)
    with open_transport(board) as transport:
        sessions = Path(transport.work_folder) / "sessions"
        try:
            wait_for(lambda: list(sessions.glob("*/model/*.onnx")) or client.poll() is not None, timeout=60)
            assert client.poll() is None
        finally:
            client.kill()
            client.wait()
        wait_for(lambda: not set(agents()) - before, timeout=60)
        wait_for(lambda: not list(sessions.iterdir()))


def test_a_deadline_leaves_nothing(board, transport, tmp_path):
    driver = AgentDriver(board, transport, "onnxruntime")
    before = set(agents())
    job = timing(tiny(tmp_path))
    driver.about()
    with pytest.raises(SessionFailed) as caught:
        driver._ask(job, Path(job.artifact.path), {**driver._task(job, None), "seconds": 600.0}, timeout_s=3.0)
    assert caught.value.kind is FailureKind.TIMEOUT
    driver.close()
    wait_for(lambda: not set(agents()) - before, timeout=60)
    wait_for(lambda: left(transport) == [])
