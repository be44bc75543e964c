"""Statistics whose unit is the session: figures of one variant, and the paired test of two.

Inferences of one process are correlated, so nothing here treats them as independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np

from targets.records import Headline, LatencyStats, SessionRecord

# Student's t, 97.5 % quantile, 1 to 30 degrees of freedom; beyond that the normal quantile is close enough.
_T975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
POWER = 0.8
_MEDIAN_ERROR = math.sqrt(math.pi / 2)
_EFFICIENCY = 3 / math.pi  # of the signed-rank test against the t test, for normal noise


def sampled_percentile_ms(session: SessionRecord, percentile: float) -> float:
    """Percentile of the single inferences of a session that tells them, milliseconds."""
    return float(np.percentile(session.samples_ns, percentile)) / 1e6


def session_percentile_ms(session: SessionRecord, percentile: float) -> float | None:
    """Percentile of one session's timed inferences, milliseconds; ``None`` where the tool did not tell this one."""
    summary = session.summary
    if summary is None:
        return sampled_percentile_ms(session, percentile)
    told: dict[float, float | None] = {
        0: summary.min_ms,
        5: summary.p5_ms,
        50: summary.p50_ms,
        95: summary.p95_ms,
        100: summary.max_ms,
    }
    return told.get(percentile)


def headline_of(sessions: Sequence[SessionRecord]) -> Headline:
    """The statistic by which sessions are compared: p10, or what all of their tools tell that is nearest to it."""
    if all(session.summary is None for session in sessions):
        return "p10"
    fifth = all(session_percentile_ms(session, 5) is not None for session in sessions)
    return "p5" if fifth else "mean"


def session_headline_ms(session: SessionRecord, headline: Headline) -> float:
    """One session's headline figure, milliseconds."""
    if headline == "mean":
        return session.summary.mean_ms if session.summary else float(np.mean(session.samples_ns)) / 1e6
    value = session_percentile_ms(session, 10 if headline == "p10" else 5)
    if value is None:
        raise ValueError(f"session {session.session_id} does not tell its {headline}")
    return value


def paced_ms(session: SessionRecord) -> tuple[float, float] | None:
    """Latency of a session whose model took turns with a reference, and that of the reference, milliseconds.

    Each inference is divided by the reference's right before it, so that what slows the machine for longer than an
    inference cancels; the median of these quotients is taken.

    Returns:
        The median quotient times the reference's p10, and that p10; ``None`` where no reference took turns.
    """
    if not session.reference_ns:
        return None
    samples, reference = np.array(session.samples_ns, float), np.array(session.reference_ns, float)
    reference_ms = float(np.percentile(reference, 10)) / 1e6
    return float(np.median(samples / reference)) * reference_ms, reference_ms


def inferences(session: SessionRecord) -> int:
    """Number of timed inferences."""
    return session.summary.count if session.summary else len(session.samples_ns)


def latency_stats(sessions: Sequence[SessionRecord]) -> LatencyStats:
    """Order statistics over sessions.

    Each figure is the median over sessions of the session's own figure; the interval of the headline is that of
    :func:`middle_of`.

    Args:
        sessions: At least one session of the same variant.
    """
    headline = headline_of(sessions)
    values = [session_headline_ms(session, headline) for session in sessions]
    middle_ms, low_ms, high_ms = middle_of(values)
    return LatencyStats(
        headline=headline,
        headline_ms=middle_ms,
        headline_low_ms=low_ms,
        headline_high_ms=high_ms,
        headline_spread=_spread(values),
        min_ms=float(np.median([session_percentile_ms(s, 0) for s in sessions])),
        p10_ms=_median(sessions, 10),
        p50_ms=_median(sessions, 50),
        p90_ms=_median(sessions, 90),
        p99_ms=_median(sessions, 99),
        sessions=len(sessions),
        samples=sum(inferences(s) for s in sessions),
    )


def middle_of(values: Sequence[float]) -> tuple[float, float, float]:
    """Median of one figure a session and its 95 % interval.

    The interval is Student's t on the logarithm of the sessions' values, laid around their median and widened by the
    median's larger standard error (at most ``sqrt(pi / 2)`` of the mean's); with one session it is
    that session's own value.

    Args:
        values: One positive figure a session, at least one.

    Returns:
        Median, lower and upper end.
    """
    middle, count = float(np.median(values)), len(values)
    half = t975(count - 1) * _spread(values) * _MEDIAN_ERROR / math.sqrt(count) if count > 1 else 0.0
    return middle, middle * math.exp(-half), middle * math.exp(min(half, 700.0))


