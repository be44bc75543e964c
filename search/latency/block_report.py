"""How good a block predictor is on blocks it did not see, by kind, with the noise of the measurement beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from search.latency.table import BlockKey
from targets.extras import require
from targets.records import Frozen

Floats = NDArray[np.float64]
HEADLINE_US = 20.0
"""Blocks below do not count in the headline: dispatch and the clock decide there."""

_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class HeldOutBlock:
    """One block, judged by networks that never saw it.

    Attributes:
        key: The block.
        measured_us: From the table.
        predicted_us: Without the block.
        low_us: Lower end of the interval around the prediction.
        high_us: Upper end.
    """

    key: BlockKey
    measured_us: float
    predicted_us: float
    low_us: float
    high_us: float


class Accuracy(Frozen):
    """Errors on held-out blocks of one kind, or of all.

    Attributes:
        kind: Block kind; ``all`` for all.
        count: Blocks judged.
        mape: Mean absolute relative error.
        within_5: Share of blocks within 5 % of what was measured.
        within_10: Likewise within 10 %.
        spearman: Rank correlation; ``None`` with fewer than three blocks or where all are equal.
        covered: Share of blocks inside their interval.
    """

    kind: str
    count: Annotated[int, Field(ge=0)]
    mape: Annotated[float, Field(ge=0)]
    within_5: _Share
    within_10: _Share
    spearman: Annotated[float, Field(ge=-1, le=1)] | None
    covered: _Share


class BlockReport(Frozen):
    """Cross-validated by block key: no repeat of a block is on both sides.

    Attributes:
        headline: All judged blocks over ``least_us``.
        kinds: By kind, blocks of any latency.
        least_us: Where the headline starts, microseconds.
        noise_floor: Relative standard deviation of one block's repeats, from the table; ``None`` where unknown.
        rows: Blocks learned from.
        unjudged: Blocks that could not be judged, because they are the only ones of their form.
    """

    headline: Accuracy
    kinds: tuple[Accuracy, ...]
    least_us: float = HEADLINE_US
    noise_floor: float | None = None
    rows: int
    unjudged: int = 0

    @property
    def sentence(self) -> str:
        """The headline in words."""
        found = self.headline
        noise = "unknown" if self.noise_floor is None else f"{100 * self.noise_floor:.1f} %"
        rank = "" if found.spearman is None else f", Spearman {found.spearman:.4f}"
        return (
            f"{found.count} held-out blocks over {self.least_us:g} us: MAPE {100 * found.mape:.1f} %, within 5 % "
            f"{100 * found.within_5:.1f} %, within 10 % {100 * found.within_10:.1f} %{rank}; noise floor {noise}"
        )


def report_of(held_out: Sequence[HeldOutBlock], *, noise_floor: float | None, rows: int) -> BlockReport:
    """Judge held-out predictions.

    Args:
        held_out: The blocks.
        noise_floor: From the table.
        rows: Rows of the table.
    """
    kinds: dict[str, list[HeldOutBlock]] = {}
    for block in held_out:
        kinds.setdefault(block.key[0], []).append(block)
    return BlockReport(
        headline=accuracy_of("all", [block for block in held_out if block.measured_us >= HEADLINE_US]),
        kinds=tuple(accuracy_of(kind, blocks) for kind, blocks in sorted(kinds.items())),
        noise_floor=noise_floor,
        rows=rows,
        unjudged=rows - len(held_out),
    )


def accuracy_of(kind: str, blocks: Sequence[HeldOutBlock]) -> Accuracy:
    """Errors of blocks; all zero where there are none."""
    if not blocks:
        return Accuracy(kind=kind, count=0, mape=0, within_5=0, within_10=0, spearman=None, covered=0)
    measured: Floats = np.array([block.measured_us for block in blocks])
    predicted: Floats = np.array([block.predicted_us for block in blocks])
    low, high = np.array([block.low_us for block in blocks]), np.array([block.high_us for block in blocks])
    error = np.abs(predicted / measured - 1)
    rank = None
    if len(blocks) >= 3 and np.ptp(measured) > 0 and np.ptp(predicted) > 0:
        rank = float(np.clip(require("scipy.stats", "predictor").spearmanr(measured, predicted).statistic, -1, 1))
    return Accuracy(
        kind=kind,
        count=len(blocks),
        mape=float(error.mean()),
        within_5=float((error <= 0.05).mean()),
        within_10=float((error <= 0.10).mean()),
        spearman=rank,
        covered=float(((low <= measured) & (measured <= high)).mean()),
    )
