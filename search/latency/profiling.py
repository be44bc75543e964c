"""A profile run: measure a space on a device until a time is spent, so that it can be stopped and resumed anywhere."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.latency.carriers import next_carriers
from search.latency.distinct import distinct_blocks
from search.latency.measuring import Measurer
from search.latency.observations import Observation, ObservationsFile, ObservationsHeader, Role
from search.latency.pace import reference_arch, usual_reference_us
from search.latency.settling import FEWEST, MOST, settled
from search.latency.spread import spread_archs
from search.latency.table import BlockKey, LatencyTable
from search.latency.tabulate import keys_of, table_of
from search.spaces.arch import Arch
from search.spaces.registry import arch_of_file
from search.spaces.space import Space
from targets.errors import DeviceUnavailable, KitError, UsageError
from targets.files import write_atomic

Weight = Callable[[BlockKey], float]
OBSERVATIONS = "observations.jsonl"
TIMED = "timed"
_MOST_FAILURES = 3
_FEWEST = 4
_COVERS_A_SAMPLE = 80  # carriers after which a space whose blocks cannot be listed counts as covered


@dataclass(frozen=True)
class ProfileRequest:
    """What a run is asked for.

    Attributes:
        folder: Where everything is kept.
        space: Where networks come from.
        minutes: Device time in all, resumed runs included; exports do not count.
        seed: Seed of the choice of networks.
        calibration: Networks timed end to end to calibrate with, at most.
        apart: Further networks timed end to end, which tell how far off predictions are, at most.
        reference_every: Carriers between two measurements of the reference network, where it cannot take turns with
            each of them.
        repeats: Profiles of each carrier, in a process each: a process has a state of its own that slows or speeds some
            blocks, and an export costs as much time as a profile.
        refit_every: Carriers between two fits of the predictor that says which blocks are least certain.
    """

    folder: Path
    space: Space[Any]
    minutes: float
    seed: int = 0
    calibration: int = 10
    apart: int = 80
    reference_every: int = 8
    repeats: int = 2
    refit_every: int = 40


@dataclass(frozen=True)
class Step:
    """What a run has just begun, for whoever shows it.

    Attributes:
        doing: ``reference``, ``cover`` (blocks that were not seen yet), ``active`` (blocks that are least certain),
            ``timing`` whole networks end to end; ``exporting``, where that has to be done first; ``fitting`` while the
            predictor is asked which blocks are the least certain.
        device_minutes: Device time spent.
        minutes: Device time in all.
        carriers: Networks profiled so far.
        covered: Share of the space's distinct blocks that were measured, 0 to 1.
        skipped: Networks that could not be measured.
    """

    doing: Literal["reference", "cover", "active", "timing", "exporting", "fitting"]
    device_minutes: float
    minutes: float
    carriers: int
    covered: float
    skipped: int


class ProfileRun:
    """A run on an open device.

    Args:
        request: What is asked for.
        measurer: Measures networks.
        weigh: From a table, how much a further measurement of each block is worth, asked for once every block was
            measured; the least seen go first where it is left out.
        show: Called with each step.

    Attributes:
        skipped: Why networks could not be measured, a sentence each.
    """

    def __init__(
        self,
        request: ProfileRequest,
        measurer: Measurer,
        *,
        weigh: Callable[[LatencyTable], Weight] | None = None,
        show: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self.request = request
        self.measurer = measurer
        self.weigh = weigh
        self.show = show
        self.skipped: list[str] = []
        self._size = measurer.exporter.files.input_size
        distinct = distinct_blocks(request.space, self._size, seed=request.seed)
        self._blocks, self._all_known = set(distinct.blocks), distinct.exact
        self._planned: list[Arch] = []
        self._weight: Weight | None = None
        self._in_a_row = 0
        self._fit_at = self._draws = self._counted = 0
        self._seen_blocks: Counter[BlockKey] = Counter()

    def run(self) -> tuple[ObservationsHeader, tuple[Observation, ...]]:
        """Measure until the time is spent.

        Returns:
            The header and all observations, those of earlier runs in the folder included.

        Raises:
            UsageError: If another process works in the folder, or it holds a run of another kind.
            KitError: If the device fails. What was observed is in the folder; calling again goes on.
        """
        with locked(self.request.folder):
            reference = reference_arch(self.request.space, self.request.seed)
            self.measurer.reference = reference
            first = self.measurer.session(reference, "interval")  # tells versions and hardware
            header = ObservationsHeader(
                conditions=self.measurer.conditions(self.request.space),
                started_at=datetime.now(UTC),
                seed=self.request.seed,
            )
            with ObservationsFile(self.request.folder / OBSERVATIONS, header) as file:
                file.add(first)
                self._carriers(file, reference, paced=first.reference_us is not None)
                self._time_networks(file)
                return file.header, tuple(file.observations)

    def _carriers(self, file: ObservationsFile, reference: Arch, *, paced: bool) -> None:
        while self._wants_more(file):
            since = 0 if paced else _since_reference(file.observations)
            if since is None or since >= self.request.reference_every:
                self._step(file, "reference")
                file.add(self.measurer.profile(reference, "reference"))
                continue
            arch = self._next(file)
            try:
                for _ in range(self.request.repeats):
                    file.add(self.measurer.profile(arch, "carrier"))
                self._in_a_row = 0
            except (DeviceUnavailable, UsageError):
                raise
            except KitError as error:
                self._skip(error)
            self.measurer.exporter.files.discard(arch)

    def _next(self, file: ObservationsFile) -> Arch:
        """The next carrier; those after it are being exported meanwhile."""
        seen = self._seen(file).copy()
        carriers = carriers_in(file.observations)
        covered = not self._blocks - seen.keys() if self._all_known else carriers >= _COVERS_A_SAMPLE
        if covered and self.weigh is not None and carriers >= self._fit_at:
            self._step(file, "fitting")
            self._weight = self.weigh(table_of(file.header.conditions, file.observations))
            self._fit_at = carriers + self.request.refit_every
            self._planned.clear()
        planned = len(self._planned)
        have = {_text(one.arch) for one in file.observations if one.role == "carrier"}
        have |= {_text(arch.model_dump(mode="json")) for arch in self._planned}
        seen.update(spec.key for arch in self._planned for spec in arch.blocks(self._size))
        ends = (self.request.space.smallest(), self.request.space.biggest())
        state = f"{carriers} {len(have)} {len(self.skipped)}"
        for arch in (*(ends if self._draws == 0 else ()), *self._drawn(seen, state)):
            if _text(arch.model_dump(mode="json")) not in have:
                self._planned.append(arch)
        self._draws += 1
        if len(self._planned) > planned or self.measurer.alongside:
            self._step(file, "exporting")
            self.measurer.prepare(self._planned)
        arch, *self._planned = self._planned
        self._step(file, "active" if self._weight else "cover")
        return arch

    def _drawn(self, seen: Counter[BlockKey], state: str) -> Sequence[Arch]:
        """New carriers: enough to keep the exporting processes busy, or, where exports must wait, for a while."""
        space, planned = self.request.space, len(self._planned)
        if self.measurer.alongside:
            missing = 1 + self.measurer.exporter.workers - planned
        else:
            missing = 0 if planned else self.request.reference_every
        if missing <= 0:
            return []
        rng = random.Random(f"{self.request.seed} {state}")
        drawn: Sequence[Arch] = next_carriers(space, self._size, seen=seen, weight=self._weight, count=missing, rng=rng)
        return drawn

    def _skip(self, error: KitError) -> None:
        self.skipped.append(str(error))
        self._in_a_row += 1
        if self._in_a_row >= _MOST_FAILURES:
            raise error

    def _time_networks(self, file: ObservationsFile) -> None:
        """Time whole networks, interleaved; every round in an order of its own, so that drift falls on all alike.

        Where a reference tells the machine's speed, the fewest sessions are enough.
        """
        chosen = self._to_time(file)
        self._step(file, "exporting")
        self.measurer.prepare([arch for _, arch in chosen])
        times: dict[tuple[Role, str], list[float]] = defaultdict(list)
        for one in file.observations:
            times[one.role, _text(one.arch)].append(_relative(one))
        draw = random.Random(self.request.seed)
        paced = usual_reference_us(file.observations) is not None
        for number in range(MOST):
            draw.shuffle(chosen)
            for role, arch in chosen:
                had = times[role, _text(arch.model_dump(mode="json"))]
                if len(had) == number and not settled(had, most=FEWEST if paced else MOST):
                    self._step(file, "timing")
                    file.add(one := self.measurer.session(arch, role, number))
                    had.append(_relative(one))
        for _, arch in chosen:
            self.measurer.exporter.files.discard(arch)

    def _to_time(self, file: ObservationsFile) -> list[tuple[Role, Arch]]:
        """Networks to time, by role: those chosen before, in a run that was stopped or shorter, and what is missing."""
        folder = self.request.folder / TIMED
        folder.mkdir(exist_ok=True)
        known: list[tuple[Role, Arch]] = [
            ("calibration" if path.name.startswith("c") else "interval", arch_of_file(str(path)))
            for path in sorted(folder.glob("*.json"))
        ]
        roles = [role for role, _ in known]
        wanted, apart = self._timed_counts(file)
        calibration = max(0, wanted - roles.count("calibration"))
        count = calibration + max(0, apart - roles.count("interval"))
        if not count:
            return known
        taken = {one.architecture.sha256() for one in file.observations} | {arch.sha256() for _, arch in known}
        draw = random.Random(f"timed {self.request.seed} {len(known)}")
        # MACs stand for the latency that is not known yet.
        chosen = spread_archs(self.request.space, self._macs, count, draw, taken=taken)
        held = {round(place) for place in np.linspace(0, len(chosen) - 1, calibration)}  # a line is held at its ends
        for number, arch in enumerate(chosen):
            role: Role = "calibration" if number in held else "interval"
            write_atomic(folder / f"{role}-{len(known):03}.json", arch.to_json().encode())
            known.append((role, arch))
        return known

    def _macs(self, archs: Sequence[Arch]) -> NDArray[np.float64]:
        return np.array([self.request.space.cost(arch, self._size)[1] for arch in archs], np.float64)

    def _timed_counts(self, file: ObservationsFile) -> tuple[int, int]:
        """How many to calibrate with and how many apart: fewer where a run is short."""
        carriers = carriers_in(file.observations)
        return min(self.request.calibration, max(3, carriers // 3)), min(self.request.apart, carriers // 2)

    def _wants_more(self, file: ObservationsFile) -> bool:
        """Whether there is time for another carrier, or too few for any table."""
        spent_s = self._spent_s(file) + self._reserve_s(file)
        return spent_s < self.request.minutes * 60 or carriers_in(file.observations) < _FEWEST

    def _seen(self, file: ObservationsFile) -> Counter[BlockKey]:
        for one in file.observations[self._counted :]:
            if one.profiled:
                self._seen_blocks.update(keys_of(one, self._size))
        self._counted = len(file.observations)
        return self._seen_blocks

    def _spent_s(self, file: ObservationsFile) -> float:
        return sum(one.device_s for one in file.observations)

    def _reserve_s(self, file: ObservationsFile) -> float:
        """What timing whole networks will still take, judged by the sessions so far."""
        sessions = [one.device_s for one in file.observations if not one.profiled]
        calibration, apart = self._timed_counts(file)
        fewest = FEWEST if usual_reference_us(file.observations) else FEWEST + 1  # without a pace, some need more
        planned = (calibration + apart) * fewest
        return max(0, planned + 1 - len(sessions)) * sum(sessions) / max(1, len(sessions))

    def _step(self, file: ObservationsFile, doing: Any) -> None:
        covered = len(self._blocks & self._seen(file).keys()) / max(1, len(self._blocks))
        spent = self._spent_s(file) / 60
        self.show(Step(doing, spent, self.request.minutes, carriers_in(file.observations), covered, len(self.skipped)))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder, which is made where it is missing.

    Raises:
        UsageError: If another process works there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"cannot use the folder {folder}: {error.strerror}", "Name another one with --out.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process is profiling into {folder}", "Wait for it, or name another folder with --out."
            ) from error
        yield
    finally:
        os.close(handle)


def _relative(one: Observation) -> float:
    """Time that can be compared between sessions: relative to the reference where that took turns."""
    return one.total_us / (one.reference_us or 1.0)


def carriers_in(observations: Sequence[Observation]) -> int:
    """Number of different networks that were profiled for their blocks."""
    return len({_text(one.arch) for one in observations if one.role == "carrier"})


def _text(arch: dict[str, Any]) -> str:
    return json.dumps(arch, sort_keys=True)


def _since_reference(observations: Sequence[Observation]) -> int | None:
    """Carriers after the last reference; ``None`` where there is none yet."""
    since = 0
    for one in reversed(observations):
        if one.role == "reference":
            return since
        since += one.role == "carrier"
    return None
