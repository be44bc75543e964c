"""Claim: drawing iNAS architectures and listing their blocks takes at least 2,000 a second and scales linearly.

One process draws architectures and lists their blocks at 224x224: 10,000 in one run, and 100 in each of several runs,
in an order drawn anew for every repeat. Linear means that the time per architecture is the same for both within a
quarter (median over repeats). Block descriptions are cached, so one pass goes before; what the first 100 cost with
empty caches stands beside the rest. The claim is about CPU time on one thread, from which other processes take
nothing; the rate by the wall clock is printed too.

    python -m benchmarks.sampling            # 9 repeats
    python -m benchmarks.sampling --quick    # 3 repeats
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

from search.spaces.registry import find_space

FEW, MANY = 100, 10_000
FEW_RUNS = 10
"""Runs of ``FEW`` a repeat, of which the median counts: one alone lasts some ten milliseconds."""
PER_SECOND = 2000
SLACK = 1.25
INPUT_SIZE = (224, 224)


def seconds_each(space_id: str, count: int, draw: random.Random) -> tuple[float, float]:
    """CPU time and wall-clock time per architecture of drawing ``count`` and listing their blocks."""
    space = find_space(space_id)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        space.sample(draw).blocks(INPUT_SIZE)
    return (time.process_time() - cpu) / count, (time.perf_counter() - wall) / count


def one_repeat(space_id: str, draw: random.Random) -> tuple[float, float, float]:
    """Times per architecture: CPU in runs of ``FEW`` (their median), CPU and wall in one run of ``MANY``."""
    counts = [FEW] * FEW_RUNS + [MANY]
    draw.shuffle(counts)
    times = [(count, *seconds_each(space_id, count, draw)) for count in counts]
    few = float(np.median([cpu for count, cpu, _ in times if count == FEW]))
    return few, *next((cpu, wall) for count, cpu, wall in times if count == MANY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--space", default="inas")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    repeats = 3 if options.quick else options.repeats
    draw = random.Random(0)
    cold, _ = seconds_each(options.space, FEW, draw)
    seconds_each(options.space, MANY, draw)
    rounds = track(range(repeats), "repeats", console=Console(stderr=True))
    few, many, wall = np.array([one_repeat(options.space, draw) for _ in rounds]).T
    ratios = many / few
    print(f"{options.space}, {INPUT_SIZE[0]}x{INPUT_SIZE[1]}, 1 thread, {repeats} repeats, CPU us an architecture")
    print(f"{'architectures':>14} {'median':>8} {'min':>8} {'max':>8}")
    for count, times in ((FEW, few), (MANY, many)):
        median, low, high = np.array([np.median(times), times.min(), times.max()]) * 1e6
        print(f"{count:14,} {median:8.1f} {low:8.1f} {high:8.1f}")
    ratio, rate = float(np.median(ratios)), 1 / float(np.median(many))
    print(f"first {FEW} with empty caches: {cold * 1e6:.1f}")
    print(f"ratio {MANY:,} / {FEW}: median {ratio:.2f}, {ratios.min():.2f} to {ratios.max():.2f}")
    print(f"architectures a second, wall clock: median {1 / np.median(wall):,.0f}, best {1 / wall.min():,.0f}")
    print(f"architectures a second, CPU: median {rate:,.0f}, best {1 / many.min():,.0f}")
    good = rate >= PER_SECOND and 1 / SLACK <= ratio <= SLACK
    print(
        f"claim {'holds' if good else 'FAILS'}: at least {PER_SECOND:,} a CPU second, ratio {1 / SLACK:g} to {SLACK:g}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
