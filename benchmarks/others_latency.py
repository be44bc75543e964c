"""Claim: on measurements others made, the importers, the predictor and the calibration reach the figures below.

- TF-NAS blocks over 0.2 ms on a Titan RTX, each predicted without it (5 folds by block): MAPE <= 3 %.
- HAT translation networks on a Titan Xp and a Raspberry Pi (encoder + decoder, 5 folds by network): MAPE <= 4.5 %, the
  drift of the device taken off. The rows are in the order of measuring: a row's drift is the median of the nearest 15
  training rows' errors. Its own latency is never looked at. The figure without that is printed beside it.
- The eight networks that iNAS publishes table sums and latencies of: line and slope, leave-one-out MAPE <= 1.5 %.
- 162 iNAS networks: sums of the imported table equal the given ones part by part; Pearson 0.94 with the median of the
  whole networks' latency. Calibrated, each network by the others: a slope lowers the MAPE against the least repeat, and
  a line with the drift off that against median and least. (Against the median the bare sum is right on average: a slope
  alone gains nothing there.) Beside them the sums of the block predictor, which smooths the table's noise.

    python -m benchmarks.others_latency            # 5 folds
    python -m benchmarks.others_latency --quick    # 1 fold of HAT; short fits but for TF-NAS

Needs the measurements in $INAS_DATA (default: shared/data beside the checkout) and the extra predictor. Nothing is
timed here; equal seeds give equal figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from search.latency.baseline import fit_factors
from search.latency.block_predictor import BlockPredictor
from search.latency.calibration import Calibration, Form, left_out
from search.latency.conditions import Conditions
from search.latency.importers.inas_text import read_inas_text
from search.latency.importers.network_csv import NetworkLatencies, read_network_csv
from search.latency.importers.tfnas_csv import read_tfnas_csv
from search.latency.mlp import fit_ensemble
from search.spaces.inas.arch import INASArch
from targets.errors import KitError, UsageError
from targets.extras import require
from targets.records import RunSettings

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Tick = Callable[[float], None]
FOLDS, NEAREST, DRIFT_ROUNDS = 5, 15, 4
TFNAS_BAR, TFNAS_LEAST_US = 0.03, 200.0
HAT_BAR = 0.045
README_BAR = 0.015
PEARSON, PEARSON_MARGIN = 0.94, 0.005
ROUNDED_MS = 6e-5
"""The given sums have four decimals."""
PARTS = ("backbone", "transport", "decoder")
HAT_DEVICES = {"Titan Xp": "gpu_titanxp", "Raspberry Pi": "cpu_raspberrypi"}
HAT_LATENCY = ("latency_mean_encoder", "latency_mean_decoder")
HAT_DEVIATION = ("latency_std_encoder", "latency_std_decoder")


class Results:
    """What was found: rows to print, and what fails."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.failed: list[str] = []

    def add(self, data: str, model: str, predicted: Floats, measured: Floats, bar: float | None = None) -> float:
        """Note one model's errors; with a bar, that they must not be above it.

        Args:
            data: Whose measurements.
            model: What predicted.
            predicted: Any unit, (N,).
            measured: In the same unit, (N,).
            bar: Highest allowed mean absolute percentage error, as a fraction.

        Returns:
            That error.
        """
        errors = np.abs(predicted / measured - 1)
        mape = float(errors.mean())
        pearson = float(np.corrcoef(predicted, measured)[0, 1])
        limit = "" if bar is None else f"<= {bar:.1%}"
        within = f"{(errors <= 0.1).mean():.1%}"
        self.rows.append((data, f"{len(measured):,}", model, f"{mape:.2%}", limit, within, f"{pearson:.4f}"))
        self.expect(bar is None or mape <= bar, f"{data}, {model}: {mape:.2%}")
        return mape

    def expect(self, holds: bool, what: str) -> None:
        """Note a failure unless something holds."""
        if not holds:
            self.failed.append(what)


def data_root() -> Path:
    """Folder of the measurements: ``latency`` in $INAS_DATA, or in ``shared/data`` beside the checkout.

    Raises:
        UsageError: If it is not there.
    """
    root = Path(os.environ.get("INAS_DATA", Path(__file__).parents[1].parent / "shared" / "data")) / "latency"
    if not root.is_dir():
        raise UsageError(f"there is no {root}", "Set INAS_DATA to the folder that holds the data sets.")
    return root


