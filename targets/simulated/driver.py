"""Sessions and profiles of a simulated device, labelled as what they are."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import cast

from pydantic import ValidationError

from targets.device_profiles import PROFILES, ComputeUnit, DeviceProfile
from targets.errors import FailureKind, SessionFailed, UsageError
from targets.inventory import Device
from targets.jobs import Answer, Job
from targets.profiles.assemble import Joined, Row, finished
from targets.records import SIMULATED, DeviceReading, HostSnapshot, OpProfile, SessionRecord
from targets.simulated.roofline import MODEL, SimulatedTimes, op_times_us, simulate
from targets.simulated.transport import PROGRAM, SimulatedTransport
from targets.simulated.workload import Workload, workload_of
from targets.transports.base import Transport

_RETRIES = 1
_PROFILED_RUNS = 50
_PROFILING_COST = 1.04
_PAUSE_S = 1.0  # between two sessions


class SimulatedDriver:
    """Computes what it cannot measure; see :class:`targets.drivers.base.Driver`.

    Args:
        device: A device with transport ``simulated``; its ``model`` names the profile.
        transport: Its :class:`targets.simulated.transport.SimulatedTransport`.
        runtime: Registry name of the runtime that is acted.

    Raises:
        UsageError: If the profile has no such runtime.
    """

    def __init__(self, device: Device, transport: Transport, runtime: str) -> None:
        self._device = device
        self._profile: DeviceProfile = PROFILES[str(device.model)]
        self._transport = cast(SimulatedTransport, transport)
        self._runtime = runtime
        self._ended: dict[str, Answer] = {}
        self._transport.install(self._perform)

    def run_session(self, job: Job) -> SessionRecord:
        """Draw one session."""
        session = self._ask(job).session
        if session is None or session.session_id != job.session_id:
            raise SessionFailed("the simulated device answered something else", FailureKind.TOOL_ERROR)
        return session

    def run_profile(self, job: Job) -> OpProfile:
        """Compute per-op times."""
        profile = self._ask(job).profile
        if profile is None:
            raise SessionFailed("the simulated device gave no profile", FailureKind.TOOL_ERROR)
        return profile

    def versions(self) -> dict[str, str]:
        """The simulation's own name and version: no tool is there."""
        return {self._runtime: SIMULATED, SIMULATED: MODEL}

    def close(self) -> None:
        """Forget what was simulated."""
        self._ended.clear()

    def _ask(self, job: Job) -> Answer:
        for attempt in range(_RETRIES + 1):
            try:
                return self._ask_once(job)
            except SessionFailed as error:
                if attempt == _RETRIES or not error.kind.retryable:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _ask_once(self, job: Job) -> Answer:
        done = self._transport.run(
            [PROGRAM, job.task], input_bytes=job.model_dump_json().encode(), timeout_s=job.seconds * 20 + 60
        )
        try:
            return Answer.model_validate_json(done.stdout)
        except ValidationError as error:
            what = f"the simulated device's answer cannot be read: {error.errors()[0]['msg']}"
            raise SessionFailed(what, FailureKind.TOOL_ERROR) from error

    def _perform(self, request: bytes) -> bytes:
        """The device's side: a session that ended is answered again, not drawn again."""
        job = Job.model_validate_json(request)
        if job.session_id not in self._ended:
            self._ended[job.session_id] = self._drawn(job)
        return self._ended[job.session_id].model_dump_json().encode()

    def _drawn(self, job: Job) -> Answer:
        unit = self._unit(job)
        workload = workload_of(job.artifact)
        times_us = op_times_us(workload, unit, job.settings.precision, job.settings.threads)
        if not times_us:
            raise UsageError("the model has no operation to simulate", "Take another model.")
        if job.task == "profile":
            return Answer(profile=self._op_profile(job, workload, times_us, unit))
        return Answer(session=self._session(job, sum(times_us), unit))

    def _unit(self, job: Job) -> ComputeUnit:
        settings, profile = job.settings, self._profile
        unit = profile.unit(settings.accelerator)
        if unit is None:
            known = ", ".join(unit.accelerator for unit in profile.units)
            raise UsageError(
                f"the simulated {profile.title} has no {settings.accelerator} that the kit knows figures of",
                f"Take one of: {known}.",
            )
        if settings.precision not in profile.precisions:
            known = ", ".join(precision.value for precision in profile.precisions)
            raise UsageError(
                f"the simulated {profile.title} does not compute in {settings.precision.value}",
                f"Take one of: {known}.",
            )
        return unit

    def _session(self, job: Job, inference_us: float, unit: ComputeUnit) -> SessionRecord:
        times = simulate(inference_us, seconds=job.seconds, min_runs=job.min_runs, seed=self._seed(job))
        clock, begin = self._transport, self._transport.now
        clock.pass_time(sum(times.warmup_ns) / 1e9 + times.timed_s)
        record = SessionRecord(
            session_id=job.session_id,
            index=job.index,
            started_at=begin,
            finished_at=clock.now,
            first_inference_ms=times.warmup_ns[0] / 1e6,
            warmup_ns=times.warmup_ns,
            samples_ns=times.samples_ns,
            steady=abs(times.clock_share[0] / times.clock_share[1] - 1) < 0.02,
            host=HostSnapshot(
                clock_mhz_before=unit.max_clock_mhz * times.clock_share[0],
                clock_mhz_after=unit.max_clock_mhz * times.clock_share[1],
                temperature_c=times.temperature_c[1],
            ),
            readings=_readings(times, unit, begin, clock.now),
            settings=job.settings,
            actual={"unit": unit.name, "precision": job.settings.precision.value, SIMULATED: MODEL},
            versions=self.versions(),
            device={"model": self._profile.title, "soc": self._profile.soc, SIMULATED: MODEL},
        )
        clock.pass_time(_PAUSE_S)
        return record

    def _seed(self, job: Job) -> int:
        words = (self._device.name, str(job.index), job.artifact.sha256, job.settings.model_dump_json())
        return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:8])

    def _op_profile(self, job: Job, workload: Workload, times_us: list[float], unit: ComputeUnit) -> OpProfile:
        rows = [
            Row(work.name, work.op_type, unit.name, time_us, Joined((work.name,), work.module))
            for work, time_us in zip(workload.works, times_us, strict=True)
        ]
        total = sum(times_us)
        notes = ["Simulated by a roofline model: nothing was measured."]
        if workload.unknown:
            notes.append(f"The file does not tell the shapes of {workload.unknown} operations: they cost little here.")
        return finished(
            job.settings.runtime,
            rows,
            runs=_PROFILED_RUNS,
            unprofiled_us=total,
            profiled_us=total * _PROFILING_COST,
            notes=notes,
        )


def _readings(times: SimulatedTimes, unit: ComputeUnit, begin: datetime, end: datetime) -> tuple[DeviceReading, ...]:
    warm_s = sum(times.warmup_ns) / 1e9
    during = [(begin + timedelta(seconds=warm_s + at_s), "during", c, share) for at_s, c, share in times.course]
    moments = [
        (begin, "before", times.temperature_c[0], times.clock_share[0]),
        *during,
        (end, "after", times.temperature_c[1], times.clock_share[1]),
    ]
    return tuple(
        DeviceReading.model_validate(
            {
                "at": at,
                "phase": phase,
                "temperatures_c": {SIMULATED: temperature_c},
                "clocks_mhz": {unit.accelerator: unit.max_clock_mhz * clock_share},
            }
        )
        for at, phase, temperature_c, clock_share in moments
    )
