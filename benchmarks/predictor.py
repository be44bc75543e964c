"""Claim: a calibrated latency predictor tells whole networks it never saw nearly as well as measuring them again.

Networks of a profiled space are drawn over its whole range of MACs, without asking the predictor and none of them
measured before, and each is timed end to end in sessions that alternate over all of them, in two passes: both together
are the truth, and one against the other tells how well a measurement repeats. In
one table: the predictor calibrated with at most ten networks, the plain sum of its blocks, the lookup table where it
holds every block, a line over MACs fitted to the same networks as the calibration, and the best line over MACs there
is, fitted to the very networks it is judged on. What is measured is kept in the folder; a stopped run goes on.

    inas-deploy profile --space inas --runtime onnxruntime --minutes 30 --out RUN
    python -m benchmarks.predictor --folder RUN      # 100 networks, 2 passes
    python -m benchmarks.predictor --quick           # the same path on a few networks of inas-tiny: no claims
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.predictor_rows import Compared, Row, compare, repeatability_row
from benchmarks.predictor_slopes import widened
from inas_deploy.commands.running import opened
from inas_deploy.latency_fit import PREDICTOR, TABLE
from search.latency.block_predictor import BlockPredictor
from search.latency.block_report import BlockReport
from search.latency.carrier_files import CarrierFiles, Exporter, format_for
from search.latency.conditions import Conditions
from search.latency.measuring import Measurer
from search.latency.model import Floats
from search.latency.observations import ObservationsFile, ObservationsHeader, read_observations, whole_networks
from search.latency.pace import Reference, at_one_speed
from search.latency.predictor import LatencyPredictor
from search.latency.profiling import OBSERVATIONS
from search.latency.settling import settled, undisturbed_ms
from search.latency.spread import spread_archs
from search.latency.table import LatencyTable
from search.latency.tabulate import table_of
from search.spaces.arch import Arch
from search.spaces.registry import find_space
from targets.errors import UsageError
from targets.inventory import load_inventory
from targets.opening import open_target
from targets.records import RunSettings
from targets.runtimes.registry import get_runtime
from targets.store import DEFAULT_STORE

HELD_OUT = ("held-out-first.jsonl", "held-out-second.jsonl")
"""Sessions of each pass."""
FEWEST = {"inas": 100}
"""Held-out networks that the claims are about, at least."""
FEWEST_OTHERWISE = 60
_WAIT_S = 3600.0
"""How long to stand in line where the device is measured by somebody else."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        archs: Held-out networks.
        sessions: Sessions of each in each of two passes, at most: a pass is over once its two fastest agree. Where a
            reference network takes turns with each, one is enough.
        seconds: Timed part of a session.
        seed: Of the draw and of the order.
        workers: Processes that export ahead.
    """

    archs: int = 100
    sessions: int = 6
    seconds: float = 1.0
    seed: int = 0
    workers: int = 2


def held_out_archs(folder: Path, predictor: LatencyPredictor, plan: Plan) -> list[Arch]:
    """Networks spread over the space's range of MACs, none of which the run has measured."""
    wanted = predictor.conditions
    space = find_space(wanted.space, wanted.classes)
    _, seen = read_observations(folder / OBSERVATIONS)
    return spread_archs(
        space,
        lambda archs: np.array([space.cost(arch, wanted.input_size)[1] for arch in archs], np.float64),
        plan.archs,
        random.Random(f"held out {plan.seed}"),
        taken={one.architecture.sha256() for one in seen},
        allowed=lambda arch: not predictor.refusal(arch),
    )


@contextmanager
def measurer_of(folder: Path, conditions: Conditions, plan: Plan, reference: Reference | None) -> Iterator[Measurer]:
    """The device of the conditions opened, with exporters that work ahead and rest while it measures."""
    device = load_inventory(None).select(conditions.device)[0]
    format = format_for(get_runtime(conditions.settings.runtime).formats)
    files = CarrierFiles(folder / "held-out", conditions.input_size, format)
    beside = None if reference is None else reference.architecture
    with opened([device], DEFAULT_STORE, wait_s=_WAIT_S) as targets, Exporter(files, plan.workers) as exporter:
        yield Measurer(
            targets[device.name], conditions.settings, exporter, session_seconds=plan.seconds, reference=beside
        )