def conditions(device: str, space: str, runtime: str, **settings: Any) -> Conditions:
    """What others' files do not say."""
    return Conditions(
        device=device, settings=RunSettings(runtime=runtime, **settings), space=space, input_size=(224, 224)
    )


def tfnas(results: Results, root: Path, tick: Tick) -> None:
    """Blocks of TF-NAS, each predicted without it; beside the networks the non-negative sum of products alone."""
    where = conditions("titanrtx", "tfnas", "pytorch", accelerator="gpu", options={"batch": "32"})
    table = read_tfnas_csv(root / "tfnas" / "tfnas_titanrtx_bs32.csv", where)
    predictor = BlockPredictor.fit(table, epochs=60, progress=tick)
    judged = [block for block in predictor.held_out if block.measured_us > TFNAS_LEAST_US]
    measured = np.array([block.measured_us for block in judged])
    work = np.array([_bottleneck_macs(table.rows[block.key].settings, block.key) for block in judged])
    slope, offset = _line(work, measured)
    name = "TF-NAS, Titan RTX"
    results.add(name, "line over MACs, fitted to these rows", slope * work + offset, measured)
    results.add(name, "block predictor", np.array([block.predicted_us for block in judged]), measured, TFNAS_BAR)


def _bottleneck_macs(settings: Sequence[tuple[str, int]], key: Any) -> float:
    """MACs an image: 1x1 convolution, depthwise convolution, squeeze-excite, 1x1 convolution."""
    _, ((wide, height, width),), ((out, out_height, out_width),), _ = key
    chosen = dict(settings)
    hidden, area = chosen["hidden"], out_height * out_width
    entry = wide * hidden * height * width
    return float(entry + hidden * area * (chosen["kernel"] ** 2 + out) + 2 * hidden * chosen["squeeze"])


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and offset with the least squared relative error."""
    matrix = np.stack([x, np.ones(len(x))], axis=1) / y[:, None]
    slope, offset = np.linalg.lstsq(matrix, np.ones(len(y)), rcond=None)[0]
    return float(slope), float(offset)


def hat_features(networks: NetworkLatencies) -> Floats:
    """The ten numbers of each network and the products that its matrix products are made of, (N, 22)."""
    column = networks.column
    layers, wide, source = column("decoder_layer_num"), column("decoder_embed_dim"), column("encoder_embed_dim")
    ffn, own = column("decoder_ffn_embed_dim_avg"), column("decoder_self_attention_heads_avg")
    cross, reads = column("decoder_ende_attention_heads_avg"), column("decoder_arbitrary_ende_attn_avg")
    products = [layers * what for what in (ffn, own, cross, reads, wide, wide * wide, ffn * wide, own * wide)]
    products += [layers * cross * wide, layers * reads * source, layers * source * wide]
    return np.column_stack([networks.features, *products, column("encoder_ffn_embed_dim_avg") * source])


def products_base(features: Floats, seen: Ints, latency_ms: Floats) -> Floats:
    """Non-negative least squares on the relative error over the seen rows; the base of all rows, (N,)."""
    terms = np.column_stack([np.ones(len(features)), features])
    terms = terms / terms.max(axis=0)
    base: Floats = terms @ fit_factors(terms[seen], latency_ms, np.ones(len(seen)))
    return base


def drift_of(errors: Floats, seen: Ints, count: int) -> Floats:
    """Log of the device's slowness at every row, against what was predicted.

    It is the median error of the nearest seen rows in the order of measuring.

    Args:
        errors: Log of measured over predicted of the seen rows, (S,).
        seen: Their positions, ascending, (S,).
        count: Rows in all.
    """
    first = np.clip(np.searchsorted(seen, np.arange(count)) - NEAREST // 2, 0, len(seen) - NEAREST)
    medians: Floats = np.median(errors[first[:, None] + np.arange(NEAREST)], axis=1)
    return medians


def hat(results: Results, device: str, root: Path, quick: bool, tick: Tick) -> None:
    """Whole networks of HAT: predicted with and without the device's drift; beside the networks a plain line."""
    path = root / "hat" / f"wmt14ende_{HAT_DEVICES[device]}.csv"
    networks = read_network_csv(path, latency_ms=HAT_LATENCY, deviation_ms=HAT_DEVIATION)
    features, measured = hat_features(networks), networks.latency_ms
    folds = np.array_split(np.random.default_rng(0).permutation(len(measured)), FOLDS)[: 1 if quick else FOLDS]
    found: dict[str, list[Floats]] = {}
    for number, held in enumerate(folds):
        guesses = _hat_fold(features, networks.features, measured, held, 8 if quick else 60)
        for model, guess in guesses.items():
            found.setdefault(model, []).append(guess)
        tick((number + 1) / len(folds))
    truth = measured[np.concatenate(folds)]
    for model, parts in found.items():
        bar = HAT_BAR if model == "networks, drift off" else None
        results.add(f"HAT, {device}", model, np.concatenate(parts), truth, bar)
    if networks.deviation_ms is not None:
        noise = f"{np.median(networks.deviation_ms / measured):.2%}"
        results.rows.append((f"HAT, {device}", f"{len(measured):,}", "deviation of repeats, told", noise, "", "", ""))


