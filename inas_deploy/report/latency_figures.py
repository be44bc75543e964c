"""How far predicted latencies lie from measured ones, as the figures a latency report prints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inas_deploy.report.latency_data import BlockErrors, Floats


@dataclass(frozen=True)
class ErrorFigures:
    """Errors of N predictions, relative to the measured latency.

    Attributes:
        count: N.
        mape: Mean of the absolute errors (mean absolute percentage error, as a share).
        p50: Median of the absolute errors.
        p90: 90th percentile of the absolute errors.
        bias: Mean of the signed errors; above zero, predictions are too slow.
        within_5: Share of predictions at most 5 % off.
        within_10: Share of predictions at most 10 % off.
        covered: Share of measured latencies inside their interval.
        spearman: Rank correlation; ``None`` with less than three predictions or where all are equal.
    """

    count: int
    mape: float
    p50: float
    p90: float
    bias: float
    within_5: float
    within_10: float
    covered: float
    spearman: float | None


def error_figures(measured: Floats, predicted: Floats, low: Floats, high: Floats) -> ErrorFigures | None:
    """Figures of N predictions in one unit; ``None`` where there are none.

    Args:
        measured: Measured latencies, above zero, (N,).
        predicted: Predicted latencies, (N,).
        low: Lower ends of the intervals, (N,).
        high: Upper ends of the intervals, (N,).
    """
    if not len(measured):
        return None
    signed = predicted / measured - 1
    size = np.abs(signed)
    return ErrorFigures(
        count=len(measured),
        mape=float(size.mean()),
        p50=float(np.median(size)),
        p90=float(np.percentile(size, 90)),
        bias=float(signed.mean()),
        within_5=float(np.mean(size <= 0.05)),
        within_10=float(np.mean(size <= 0.10)),
        covered=float(np.mean((low <= measured) & (measured <= high))),
        spearman=spearman(measured, predicted),
    )


def judged(blocks: BlockErrors, least_us: float) -> ErrorFigures | None:
    """Figures of the blocks that are long enough to be judged; ``None`` where there are none."""
    return _figures(blocks, np.asarray(blocks.measured_us >= least_us))


def by_kind(blocks: BlockErrors, least_us: float) -> list[tuple[str, ErrorFigures | None, int]]:
    """Kind, figures of its judged blocks and number of its shorter ones, kinds in the order of the alphabet."""
    kinds = np.asarray(blocks.kind, dtype=object)
    long = np.asarray(blocks.measured_us >= least_us)
    return [
        (kind, _figures(blocks, long & (kinds == kind)), int(np.sum(~long & (kinds == kind))))
        for kind in sorted(set(blocks.kind))
    ]


def worst(blocks: BlockErrors, least_us: float, count: int) -> list[int]:
    """Places of the judged blocks that are furthest off, the furthest first."""
    error = np.abs(blocks.predicted_us / blocks.measured_us - 1)
    order = np.argsort(-error, kind="stable")
    return [int(place) for place in order if blocks.measured_us[place] >= least_us][:count]


def spearman(first: Floats, second: Floats) -> float | None:
    """Rank correlation of two columns (N,), ties at their mean rank; ``None`` where it is not defined."""
    ranks = np.stack([_ranks(first), _ranks(second)])
    if len(first) < 3 or not np.ptp(ranks, axis=1).all():
        return None
    return float(np.atleast_2d(np.corrcoef(ranks))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _figures(blocks: BlockErrors, chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> ErrorFigures | None:
    columns = (blocks.measured_us, blocks.predicted_us, blocks.low_us, blocks.high_us)
    return error_figures(*(column[chosen] for column in columns))