def measured(folder: Path, predictor: LatencyPredictor, archs: Sequence[Arch], plan: Plan) -> tuple[Floats, Floats]:
    """Latencies of both passes in the order of the networks, milliseconds; goes on where a run was stopped.

    A round times each network once, in an order drawn anew; the rounds of both passes alternate, so that drift of the
    machine falls on both alike. In either pass the mean of the two fastest sessions counts, or, told at the speed of
    the machine at which the reference takes what it took in the profile, the only one.
    """
    reference = predictor.network.reference
    with measurer_of(folder, predictor.conditions, plan, reference) as measurer:
        first = measurer.session(archs[0], "interval")  # tells versions and hardware
        space = find_space(predictor.conditions.space, predictor.conditions.classes)
        header = ObservationsHeader(conditions=measurer.conditions(space), started_at=first.at, seed=plan.seed)
        if difference := predictor.conditions.difference(header.conditions):
            raise UsageError(f"{folder} was profiled under other conditions: {difference}", "Profile again.")
        with ExitStack() as stack:
            passes = [stack.enter_context(ObservationsFile(folder / name, header)) for name in HELD_OUT]
            usual_us = None if reference is None else reference.latency_ms * 1e3
            most = plan.sessions if reference is None else 1
            times = [_times(file, archs, usual_us) for file in passes]
            measurer.prepare(archs)
            turns = [(number, arch) for number in range(2 * most) for arch in _order(archs, plan, number)]
            for number, arch in track(turns, "timing held-out networks", console=Console(stderr=True)):
                ms = times[number % 2][arch.sha256()]
                if len(ms) == number // 2 and not settled(ms, most=most):
                    passes[number % 2].add(one := measurer.session(arch, "interval", number))
                    ms += [found.total_us / 1e3 for found in at_one_speed([one], usual_us)]
    figures = [np.array([undisturbed_ms(had[arch.sha256()]) for arch in archs]) for had in times]
    return figures[0], figures[1]


def _times(file: ObservationsFile, archs: Sequence[Arch], usual_us: float | None) -> dict[str, list[float]]:
    """What was measured before, milliseconds by network."""
    had: dict[str, list[float]] = {arch.sha256(): [] for arch in archs}
    for arch, ms in whole_networks(at_one_speed(file.observations, usual_us), "interval"):
        had[arch.sha256()] = list(ms)
    return had


def _order(archs: Sequence[Arch], plan: Plan, number: int) -> list[Arch]:
    order = list(archs)
    random.Random(f"order {plan.seed} {number}").shuffle(order)
    return order


def judged(
    predictor: LatencyPredictor, table: LatencyTable, found: Compared, again: Row, enough: int
) -> list[tuple[str, bool]]:
    """The claims, each with whether it holds."""
    blocks: BlockReport = predictor.blocks.report
    count, mine = found.predictor.count, found.predictor
    covered = mine.covered or 0.0
    wider, noise = widened(predictor.blocks, table), table.header.noise_floor or 0.0
    return [
        (f"{count} held-out networks, at least {enough}", count >= enough),
        (f"MAPE {mine.mape:.2%} <= 1.8 % (measuring again: {again.mape:.2%})", mine.mape <= 0.018),
        (f"at most half of the line over MACs from the same networks, {found.macs.mape:.2%}",
         mine.mape <= found.macs.mape / 2),
        (f"Spearman {mine.spearman:.4f} >= 0.992", mine.spearman >= 0.992),
        (f"90 % intervals hold {covered:.1%}, 87 to 93 %", 0.87 <= covered <= 0.93),
        (f"blocks held out by key: MAPE {blocks.headline.mape:.2%} <= 4 %", blocks.headline.mape <= 0.04),
        (f"blocks within 10 %: {blocks.headline.within_10:.1%} >= 97 %", blocks.headline.within_10 >= 0.97),
        (f"of {len(wider.ratios)} pairs ({wider.falling} that fall on the device left out) the wider block is told to "
         f"be faster by at most {1 - wider.ratios.min():.1%}, noise floor {noise:.1%}",
         wider.ratios.min() >= 1 - noise),
    ]  # fmt: skip


