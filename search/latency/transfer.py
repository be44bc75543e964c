"""A predictor for a second device from a few networks measured there: the first one's blocks, calibrated anew."""

from __future__ import annotations

from dataclasses import dataclass

from search.latency.conditions import Conditions
from search.latency.intervals import COVERAGE
from search.latency.predictor import LatencyPredictor, Measured
from targets.errors import UsageError

FEWEST = 3
"""Networks with which an error can be stated at all."""


@dataclass(frozen=True)
class Transfer:
    """A transferred predictor and what it is worth.

    Attributes:
        predictor: For the second device.
        error: Mean absolute percentage error as a fraction, each network predicted without it.
        sentence: What a reader must know; the predictor's file holds it too.
    """

    predictor: LatencyPredictor
    error: float
    sentence: str


def transfer(
    predictor: LatencyPredictor,
    conditions: Conditions,
    measured: Measured,
    *,
    coverage: float = COVERAGE,
    repeatability: float = 0.0,
) -> Transfer:
    """Carry a predictor over to a second device.

    What is carried over are the proportions between blocks. Where the devices differ by more than a factor a part of
    the network, the stated error grows, and profiling the second device is worth its time.

    Args:
        predictor: Of the first device.
        conditions: Of the second one; the same space, classes and input size.
        measured: Networks measured on the second one, best chosen by
            :func:`search.latency.calibration.choose_archs`.
        coverage: Share of networks that an interval is to cover.
        repeatability: Relative standard deviation of one network's repeats on the second device.

    Raises:
        UsageError: If there are fewer than three networks, or space or input size differ.
    """
    first = predictor.conditions
    for name in ("space", "classes", "input_size"):
        if getattr(first, name) != getattr(conditions, name):
            raise UsageError(
                f"a predictor with {name} {getattr(first, name)} cannot be carried over to {getattr(conditions, name)}",
                "Profile the second device for it.",
            )
    if len(measured) < FEWEST:
        raise UsageError(
            f"{len(measured)} measured networks cannot say how good a transfer is", f"Measure {FEWEST} or more."
        )
    fitted = LatencyPredictor.fit(
        predictor.blocks, measured, conditions=conditions, coverage=coverage, repeatability=repeatability
    )
    error = fitted.network.calibration.error or 0.0
    sentence = (
        f"carried over from {first.label} with {len(measured)} networks measured on {conditions.device}: "
        f"{error:.1%} mean error, each left out in turn"
    )
    network = fitted.network.model_copy(update={"notes": (*predictor.network.notes, sentence)})
    return Transfer(LatencyPredictor(predictor.blocks, network), error, sentence)
