"""Warm-up that ends when the latency has settled, not after a fixed count."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_WINDOW_SECONDS = 0.05
_WINDOW_RUNS = (5, 200)
_LONGEST_S = 60.0


@dataclass(frozen=True)
class WarmUp:
    """Outcome of a warm-up.

    Attributes:
        samples_ns: Every warm-up inference, nanoseconds.
        steady: Whether two neighbouring windows agreed before the deadline.
    """

    samples_ns: tuple[int, ...]
    steady: bool


def is_steady(samples_ns: list[int], tolerance: float = 0.02) -> bool:
    """Whether the last two windows agree.

    Windows are compared by their lower quartile: load of other processes lifts the upper part of a
    window and leaves this one, while a clock ramp or lazy initialisation moves all of it.

    Args:
        samples_ns: Inferences so far, nanoseconds.
        tolerance: Largest relative difference that counts as settled.
    """
    if not samples_ns:
        return False
    typical_s = float(np.median(samples_ns[-_WINDOW_RUNS[1] :])) / 1e9
    low, high = _WINDOW_RUNS
    window = min(high, max(low, math.ceil(_WINDOW_SECONDS / max(typical_s, 1e-9))))
    if len(samples_ns) < 2 * window:
        return False
    before = float(np.percentile(samples_ns[-2 * window : -window], 25))
    after = float(np.percentile(samples_ns[-window:], 25))
    return abs(after / max(before, 1.0) - 1.0) <= tolerance


def warm_up(run: Callable[[], None], *, min_seconds: float = 0.2, max_seconds: float = 5.0) -> WarmUp:
    """Run until the latency is steady or the deadline passes.

    Args:
        run: One inference.
        min_seconds: Shortest warm-up; lazy work of a runtime often shows only after some runs.
        max_seconds: Deadline. Where the first inference shows a slow model, it moves so that two windows
            fit, up to a minute; a model slower than that ends here, not steady.
    """
    samples_ns: list[int] = []
    start = time.perf_counter()
    while True:
        begin = time.perf_counter_ns()
        run()
        samples_ns.append(time.perf_counter_ns() - begin)
        if len(samples_ns) == 1:
            max_seconds = max(max_seconds, min(_LONGEST_S, 2.4 * _WINDOW_RUNS[0] * samples_ns[0] / 1e9))
        elapsed_s = time.perf_counter() - start
        if elapsed_s >= min_seconds and is_steady(samples_ns):
            return WarmUp(tuple(samples_ns), steady=True)
        if elapsed_s >= max_seconds:
            return WarmUp(tuple(samples_ns), steady=False)
