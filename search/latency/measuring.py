"""One network on an open device, as an observation: profiled by block, or timed end to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TypeVar

from search.latency.carrier_files import Exporter
from search.latency.conditions import Conditions
from search.latency.joining import SourceModules, block_times
from search.latency.observations import Observation, Role
from search.spaces.arch import Arch
from search.spaces.space import Space
from targets.environment import capture_environment
from targets.errors import KitError, SessionFailed, UnknownLayout
from targets.jobs import Job
from targets.opening import Target
from targets.records import SIMULATED, Artifact, OpProfile, RunSettings, SessionRecord
from targets.statistics import headline_of, paced_ms, session_headline_ms

T = TypeVar("T")
MOST_RESIDUAL = 0.1
"""A profile whose operations miss the unprofiled time by more is taken again."""
_TRIES = 3
_REST_S = 8.0
_NAMES_HARDWARE = ("soc", "cpu", "gpu", "model")


class Measurer:
    """Profiles and times networks on one device.

    Args:
        target: The open device.
        settings: How networks are run.
        exporter: Where their files come from.
        profile_seconds: Timed part of a profile.
        session_seconds: Timed part of a session.
        alongside: Whether networks may be exported while the device measures: not where both are one machine.
        reference: Network that takes turns with every other in its process, where the device can do that.
    """

    def __init__(
        self,
        target: Target,
        settings: RunSettings,
        exporter: Exporter,
        *,
        profile_seconds: float = 2.0,
        session_seconds: float = 1.0,
        alongside: bool = False,
        reference: Arch | None = None,
    ) -> None:
        self.target = target
        self.settings = settings
        self.exporter = exporter
        self.seconds = {"profile": profile_seconds, "time": session_seconds}
        self.alongside = alongside
        self.reference = reference
        self.last_session: SessionRecord | None = None

    def prepare(self, archs: Sequence[Arch]) -> None:
        """Have networks exported: meanwhile, or, where this machine measures itself, now; it is left to rest then.

        A machine whose cores were all busy is slower for a while, be it for heat, clock or a budget of processor time.

        Args:
            archs: What is measured next. One that cannot be exported says so when it is.
        """
        self.exporter.ahead(archs)
        missing = [arch for arch in archs if not self.exporter.files.path(arch).is_file()]
        if self.alongside or not missing:
            return
        for arch in missing:
            with contextlib.suppress(KitError):
                self.exporter.artifact(arch)
        time.sleep(_REST_S)

    def profile(self, arch: Arch, role: Role) -> Observation:
        """Profile a network by block.

        A profile that other load has torn, or whose operations do not sum to the whole, is taken again; of several
        that do not, the best counts.

        Args:
            arch: The network.
            role: ``carrier`` or ``reference``.

        Raises:
            KitError: If it cannot be exported, or the device fails.
        """
        artifact = self.exporter.artifact(arch)
        at, begin = datetime.now(UTC), time.monotonic()
        profile, jobs = self._profile(artifact)
        times = block_times(profile, arch.blocks(self.exporter.files.input_size), SourceModules.of(artifact))
        return Observation(
            role=role,
            arch=arch.model_dump(mode="json"),
            at=at,
            total_us=profile.unprofiled_us,
            device_s=self._device_s(begin, jobs * self.seconds["profile"]),
            blocks_us=times.blocks_us,
            unattributed_us=times.unattributed_us,
            straddling_us=times.straddling_us,
            residual_share=profile.residual_share,
            reference_us=profile.reference_us,
            headline="fastest tenth" if profile.reference_us is None else "paced",
        )

    def session(self, arch: Arch, role: Role, index: int = 0) -> Observation:
        """Time a network end to end in one fresh process.

        Args:
            arch: The network.
            role: ``interval`` or ``calibration``.
            index: Number of the session among those of this network.

        Raises:
            KitError: If it cannot be exported, or the device fails.
        """
        artifact = self.exporter.artifact(arch)
        job = self._job("time", artifact).model_copy(update={"index": index})
        at, begin = datetime.now(UTC), time.monotonic()
        session = self._alone(partial(self.target.run_session, job))
        self.last_session = session
        paced, headline = paced_ms(session), headline_of([session])
        latency_ms, reference_ms = paced or (session_headline_ms(session, headline), None)
        return Observation(
            role=role,
            arch=arch.model_dump(mode="json"),
            at=at,
            total_us=latency_ms * 1e3,
            device_s=self._device_s(begin, self.seconds["time"]),
            reference_us=None if reference_ms is None else reference_ms * 1e3,
            headline="paced" if paced else headline,
        )

    def conditions(self, space: Space[Any]) -> Conditions:
        """What the figures hold for, as the last session tells it.

        Args:
            space: Where the networks come from.
        """
        device, session = self.target.device, self.last_session
        told = session.device if session else {}
        hardware = next((told[name] for name in _NAMES_HARDWARE if told.get(name)), "")
        if device.transport == "local" and not hardware:
            hardware = capture_environment().cpu_model
        return Conditions(
            device=device.name,
            stand_in=device.label,
            settings=self.settings,
            space=space.id,
            classes=space.classes,
            input_size=self.exporter.files.input_size,
            versions=dict(session.versions) if session else {},
            hardware=hardware,
        )

    def _profile(self, artifact: Artifact) -> tuple[OpProfile, int]:
        """The profile and how many were taken."""
        best: OpProfile | None = None
        taken = 0
        while taken < _TRIES and (best is None or abs(best.residual_share) > MOST_RESIDUAL):
            taken += 1
            job = self._job("profile", artifact)
            try:
                profile = self._alone(partial(self.target.run_profile, job))
            except (UnknownLayout, SessionFailed) as error:  # the first also where a busy host tears a profile
                last = taken == _TRIES and best is None
                if last or (isinstance(error, SessionFailed) and not error.kind.retryable):
                    raise
                continue
            if best is None or abs(profile.residual_share) < abs(best.residual_share):
                best = profile
        assert best is not None  # the last try raises where none before it gave one
        return best, taken

    def _job(self, task: Literal["time", "profile"], artifact: Artifact) -> Job:
        reference = None if self.reference is None else self.exporter.artifact(self.reference)
        return Job(
            task=task, artifact=artifact, settings=self.settings, seconds=self.seconds[task], reference=reference
        )

    def _alone(self, work: Callable[[], T]) -> T:
        if self.alongside:
            return work()
        with self.exporter.paused():
            return work()

    def _device_s(self, begin: float, nominal_s: float) -> float:
        """Time the device was in use; a simulated one spends none, so that it is charged what it would take."""
        return nominal_s if self.target.device.label == SIMULATED else time.monotonic() - begin
