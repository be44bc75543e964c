"""Claim: iNAS populations are predicted at 50,000 a second, and as rows 50 times as fast as by dictionary.

Each block has the latency that the shipped predictor tells for it, at 224x224; each architecture's sum is that over its
blocks. Five ways, one after another in an order drawn anew for every repeat, on one thread:

* ``predictor``: the shipped predictor's own ``predict`` of architectures that are rows of integers already, calibration
  and intervals included;
* ``rows``: architectures that are rows of integers already, as a search keeps them (``Population.sum_blocks``);
* ``objects``: the same from architecture objects, encoding included (``population_of``, then the sum);
* ``dictionary``: for each object ``arch.blocks(size)``, then each block's latency from a dictionary by its key
  (block descriptions are cached, and every cache is full);
* ``keys at hand``: the dictionary lookups and the sum alone, the keys of each object made before and not timed.

Both dictionary ways take a sample of the same architectures and must give the same sums. Judged are: ``predictor``,
``objects`` and ``rows`` at 50,000 a second or more; ``predictor`` and ``rows`` at least 50 times as fast as
``dictionary``, the plain way for a search that holds objects; and that none takes over a quarter longer an architecture
for 100,000 than for 10,000. The other ratios are printed. Time is processor time, from which other processes take
little; wall time is printed too. Memory is what Python and numpy take at most during one prediction, beyond the
architectures.

    python -m benchmarks.prediction_speed            # 100,000 architectures, 7 repeats
    python -m benchmarks.prediction_speed --quick    # 20,000 architectures, 3 repeats
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from inas_deploy.shipped_predictor import shipped_predictor
from search.latency.population import Population, population_of, sample_population
from search.latency.predictor import LatencyPredictor
from search.latency.table import BlockKey
from search.spaces.arch import Arch
from search.spaces.registry import find_space

INPUT_SIZE = (224, 224)
PER_SECOND, TIMES_DICTIONARY, SLACK = 50_000, 50.0, 1.25
LOOKED_UP = 5000
"""Architectures that the dictionary ways take a repeat."""
FEW_SHARE = 10
"""The smaller population is this part of the larger."""

Floats = NDArray[np.float64]


def by_dictionary(archs: Sequence[Arch], latency_us: dict[BlockKey, float]) -> list[float]:
    """Sum of latencies of each architecture, blocks listed by the architecture."""
    return [sum([latency_us[block.key] for block in arch.blocks(INPUT_SIZE)]) for arch in archs]


def by_keys(keys: Sequence[Sequence[BlockKey]], latency_us: dict[BlockKey, float]) -> list[float]:
    """Sum of latencies of each architecture, whose keys are at hand."""
    return [sum([latency_us[key] for key in own]) for own in keys]


class Ways:
    """The ways to predict, over one population.

    Args:
        population: Architectures as rows.
        archs: The same as objects.
        predictor: Of their space.
    """

    def __init__(self, population: Population, archs: Sequence[Arch], predictor: LatencyPredictor) -> None:
        self.values = predictor.blocks.predict_blocks(population.blocks).latency_us
        few, sample = len(archs) // FEW_SHARE, archs[:LOOKED_UP]
        latency_us = {block.key: float(value) for block, value in zip(population.blocks, self.values, strict=True)}
        keys = [[block.key for block in arch.blocks(INPUT_SIZE)] for arch in sample]
        space = population.space
        self.ways: dict[str, tuple[int, Callable[[], Sequence[float] | Floats]]] = {
            "predictor": (len(archs), lambda: predictor.predict(population).latency_ms),
            "predictor, few": (few, lambda: predictor.predict(population[:few]).latency_ms),
            "rows": (len(archs), lambda: population.sum_blocks(self.values)),
            "rows, few": (few, lambda: population[:few].sum_blocks(self.values)),
            "objects": (len(archs), lambda: population_of(space, INPUT_SIZE, archs).sum_blocks(self.values)),
            "objects, few": (few, lambda: population_of(space, INPUT_SIZE, archs[:few]).sum_blocks(self.values)),
            "dictionary": (len(sample), lambda: by_dictionary(sample, latency_us)),
            "keys at hand": (len(sample), lambda: by_keys(keys, latency_us)),
        }

    def same(self) -> bool:
        """Whether all ways but the predictor, which calibrates its sums, give the same."""
        least = min(count for count, _ in self.ways.values())
        for name in ("predictor", "predictor, few"):
            self.ways[name][1]()
        sums = [np.asarray(run())[:least] for name, (_, run) in self.ways.items() if not name.startswith("predictor")]
        return all(np.allclose(found, sums[0], rtol=1e-12) for found in sums)

    def repeat(self, draw: random.Random) -> dict[str, tuple[float, float]]:
        """Processor and wall time of each way, us an architecture, in random order."""
        order, found = list(self.ways), dict[str, tuple[float, float]]()
        draw.shuffle(order)
        for name in order:
            count, run = self.ways[name]
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            found[name] = ((time.process_time() - cpu) / count * 1e6, (time.perf_counter() - wall) / count * 1e6)
        return found

    def memory_mb(self, name: str) -> float:
        """Most memory that a way takes at once, MB."""
        tracemalloc.start()
        self.ways[name][1]()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / 1e6


def judged(cpu: dict[str, Floats], *, same: bool) -> list[tuple[bool, str]]:
    """Each claim, whether it holds."""
    median = {name: float(np.median(times)) for name, times in cpu.items()}
    claims = [(same, "all ways give the same sums")]
    for name in ("predictor", "rows", "objects"):
        rate, growth = 1e6 / median[name], float(np.median(cpu[name] / cpu[f"{name}, few"]))
        claims.append((rate >= PER_SECOND, f"{name}: {rate:,.0f} architectures a second, at least {PER_SECOND:,}"))
        words = f"{name}: time each {growth:.2f} times that of a tenth as many, at most {SLACK:g}"
        claims.append((growth <= SLACK, words))
    for name in ("predictor", "rows"):
        ratio = float(np.median(cpu["dictionary"] / cpu[name]))
        claims.append((ratio >= TIMES_DICTIONARY, f"{name}: {ratio:,.0f} times as fast as dictionary, at least 50"))
    return claims


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    count, repeats = (20_000, 3) if options.quick else (options.archs, options.repeats)
    console = Console(stderr=True)
    predictor = LatencyPredictor.load(shipped_predictor())
    space = find_space(predictor.conditions.space)
    population = sample_population(space, INPUT_SIZE, count, np.random.default_rng(0))
    archs = [population[index] for index in track(range(count), "architectures", console=console)]
    ways, draw = Ways(population, archs, predictor), random.Random(0)
    same = ways.same()  # and fills every cache
    runs = [ways.repeat(draw) for _ in track(range(repeats), "repeats", console=console)]
    times = {name: np.array([run[name] for run in runs]).T for name in ways.ways}
    print(f"{space.id}, {INPUT_SIZE[0]}x{INPUT_SIZE[1]}, 1 thread, {repeats} repeats, us an architecture")
    print(f"{'way':>13} {'architectures':>13} {'CPU median':>11} {'min':>8} {'max':>8} {'wall median':>12}")
    for name, (cpu, wall) in times.items():
        row = f"{np.median(cpu):11.2f} {cpu.min():8.2f} {cpu.max():8.2f} {np.median(wall):12.2f}"
        print(f"{name:>13} {ways.ways[name][0]:13,} {row}")
    cpu_times = {name: cpu for name, (cpu, _) in times.items()}
    for way in ("predictor", "rows", "objects"):
        for rival in ("dictionary", "keys at hand"):
            ratios = cpu_times[rival] / cpu_times[way]
            spread = f"{ratios.min():.1f} to {ratios.max():.1f}"
            print(f"{way} beside {rival}: {np.median(ratios):.1f} times as fast ({spread})")
        print(f"{way}: {ways.memory_mb(way):.1f} MB at most for {count:,}")
    claims = judged(cpu_times, same=same)
    for good, words in claims:
        print(f"claim {'holds' if good else 'FAILS'}: {words}")
    return 0 if all(good for good, _ in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
