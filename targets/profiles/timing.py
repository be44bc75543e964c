"""Wall time of single runs, with what tells an undisturbed run from one that lost its core.

Where a reference model takes turns with what is measured (:class:`Pace`), every run is divided by the reference's
inference right before: what slows the whole machine for longer than a run then cancels.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from targets.profiles.assemble import fastest_tenth

ENOUGH_UNDISTURBED = 10
"""Undisturbed runs after which a longer measurement is not worth its time."""


def busy_note(undisturbed: int, runs: int) -> list[str]:
    """One sentence where other load left too few runs undisturbed, else nothing."""
    if undisturbed >= ENOUGH_UNDISTURBED:
        return []
    return [f"Only {undisturbed} of {runs} profiled runs kept their core: other load makes these times weak."]


class Pace:
    """A reference model's inferences, one before each burst of what is measured.

    Args:
        run: One inference of the reference.

    Attributes:
        beats_us: Wall time of each, microseconds.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self.beats_us: list[float] = []

    def beat(self) -> None:
        """Run and time the reference once."""
        start = time.perf_counter_ns()
        self._run()
        self.beats_us.append((time.perf_counter_ns() - start) / 1e3)

    @property
    def typical_us(self) -> float:
        """The reference's p10, microseconds."""
        return float(np.percentile(self.beats_us, 10))

    def factors(self, beats: Sequence[int]) -> NDArray[np.float64]:
        """How much slower than typical the machine was at some beats.

        Args:
            beats: Positions of the beats.

        Returns:
            Factors around 1, (beats,).
        """
        found: NDArray[np.float64] = np.array(self.beats_us)[list(beats)] / self.typical_us
        return found


class TimedRuns:
    """A model's runs.

    Args:
        run: One inference.
        pace: What the runs are divided by; ``None`` leaves them as they are.

    Attributes:
        wall_us: Wall time of each run, microseconds.
        undisturbed: Positions of the runs in which the process kept its cores (no involuntary switch).
    """

    def __init__(self, run: Callable[[], None], pace: Pace | None = None) -> None:
        self._run = run
        self._pace = pace
        self._beats: list[int] = []
        self.wall_us: list[float] = []
        self.undisturbed: list[int] = []

    @classmethod
    def recorded(cls, wall_us: Sequence[float], undisturbed: Sequence[int]) -> TimedRuns:
        """Runs that a device timed in the same way.

        Args:
            wall_us: Wall time of each run, microseconds.
            undisturbed: Positions of the runs that kept their cores.
        """
        runs = cls(lambda: None)
        runs.wall_us, runs.undisturbed = list(wall_us), list(undisturbed)
        return runs

    def burst(self, runs: int) -> None:
        """Run and time so many inferences, after one of the reference where there is a pace."""
        if self._pace is not None:
            self._pace.beat()
            self._beats += [len(self._pace.beats_us) - 1] * runs
        clock, run = time.perf_counter_ns, self._run
        for _ in range(runs):
            switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            start = clock()
            run()
            elapsed_us = (clock() - start) / 1e3
            if resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == switches:
                self.undisturbed.append(len(self.wall_us))
            self.wall_us.append(elapsed_us)

    @property
    def paced(self) -> bool:
        """Whether the runs are divided by a pace."""
        return self._pace is not None

    @property
    def enough(self) -> bool:
        """Whether enough runs were undisturbed."""
        return len(self.undisturbed) >= ENOUGH_UNDISTURBED

    def fast(self, values: Sequence[float]) -> list[int]:
        """Positions of the fastest tenth of the undisturbed runs, of all runs where too few are.

        Of runs with a pace, the middle half: what slows the machine is divided out, what is left lies to both sides.

        Args:
            values: One time a run.
        """
        pool = self._pool(len(values))
        if self._pace is None:
            return [pool[i] for i in fastest_tenth([values[i] for i in pool])]
        paced = np.asarray(values)[list(pool)] / self._factors[list(pool)]
        return [pool[i] for i in _middle_half(paced)]

    def op_times_us(self, times_us: NDArray[np.float64]) -> NDArray[np.float64]:
        """Time of each operation, from what it took in each run.

        The sum is that of the fast runs. They are few, and what disturbs a run seldom lasts for all of it: so the sum
        is shared out by the mean of each operation's own faster half over all undisturbed runs (of runs with a pace, of
        its own middle half).

        Args:
            times_us: Times by run and operation, microseconds, (runs, operations).

        Returns:
            Microseconds, (operations,).
        """
        fast = self.fast(times_us.sum(axis=1).tolist())
        times_us = times_us / self._factors[:, None]
        total_us = float(times_us[fast].mean(axis=0).sum())
        ordered = np.sort(times_us[list(self._pool(len(times_us)))], axis=0)
        skipped = 0 if self._pace is None else len(ordered) // 4
        typical_us: NDArray[np.float64] = ordered[skipped : (len(ordered) + 1) // 2 + skipped].mean(axis=0)
        return typical_us * (total_us / max(float(typical_us.sum()), 1e-9))

    def _pool(self, runs: int) -> Sequence[int]:
        return self.undisturbed if len(self.undisturbed) >= 3 else range(runs)

    @property
    def _factors(self) -> NDArray[np.float64]:
        return np.ones(len(self.wall_us)) if self._pace is None else self._pace.factors(self._beats)

    @property
    def fast_us(self) -> float:
        """Mean time of the fast runs, divided by their pace, microseconds."""
        return self.mean_us(self.wall_us)

    def mean_us(self, values: Sequence[float]) -> float:
        """Mean over the fast runs of another clock's times of the same runs, divided by their pace.

        Args:
            values: One time a run, microseconds.
        """
        return float((np.asarray(values) / self._factors)[self.fast(values)].mean())


def _middle_half(values: NDArray[np.float64]) -> list[int]:
    order = np.argsort(values, kind="stable")
    return [int(i) for i in order[len(order) // 4 : max(len(order) // 4 + 1, len(order) - len(order) // 4)]]
