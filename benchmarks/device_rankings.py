"""Claim: which network is the faster one depends on the device, so latency is learned per device.

Simulated, not measured: a roofline model stands for a Titan Xp, a Jetson Nano, a Nova6 SE and a Galaxy S21. The same
networks are profiled on each, as inas-deploy profile does; a table and a predictor are made for each, and the
predictors rank the same random iNAS networks. Printed are the rank correlations (Spearman) between devices and with
MACs, and the share of pairs of networks that two devices order differently. All four read the ONNX files, in their
own precision and on their own unit; operations of a TFLite file would differ a little.

    python -m benchmarks.device_rankings            # inas at 224x224, 60 networks profiled, 1,000 ranked
    python -m benchmarks.device_rankings --quick    # inas-tiny at 64x64, 6 networks profiled, 200 ranked
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from search.latency.block_predictor import BlockPredictor
from search.latency.carrier_files import CarrierFiles, Exporter
from search.latency.carriers import next_carriers
from search.latency.measuring import Measurer
from search.latency.observations import Observation
from search.latency.predictor import LatencyPredictor
from search.latency.spread import mixed
from search.latency.tabulate import table_of
from search.spaces.arch import Arch
from search.spaces.registry import find_space
from search.spaces.space import Space
from targets.device_profiles import PROFILES
from targets.extras import require
from targets.inventory import Device
from targets.opening import open_target
from targets.records import RunSettings

Networks = Space[Any]
DEVICES = ("titan-xp", "jetson-nano", "nova6-se", "galaxy-s21")
MOST_CORRELATION = 0.99
"""Two devices whose ranks correlate less are said to rank differently."""


def carriers_of(space: Networks, size: tuple[int, int], count: int, seed: int) -> list[Arch]:
    """The space's ends, then networks that cover as many blocks as they can."""
    found, rng = [space.smallest(), space.biggest()], random.Random(seed)
    while len(found) < count:
        seen = Counter(spec.key for arch in found for spec in arch.blocks(size))
        found += next_carriers(space, size, seen=seen, count=1, rng=rng)
    return found


def drawn(space: Networks, carriers: Sequence[Arch], count: int, seed: int, *, near: bool) -> list[Arch]:
    """Random networks; with ``near``, mixed from those that were profiled, whose blocks are known."""
    rng = random.Random(seed)
    if not near:
        return [space.sample(rng) for _ in range(count)]
    found: dict[str, Arch] = {}
    while len(found) < count:
        first, second = rng.sample(carriers, 2)
        if (arch := mixed(space, first, second, rng.random(), rng)) is not None:
            found[arch.sha256()] = arch
    return list(found.values())


def predictor_of(
    name: str, space: Networks, carriers: Sequence[Arch], exporter: Exporter, epochs: int | None
) -> LatencyPredictor:
    """Profile the networks on a simulated device and fit a predictor to it."""
    profile = PROFILES[name]
    device = Device(name=f"{name}-simulated", transport="simulated", model=name)
    settings = RunSettings(
        runtime=profile.runtime, precision=profile.precision, accelerator=profile.accelerator, threads=1
    )
    with open_target(device) as target:
        measurer = Measurer(target, settings, exporter, alongside=True)
        measurer.session(carriers[0], "interval")
        observations: list[Observation] = [measurer.profile(arch, "carrier") for arch in carriers]
        table = table_of(measurer.conditions(space), observations)
    blocks = BlockPredictor.fit(table, epochs=epochs)
    print(f"{table.header.conditions.label}: {blocks.report.sentence}")
    return LatencyPredictor.uncalibrated(blocks)


def known_to_all(predictors: Sequence[LatencyPredictor], archs: Sequence[Arch], size: tuple[int, int]) -> list[Arch]:
    """Networks all of whose blocks every predictor knows; all predictors learned from the same blocks."""
    first = predictors[0].blocks
    return [arch for arch in archs if not any(first.refusal(spec) for spec in arch.blocks(size))]


def show(names: Sequence[str], ranks: NDArray[np.float64], turned: NDArray[np.float64], count: int) -> None:
    """Print both matrices as one: correlation above the diagonal, share of pairs ordered differently below."""
    title = f"SIMULATED: rank correlation of {count} networks above, share of pairs ordered differently below"
    table = Table("", *names, title=title)
    for row, name in enumerate(names):
        cells = [
            "" if row == column else f"{ranks[row, column]:.4f}" if column > row else f"{turned[row, column]:.1%}"
            for column in range(len(names))
        ]
        table.add_row(name, *cells)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--carriers", type=int, default=60)
    parser.add_argument("--archs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    space: Networks = find_space("inas-tiny" if options.quick else "inas")
    size = (64, 64) if options.quick else (224, 224)
    carriers = carriers_of(space, size, 6 if options.quick else options.carriers, options.seed)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="inas-rankings-") as folder:
        files = CarrierFiles(Path(folder), size, "onnx", opset=13)  # what the oldest of the four reads
        with Exporter(files, workers=min(2, os.cpu_count() or 1)) as exporter:
            exporter.ahead(carriers)
            for arch in track(carriers, "exporting", console=console):
                exporter.artifact(arch)
            epochs = 60 if options.quick else None
            predictors = [predictor_of(name, space, carriers, exporter, epochs) for name in DEVICES]
    count = 200 if options.quick else options.archs
    wanted = drawn(space, carriers, count, options.seed + 1, near=options.quick)
    archs = known_to_all(predictors, wanted, size)
    if len(archs) < len(wanted):
        print(f"{len(wanted) - len(archs)} of {len(wanted)} networks hold blocks unlike those profiled: left out")
    stats = require("scipy.stats", "predictor")
    figures = [predictor.predict(archs).latency_ms for predictor in predictors]
    figures.append(np.array([space.cost(arch, size)[1] for arch in archs], np.float64))
    ranks = np.array([[stats.spearmanr(a, b).statistic for b in figures] for a in figures])
    turned = np.array([[(1 - stats.kendalltau(a, b).statistic) / 2 for b in figures] for a in figures])
    show([*DEVICES, "MACs"], ranks, turned, len(archs))
    least = float(ranks[: len(DEVICES), : len(DEVICES)].min())
    good = len(archs) >= count / 2 and least < MOST_CORRELATION
    print(
        f"claim {'holds' if good else 'FAILS'}: two simulated devices rank networks with a correlation of {least:.4f} "
        f"(limit {MOST_CORRELATION:g})"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
