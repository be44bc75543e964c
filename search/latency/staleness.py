"""Whether a predictor still holds: fresh measurements against its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from search.latency.model import Prediction
from targets.errors import UsageError
from targets.extras import require

ALPHA = 0.05
"""Share of checks of a predictor that holds which call it stale."""


@dataclass(frozen=True)
class Staleness:
    """The verdict.

    Attributes:
        status: ``fresh``; ``stale``: fewer measurements lie inside their intervals than chance allows; ``cannot tell``:
            so few were made that even all of them outside would be no proof.
        inside: Measurements inside their interval.
        count: Measurements.
        p_value: Probability of so few inside if the predictor holds.
        shift: Median of measured over predicted minus 1.
        sentence: The verdict for a person.
    """

    status: Literal["fresh", "stale", "cannot tell"]
    inside: int
    count: int
    p_value: float
    shift: float
    sentence: str


def check_staleness(prediction: Prediction, measured_ms: Sequence[float]) -> Staleness:
    """Hold fresh measurements against the intervals by a one-sided binomial test at 5 %.

    The measurements must be of distinct architectures, not used for fitting.

    Args:
        prediction: Of the architectures that were measured, with intervals.
        measured_ms: Their fresh p10, in the same order.

    Raises:
        UsageError: If there is none, the numbers differ, or the prediction has no interval.
        MissingExtra: If scipy is not installed.
    """
    measured = np.array(measured_ms, np.float64)
    count = len(measured)
    if not count or count != len(prediction.latency_ms):
        raise UsageError(
            f"{count} measurements for {len(prediction.latency_ms)} predictions", "Measure each predicted network once."
        )
    if not prediction.coverage:
        raise UsageError("a prediction without an interval cannot be checked", "Calibrate the predictor.")
    if not (np.isfinite(measured).all() and (measured > 0).all()):
        raise UsageError("a measured latency is not a positive number of milliseconds", "Leave that network out.")
    inside = int(((prediction.low_ms <= measured) & (measured <= prediction.high_ms)).sum())
    binomtest = require("scipy.stats", "predictor").binomtest
    p_value = float(binomtest(inside, count, prediction.coverage, alternative="less").pvalue)
    shift = float(np.median(measured / prediction.latency_ms)) - 1.0
    status: Literal["fresh", "stale", "cannot tell"] = "fresh"
    if p_value < ALPHA:
        status = "stale"
    elif (1.0 - prediction.coverage) ** count >= ALPHA:
        status = "cannot tell"
    return Staleness(
        status, inside, count, p_value, shift, _sentence(status, inside, count, prediction.coverage, shift)
    )


def _sentence(status: str, inside: int, count: int, coverage: float, shift: float) -> str:
    found = f"{inside} of {count} fresh measurements lie inside their {coverage:.0%} intervals"
    moved = f"the median is {abs(shift):.1%} {'above' if shift > 0 else 'below'} the prediction"
    if status == "stale":
        return f"The predictor is stale: {found}, {moved}. Calibrate or profile again."
    if status == "fresh":
        return f"The predictor holds: {found}, {moved}."
    return f"Cannot tell whether the predictor holds: {found}, {moved}. Measure more networks."
