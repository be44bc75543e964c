"""Warm-up, timing loop and bursts: the rules of :mod:`targets.steady` and :mod:`targets.worker`, on the device."""

import gc
import math
import resource
import time
from typing import Any, Callable, Dict, List

from targets.agent.counters import HostWatch, peak_rss_mb
from targets.agent.protocol import clock_ns, percentile

_WINDOW_SECONDS = 0.05
_WINDOW_RUNS = (5, 200)
_LONGEST_WARMUP_S = 60.0
_MAX_RUNS = 200000
_LEAST_RUNS, _LONGEST_S = 3, 30.0


def is_steady(samples_ns: List[int], tolerance: float = 0.02) -> bool:
    """Whether the lower quartiles of the last two windows agree."""
    if not samples_ns:
        return False
    low, high = _WINDOW_RUNS
    typical_s = percentile(samples_ns[-high:], 50) / 1e9
    window = min(high, max(low, math.ceil(_WINDOW_SECONDS / max(typical_s, 1e-9))))
    if len(samples_ns) < 2 * window:
        return False
    before = percentile(samples_ns[-2 * window : -window], 25)
    after = percentile(samples_ns[-window:], 25)
    return abs(after / max(before, 1.0) - 1.0) <= tolerance


def warm_up(run: Callable[[], None], min_seconds: float = 0.2, max_seconds: float = 5.0) -> Dict[str, Any]:
    """Run until the latency is steady or the deadline passes; gives ``warmup_ns`` and ``steady``."""
    samples_ns: List[int] = []
    start = time.perf_counter()
    while True:
        begin = clock_ns()
        run()
        samples_ns.append(clock_ns() - begin)
        if len(samples_ns) == 1:
            slow_s = 2.4 * _WINDOW_RUNS[0] * samples_ns[0] / 1e9
            max_seconds = max(max_seconds, min(_LONGEST_WARMUP_S, slow_s))
        elapsed_s = time.perf_counter() - start
        if elapsed_s >= min_seconds and is_steady(samples_ns):
            return {"warmup_ns": samples_ns, "steady": True}
        if elapsed_s >= max_seconds:
            return {"warmup_ns": samples_ns, "steady": False}


def timed(run: Callable[[], None], seconds: float, min_runs: int) -> Dict[str, Any]:
    """First inference, warm-up, timed inferences, and what the device did meanwhile."""
    begin = time.perf_counter()
    run()
    figures: Dict[str, Any] = {"first_inference_ms": (time.perf_counter() - begin) * 1e3}
    figures.update(warm_up(run))
    gc.collect()
    gc.disable()  # a collection in the middle of a sample is ours, not the model's
    samples_ns: List[int] = []
    clock = clock_ns
    watch = HostWatch()
    end = clock() + int(seconds * 1e9)
    patience = max(end, clock() + int(_LONGEST_S * 1e9))
    while len(samples_ns) < _MAX_RUNS:
        fewest = min_runs if clock() < patience else _LEAST_RUNS
        if clock() >= end and len(samples_ns) >= fewest:
            break
        start = clock()
        run()
        samples_ns.append(clock() - start)
    figures.update(watch.snapshot())
    gc.enable()
    figures.update(samples_ns=samples_ns, peak_rss_mb=peak_rss_mb())
    return figures


class Bursts:
    """Runs with their wall times, and which of them kept their core; see :mod:`targets.profiles.timing`."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self.wall_us: List[float] = []
        self.undisturbed: List[int] = []

    def burst(self, runs: int) -> None:
        """Run and time so many inferences."""
        clock, run = clock_ns, self._run
        for _ in range(runs):
            switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            start = clock()
            run()
            elapsed_us = (clock() - start) / 1e3
            if resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == switches:
                self.undisturbed.append(len(self.wall_us))
            self.wall_us.append(elapsed_us)

    def told(self) -> Dict[str, Any]:
        """As the host reads it."""
        return {"wall_us": self.wall_us, "undisturbed": self.undisturbed}
