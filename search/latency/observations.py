"""What a profile run writes down while it measures: a file of lines, each one network on the device.

The file only grows, and a line is on the disk before the next network is begun, so that a run that is killed at any
moment loses at most the network that was being measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from search.latency.conditions import Conditions
from search.spaces.arch import Arch
from search.spaces.registry import arch_from_parsed
from targets.errors import InvalidModel, UsageError, printable
from targets.records import Frozen

Role = Literal["carrier", "reference", "interval", "calibration"]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_MOST_BYTES = 2 * 2**30


class ObservationsHeader(Frozen):
    """First line of the file.

    Attributes:
        format: Says what the file is.
        schema_version: Version of this layout.
        conditions: What all observations hold for.
        started_at: When the run began, UTC.
        seed: Seed of the choice of networks.
    """

    format: Literal["inas-deploy latency observations"] = "inas-deploy latency observations"
    schema_version: Literal[1] = 1
    conditions: Conditions
    started_at: datetime
    seed: int = 0


class Observation(Frozen):
    """One network measured once, in one process.

    Attributes:
        role: ``carrier`` (a profile whose blocks count), ``reference`` (a profile of the one network that is measured
            again and again, whose drift is taken off the others), ``interval`` (a timed session of a carrier, which
            tells how far predictions of whole networks are off) or ``calibration`` (a timed session of a network
            that was chosen for it).
        arch: The architecture, as ``Arch.to_json`` writes it.
        at: When it began, UTC.
        total_us: The whole network, unprofiled, microseconds: of a profile the mean of the fastest tenth of its
            unprofiled runs, of a session its headline (p10 where single inferences are told).
        device_s: How long the device was in use for it, seconds.
        blocks_us: Sum of the operations of each block by ``BlockSpec.name``; empty for a session.
        unattributed_us: Operations of no block, layout changes between blocks among them.
        straddling_us: Operations that execute nodes of several blocks and count for one of them.
        residual_share: Signed share by which the operations' sum misses the unprofiled time; see
            :class:`targets.records.OpProfile`.
        reference_us: p10 of the reference network that took turns with it in the same process; ``None`` where none did.
            All other figures then are those at that speed of the machine.
        headline: Statistic that ``total_us`` is; ``paced`` where a reference took turns
            (:func:`targets.statistics.paced_ms`).
    """

    role: Role
    arch: dict[str, Any]
    at: datetime
    total_us: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    device_s: _Time
    blocks_us: dict[str, _Time] = Field(default_factory=dict)
    unattributed_us: _Time = 0.0
    straddling_us: _Time = 0.0
    residual_share: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    reference_us: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    headline: Literal["p10", "p5", "mean", "fastest tenth", "paced"] = "fastest tenth"

    @cached_property
    def architecture(self) -> Arch:
        """The architecture itself.

        Raises:
            UsageError: If it is none that this version of the kit knows.
        """
        return arch_from_parsed(self.arch)

    @property
    def profiled(self) -> bool:
        """Whether it tells blocks."""
        return self.role in ("carrier", "reference")


class ObservationsFile:
    """The file of a run, open for adding; a context manager.

    Args:
        path: The file; a last line that was not written to its end is cut off.
        header: Written where there is no file yet; where there is one, its conditions must fit.

    Raises:
        UsageError: If the file was measured under other conditions or with another seed, or cannot be written.
        InvalidModel: If a line but the last is damaged.
    """

    def __init__(self, path: Path, header: ObservationsHeader) -> None:
        self.path = path
        found = read_observations(path) if path.is_file() and path.stat().st_size else None
        if found is not None and found[0] is not None:
            self.header, observations = found[0], list(found[1])
            difference = self.header.conditions.difference(header.conditions)
            if self.header.seed != header.seed:
                difference = difference or f"the seed is {self.header.seed} here and {header.seed} there"
            if difference:
                raise UsageError(f"{path} holds a run of another kind: {difference}", "Name another folder with --out.")
        else:
            self.header, observations = header, []
        self.observations: list[Observation] = observations
        self._file = self._opened(new=found is None or found[0] is None)

    def add(self, observation: Observation) -> None:
        """Write one line; when this returns it is on the disk.

        Raises:
            UsageError: If it cannot be written.
        """
        self._write(observation.model_dump_json())
        self.observations.append(observation)

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._file.close()

    def _opened(self, *, new: bool) -> IO[bytes]:
        try:
            if new:
                self.path.write_bytes(b"")
            else:
                _cut_torn_line(self.path)
            self._file = self.path.open("ab")
            if new:
                self._write(self.header.model_dump_json())
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror}", "Name a folder that is yours.") from error
        return self._file

    def _write(self, line: str) -> None:
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror}", "Free some space and resume.") from error


def read_observations(path: Path) -> tuple[ObservationsHeader | None, tuple[Observation, ...]]:
    """Read a run's observations; a last line that was not written to its end is left out.

    Args:
        path: The file.

    Returns:
        The header, ``None`` where not even that was written to its end, and the observations in order.

    Raises:
        UsageError: If the file cannot be read.
        InvalidModel: If a line is damaged, naming it.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidModel(f"{path} is larger than any run", "Name another file.")
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the observations {path}: {error.strerror}", "Check the path.") from error
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    if not lines:
        return None, ()
    header = _parsed(ObservationsHeader, lines[0], path, 1)
    return header, tuple(_parsed(Observation, line, path, number) for number, line in enumerate(lines[1:], 2))


def whole_networks(observations: Sequence[Observation], role: Role) -> Iterator[tuple[Arch, tuple[float, ...]]]:
    """Networks timed end to end, each once with the figures of its sessions in milliseconds, in order of their first.

    Args:
        observations: Of one run.
        role: ``interval`` or ``calibration``.
    """
    found: dict[str, tuple[Arch, list[float]]] = {}
    for one in observations:
        if one.role == role:
            arch = one.architecture
            found.setdefault(arch.sha256(), (arch, []))[1].append(one.total_us / 1e3)
    for arch, sessions in found.values():
        yield arch, tuple(sessions)


def _cut_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _parsed(kind: Any, line: bytes, path: Path, number: int) -> Any:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        raise InvalidModel(
            f"{path}, line {number} is damaged: {printable(place, 60)}: {printable(str(first['msg']), 120)}",
            "Remove that line, or begin again in another folder.",
        ) from error
