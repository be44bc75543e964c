"""Intervals of whole-network latencies: how far measured ones lie from predicted ones, on networks set apart."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from search.latency.model import Floats, Prediction
from targets.extras import require
from targets.records import Frozen

COVERAGE = 0.9
FEWEST = 20
"""Networks set apart from which on their own quantile is taken; with fewer, errors are taken to be normal."""


class Interval(Frozen):
    """A symmetric interval of the logarithm of measured over predicted latency.

    Attributes:
        coverage: Share of networks whose measured latency it is meant to hold.
        half_width: Half its width, as a logarithm: 0.02 is about 2 % to either side.
        count: Networks it was learned from.
        source: ``apart``: networks used for nothing else, their conformal quantile; ``left out``: those of the
            calibration, each predicted without it, errors taken to be normal; ``none``: nothing was measured.
    """

    coverage: Annotated[float, Field(ge=0, lt=1)] = COVERAGE
    half_width: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
    count: Annotated[int, Field(ge=0)]
    source: Literal["apart", "left out", "none"]

    @classmethod
    def unknown(cls) -> Interval:
        """No interval: both ends are the guess, and the coverage is 0."""
        return cls(coverage=0.0, half_width=0.0, count=0, source="none")

    def around(self, latency_ms: Floats) -> Prediction:
        """The interval around predictions.

        Args:
            latency_ms: Calibrated predictions, milliseconds, (N,).
        """
        if self.source == "none":
            return Prediction.exact(latency_ms)
        factor = math.exp(self.half_width)
        return Prediction(latency_ms, latency_ms / factor, latency_ms * factor, self.coverage)


def learn_interval(
    predicted_ms: Floats, measured_ms: Floats, *, coverage: float = COVERAGE, apart: bool, repeatability: float = 0.0
) -> Interval:
    """Learn an interval from networks that were measured.

    The quantile is split-conformal (Vovk, Gammerman and Shafer, 2005; Lei et al., JASA 2018): the
    ``ceil((n + 1) coverage)``-th smallest of ``n`` absolute errors, which covers another network with at least that
    probability where it is drawn alike.

    Args:
        predicted_ms: Predictions by a model that did not see these networks, milliseconds, (N,).
        measured_ms: What was measured, (N,).
        coverage: Share to cover, below 1.
        apart: Whether the networks were used for nothing else.
        repeatability: Relative standard deviation of one network's repeats; an interval is never narrower than theirs.

    Raises:
        MissingExtra: If scipy is not installed.
    """
    count = len(measured_ms)
    if count < 2:
        return Interval.unknown()
    errors = np.sort(np.abs(np.log(measured_ms / predicted_ms)))
    stats = require("scipy.stats", "predictor")
    upper = 0.5 + coverage / 2
    rank = math.ceil((count + 1) * coverage)
    if apart and FEWEST <= count >= rank:
        half = float(errors[rank - 1])
    else:
        half = float(stats.t.ppf(upper, count - 1)) * float(np.sqrt(np.mean(errors**2)))
    half = max(half, float(stats.norm.ppf(upper)) * repeatability)
    return Interval(coverage=coverage, half_width=half, count=count, source="apart" if apart else "left out")
