"""Run one job in one fresh process on a device, and classify what can go wrong."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

import targets
from targets import errors
from targets.errors import FailureKind, KitError, SessionFailed
from targets.jobs import Answer, Failure, Job
from targets.records import Artifact, OpProfile, RunSettings, SessionRecord
from targets.transports.base import Completed, Transport

_RETRIES = 1
_GRACE_S = 240.0  # loading, compiling and warming up a large model on a loaded host


def run_session(transport: Transport, job: Job) -> SessionRecord:
    """Time one session in a fresh process.

    Args:
        transport: Where the process runs.
        job: A ``time`` job.

    Raises:
        SessionFailed: If the process gave no result; lost devices and timeouts are tried once more.
        KitError: If the model or a setting was refused (the worker's own error).
    """
    answer = _ask(transport, job)
    if answer.session is None:
        raise SessionFailed("the session gave no samples", FailureKind.TOOL_ERROR)
    return answer.session


def run_profile(transport: Transport, job: Job) -> OpProfile:
    """Take a per-op profile in a fresh process (errors as :func:`run_session`)."""
    answer = _ask(transport, job)
    if answer.profile is None:
        raise SessionFailed("the profile gave no operations", FailureKind.TOOL_ERROR)
    return answer.profile


def run_inference(
    transport: Transport, artifact: Artifact, settings: RunSettings, tensor: NDArray[np.float32]
) -> NDArray[np.float32]:
    """First output of one inference on the first input, in a fresh process.

    Args:
        transport: Where the process runs.
        artifact: What to load.
        settings: How to run it.
        tensor: The input, in the artifact's own shape.

    Returns:
        The output, float32.
    """
    with tempfile.TemporaryDirectory(prefix="inas-infer-") as folder:
        source, result = Path(folder, "input.npy"), Path(folder, "output.npy")
        np.save(source, tensor, allow_pickle=False)
        job = Job(task="infer", artifact=artifact, settings=settings, input_path=str(source), output_path=str(result))
        _ask(transport, job)
        return np.asarray(np.load(result, allow_pickle=False), dtype=np.float32)


def _ask(transport: Transport, job: Job) -> Answer:
    for attempt in range(_RETRIES + 1):
        try:
            return _ask_once(transport, job)
        except SessionFailed as error:
            if attempt == _RETRIES or not error.kind.retryable:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _ask_once(transport: Transport, job: Job) -> Answer:
    job = job.model_copy(update={"parent_pid": os.getpid()})
    with tempfile.TemporaryDirectory(prefix="inas-session-") as folder:
        job_path, answer_path = Path(folder, "job.json"), Path(folder, "answer.json")
        job_path.write_text(job.model_dump_json(), encoding="utf-8")
        # -P keeps the working folder off the import path: a file called targets.py there must not win.
        argv = [sys.executable, "-P", "-m", "targets.worker", str(job_path), str(answer_path)]
        done = transport.run(argv, timeout_s=job.seconds * 20 + _GRACE_S, env=worker_environment())
        if not answer_path.exists():
            raise _died(done, job)
        try:
            answer = Answer.model_validate_json(answer_path.read_bytes())
        except ValidationError as error:
            raise SessionFailed(
                f"the worker's answer cannot be read: {error.errors()[0]['msg']}", FailureKind.TOOL_ERROR
            ) from error
    if answer.failure is not None:
        raise _raised_again(answer.failure)
    return answer


def worker_environment() -> Mapping[str, str]:
    """Variables that let the worker find this very package, whatever else is on the path."""
    here = str(Path(targets.__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join([here, known]) if known else here}


def _died(done: Completed, job: Job) -> SessionFailed:
    label = f"session {job.index} of {Path(job.artifact.path).name} on {job.settings.runtime}"
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "it printed nothing"
    if done.returncode == -9:
        text = f"{label} was killed (signal 9), most likely for memory"
        return SessionFailed(text, FailureKind.OUT_OF_MEMORY, "Free memory or take a smaller input.")
    text = f"{label} ended with status {done.returncode}: {last}"
    return SessionFailed(text, FailureKind.TOOL_ERROR, "Run 'inas-deploy doctor' to check the runtime.")


def _raised_again(failure: Failure) -> KitError:
    kind: type[KitError] | None = getattr(errors, failure.error, None)
    if kind is None or kind is SessionFailed or not issubclass(kind, KitError):
        return SessionFailed(failure.what, failure.kind, failure.fix)
    return kind(failure.what, failure.fix)