def _hat_fold(features: Floats, plain: Floats, measured: Floats, held: Ints, epochs: int) -> Mapping[str, Floats]:
    """Predictions of the held-out rows in milliseconds, by model."""
    seen = np.setdiff1d(np.arange(len(measured)), held)
    line = np.column_stack([np.ones(len(plain)), plain])
    weights = np.linalg.lstsq(line[seen] / measured[seen, None], np.ones(len(seen)), rcond=None)[0]
    drift = np.zeros(len(measured))
    for _ in range(DRIFT_ROUNDS):
        base = products_base(features, seen, measured[seen] * np.exp(-drift[seen]))
        drift = drift_of(np.log(measured[seen] / base[seen]), seen, len(measured))
    steady = fit_ensemble(
        features[seen], measured[seen] * np.exp(-drift[seen]), base=base[seen], hidden=64, epochs=epochs
    )
    first = products_base(features, seen, measured[seen])
    direct = fit_ensemble(features[seen], measured[seen], base=first[seen], hidden=64, epochs=epochs, loss="mape")
    return {
        "line over ten numbers": line[held] @ weights,
        "networks": direct.predict(features[held], first[held])[0],
        "products, drift off": base[held] * np.exp(drift[held]),
        "networks, drift off": steady.predict(features[held], base[held])[0] * np.exp(drift[held]),
    }


def refitted(part_ms: Floats, measured: Floats, form: Form) -> Floats:
    """Each network predicted by a calibration fitted to the others, milliseconds, (N,)."""
    names = tuple(f"part{number}" for number in range(part_ms.shape[1]))
    return left_out(part_ms, measured, Calibration(form=form, parts=names, slopes=(1.0,) * len(names)))


def readme(results: Results, root: Path) -> None:
    """The eight published networks: table sum against latency."""
    path = root / "inas_readme_cpu_models.csv"
    networks = read_network_csv(path, latency_ms=("measured_ms",), ignore=("supernet",))
    sums, measured = networks.column("lut_sum_ms"), networks.latency_ms
    name, column = "iNAS README", sums[:, None]
    results.add(name, "table sum", sums, measured)
    results.add(name, "slope, leave-one-out", refitted(column, measured, "slope"), measured)
    results.add(name, "intercept and slope, leave-one-out", refitted(column, measured, "line"), measured, README_BAR)


def arch_of(given: Mapping[str, Any]) -> INASArch:
    """An architecture in iNAS's configuration form (``backbone_cfg``, ``transport_cfg``, ``decoder_cfg``)."""
    backbone = given["backbone_cfg"]
    stages = [backbone[f"stage_{number}"] for number in range(1, 8)]
    fields: dict[str, Any] = {
        "stem": backbone["stem"]["filter"][0],
        "widths": [stage["filter"] for stage in stages],
        "kernels": [[sorted(kernels) for kernels in stage["kernel"]] for stage in stages],
    }
    for part in ("transport", "decoder"):
        levels = [given[f"{part}_cfg"][f"level_{number}"] for number in range(5)]
        fields[part] = [sorted(level["connection"]) for level in levels]
        fields[f"{part}_kernels"] = [sorted(level["kernel"]) for level in levels]
    return INASArch.checked({"schema_version": 1, "space": "inas", "classes": 1, **fields})


def part_sums(archs: Sequence[INASArch], latency_us: Callable[[Any], Sequence[float] | Floats]) -> Floats:
    """Sums of block latencies by :data:`PARTS`, milliseconds, (N, 3)."""
    place = {"transport": 1, "decoder": 2, "head": 2}
    found = np.zeros((len(archs), len(PARTS)))
    for row, arch in enumerate(archs):
        specs = arch.blocks((224, 224))
        for spec, us in zip(specs, latency_us(specs), strict=True):
            found[row, place.get(spec.name.partition(".")[0], 0)] += us / 1e3
    return found


