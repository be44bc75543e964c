"""From a profile run's observations to its table, its predictor and its report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inas_deploy.latency_view import latency_report
from inas_deploy.report.latency import write_latency_html, write_latency_plots
from search.latency.distinct import distinct_blocks
from search.latency.observations import Observation, ObservationsHeader, whole_networks
from search.latency.pace import Reference, at_one_speed, reference_arch, usual_reference_us
from search.latency.profiling import carriers_in
from search.latency.settling import disagreement, undisturbed_ms
from search.latency.table import LatencyTable
from search.latency.tabulate import table_of
from search.spaces.arch import Arch
from search.spaces.registry import find_space
from targets.errors import MissingExtra
from targets.extras import require
from targets.records import Frozen, StandIn

if TYPE_CHECKING:
    from search.latency.block_predictor import BlockPredictor
    from search.latency.predictor import LatencyPredictor

TABLE, PREDICTOR, REPORT = "table.jsonl", "predictor.safetensors", "report.html"
_ENOUGH_APART = 10

Networks = list[tuple[Arch, float]]


class ProfileSummary(Frozen):
    """What a profile run found: the root of ``inas-deploy profile --json``.

    Attributes:
        folder: Where everything lies.
        label: Space, size, device and settings in one line.
        stand_in: How the device is not the real thing, else ``None``.
        device_minutes: Device time spent.
        carriers: Networks profiled.
        blocks: Distinct blocks measured.
        distinct_blocks: Distinct blocks of the space; with ``distinct_exact`` false an upper bound.
        distinct_exact: Whether that is their exact number.
        unattributed_share: Share of the time that belongs to no block.
        noise_floor: Relative standard deviation of one block's repeats.
        block_sentence: How good the predictor is on blocks it did not see, in words.
        block_mape: Mean absolute relative error on them.
        block_within_5: Share of them within 5 %.
        block_within_10: Share of them within 10 %.
        block_spearman: Rank correlation.
        repeatability: Half of what a network's two fastest sessions differ by, relative, root mean square.
        calibrated_with: Whole networks the predictor is calibrated with.
        networks: Whole networks it is judged with.
        network_mape: Mean absolute relative error on these.
        network_spearman: Rank correlation on these.
        files: Files written, by name in the folder.
        notes: What a reader must know, one sentence each.
    """

    folder: str
    label: str
    stand_in: StandIn | None
    device_minutes: float
    carriers: int
    blocks: int
    distinct_blocks: int
    distinct_exact: bool
    unattributed_share: float
    noise_floor: float | None
    block_sentence: str
    block_mape: float
    block_within_5: float
    block_within_10: float
    block_spearman: float | None
    repeatability: float | None
    calibrated_with: int
    networks: int
    network_mape: float | None
    network_spearman: float | None
    files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FittedRun:
    """What was made of a run.

    Attributes:
        table: Measured blocks.
        blocks: The block predictor, with its held-out predictions.
        predictor: The same, calibrated to whole networks.
        calibration: Whole networks it was calibrated with, milliseconds.
        apart: Whole networks that were timed and not calibrated with.
        repeatability: Half of what a network's two fastest sessions differ by, relative, root mean square; ``None``
            where none was repeated.
        notes: What a reader must know, one sentence each.
    """

    table: LatencyTable
    blocks: BlockPredictor
    predictor: LatencyPredictor
    calibration: Networks
    apart: Networks
    repeatability: float | None
    notes: tuple[str, ...]


def fit_run(
    header: ObservationsHeader,
    observations: Sequence[Observation],
    *,
    epochs: int | None = None,
    hidden: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> FittedRun:
    """Make the table, fit the predictor to it and calibrate it to the whole networks that were timed.

    Args:
        header: Conditions and seed.
        observations: All of the run's.
        epochs: See :meth:`search.latency.block_predictor.BlockPredictor.fit`.
        hidden: Likewise.
        progress: Called with the share done, 0 to 1.

    Raises:
        UsageError: If there are too few observations.
        MissingExtra: Without the ``predictor`` extra.
    """
    from search.latency.block_predictor import BlockPredictor
    from search.latency.predictor import LatencyPredictor

    observations = at_one_speed(observations)
    table = table_of(header.conditions, observations)
    blocks = BlockPredictor.fit(table, seed=header.seed, epochs=epochs, hidden=hidden, progress=progress)
    calibration, refused = _known(blocks, whole_networks(observations, "calibration"))
    apart, also_refused = _known(blocks, whole_networks(observations, "interval"))
    notes = list(table.header.notes)
    if left_out := refused + also_refused:
        notes.append(
            f"{left_out} whole networks were timed and not used, because they hold blocks that the predictor does not "
            "know: measure longer."
        )
    repeatability = _repeatability(observations)
    if len(calibration) < 2:
        notes.append("Too few whole networks were timed to calibrate with, so block sums are taken as they are.")
        predictor = LatencyPredictor.uncalibrated(blocks)
    else:
        predictor = LatencyPredictor.fit(
            blocks,
            calibration,
            apart if len(apart) >= _ENOUGH_APART else (),
            repeatability=repeatability or 0.0,
            reference=_reference(header, observations),
        )
    return FittedRun(table, blocks, predictor, calibration, apart, repeatability, tuple(notes))


def write_run(
    folder: Path, header: ObservationsHeader, observations: Sequence[Observation], fitted: FittedRun
) -> ProfileSummary:
    """Write table, predictor and report into a run's folder.

    Args:
        folder: The run's folder.
        header: Conditions and seed.
        observations: All of the run's.
        fitted: What was made of them.

    Returns:
        What a person or a program wants to know of it.

    Raises:
        UsageError: If a file cannot be written.
    """
    files, notes = [TABLE, PREDICTOR], list(fitted.notes)
    fitted.table.write(folder / TABLE)
    fitted.predictor.save(folder / PREDICTOR)
    try:
        report = latency_report(header, observations, fitted)
        write_latency_html(report, folder / REPORT)
        files += [REPORT, *(path.name for path in write_latency_plots(report, folder))]
    except MissingExtra as error:
        notes.append(f"There is no report: {error}")
    return _summary(folder, observations, fitted, files, notes)


def _summary(
    folder: Path, observations: Sequence[Observation], fitted: FittedRun, files: Sequence[str], notes: Sequence[str]
) -> ProfileSummary:
    conditions, found = fitted.table.header.conditions, fitted.blocks.report.headline
    profiled = [one for one in observations if one.profiled]
    distinct = distinct_blocks(find_space(conditions.space, conditions.classes), conditions.input_size)
    mape, rank = _errors(fitted)
    return ProfileSummary(
        folder=str(folder),
        label=conditions.label,
        stand_in=conditions.stand_in,
        device_minutes=sum(one.device_s for one in observations) / 60,
        carriers=carriers_in(observations),
        blocks=len(fitted.table.rows),
        distinct_blocks=distinct.most,
        distinct_exact=distinct.exact,
        unattributed_share=sum(one.unattributed_us for one in profiled) / sum(one.total_us for one in profiled),
        noise_floor=fitted.table.header.noise_floor,
        block_sentence=fitted.blocks.report.sentence,
        block_mape=found.mape,
        block_within_5=found.within_5,
        block_within_10=found.within_10,
        block_spearman=found.spearman,
        repeatability=fitted.repeatability,
        calibrated_with=len(fitted.calibration),
        networks=len(fitted.apart),
        network_mape=mape,
        network_spearman=rank,
        files=tuple(files),
        notes=tuple(notes),
    )


def _errors(fitted: FittedRun) -> tuple[float | None, float | None]:
    """Relative error and rank correlation on networks that the point prediction did not see."""
    if len(fitted.apart) < 3:
        return None, None
    measured = np.array([ms for _, ms in fitted.apart])
    predicted = fitted.predictor.predict([arch for arch, _ in fitted.apart]).latency_ms
    rank = float(require("scipy.stats", "predictor").spearmanr(measured, predicted).statistic)
    return float(np.mean(np.abs(predicted / measured - 1))), rank


def _known(blocks: BlockPredictor, networks: Iterable[tuple[Arch, tuple[float, ...]]]) -> tuple[Networks, int]:
    """Networks whose blocks the predictor knows, with their undisturbed latency, and how many it does not know."""
    known: Networks = []
    refused = 0
    for arch, sessions in networks:
        if any(blocks.refusal(spec) for spec in arch.blocks(blocks.conditions.input_size)):
            refused += 1
        else:
            known.append((arch, undisturbed_ms(sessions)))
    return known, refused


def _reference(header: ObservationsHeader, observations: Sequence[Observation]) -> Reference | None:
    reference_us = usual_reference_us(observations)
    if reference_us is None:
        return None
    arch = reference_arch(find_space(header.conditions.space, header.conditions.classes), header.seed)
    return Reference(arch=arch.model_dump(mode="json"), latency_ms=reference_us / 1e3)


def _repeatability(observations: Sequence[Observation]) -> float | None:
    timed = [*whole_networks(observations, "calibration"), *whole_networks(observations, "interval")]
    return disagreement(sessions for _, sessions in timed)
