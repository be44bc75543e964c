"""From sums of blocks to whole networks: an intercept and a slope, or a slope a part, from few measured architectures.

A network's latency is not the sum of its blocks': profiling, the cache that blocks share and what lies between them
differ. All of it is nearly the same for every architecture of a space, so that a line fitted to ten of them takes it
off. The line is fitted to relative errors with Huber's weights (Huber, Annals of Statistics 1973), because one slow
session must not bend it; how much of a line the measurements carry is chosen by leaving each of them out in turn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from search.latency.model import Floats
from targets.errors import UsageError
from targets.records import Frozen

Form = Literal["none", "slope", "line", "parts"]
"""Nothing; one slope; intercept and slope; an intercept and a slope for each part, drawn towards each other."""
MOST_PARTS = 32
_FORMS: tuple[tuple[Form, int], ...] = (("line", 4), ("parts", 8))
"""Forms beyond one slope, from the simplest on, and the fewest measurements each is tried with."""
_BETTER = 1.0
"""Standard errors by which a form's left-out errors must lie below the simpler one's, network by network."""
_RIDGES = (0.3, 0.1, 0.03, 0.01)
_INTERCEPT_PRIOR = 0.3
"""Prior deviation of the intercept, as a share of the smallest measured latency."""
_HUBER = 1.345
"""Threshold in robust standard deviations: 95 % efficient where errors are normal."""
_ROUNDS = 20
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Slope = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
T = TypeVar("T")


class Calibration(Frozen):
    """What turns summed block latencies by part into a whole network's.

    Attributes:
        form: How much was fitted.
        parts: Names of the parts, in the order of the slopes.
        intercept_ms: What a network takes besides its blocks.
        slopes: Factor of each part; all alike unless ``form`` is ``parts``.
        count: Architectures it was fitted to.
        error: Mean absolute percentage error over them as a fraction, each predicted by a fit without it; ``None``
            where there were fewer than three.
    """

    form: Form = "none"
    parts: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_PARTS)]
    intercept_ms: _Finite = 0.0
    slopes: tuple[_Slope, ...]
    count: Annotated[int, Field(ge=0)] = 0
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_slope_a_part(self) -> Calibration:
        if len(self.slopes) != len(self.parts):
            raise ValueError(f"{len(self.slopes)} slopes for {len(self.parts)} parts")
        return self

    @classmethod
    def none(cls, parts: Sequence[str]) -> Calibration:
        """The plain sum."""
        return cls(parts=tuple(parts), slopes=(1.0,) * len(parts))

    def apply(self, part_ms: Floats) -> Floats:
        """Latencies of whole networks.

        Args:
            part_ms: Summed block latencies by part, milliseconds, (N, parts).

        Returns:
            Milliseconds, (N,).
        """
        latency_ms: Floats = part_ms @ np.array(self.slopes) + self.intercept_ms
        return latency_ms


def fit_calibration(
    part_ms: Floats, measured_ms: Floats, parts: Sequence[str], *, form: Form | None = None
) -> Calibration:
    """Fit to measured architectures, and choose how much to fit.

    Args:
        part_ms: Summed block latencies by part, milliseconds, (K, parts).
        measured_ms: Latency of each whole network, milliseconds, (K,).
        parts: Names of the parts.
        form: What to fit, instead of what leaving out finds best.

    Raises:
        UsageError: If there is no measurement, one is not positive, or latency falls where the sum rises.
    """
    count = len(measured_ms)
    _check(part_ms, measured_ms, parts)
    chosen = _chosen(part_ms, measured_ms) if form is None else _Fit(form, _RIDGES[-1])
    errors = _left_out_errors(chosen, part_ms, measured_ms) if count >= 3 else None
    intercept_ms, slopes = chosen(part_ms, measured_ms)
    if slopes.min() <= 0:
        raise UsageError(
            f"the {count} measured networks get faster as their blocks get slower",
            "Measure them again, at least 3 sessions each, on an idle device.",
        )
    return Calibration(
        form=chosen.form,
        parts=tuple(parts),
        intercept_ms=intercept_ms,
        slopes=tuple(map(float, slopes)),
        count=count,
        error=None if errors is None else float(errors.mean()),
    )


def _chosen(part_ms: Floats, measured_ms: Floats) -> _Fit:
    """The form whose left-out errors are the smallest, a simpler one where they are not clearly smaller."""
    count, parts = part_ms.shape
    chosen = _Fit("slope")
    if count < 3:
        return chosen
    errors = _left_out_errors(chosen, part_ms, measured_ms)
    for form, fewest in _FORMS:
        if count < fewest or (form == "parts" and parts < 2):
            continue
        for ridge in _RIDGES if form == "parts" else (0.0,):
            fit = _Fit(form, ridge)
            found = _left_out_errors(fit, part_ms, measured_ms)
            better = found.mean() < errors.mean() if chosen.form == form else _is_better(found, errors)
            if better and fit(part_ms, measured_ms)[1].min() > 0:
                chosen, errors = fit, found
    return chosen


def left_out(part_ms: Floats, measured_ms: Floats, calibration: Calibration) -> Floats:
    """Each measured network predicted by a calibration of the same form without it.

    Args:
        part_ms: As in :func:`fit_calibration`.
        measured_ms: Likewise.
        calibration: Its form is refitted.

    Returns:
        Predictions in milliseconds, (K,).
    """
    if calibration.form == "none" or len(measured_ms) < 2:
        return calibration.apply(part_ms)
    return _left_out(_Fit(calibration.form, _RIDGES[1]), part_ms, measured_ms)


class _Fit:
    """One form of calibration; a call gives the intercept and a slope a part."""

    def __init__(self, form: Form, ridge: float = 0.0) -> None:
        self.form = form
        self.ridge = ridge

    def __call__(self, part_ms: Floats, measured_ms: Floats) -> tuple[float, Floats]:
        count, parts = part_ms.shape
        total_ms = part_ms.sum(1)
        columns = [total_ms / measured_ms]
        priors: list[tuple[int, float]] = []
        if self.form != "slope":
            columns.append(1.0 / measured_ms)
            priors.append((1, 1.0 / (_INTERCEPT_PRIOR * measured_ms.min())))
        if self.form == "parts":  # deviations from the common slope
            columns += [part_ms[:, part] / measured_ms for part in range(parts)]
            priors += [(2 + part, 1.0 / self.ridge) for part in range(parts)]
        found = _robust(np.stack(columns, 1), np.ones(count), priors)
        intercept_ms = float(found[1]) if self.form != "slope" else 0.0
        own = found[2:] if self.form == "parts" else np.zeros(parts)
        return intercept_ms, found[0] + own


def _robust(x: Floats, y: Floats, priors: Sequence[tuple[int, float]]) -> Floats:
    """Least squares with Huber's weights by reweighting; priors say ``coefficient ~ N(0, 1 / weight**2)``.

    The noise that priors are weighed against is estimated with the rest, at least 0.3 %: a timing is no truer.
    """
    weights, noise = np.ones(len(y)), 0.01
    found = np.zeros(x.shape[1])
    for _ in range(_ROUNDS):
        extra = np.zeros((len(priors), x.shape[1]))
        for row, (column, weight) in enumerate(priors):
            extra[row, column] = weight * noise
        root = np.sqrt(weights)
        rows = np.concatenate([x * root[:, None], extra])
        before, found = found, np.linalg.lstsq(rows, np.concatenate([y * root, np.zeros(len(priors))]), rcond=None)[0]
        left = np.abs(y - x @ found)
        noise = max(0.003, 1.4826 * float(np.median(left)))
        weights = np.minimum(1.0, _HUBER * noise / np.maximum(left, 1e-12))
        if np.allclose(found, before, rtol=1e-9, atol=1e-12):
            break
    return found


def _left_out(fit: _Fit, part_ms: Floats, measured_ms: Floats) -> Floats:
    guesses = np.empty(len(measured_ms))
    for index in range(len(measured_ms)):
        others = np.arange(len(measured_ms)) != index
        intercept_ms, slopes = fit(part_ms[others], measured_ms[others])
        guesses[index] = part_ms[index] @ slopes + intercept_ms
    return guesses


def _left_out_errors(fit: _Fit, part_ms: Floats, measured_ms: Floats) -> Floats:
    errors: Floats = np.abs(_left_out(fit, part_ms, measured_ms) / measured_ms - 1.0)
    return errors


def _is_better(errors: Floats, simpler: Floats) -> bool:
    gains = simpler - errors
    return bool(gains.mean() > _BETTER * gains.std(ddof=1) / np.sqrt(len(gains)))


def _check(part_ms: Floats, measured_ms: Floats, parts: Sequence[str]) -> None:
    if not len(measured_ms):
        raise UsageError("a calibration needs at least one measured network", "Measure up to ten.")
    if part_ms.shape != (len(measured_ms), len(parts)):
        raise UsageError(f"sums of shape {part_ms.shape} do not fit {len(measured_ms)} networks and {len(parts)} parts")
    for what, values in (("measured latency", measured_ms), ("block sum", part_ms.sum(1))):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise UsageError(f"a {what} is not a positive number of milliseconds", "Leave that network out.")


def choose_archs(
    pool: Sequence[T], part_ms: Floats, count: int, rng: random.Random, *, extremes: bool = True
) -> list[T]:
    """Choose the architectures to measure for a calibration.

    Spread evenly over the pool's range of predicted latency; within each step of it, those whose shares of latency by
    part differ most from the ones chosen before, so that slopes of parts can be told apart.

    Args:
        pool: Architectures to choose from; a few hundred drawn ones and the space's ends, or those already exported.
        part_ms: Their predicted latency by part, (len(pool), parts), any unit.
        count: How many.
        rng: Decides between equals.
        extremes: Whether the fastest and the slowest of the pool are among them.

    Returns:
        ``count`` of them, from fast to slow; all of them where the pool is no larger.
    """
    if count >= len(pool):
        return [pool[index] for index in np.argsort(part_ms.sum(1), kind="stable")]
    total = part_ms.sum(1)
    shares = part_ms / total[:, None]
    scale = np.maximum(shares.std(0), 1e-9)
    shares = shares / scale
    chosen: list[int] = [int(total.argmin()), int(total.argmax())][:count] if extremes else []
    free = count - len(chosen)
    edges = np.linspace(total.min(), total.max(), free + 1)
    for group in range(free):
        inside = _nearest(total, float(edges[group]), float(edges[group + 1]), taken=chosen)
        rng.shuffle(inside)
        chosen.append(_farthest(shares, inside, chosen))
    chosen.sort(key=lambda index: (total[index], index))
    return [pool[index] for index in chosen]


def _nearest(total: Floats, low: float, high: float, *, taken: Sequence[int]) -> list[int]:
    """Those within the bounds; where there are none, the one nearest to their middle."""
    free = [index for index in range(len(total)) if index not in taken]
    inside = [index for index in free if low <= total[index] <= high]
    return inside or [min(free, key=lambda index: abs(total[index] - (low + high) / 2))]


def _farthest(points: NDArray[Any], candidates: Sequence[int], chosen: Sequence[int]) -> int:
    """The candidate whose nearest chosen point is the farthest."""
    if not chosen:
        return candidates[0]
    distances = np.linalg.norm(points[list(candidates)][:, None] - points[list(chosen)][None], axis=2).min(1)
    return candidates[int(distances.argmax())]
