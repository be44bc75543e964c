"""How latency models are judged on networks that were measured: one row a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.latency.calibration import fit_calibration
from search.latency.model import Floats, Prediction
from search.latency.models import MacsModel, TableModel
from search.latency.predictor import LatencyPredictor, Measured
from search.latency.table import LatencyTable
from search.spaces.arch import Arch
from search.spaces.registry import find_space
from targets.extras import require


@dataclass(frozen=True)
class Row:
    """One model on held-out networks.

    Attributes:
        name: What it is, for the table.
        count: Networks it can tell.
        mape: Mean absolute relative error.
        spearman: Rank correlation.
        covered: Share of measured latencies inside the interval; ``None`` without intervals.
    """

    name: str
    count: int
    mape: float
    spearman: float
    covered: float | None = None

    def __str__(self) -> str:
        """One line of the table."""
        covered = "" if self.covered is None else f"   90 % interval holds {self.covered:6.1%}"
        return f"{self.name:58} {self.count:4}   MAPE {self.mape:7.2%}   Spearman {self.spearman:.4f}{covered}"


def row_of(name: str, prediction: Prediction, measured_ms: Floats) -> Row:
    """Judge a prediction of the measured networks, in their order."""
    guess_ms = prediction.latency_ms
    inside = (prediction.low_ms <= measured_ms) & (measured_ms <= prediction.high_ms)
    return Row(
        name,
        len(measured_ms),
        float(np.mean(np.abs(guess_ms / measured_ms - 1.0))),
        float(require("scipy.stats", "predictor").spearmanr(guess_ms, measured_ms).statistic),
        float(inside.mean()) if prediction.coverage else None,
    )


def repeatability_row(first_ms: Floats, second_ms: Floats) -> Row:
    """A second pass of sessions as a prediction of the first: what no model can beat by much."""
    return row_of("the same measurement again", Prediction.exact(second_ms), first_ms)


@dataclass(frozen=True)
class Compared:
    """All models on the same held-out networks.

    Attributes:
        predictor: The calibrated predictor.
        macs: The line over MACs fitted to the same networks as its calibration.
        best_macs: The line with the least error on the held-out networks themselves.
        others: The rest.
    """

    predictor: Row
    macs: Row
    best_macs: Row
    others: tuple[Row, ...]


def compare(
    predictor: LatencyPredictor, table: LatencyTable, calibration: Measured, archs: Sequence[Arch], measured_ms: Floats
) -> Compared:
    """Judge the predictor and its rivals on the same networks.

    Args:
        predictor: Calibrated.
        table: The measured blocks it was fitted to.
        calibration: Networks it was calibrated with.
        archs: Held-out networks.
        measured_ms: Their latencies.
    """
    few, few_ms = [arch for arch, _ in calibration], np.array([ms for _, ms in calibration])
    macs = MacsModel.fit(predictor.conditions, few, few_ms.tolist())
    plain = LatencyPredictor.uncalibrated(predictor.blocks)
    others = [row_of("sum of predicted blocks, not calibrated", plain.predict(archs), measured_ms)]
    others += _lookups(table, few, few_ms, archs, measured_ms)
    return Compared(
        row_of(f"predictor calibrated with {len(few)}", predictor.predict(archs), measured_ms),
        row_of(f"line over MACs fitted to the same {len(few)}", macs.predict(archs), measured_ms),
        best_macs_line(predictor, archs, measured_ms),
        tuple(others),
    )


def best_macs_line(predictor: LatencyPredictor, archs: Sequence[Arch], measured_ms: Floats) -> Row:
    """The line over MACs with the least mean relative error on the very networks it is judged on.

    Least absolute relative errors are a linear program: minimise the sum of ``t`` with
    ``-t <= (a x + b) / y - 1 <= t``.
    """
    wanted = predictor.conditions
    space = find_space(wanted.space, wanted.classes)
    mega_macs = np.array([space.cost(arch, wanted.input_size)[1] / 1e6 for arch in archs])
    count = len(archs)
    line = np.stack([mega_macs / measured_ms, 1.0 / measured_ms], 1)
    identity = np.eye(count)
    found = require("scipy.optimize", "predictor").linprog(
        np.concatenate([[0.0, 0.0], np.ones(count)]),
        A_ub=np.block([[line, -identity], [-line, -identity]]),
        b_ub=np.concatenate([np.ones(count), -np.ones(count)]),
        bounds=[(None, None)] * 2 + [(0, None)] * count,
    )
    slope, intercept_ms = found.x[:2]
    return row_of(
        "best line over MACs on the held-out networks themselves",
        Prediction.exact(mega_macs * slope + intercept_ms),
        measured_ms,
    )


def _lookups(
    table: LatencyTable, few: Sequence[Arch], few_ms: Floats, archs: Sequence[Arch], measured_ms: Floats
) -> list[Row]:
    """The lookup table on networks all of whose blocks were measured; also calibrated where it knows enough."""
    model = TableModel(table)
    known = [index for index, arch in enumerate(archs) if model.knows(arch)]
    if len(known) < 3:
        return [Row(f"lookup table (holds {len(known)} of {len(archs)})", len(known), float("nan"), float("nan"))]
    sums_ms, truth_ms = model.predict([archs[index] for index in known]).latency_ms, measured_ms[known]
    rows = [row_of("lookup table, where it holds all blocks", Prediction.exact(sums_ms), truth_ms)]
    usable = [index for index, arch in enumerate(few) if model.knows(arch)]
    if len(usable) >= 3:
        few_sums_ms = model.predict([few[index] for index in usable]).latency_ms
        line = fit_calibration(few_sums_ms[:, None], few_ms[usable], ("all",))
        guess = Prediction.exact(line.apply(sums_ms[:, None]))
        rows.append(row_of(f"lookup table calibrated with {len(usable)}", guess, truth_ms))
    return rows
