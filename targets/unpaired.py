"""Two samples that were not taken in pairs: the shift between them and its interval, by the exact rank-sum test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np

_EXACT_UP_TO = 10_000  # product of the two sample sizes; beyond it the normal approximation is close enough


@cache
def rank_sum_cut(first: int, second: int, alpha: float) -> int:
    """Number of ordered pairwise differences outside the interval, on each side.

    The statistic counts the pairs in which the second sample is larger (Mann and Whitney 1947). Under the null every
    one of the ``(first + second) choose first`` orders is equally likely; counting them by the statistic is the
    product of ``(1 - x**(second + i)) / (1 - x**i)``.

    Args:
        first: Size of one sample.
        second: Size of the other.
        alpha: One minus the interval's confidence, both sides together.

    Returns:
        How many values ``u`` have ``P(U <= u) <= alpha / 2``; 0 where the samples are too small for the confidence.
    """
    if first * second > _EXACT_UP_TO:
        spread = math.sqrt(first * second * (first + second + 1) / 12)
        return max(0, math.floor(first * second / 2 - NormalDist().inv_cdf(1 - alpha / 2) * spread))
    counts = [1] + [0] * (first * second)
    for i in range(1, first + 1):
        for u in range(len(counts) - 1, second + i - 1, -1):
            counts[u] -= counts[u - second - i]
        for u in range(i, len(counts)):
            counts[u] += counts[u - i]
    tail, limit = 0, alpha / 2 * math.comb(first + second, first)
    for u, count in enumerate(counts):
        tail += count
        if tail > limit:
            return u
    return len(counts)


def unpaired_effect(first: Sequence[float], second: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """Shift from the first sample to the second and its interval, by inverting the rank-sum test.

    Args:
        first: One value a session.
        second: The same of the other sample.
        alpha: One minus the interval's confidence.

    Returns:
        Median of all pairwise differences (Hodges and Lehmann 1963), lower and upper end. With too few values for
        the confidence the ends are infinite.
    """
    differences = np.sort(np.subtract.outer(np.asarray(second, dtype=float), np.asarray(first, dtype=float)), axis=None)
    cut = rank_sum_cut(len(first), len(second), alpha)
    middle = float(np.median(differences))
    if cut == 0:
        return middle, -math.inf, math.inf
    return middle, float(differences[cut - 1]), float(differences[len(differences) - cut])
