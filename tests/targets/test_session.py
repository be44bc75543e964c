"""Real sessions in real processes on ONNX Runtime."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.chain import SIZE, write_chain
from targets.errors import FailureKind, InvalidModel, SessionFailed, UsageError
from targets.files import sha256_of
from targets.jobs import Job
from targets.onnx_files import inspect_onnx
from targets.records import Artifact, Precision, RunSettings
from targets.session import run_inference, run_profile, run_session
from targets.transports.local import LocalTransport

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = RunSettings(runtime="onnxruntime")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("chain") / "chain.onnx"
    write_chain(path, 3)
    info = inspect_onnx(path)
    return Artifact(path=str(path), format="onnx", sha256=info.sha256, source_sha256=info.sha256, inputs=info.inputs)


@pytest.fixture
def transport():
    with LocalTransport() as opened:
        yield opened


def job(artifact, **more):
    return Job(**{"task": "time", "artifact": artifact, "settings": SETTINGS, "seconds": 0.2, **more})


def test_a_session_records_what_happened(artifact, transport):
    begin = time.time()
    session = run_session(transport, job(artifact, index=4))
    assert session.index == 4
    assert session.pid != os.getpid()
    assert begin <= session.started_at.timestamp() <= session.finished_at.timestamp() <= time.time()
    assert 0.2e9 * 0.5 <= sum(session.samples_ns) <= 0.2e9 * 1.5
    assert session.warmup_ns
    assert session.load_ms > 0
    assert session.versions["onnxruntime"] == onnxruntime.__version__
    assert session.actual["threads"] == "1"
    assert 0.5 < session.cpu_per_wall < 1.2
    assert session.host.other_cpu_share is None or 0 <= session.host.other_cpu_share < os.cpu_count()


def test_sessions_are_processes_of_their_own(artifact, transport):
    first, second = (run_session(transport, job(artifact, seconds=0.05)) for _ in range(2))
    assert first.pid != second.pid
    assert first.session_id != second.session_id


def test_slow_models_still_get_enough_runs(artifact, transport):
    assert len(run_session(transport, job(artifact, seconds=0.0001, min_runs=25)).samples_ns) >= 25


def test_load_of_another_process_is_seen(artifact, transport):
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        session = run_session(transport, job(artifact, seconds=1.0))
    finally:
        burner.kill()
        burner.wait()
    assert session.host.other_cpu_share > 0.5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process to a core")
def test_pinning_is_done_and_recorded(artifact, transport):
    core = min(os.sched_getaffinity(0))
    settings = SETTINGS.model_copy(update={"pinned_cores": (core,)})
    assert run_session(transport, job(artifact, settings=settings)).settings.pinned_cores == (core,)
    settings = SETTINGS.model_copy(update={"pinned_cores": (4000,)})
    with pytest.raises(UsageError, match="cannot pin to cores"):
        run_session(transport, job(artifact, settings=settings))


def test_a_refusal_comes_back_as_the_error_it_was(artifact, transport, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x09 nonsense")
    wrong = artifact.model_copy(update={"path": str(broken), "sha256": sha256_of(broken)})
    with pytest.raises(InvalidModel, match=r"broken\.onnx"):
        run_session(transport, job(wrong))
    with pytest.raises(UsageError, match="fp16"):
        run_session(transport, job(artifact, settings=SETTINGS.model_copy(update={"precision": Precision.FP16})))


def test_threads_that_do_not_run_are_not_claimed(artifact, transport):
    pytest.importorskip("openvino", reason="openvino is not installed")
    settings = RunSettings(runtime="openvino", threads=512)
    with pytest.raises(UsageError, match="512 were asked for"):
        run_session(transport, job(artifact, settings=settings))


def test_a_session_past_its_deadline_is_a_timeout_and_tried_once_more(artifact):
    tried = []

    class Impatient(LocalTransport):
        def run(self, argv, **options):
            tried.append(argv)
            return super().run(argv, **{**options, "timeout_s": 0.2})

    with pytest.raises(SessionFailed) as caught:
        run_session(Impatient(), job(artifact, seconds=30))
    assert caught.value.kind is FailureKind.TIMEOUT
    assert len(tried) == 2


def test_a_killed_worker_is_not_tried_again_and_named(artifact):
    class Killer(LocalTransport):
        def run(self, argv, **options):
            return super().run(["sh", "-c", f"kill -{signal.SIGKILL} $$"], **options)

    with pytest.raises(SessionFailed, match="killed") as caught:
        run_session(Killer(), job(artifact))
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY


def test_a_worker_that_dies_says_its_last_line(artifact):
    class Crasher(LocalTransport):
        def run(self, argv, **options):
            return super().run(["sh", "-c", "echo first >&2; echo the last word >&2; exit 5"], **options)

    with pytest.raises(SessionFailed, match="status 5: the last word"):
        run_session(Crasher(), job(artifact))


def test_an_answer_that_cannot_be_read_is_not_a_number(artifact):
    class Liar(LocalTransport):
        def run(self, argv, **options):
            Path(argv[-1]).write_text('{"session": {"p10_ms": 1.0}}')
            return super().run(["true"], **options)

    with pytest.raises(SessionFailed, match="cannot be read"):
        run_session(Liar(), job(artifact))


def test_worker_is_not_shadowed_by_files_in_the_working_folder(artifact, transport, tmp_path, monkeypatch):
    (tmp_path / "targets.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert run_session(transport, job(artifact, seconds=0.05)).samples_ns


def test_worker_ends_with_its_parent(artifact, tmp_path):
    task = tmp_path / "job.json"
    worker = [sys.executable, "-m", "targets.worker", str(task), str(tmp_path / "answer.json")]
    code = (
        "import os, subprocess, sys, time\n"
        "from targets.jobs import Job\n"
        f"job = Job.model_validate_json({job(artifact, seconds=60).model_dump_json()!r})\n"
        f"open({str(task)!r}, 'w').write(job.model_copy(update={{'parent_pid': os.getpid()}}).model_dump_json())\n"
        f"print(subprocess.Popen({worker!r}).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    pid = int(parent.stdout.readline())
    time.sleep(1.0)
    assert _alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_inference_gives_the_runtimes_own_output(artifact, transport):
    shape = artifact.inputs[0].shape
    assert shape[2:] == (SIZE, SIZE)
    tensor = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    direct = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"]).run(
        None, {"image": tensor}
    )
    np.testing.assert_allclose(run_inference(transport, artifact, SETTINGS, tensor), direct[0], atol=1e-5)


def test_profile_runs_in_its_own_process(artifact, transport):
    profile = run_profile(transport, job(artifact, task="profile", seconds=0.5))
    assert sum(op.share for op in profile.ops) == pytest.approx(1.0)
    assert {module for op in profile.ops if (module := op.module)}
