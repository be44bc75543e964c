"""What a latency report shows: plain arrays and strings, so that anything measured and predicted can fill it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from targets.errors import UsageError
from targets.records import StandIn

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BlockErrors:
    """N blocks that were measured, each with a prediction made without it (cross-validated or held out).

    Attributes:
        name: What each block is, in words, (N,).
        kind: Kind of each block, (N,).
        measured_us: Measured latency, microseconds, (N,).
        predicted_us: Predicted latency, (N,).
        low_us: Lower end of the interval, (N,).
        high_us: Upper end of the interval, (N,).
    """

    name: Sequence[str]
    kind: Sequence[str]
    measured_us: Floats
    predicted_us: Floats
    low_us: Floats
    high_us: Floats

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        check_columns("blocks", self.name, self.kind, self.measured_us, self.predicted_us, self.low_us, self.high_us)


@dataclass(frozen=True)
class NetworkErrors:
    """N whole networks that were measured, with the predictor's figures.

    Attributes:
        name: What each network is, (N,).
        measured_ms: Measured latency, milliseconds, (N,).
        predicted_ms: Predicted latency, (N,).
        low_ms: Lower end of the interval, (N,).
        high_ms: Upper end of the interval, (N,).
        calibration: Whether the predictor was calibrated with this network, so that its error says less, (N,).
        coverage: Share of networks that the interval is meant to hold.
    """

    name: Sequence[str]
    measured_ms: Floats
    predicted_ms: Floats
    low_ms: Floats
    high_ms: Floats
    calibration: Sequence[bool]
    coverage: float

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        columns = (self.name, self.measured_ms, self.predicted_ms, self.low_ms, self.high_ms, self.calibration)
        check_columns("networks", *columns)


@dataclass(frozen=True)
class Staircase:
    """One block over a channel count, everything else fixed.

    Attributes:
        title: Which block, and what is fixed.
        axis: What the horizontal axis counts, for example ``output channels``.
        channels: Channel counts of the line, increasing, (N,).
        predicted_us: Predicted latency there, microseconds, (N,).
        low_us: Lower end of the interval, (N,).
        high_us: Upper end of the interval, (N,).
        measured_channels: Channel counts that were measured, (M,).
        measured_us: Measured latency there, (M,).
    """

    title: str
    axis: str
    channels: Floats
    predicted_us: Floats
    low_us: Floats
    high_us: Floats
    measured_channels: Floats
    measured_us: Floats

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        check_columns("a staircase", self.channels, self.predicted_us, self.low_us, self.high_us)
        check_columns("a staircase's points", self.measured_channels, self.measured_us)


@dataclass(frozen=True)
class LatencyReport:
    """A device's latency table and the predictor fitted to it.

    Attributes:
        title: What was profiled: ``Conditions.label``.
        made_at: When, as text.
        stand_in: How the device is not the real thing, else ``None``.
        blocks: Blocks with a prediction that did not know them; ``None`` where there is no predictor.
        networks: Whole networks; ``None`` where none was measured.
        staircases: Blocks over their channels.
        noise_floor: Relative standard deviation of one block's repeats; ``None`` where none was repeated.
        repeatability: The same of one whole network's sessions; ``None`` where it is not known.
        least_us: Blocks at least this long are judged; shorter ones are drawn but are mostly noise.
        block_method: How the blocks' predictions were made without them, one sentence.
        settings: Conditions by name: device, runtime, precision, threads, input size, ... .
        versions: Versions by name.
        facts: What was done, by name: device minutes, carriers, distinct blocks, share attributed, ... .
        notes: What a reader must know, one sentence each.
    """

    title: str
    made_at: str
    stand_in: StandIn | None = None
    blocks: BlockErrors | None = None
    networks: NetworkErrors | None = None
    staircases: Sequence[Staircase] = ()
    noise_floor: float | None = None
    repeatability: float | None = None
    least_us: float = 20.0
    block_method: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def check_columns(what: str, *columns: Sequence[object] | NDArray[np.float64]) -> None:
    """Refuse columns of different lengths, and latencies that are no positive numbers.

    Args:
        what: Whose columns they are, for the message.
        columns: Texts, flags or figures; figures must be one-dimensional.

    Raises:
        UsageError: Naming what does not fit.
    """
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise UsageError(f"a latency report's {what} have columns of {sorted(lengths)} entries", "Give equal columns.")
    for column in columns:
        if isinstance(column, np.ndarray) and (column.ndim != 1 or not np.all(np.isfinite(column) & (column > 0))):
            raise UsageError(f"a latency report's {what} hold a figure that is not positive", "Leave such rows out.")
