"""A fitted profile run as a latency report: errors of blocks and networks, staircases, facts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from inas_deploy.report.latency_data import BlockErrors, LatencyReport, NetworkErrors, Staircase
from search.latency.observations import Observation, ObservationsHeader
from search.latency.profiling import carriers_in
from search.latency.table import LatencyTable, Row, describe
from targets.errors import UsageError

if TYPE_CHECKING:
    from inas_deploy.latency_fit import FittedRun
    from search.latency.block_predictor import BlockPredictor

_LEAST_US = 1e-3
_STAIRCASES = 6
_LEAST_STEPS = 3
_METHOD = "Each block is predicted by networks that never saw it (cross-validation by block)."


def latency_report(header: ObservationsHeader, observations: Sequence[Observation], fitted: FittedRun) -> LatencyReport:
    """Collect what the report shows.

    Args:
        header: Conditions and date.
        observations: All of the run's.
        fitted: Table and predictor.
    """
    conditions = header.conditions
    settings = conditions.settings
    height, width = conditions.input_size
    return LatencyReport(
        title=conditions.label,
        made_at=f"{header.started_at:%Y-%m-%d %H:%M} UTC",
        stand_in=conditions.stand_in,
        blocks=_blocks(fitted.blocks),
        networks=_networks(fitted),
        staircases=staircases(fitted.table, fitted.blocks),
        noise_floor=fitted.table.header.noise_floor,
        repeatability=fitted.repeatability,
        block_method=_METHOD,
        settings={
            "device": conditions.device,
            "hardware": conditions.hardware or "not told",
            "space": conditions.space,
            "input": f"{height}x{width}",
            "runtime": settings.runtime,
            "precision": settings.precision.value,
            "accelerator": settings.accelerator,
            "threads": str(settings.threads),
        },
        versions=conditions.versions,
        facts={
            "device time": f"{sum(one.device_s for one in observations) / 60:.1f} minutes",
            "networks profiled": str(carriers_in(observations)),
            "distinct blocks measured": str(len(fitted.table.rows)),
            "seed": str(header.seed),
        },
        notes=fitted.notes,
    )


def staircases(table: LatencyTable, blocks: BlockPredictor) -> list[Staircase]:
    """Blocks of which most output widths were measured with everything else fixed, one a kind first.

    Args:
        table: Measured blocks.
        blocks: Predicts every width between them.
    """
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in table.rows.values():
        if len(row.outputs) == 1:
            groups[row.kind, row.inputs, row.outputs[0][1:], row.settings].append(row)
    ranked = sorted((rows for rows in groups.values() if len(rows) >= _LEAST_STEPS), key=lambda rows: -len(rows))
    first = list({rows[0].kind: rows for rows in reversed(ranked)}.values())
    chosen = [*first, *(rows for rows in ranked if not any(rows is other for other in first))][:_STAIRCASES]
    return [stairs for rows in chosen if (stairs := _staircase(rows, blocks)) is not None]


def _staircase(rows: Sequence[Row], blocks: BlockPredictor) -> Staircase | None:
    rows = sorted(rows, key=lambda row: row.outputs)
    spec = rows[0].spec
    measured = [row.outputs[0][0] for row in rows]
    channels = range(measured[0], measured[-1] + 1)
    try:
        line = blocks.predict_blocks([spec._replace(outputs=((c, *spec.outputs[0][1:]),)) for c in channels])
    except UsageError:  # a width between that the predictor refuses
        return None
    return Staircase(
        title=describe(spec.key).replace(f"-> {measured[0]}x", "-> CHANNELSx").replace("CHANNELS", "n"),
        axis="output channels",
        channels=np.array(channels, np.float64),
        predicted_us=line.latency_us,
        low_us=np.maximum(line.low_us, _LEAST_US),
        high_us=line.high_us,
        measured_channels=np.array(measured, np.float64),
        measured_us=np.array([row.p50_us for row in rows]),
    )


def _blocks(blocks: BlockPredictor) -> BlockErrors | None:
    held = blocks.held_out
    if not held:
        return None
    return BlockErrors(
        name=[describe(one.key) for one in held],
        kind=[one.key[0] for one in held],
        measured_us=np.array([one.measured_us for one in held]),
        predicted_us=np.array([one.predicted_us for one in held]),
        low_us=np.maximum([one.low_us for one in held], _LEAST_US),
        high_us=np.array([one.high_us for one in held]),
    )


def _networks(fitted: FittedRun) -> NetworkErrors | None:
    networks = [*fitted.calibration, *fitted.apart]
    if not networks:
        return None
    found = fitted.predictor.predict([arch for arch, _ in networks])
    return NetworkErrors(
        name=[f"{arch.space}-{arch.sha256()[:12]}" for arch, _ in networks],
        measured_ms=np.array([ms for _, ms in networks]),
        predicted_ms=np.maximum(found.latency_ms, _LEAST_US),
        low_ms=np.maximum(found.low_ms, _LEAST_US),
        high_ms=found.high_ms,
        calibration=[True] * len(fitted.calibration) + [False] * len(fitted.apart),
        coverage=found.coverage,
    )
