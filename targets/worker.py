"""The fresh process of one session: ``python -m targets.worker JOB.json ANSWER.json``.

Nothing of the bench lives in this process: no progress bar, no store, no other model. It writes
its answer to a file, because runtimes print to the standard streams as they please.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from targets.errors import FailureKind, InvalidModel, KitError, SessionFailed, UsageError
from targets.files import write_atomic
from targets.host import HostWatch, peak_rss_mb
from targets.jobs import Answer, Failure, Job
from targets.profiles.timing import Pace
from targets.records import OpProfile, RunSettings, SessionRecord
from targets.runtimes.registry import get_runtime
from targets.steady import warm_up

_MAX_RUNS = 200_000
_LEAST_RUNS, _LONGEST_S = 3, 30.0  # for a model so slow that even the fewest runs take long
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to end this process with its parent: an orphan would disturb the next session."""
    if not parent_pid or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def _pin(cores: tuple[int, ...] | None) -> None:
    if cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("pinned_cores is set and this system cannot pin a process", "Leave pinned_cores out.")
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise UsageError(f"cannot pin to cores {list(cores)}: {error.strerror}", "Name cores this host has.") from error


def _check_threads(settings: RunSettings, actual: Mapping[str, str]) -> None:
    """Refuse a figure whose label would name threads that do not run."""
    really = actual.get("threads", str(settings.threads))
    if really != str(settings.threads):
        raise UsageError(
            f"{settings.runtime} runs {really} threads where {settings.threads} were asked for",
            f"Ask for {really} (--threads).",
        )


def time_session(job: Job) -> SessionRecord:
    """Load, warm up and time one model in this process.

    Args:
        job: A ``time`` job.

    Raises:
        KitError: If the model or a setting is refused.
    """
    started_at = datetime.now(UTC)
    begin = time.perf_counter()
    runtime = get_runtime(job.settings.runtime)
    model = runtime.load(job.artifact, job.settings)
    load_ms = (time.perf_counter() - begin) * 1e3
    _check_threads(job.settings, model.actual)
    begin = time.perf_counter()
    model.run()
    first_inference_ms = (time.perf_counter() - begin) * 1e3
    reference = _reference(job)
    if reference is not None:
        warm_up(reference)
    warm = warm_up(model.run)
    gc.collect()
    gc.disable()  # a collection in the middle of a sample is ours, not the model's
    watch = HostWatch()
    samples_ns, reference_ns = _in_turns(job, model.run, reference)
    cpu_per_wall = watch.own_cpu_per_wall
    host = watch.snapshot()
    gc.enable()
    return SessionRecord(
        session_id=job.session_id,
        index=job.index,
        pid=os.getpid(),
        started_at=started_at,
        finished_at=datetime.now(UTC),
        load_ms=load_ms,
        first_inference_ms=first_inference_ms,
        warmup_ns=warm.samples_ns,
        samples_ns=tuple(samples_ns),
        reference_ns=tuple(reference_ns),
        steady=warm.steady,
        peak_rss_mb=peak_rss_mb(),
        cpu_per_wall=cpu_per_wall,
        host=host,
        settings=job.settings,
        actual=model.actual,
        versions=runtime.versions(),
    )


def _in_turns(job: Job, run: Callable[[], None], reference: Callable[[], None] | None) -> tuple[list[int], list[int]]:
    """Timed inferences and, where there is a reference, its own right before each, nanoseconds."""
    samples_ns: list[int] = []
    reference_ns: list[int] = []
    clock = time.perf_counter_ns
    end = clock() + int(job.seconds * 1e9)
    patience = max(end, clock() + int(_LONGEST_S * 1e9))
    while len(samples_ns) < _MAX_RUNS:
        fewest = job.min_runs if clock() < patience else _LEAST_RUNS
        if clock() >= end and len(samples_ns) >= fewest:
            break
        if reference is not None:
            start = clock()
            reference()
            reference_ns.append(clock() - start)
        start = clock()
        run()
        samples_ns.append(clock() - start)
    return samples_ns, reference_ns


def _reference(job: Job) -> Callable[[], None] | None:
    """One inference of the model that takes turns, where the job names one."""
    if job.reference is None:
        return None
    return get_runtime(job.settings.runtime).load(job.reference, job.settings).run


def _profile(job: Job) -> OpProfile:
    reference = _reference(job)
    if reference is not None:
        warm_up(reference)
    pace = None if reference is None else Pace(reference)
    return get_runtime(job.settings.runtime).profile(job.artifact, job.settings, seconds=job.seconds, pace=pace)


def _own_words(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-300:] if lines else type(error).__name__


def _infer(job: Job) -> None:
    model = get_runtime(job.settings.runtime).load(job.artifact, job.settings)
    model.feed({job.artifact.inputs[0].name: np.load(job.input_path, allow_pickle=False)})
    model.run()
    outputs = model.outputs()
    if len(outputs) != 1:
        raise UsageError(
            f"{Path(job.artifact.path).name} has {len(outputs)} outputs and one is needed",
            "Export the model with its map as the only output.",
        )
    np.save(job.output_path, outputs[0], allow_pickle=False)


def perform(job: Job) -> Answer:
    """Do one job and answer; a refusal is an answer too."""
    try:
        _pin(job.settings.pinned_cores)
        if job.task == "time":
            return Answer(session=time_session(job))
        if job.task == "profile":
            return Answer(profile=_profile(job))
        _infer(job)
    except KitError as error:
        kind = FailureKind.BAD_ARTIFACT if isinstance(error, InvalidModel) else FailureKind.TOOL_ERROR
        kind = error.kind if isinstance(error, SessionFailed) else kind
        return Answer(failure=Failure(what=error.what, fix=error.fix, kind=kind, error=type(error).__name__))
    except MemoryError:
        failure = Failure(
            what=f"{Path(job.artifact.path).name} on {job.settings.runtime}: out of memory",
            fix="Free memory or take a smaller input.",
            kind=FailureKind.OUT_OF_MEMORY,
            error="SessionFailed",
        )
        return Answer(failure=failure)
    except RuntimeError as error:  # what all three runtimes raise where a model fails while it runs
        failure = Failure(
            what=f"{Path(job.artifact.path).name} fails while it runs on {job.settings.runtime}: {_own_words(error)}",
            fix="Inputs are seeded random values (integers 0 to 9): check that the model can take them.",
            kind=FailureKind.BAD_ARTIFACT,
            error="InvalidModel",
        )
        return Answer(failure=failure)
    return Answer()


def main() -> None:
    """Read the job file, do it, write the answer file."""
    job_path, answer_path = Path(sys.argv[1]), Path(sys.argv[2])
    job = Job.model_validate_json(job_path.read_bytes())
    die_with_parent(job.parent_pid)
    write_atomic(answer_path, perform(job).model_dump_json().encode())


if __name__ == "__main__":
    main()
