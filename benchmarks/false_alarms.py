"""Claim: on a loaded host, comparisons raise at most 5 % false alarms and find at least 80 % of planted 10 % slowdowns.

Every comparison measures three things in alternating sessions: a network, the same network again
(an alarm there is false), and the same network with exactly 10 % more of the same layers. Another
process loads one core about half of the time. Beside it stands what a threshold on one pair of
processes would have said of the same data.

    python -m benchmarks.false_alarms            # 40 comparisons
    python -m benchmarks.false_alarms --quick    # shows that it runs; too few to judge the claim
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.chain import write_chain
from inas_deploy.models import artifact_for, resolve_model
from targets.compare import compare
from targets.inventory import load_inventory
from targets.measure import measure
from targets.opening import open_target
from targets.plan import BenchPlan, make_variant
from targets.records import Measurement, RunSettings
from targets.statistics import sampled_percentile_ms
from targets.store import ResultStore

MAX_FALSE_ALARMS, MIN_FOUND, THRESHOLD = 0.05, 0.80, 0.05


@dataclass
class Tally:
    """Answers so far."""

    comparisons: int = 0
    false_alarms: int = 0
    found: int = 0
    threshold_false_alarms: int = 0
    threshold_found: int = 0

    def add(self, baseline: Measurement, same: Measurement, slower: Measurement) -> None:
        """Judge one set of alternating sessions."""
        self.comparisons += 1
        self.false_alarms += compare(baseline, same).answer in {"slower", "faster"}
        self.found += compare(baseline, slower).answer == "slower"
        self.threshold_false_alarms += abs(_one_pair(baseline, same)) > THRESHOLD
        self.threshold_found += _one_pair(baseline, slower) > THRESHOLD


def _one_pair(a: Measurement, b: Measurement) -> float:
    """Difference of the medians of the first pair of processes, as most scripts judge."""
    return sampled_percentile_ms(b.sessions[0], 50) / sampled_percentile_ms(a.sessions[0], 50) - 1


def burn(seed: int) -> None:
    """Load one core about half of the time, in stretches of a second or so, until killed."""
    draw = random.Random(seed)
    while True:
        end = time.monotonic() + draw.uniform(0.2, 2.0)
        while time.monotonic() < end:
            pass
        time.sleep(draw.uniform(0.2, 2.0))


@contextmanager
def other_load(seed: int) -> Iterator[None]:
    """Another process on this host, busy half of the time."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.false_alarms", "--burn", str(seed)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def run(comparisons: int, pairs: int, seconds: float, folder: Path) -> tuple[Tally, list[float]]:
    """Measure and judge; also gives the other load seen by each session, in cores."""
    artifacts = []
    for name, blocks in (("same", 20), ("slower", 22)):
        path = folder / f"{name}.onnx"
        write_chain(path, blocks)
        artifacts.append(artifact_for(resolve_model(str(path)), ("onnx",)))
    settings = RunSettings(runtime="onnxruntime")
    names = (("A", artifacts[0]), ("A again", artifacts[0]), ("10 % more", artifacts[1]))
    variants = tuple(make_variant(role, artifact, settings, role=role) for role, artifact in names)
    tally, loads = Tally(), []
    with (
        ResultStore(folder / "results.sqlite") as store,
        open_target(load_inventory(None).select("local")[0]) as here,
        other_load(seed=0),
    ):
        for seed in track(range(comparisons), "comparing", console=Console(stderr=True)):
            plan = BenchPlan(variants=variants, sessions=pairs, seconds=seconds, per_op=False, seed=seed)
            result = measure(plan, store, {"local": here})
            tally.add(*result.measurements)
            loads += [s.host.other_cpu_share or 0.0 for m in result.measurements for s in m.sessions]
    return tally, loads


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.25)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--burn", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.burn is not None:
        burn(options.burn)
    if options.quick:
        options.comparisons, options.pairs, options.seconds = 1, 8, 0.1
    with tempfile.TemporaryDirectory(prefix="inas-false-alarms-") as folder:
        tally, loads = run(options.comparisons, options.pairs, options.seconds, Path(folder))
    n = tally.comparisons
    print(f"{n} comparisons of {options.pairs} pairs, sessions of {options.seconds} s, ONNX Runtime, 1 thread")
    print(
        f"other load during sessions, in cores: median {np.median(loads):.2f}, "
        f"90th percentile {np.percentile(loads, 90):.2f}"
    )
    print(f"{'rule':34} {'false alarms':>14} {'10 % slowdowns found':>22}")
    rows = (
        ("this kit (paired, session p10)", tally.false_alarms, tally.found),
        ("median > 5 %, one process pair", tally.threshold_false_alarms, tally.threshold_found),
    )
    for name, alarms, found in rows:
        print(f"{name:34} {alarms:>7}/{n} {alarms / n:>5.1%} {found:>14}/{n} {found / n:>5.1%}")
    if options.quick:
        print("quick: ran; too few comparisons to judge the claim")
        return 0
    holds = tally.false_alarms <= MAX_FALSE_ALARMS * n and tally.found >= MIN_FOUND * n
    rates = f"false alarms {tally.false_alarms / n:.1%} (at most 5 %), found {tally.found / n:.1%} (at least 80 %)"
    print(f"claim {'holds' if holds else 'FAILS'}: {rates}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