def without_drift(sums: Floats, measured: Floats) -> Floats:
    """Each network predicted by a line fitted to the others, times the drift that the nearest others show.

    Args:
        sums: Sums of block latencies in the order of measuring, (N,).
        measured: Latency of the whole networks, (N,).
    """
    found = np.empty(len(sums))
    for held in range(len(sums)):
        seen = np.delete(np.arange(len(sums)), held)
        slope, offset = _line(sums[seen], measured[seen])
        line = slope * sums + offset
        found[held] = line[held] * np.exp(drift_of(np.log(measured / line)[seen], seen, len(sums))[held])
    return found


def pairs(results: Results, root: Path, quick: bool, tick: Tick) -> None:
    """162 networks: sums of the imported table, then of the smoothed one, then calibrated."""
    folder = root / "local_cpu"
    table = read_inas_text(folder / "lut_res224_cpu_1thread.txt", conditions("local-cpu", "inas", "pytorch"))
    given = [json.loads(line) for line in (folder / "archs_lut_vs_e2e.jsonl").read_text(encoding="utf-8").splitlines()]
    archs = [arch_of(one["arch"]) for one in given]
    sums = part_sums(archs, table.latency_us)
    wanted = np.array([[one["lut_ms"][part] for part in PARTS] for one in given])
    worst = float(np.abs(sums - wanted).max())
    results.expect(worst <= ROUNDED_MS, f"a part's sum is {worst:.5f} ms off the given one")
    predictor = BlockPredictor.fit(table, epochs=8 if quick else 60, progress=tick)
    smooth = part_sums(archs, lambda specs: predictor.predict_blocks(specs).latency_us)
    for statistic in ("median", "min"):
        measured = np.array([one["e2e_ms"][statistic] for one in given])
        name = f"162 pairs, {statistic} of repeats"
        raw = results.add(name, "table sum", sums.sum(1), measured)
        slope = results.add(name, "table sum, slope, leave-one-out", refitted(sums, measured, "slope"), measured)
        results.add(name, "table sum, parts, leave-one-out", refitted(sums, measured, "parts"), measured)
        steady = results.add(name, "table sum, line, drift off", without_drift(sums.sum(1), measured), measured)
        results.add(name, "predictor's sum", smooth.sum(1), measured)
        results.add(name, "predictor's sum, line, leave-one-out", refitted(smooth, measured, "line"), measured)
        results.add(name, "predictor's sum, line, drift off", without_drift(smooth.sum(1), measured), measured)
        results.expect(steady < raw, f"{name}: line and drift do not improve {raw:.2%}")
        results.expect(statistic == "median" or slope < raw, f"{name}: a slope does not improve {raw:.2%}")
        if statistic == "median":
            pearson = float(np.corrcoef(sums.sum(1), measured)[0, 1])
            results.expect(abs(pearson - PEARSON) <= PEARSON_MARGIN, f"{name}: Pearson {pearson:.3f}, not {PEARSON}")


def run(*, quick: bool, console: Console) -> Results:
    """Fit, compare and print the table."""
    root, results = data_root(), Results()
    torch = require("torch", "predictor")
    torch.set_num_threads(1)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def ticker(what: str) -> Tick:
            task = progress.add_task(what, total=1.0)
            return lambda share: progress.update(task, completed=share)

        readme(results, root)
        pairs(results, root, quick, ticker("162 pairs"))
        tfnas(results, root, ticker("TF-NAS"))
        for device in HAT_DEVICES:
            hat(results, device, root, quick, ticker(f"HAT, {device}"))
    shown = Table(title="Errors on held-out rows of others' measurements")
    for column in ("measurements", "rows", "model", "MAPE", "bar", "within 10 %", "Pearson"):
        shown.add_column(column, justify="left" if column in ("measurements", "model") else "right")
    for row in results.rows:
        shown.add_row(*row)
    console.print(shown)
    return results


def main() -> int:
    """Run the benchmark; 0 where the claims hold, 1 where one fails, 2 where it cannot be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one fold of HAT, shorter fits; within a minute")
    arguments = parser.parse_args()
    try:
        failed = run(quick=arguments.quick, console=Console(width=130)).failed
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"FAIL: {'; '.join(failed)}" if failed else "PASS: all errors within their bars, sums and Pearson reproduced")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
