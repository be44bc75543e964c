"""Sessions on an Android phone: the official ``benchmark_model`` does the timing, everything around it is here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from targets.errors import SessionFailed, UnknownLayout, UsageError
from targets.heat import hottest_c
from targets.inventory import Device
from targets.jobs import Job
from targets.phone.about import Tool, about_phone, find_tool
from targets.phone.cooling import cool_down
from targets.phone.flags import (
    WARMUP_S,
    Pace,
    checked_options,
    pace_of,
    profile_flags,
    taskset_prefix,
    tool_flags,
)
from targets.phone.op_profile import Runs, ToolTables, profile_of, tables_of
from targets.phone.outcome import Figures, figures_of, unreadable
from targets.phone.remote_run import RemoteRuns, ToolAnswer
from targets.phone.state import Phase, read_state
from targets.records import DeviceReading, OpProfile, SessionRecord
from targets.runtimes.checks import check_artifact
from targets.tflite_files import inspect_tflite
from targets.transports.base import Transport
from targets.transports.upload_cache import cached_upload

_RETRIES = 1
_BLOCKS = 2
"""Plain and profiled runs of a profile, each."""
_TRACE_S = 5.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Prepared:
    """What is the same for all runs of one job."""

    tool: Tool
    model: str
    device: dict[str, str]
    delegate: str
    label: str


class PhoneDriver:
    """Runs ``benchmark_model``; see :class:`targets.drivers.base.Driver`.

    A session waits until the phone has cooled down, reads its state before, during and after, and keeps its answer on
    the phone until it was fetched: one that ended while the connection was lost is not measured again.

    Args:
        device: A phone of the inventory.
        transport: The way to it.
        runtime: ``tflite``.

    Attributes:
        on_wait: Told in a sentence what is waited for.
        root: Folder that stands for the phone's ``/`` where its state is read, for tests.
        trace_s: Time between two readings of a sustained run, seconds.
    """

    def __init__(self, device: Device, transport: Transport, runtime: str = "tflite") -> None:
        if runtime != "tflite":
            raise UsageError(f"{runtime} is not run on phones", "Take tflite (--runtime).")
        self.on_wait: Callable[[str], None] | None = None
        self.root = ""
        self.trace_s = _TRACE_S
        self._device = device
        self._transport = transport
        self._runs = RemoteRuns(transport)
        self._tool: Tool | None = None
        self._about: dict[str, str] | None = None
        self._first_c: float | None = None
        self._touched = False

    def versions(self) -> dict[str, str]:
        """Hash of the tool on the phone; see :meth:`targets.drivers.base.Driver.versions`."""
        return self._found().versions()

    def run_session(self, job: Job) -> SessionRecord:
        """Time one session; a ``sustained`` one with a trace of the phone's temperature.

        Raises:
            DeviceUnavailable: If the phone lacks the tool, is not charged, or does not cool down in time.
            SessionFailed: If there is no result; lost phones and timeouts are tried once more.
            InvalidModel: If the tool refuses the model.
            UsageError: If a setting is not possible.
        """
        retry = _Retry()
        prepared = retry(lambda: self._prepare(job))
        before = retry(lambda: self._cooled(job))
        if self._first_c is None:
            self._first_c = hottest_c(before)
        started_at = datetime.now(UTC)
        pace = pace_of(job.seconds, job.min_runs)
        flags = tool_flags(prepared.model, job.settings, pace)
        trace: list[DeviceReading] = []
        answer = retry(lambda: self._time(job, prepared, flags, pace, trace))
        finished_at = datetime.now(UTC)
        after = retry(lambda: self._state(job, "after"))
        self._forget(job.session_id)
        figures = self._figures(answer, job, prepared, flags, pace)
        return SessionRecord(
            session_id=job.session_id,
            index=job.index,
            started_at=started_at,
            finished_at=finished_at,
            load_ms=figures.summary.init_us / 1e3,
            first_inference_ms=figures.summary.warmup.first_us / 1e3,
            summary=figures.summary.samples(),
            readings=(before, *trace, after),
            settings=job.settings,
            actual=figures.actual,
            versions=prepared.tool.versions(),
            device=prepared.device,
        )

    def run_profile(self, job: Job) -> OpProfile:
        """Take a per-op profile: plain and profiled runs of the tool take turns (errors as :meth:`run_session`)."""
        retry = _Retry()
        prepared = retry(lambda: self._prepare(job))
        retry(lambda: self._cooled(job))
        pace = pace_of(max(0.05, job.seconds / (2 * _BLOCKS)), job.min_runs)
        flags = tool_flags(prepared.model, job.settings, pace)
        plain: list[Figures] = []
        profiled: list[tuple[Figures, ToolTables]] = []
        for block in range(_BLOCKS):
            answer = self._again(retry, _run_id(job, f"plain {block}"), job, prepared, flags, pace)
            plain.append(self._figures(answer, job, prepared, flags, pace))
            run_id = _run_id(job, f"profiled {block}")
            with_ops = profile_flags(flags, f"{self._runs.folder(run_id)}/ops.csv")
            answer = self._again(retry, run_id, job, prepared, with_ops, pace)
            figures = self._figures(answer, job, prepared, with_ops, pace)
            try:
                profiled.append((figures, tables_of(answer)))
            except UnknownLayout as error:
                raise unreadable(error, prepared.label) from error
        best, tables = min(profiled, key=lambda pair: pair[0].summary.regular.avg_us)
        quickest_us = min(figures.summary.regular.avg_us for figures in plain)
        runs = Runs(best.summary.regular.count, quickest_us, best.summary.regular.avg_us)
        return profile_of(tables, runs, inspect_tflite(job.artifact.path), job.settings)

    def close(self) -> None:
        """End what runs on the phone and remove its files; models stay."""
        if self._touched:
            _Retry()(self._runs.stop_all)
            self._touched = False

    def _found(self) -> Tool:
        if self._tool is None:
            self._tool = find_tool(self._device, self._transport)
        return self._tool

    def _prepare(self, job: Job) -> _Prepared:
        delegate = checked_options(job.settings)["delegate"]
        path = check_artifact(job.artifact, ("tflite",), "tflite")
        if self._about is None:
            self._about = about_phone(self._transport)
        tool = self._found()
        model = cached_upload(self._transport, path, job.artifact.sha256)
        label = f"session {job.index} of {path.name} on {self._device.name}"
        return _Prepared(tool, model, self._about, delegate, label)

    def _state(self, job: Job, phase: Phase) -> DeviceReading:
        return read_state(self._transport, phase, root=self.root, gpu=job.settings.accelerator == "gpu")

    def _cooled(self, job: Job) -> DeviceReading:
        return cool_down(self._device, lambda: self._state(job, "before"), self._first_c, on_wait=self.on_wait)

    def _time(
        self, job: Job, prepared: _Prepared, flags: list[str], pace: Pace, trace: list[DeviceReading]
    ) -> ToolAnswer:
        if job.settings.mode == "burst":
            return self._burst(job.session_id, job, prepared, flags, pace)
        self._touched = True
        return self._runs.run_watched(
            job.session_id,
            self._command(job, prepared, flags),
            limit_s=2 * pace.max_s + WARMUP_S,
            every_s=self.trace_s,
            on_poll=lambda: trace.append(self._state(job, "during")),
        )

    def _burst(self, run_id: str, job: Job, prepared: _Prepared, flags: list[str], pace: Pace) -> ToolAnswer:
        self._touched = True
        return self._runs.run(run_id, self._command(job, prepared, flags), limit_s=2 * pace.max_s + WARMUP_S)

    def _again(
        self, retry: _Retry, run_id: str, job: Job, prepared: _Prepared, flags: list[str], pace: Pace
    ) -> ToolAnswer:
        answer = retry(lambda: self._burst(run_id, job, prepared, flags, pace))
        self._forget(run_id)
        return answer

    def _command(self, job: Job, prepared: _Prepared, flags: list[str]) -> list[str]:
        return [*taskset_prefix(job.settings.pinned_cores), prepared.tool.path, *flags]

    def _figures(self, answer: ToolAnswer, job: Job, prepared: _Prepared, flags: list[str], pace: Pace) -> Figures:
        return figures_of(answer, job.settings, flags, pace, delegate=prepared.delegate, label=prepared.label)

    def _forget(self, run_id: str) -> None:
        try:
            self._runs.forget(run_id)
        except SessionFailed:  # the answer is safe here; what is left there goes when the driver is closed
            self._touched = True


class _Retry:
    """Does a step of a job again where it failed for the connection's sake, once in all the job."""

    def __init__(self) -> None:
        self._left = _RETRIES

    def __call__(self, step: Callable[[], _T]) -> _T:
        while True:
            try:
                return step()
            except SessionFailed as error:
                if not self._left or not error.kind.retryable:
                    raise
                self._left -= 1


def _run_id(job: Job, part: str) -> str:
    return hashlib.sha256(f"{job.session_id} {part}".encode()).hexdigest()[:32]