def _spread(values: Sequence[float]) -> float:
    return float(np.std(np.log(values), ddof=1)) if len(values) > 1 else 0.0


def _median(sessions: Sequence[SessionRecord], percentile: float) -> float | None:
    told = [session_percentile_ms(session, percentile) for session in sessions]
    known = [value for value in told if value is not None]
    return float(np.median(known)) if len(known) == len(told) else None


def t975(degrees: int) -> float:
    """97.5 % quantile of Student's t for a number of degrees of freedom >= 1."""
    return _T975[degrees - 1] if degrees <= len(_T975) else NormalDist().inv_cdf(0.975)


@cache
def signed_rank_cdf(ranks: tuple[int, ...]) -> tuple[float, ...]:
    """Exact null distribution of a signed-rank sum: ``P(W <= w)`` for ``w = 0 .. sum(ranks)``.

    Every one of the ``2**n`` sign assignments is equally likely under the null; counting them by
    their rank sum is the product of ``(1 + x**rank)``.
    """
    counts = np.zeros(sum(ranks) + 1)
    counts[0] = 1.0
    for rank in ranks:
        counts[rank:] = (counts[rank:] + counts[:-rank]) / 2
        counts[:rank] /= 2
    return tuple(float(v) for v in np.minimum(np.cumsum(counts), 1.0))


def paired_permutation_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of a paired permutation test on signed ranks (Wilcoxon 1945), exact also with ties.

    Ranks rather than values: one session hit by other load moves a mean of ten, and not this.

    Args:
        differences: One difference a pair, B minus A.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0.0]
    if not len(values):
        return 1.0
    magnitude = np.abs(values)
    # Ties share their mean rank; doubled ranks stay whole numbers.
    doubled = [int(np.sum(magnitude < m) + 1 + np.sum(magnitude <= m)) for m in magnitude]
    positive = sum(rank for rank, value in zip(doubled, values, strict=True) if value > 0)
    smaller = min(positive, sum(doubled) - positive)
    return min(1.0, 2.0 * signed_rank_cdf(tuple(sorted(doubled)))[smaller])


def paired_effect(differences: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """Median of the pairwise means and its interval, by inverting the signed-rank test.

    Args:
        differences: One difference a pair.
        alpha: One minus the interval's confidence.

    Returns:
        Estimate (Hodges and Lehmann 1963), lower and upper end. With too few pairs for the
        confidence the ends are infinite.
    """
    values = np.asarray(differences, dtype=float)
    rows, columns = np.triu_indices(len(values))
    walsh = np.sort((values[rows] + values[columns]) / 2)
    cdf = signed_rank_cdf(tuple(range(1, len(values) + 1)))
    cut = int(np.searchsorted(cdf, alpha / 2, side="right"))
    if cut == 0:
        return float(np.median(walsh)), -math.inf, math.inf
    return float(np.median(walsh)), float(walsh[cut - 1]), float(walsh[len(walsh) - cut])


def detectable_effect(spread: float, pairs: int, alpha: float) -> float:
    """Smallest log-ratio that a number of pairs finds with 80 % power.

    Args:
        spread: Standard deviation of the pairs' differences of log latency.
        pairs: Number of pairs, at least :func:`smallest_sample`.
        alpha: Level of the test.
    """
    both, lost = _normal_terms(alpha)
    return both * spread / math.sqrt(max(pairs - lost, 1.0) * _EFFICIENCY)


def pairs_for(effect: float, spread: float, alpha: float) -> int:
    """Pairs needed to find a log-ratio of ``effect`` with 80 % power (see :func:`detectable_effect`)."""
    both, lost = _normal_terms(alpha)
    return math.ceil((both * spread / effect) ** 2 / _EFFICIENCY + lost)


def _normal_terms(alpha: float) -> tuple[float, float]:
    """Sum of the two normal quantiles, and the pairs lost to estimating the spread (Guenther 1981)."""
    level = NormalDist().inv_cdf(1 - alpha / 2)
    return level + NormalDist().inv_cdf(POWER), level**2 / 2


def smallest_sample(alpha: float) -> int:
    """Fewest pairs with which the paired test can reach the level ``alpha`` at all."""
    return math.ceil(1 - math.log2(alpha))
