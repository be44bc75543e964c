"""The other latency models: a lookup table, a line over MACs, and the device itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from search.latency.calibration import fit_calibration
from search.latency.conditions import Conditions
from search.latency.model import Floats, Prediction
from search.latency.pace import Reference
from search.latency.part_sums import PartSums
from search.latency.table import LatencyTable
from search.spaces.arch import Arch
from search.spaces.registry import find_space
from targets.errors import UsageError
from targets.jobs import Job
from targets.records import SIMULATED, Artifact, SessionRecord
from targets.statistics import headline_of, middle_of, paced_ms, session_headline_ms

if TYPE_CHECKING:
    from search.latency.population import Population

_T_COVERAGE = 0.95
"""Coverage of the interval in :class:`targets.records.LatencyStats`."""


@dataclass(frozen=True)
class TableModel:
    """The sum of measured blocks, as iNAS and Once-for-All take it; blocks that were not measured are refused.

    Attributes:
        table: The measured blocks.
    """

    table: LatencyTable
    _sums: PartSums = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sums", PartSums(self.conditions, self.table.latency_us))

    @property
    def name(self) -> str:
        """``table``."""
        return "table"

    @property
    def conditions(self) -> Conditions:
        """The table's own."""
        return self.table.header.conditions

    def knows(self, arch: Arch) -> bool:
        """Whether every block of an architecture was measured."""
        return all(block.key in self.table.rows for block in arch.blocks(self.conditions.input_size))

    def predict(self, archs: Sequence[Any] | Population) -> Prediction:
        """Sums, without an interval; see :class:`search.latency.model.LatencyModel`."""
        return Prediction.exact(self._sums.total_ms(archs))


@dataclass(frozen=True)
class MacsModel:
    """A line over multiply-accumulates: what a latency model must beat.

    Attributes:
        conditions: What it holds for.
        slope: Milliseconds a million MACs.
        intercept_ms: Milliseconds at none.
    """

    conditions: Conditions
    slope: float
    intercept_ms: float

    @property
    def name(self) -> str:
        """``macs``."""
        return "macs"

    @classmethod
    def fit(cls, conditions: Conditions, archs: Sequence[Arch], measured_ms: Sequence[float]) -> Self:
        """Fit the line to relative errors, with the robust fit of a predictor's calibration.

        Args:
            conditions: What the measurements hold for.
            archs: At least two measured architectures.
            measured_ms: Their latencies.

        Raises:
            UsageError: If there are fewer than two, or they get faster with more MACs.
        """
        if len(archs) < 2:
            raise UsageError(f"{len(archs)} measured networks make no line over MACs", "Measure two or more.")
        latency_ms = np.array(measured_ms, np.float64)
        line = fit_calibration(_mega_macs(conditions, archs)[:, None], latency_ms, ("macs",), form="line")
        return cls(conditions, line.slopes[0], line.intercept_ms)

    def predict(self, archs: Sequence[Any] | Population) -> Prediction:
        """Points on the line, without an interval; see :class:`search.latency.model.LatencyModel`."""
        return Prediction.exact(_mega_macs(self.conditions, archs) * self.slope + self.intercept_ms)


def _mega_macs(conditions: Conditions, archs: Sequence[Any] | Population) -> Floats:
    sums = PartSums(conditions, lambda specs: [spec.macs for spec in specs])
    return sums.total_ms(archs) / 1e3


class SessionRunner(Protocol):
    """What times sessions: a :class:`targets.opening.Target`."""

    def run_session(self, job: Job) -> SessionRecord:
        """Time one session in a fresh process on the device."""


@dataclass
class DeviceModel:
    """The device itself: architectures are exported and timed when they are asked for, each once.

    Attributes:
        target: Times sessions.
        make_artifact: Makes the file that the runtime loads.
        conditions: What is measured; its settings are those of every session.
        sessions: Sessions an architecture, interleaved over the architectures of one call.
        seconds: Timed part of a session.
        on_session: Told of every session: how many are done, of how many, and the session.
        reference: Network that takes turns with each, and the latency at whose speed of the machine all are told, where
            the device can do that.
        measured: Sessions by hash of the architecture; a caller may keep them and give them again.
    """

    target: SessionRunner
    make_artifact: Callable[[Arch], Artifact]
    conditions: Conditions
    sessions: int = 3
    seconds: float = 1.0
    on_session: Callable[[int, int, SessionRecord], None] | None = None
    reference: Reference | None = None
    measured: dict[str, list[SessionRecord]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``device``."""
        return "device"

    def predict(self, archs: Sequence[Any] | Population) -> Prediction:
        """Measure, and tell the median over sessions of each one's figure with its interval over sessions.

        A session's figure is its p10, or, where the reference took turns, what
        :func:`targets.statistics.paced_ms` tells at the reference's usual speed.

        Raises:
            UsageError: If an architecture is foreign, or the device gives computed figures for measured ones.
            KitError: If the device fails; sessions that ended are kept.
        """
        wanted = list(archs)
        for arch in wanted:
            self._check(arch)
        keys = [arch.sha256() for arch in wanted]
        unique = dict(zip(keys, wanted, strict=True))
        todo = [
            (index, key) for index in range(self.sessions) for key in unique if index >= len(self.measured.get(key, ()))
        ]
        for done, (index, key) in enumerate(todo, 1):
            session = self._session(unique[key], index)
            self.measured.setdefault(key, []).append(session)
            if self.on_session is not None:
                self.on_session(done, len(todo), session)
        middles = {key: middle_of(self.sessions_ms(arch)) for key, arch in unique.items()}
        latency_ms, low_ms, high_ms = np.array([middles[key] for key in keys], np.float64).reshape(-1, 3).T
        return Prediction(latency_ms, low_ms, high_ms, _T_COVERAGE if self.sessions > 1 else 0.0)

    def sessions_ms(self, arch: Arch) -> list[float]:
        """Each session's figure of an architecture measured before, milliseconds."""
        sessions = self.measured.get(arch.sha256(), [])
        paced = [found for session in sessions if (found := paced_ms(session)) is not None]
        if self.reference is None or len(paced) < len(sessions):
            return [session_headline_ms(session, headline_of(sessions)) for session in sessions]
        return [latency_ms / reference_ms * self.reference.latency_ms for latency_ms, reference_ms in paced]

    @property
    def slowdown(self) -> float | None:
        """How much slower than usual the machine was by the reference, 0.05 for 5 %; ``None`` where none took turns."""
        paced = [found for sessions in self.measured.values() for one in sessions if (found := paced_ms(one))]
        if self.reference is None or not paced:
            return None
        return float(np.median([reference_ms for _, reference_ms in paced])) / self.reference.latency_ms - 1

    def _session(self, arch: Arch, index: int) -> SessionRecord:
        job = Job(
            task="time",
            artifact=self.make_artifact(arch),
            settings=self.conditions.settings,
            reference=None if self.reference is None else self.make_artifact(self.reference.architecture),
            index=index,
            seconds=self.seconds,
        )
        session = self.target.run_session(job)
        if session.simulated != (self.conditions.stand_in == SIMULATED):
            said = "computed" if session.simulated else "measured"
            raise UsageError(
                f"{self.conditions.device} gives {said} figures, and its conditions say otherwise",
                "Correct 'stand_in' of the device in the inventory.",
            )
        return session

    def _check(self, arch: Arch) -> None:
        find_space(self.conditions.space, self.conditions.classes).validate(arch)
        arch.check_request(self.conditions.input_size)
