"""Wall time of single runs, with what tells an undisturbed run from one that lost its core."""

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


class TimedRuns:
    """A model's runs.

    Args:
        run: One inference.

    Attributes:
        wall_us: Wall time of each run, microseconds.
        undisturbed: Positions of the runs in which the process kept its cores (no involuntary switch).
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
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
        """Run and time so many inferences."""
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
    def enough(self) -> bool:
        """Whether enough runs were undisturbed."""
        return len(self.undisturbed) >= ENOUGH_UNDISTURBED

    def fast(self, values: Sequence[float]) -> list[int]:
        """Positions of the fastest tenth of the undisturbed runs, of all runs where too few are.

        Args:
            values: One time a run.
        """
        pool = self._pool(len(values))
        return [pool[i] for i in fastest_tenth([values[i] for i in pool])]

    def op_times_us(self, times_us: NDArray[np.float64]) -> NDArray[np.float64]:
        """Time of each operation, from what it took in each run.

        The sum is that of the fast runs. They are few, and what disturbs a run seldom lasts for all of it: so the sum
        is shared out by the mean of each operation's own faster half over all undisturbed runs.

        Args:
            times_us: Times by run and operation, microseconds, (runs, operations).

        Returns:
            Microseconds, (operations,).
        """
        total_us = float(times_us[self.fast(times_us.sum(axis=1).tolist())].mean(axis=0).sum())
        ordered = np.sort(times_us[list(self._pool(len(times_us)))], axis=0)
        typical_us: NDArray[np.float64] = ordered[: (len(ordered) + 1) // 2].mean(axis=0)
        return typical_us * (total_us / max(float(typical_us.sum()), 1e-9))

    def _pool(self, runs: int) -> Sequence[int]:
        return self.undisturbed if len(self.undisturbed) >= 3 else range(runs)

    @property
    def fast_us(self) -> float:
        """Mean wall time of those runs, microseconds."""
        return float(np.mean([self.wall_us[i] for i in self.fast(self.wall_us)]))