def profiled_quickly(folder: Path, runtime: str) -> None:
    """A few networks of inas-tiny on this machine: enough to show the path, not to be good."""
    space, rng = find_space("inas-tiny"), random.Random(0)
    carriers = [space.smallest(), space.biggest(), *(space.sample(rng) for _ in range(2))]
    files = CarrierFiles(folder / "models", (64, 64), format_for(get_runtime(runtime).formats))
    with open_target(load_inventory(None).select("local")[0]) as target, Exporter(files, 2) as exporter:
        measurer = Measurer(target, RunSettings(runtime=runtime), exporter, profile_seconds=0.5, session_seconds=0.2)
        exporter.ahead(carriers)
        first = measurer.session(carriers[0], "interval")
        header = ObservationsHeader(conditions=measurer.conditions(space), started_at=first.at)
        with ObservationsFile(folder / OBSERVATIONS, header) as file:
            for number, arch in enumerate(carriers):
                file.add(measurer.profile(arch, "carrier" if number else "reference"))
            table = table_of(header.conditions, file.observations)
            blocks = BlockPredictor.fit(table, members=2, epochs=20)
            few = near_ones(folder, LatencyPredictor.uncalibrated(blocks), 2)
            exporter.ahead(few)
            for arch in few:
                file.add(measurer.session(arch, "calibration"))
            calibration = [(arch, ms[0]) for arch, ms in whole_networks(file.observations, "calibration")]
    table.write(folder / TABLE)
    LatencyPredictor.fit(blocks, calibration).save(folder / PREDICTOR)


def near_ones(folder: Path, predictor: LatencyPredictor, count: int) -> list[Arch]:
    """Networks one step from those that were profiled: a short run knows the blocks of few others."""
    _, seen = read_observations(folder / OBSERVATIONS)
    known = [one.architecture for one in seen if one.profiled]
    taken = {one.architecture.sha256() for one in seen}
    space, rng = find_space(predictor.conditions.space), random.Random(len(seen))
    found: dict[str, Arch] = {}
    for number in range(count):
        near = list(space.neighbours(known[number % len(known)]))
        rng.shuffle(near)
        new = (arch for arch in near if arch.sha256() not in {*taken, *found} and not predictor.refusal(arch))
        if (arch := next(new, None)) is not None:
            found[arch.sha256()] = arch
    return list(found.values())


def run(folder: Path, plan: Plan, *, quick: bool = False) -> bool:
    """Measure, print the table and the claims; whether all hold."""
    predictor, table = LatencyPredictor.load(folder / PREDICTOR), LatencyTable.read(folder / TABLE)
    _, seen = read_observations(folder / OBSERVATIONS)
    calibration = [(arch, undisturbed_ms(ms)) for arch, ms in whole_networks(at_one_speed(seen), "calibration")]
    archs = near_ones(folder, predictor, plan.archs) if quick else held_out_archs(folder, predictor, plan)
    if not archs:
        raise UsageError("every network drawn holds blocks that the run did not measure", "Profile longer.")
    first_ms, second_ms = measured(folder, predictor, archs, plan)
    truth_ms = np.sqrt(first_ms * second_ms)
    found, again = compare(predictor, table, calibration, archs, truth_ms), repeatability_row(first_ms, second_ms)
    print(
        f"{predictor.conditions.label}: {len(archs)} held-out networks, {truth_ms.min():.2f} to {truth_ms.max():.2f} ms"
    )
    for row in (found.predictor, *found.others, found.macs, found.best_macs, again):
        print(row)
    print(f"blocks: {predictor.blocks.report.sentence}")
    if quick:
        return True
    claims = judged(predictor, table, found, again, FEWEST.get(predictor.conditions.space, FEWEST_OTHERWISE))
    for text, holds in claims:
        print(f"{'holds' if holds else 'FAILS'}  {text}")
    return all(holds for _, holds in claims)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="what inas-deploy profile wrote; it says space, size and runtime")
    parser.add_argument("--archs", type=int, default=Plan.archs)
    parser.add_argument("--sessions", type=int, default=Plan.sessions)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--workers", type=int, default=Plan.workers)
    parser.add_argument("--runtime", default="onnxruntime", help="for --quick")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            profiled_quickly(Path(folder), options.runtime)
            run(Path(folder), Plan(archs=6, sessions=1, seconds=0.2, workers=2), quick=True)
        print("quick: the path works; claims need a whole profile run and --folder")
        return 0
    if options.folder is None:
        parser.error("--folder is needed: a run of inas-deploy profile")
    plan = Plan(options.archs, options.sessions, options.seconds, options.seed, options.workers)
    good = run(options.folder, plan)
    print(f"claim {'holds' if good else 'FAILS'}: whole networks predicted nearly as well as they can be measured")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
