"""Claim: reparameterizing makes no network more than 3 % slower on any runtime; the table says how much faster.

Each network is exported twice with the same weights: as it was trained (in eval mode, branches and batch norms left
to the exporter and the runtime, as a user's own export has them) and reparameterized. Both are measured in
alternating sessions, one thread, on every runtime. The ratio is reparameterized over multi-branch.

    python -m benchmarks.reparameterization            # four networks, three runtimes, 10 pairs
    python -m benchmarks.reparameterization --quick    # shows that it runs
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from inas_deploy.models import artifact_for, resolve_model
from search.reparameterize import reparameterize
from search.spaces.export import export_network, seeded_subnet
from search.spaces.registry import find_arch, space_of
from targets.compare import compare
from targets.inventory import load_inventory
from targets.measure import measure
from targets.opening import open_target
from targets.plan import BenchPlan, make_variant
from targets.records import Comparison, RunSettings, Variant
from targets.runtimes.registry import get_runtime
from targets.statistics import sampled_percentile_ms
from targets.store import ResultStore

NETWORKS = ("inas:smallest", "inas:biggest", "csnet-x1", "bisenetv2")
RUNTIMES = ("onnxruntime", "openvino", "tflite")
FORMS = ("multi-branch", "reparameterized")
MOST_SLOWER = 0.03
_FORMATS: dict[str, Literal["onnx", "tflite"]] = {"onnxruntime": "onnx", "openvino": "onnx", "tflite": "tflite"}


class Row(NamedTuple):
    """One network on one runtime.

    Attributes:
        network: Name.
        runtime: Runtime.
        branches_ms: Median over sessions of the multi-branch form's p10.
        fused_ms: The same, reparameterized.
        comparison: Reparameterized against multi-branch.
    """

    network: str
    runtime: str
    branches_ms: float
    fused_ms: float
    comparison: Comparison


def files_of(name: str, size: tuple[int, int], formats: set[Literal["onnx", "tflite"]], folder: Path) -> list[Path]:
    """Export both forms of a network in each format.

    Returns:
        Paths ``<folder>/<form>.<format>``.
    """
    arch = find_arch(name)
    network = seeded_subnet(arch, size)
    branches = nn.Sequential(network, nn.Sigmoid()) if space_of(arch).logits_in_training else network
    folder.mkdir()
    return [
        export_network(module, arch, folder / f"{form}.{kind}", input_size=size, format=kind)
        for form, module in zip(FORMS, (branches, reparameterize(network)), strict=True)
        for kind in sorted(formats)
    ]


def variants_of(name: str, runtime: str, folder: Path) -> tuple[Variant, ...]:
    """Both forms of an exported network for one runtime, the multi-branch one first."""
    runtime_formats = get_runtime(runtime).formats
    return tuple(
        make_variant(
            f"{name} {form}",
            artifact_for(resolve_model(str(folder / f"{form}.{_FORMATS[runtime]}")), runtime_formats),
            RunSettings(runtime=runtime),
            role=role,
        )
        for role, form in zip("AB", FORMS, strict=True)
    )


def run(
    names: Sequence[str], runtimes: Sequence[str], size: tuple[int, int], pairs: int, seconds: float, folder: Path
) -> list[Row]:
    """Export and measure everything."""
    rows = []
    formats = {_FORMATS[runtime] for runtime in runtimes}
    with (
        ResultStore(folder / "results.sqlite") as store,
        open_target(load_inventory(None).select("local")[0]) as here,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("", total=len(names) * (1 + len(runtimes)))
        for number, name in enumerate(names):
            progress.update(task, description=f"exporting {name}")
            files_of(name, size, formats, folder / str(number))
            progress.advance(task)
            for runtime in runtimes:
                progress.update(task, description=f"{name} on {runtime}")
                variants = variants_of(name, runtime, folder / str(number))
                plan = BenchPlan(kind="compare", variants=variants, sessions=pairs, seconds=seconds, per_op=False)
                a, b = measure(plan, store, {"local": here}).measurements
                medians = [sorted(sampled_percentile_ms(s, 10) for s in m.sessions)[pairs // 2] for m in (a, b)]
                rows.append(Row(name, runtime, medians[0], medians[1], compare(a, b)))
                progress.advance(task)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="network name; repeat for more")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    names, runtimes = options.model or NETWORKS, options.runtime or RUNTIMES
    if options.quick:
        names, runtimes = options.model or ["inas-tiny:smallest"], options.runtime or RUNTIMES[:2]
        options.pairs, options.seconds = 8, 0.1
    torch.set_num_threads(1)
    size = (options.size[0], options.size[1])
    with tempfile.TemporaryDirectory(prefix="inas-reparameterization-") as folder:
        rows = run(names, runtimes, size, options.pairs, options.seconds, Path(folder))
    print(f"{size[0]}x{size[1]}, fp32, 1 thread, {options.pairs} pairs of sessions of {options.seconds:g} s, p10")
    print(f"{'network':16} {'runtime':12} {'branches':>11} {'reparam.':>11} {'ratio':>6} {'99 % interval':>15}  answer")
    for row in rows:
        found = row.comparison
        interval = f"{1 + found.effect_low:.3f} to {1 + found.effect_high:.3f}"
        print(
            f"{row.network:16} {row.runtime:12} {row.branches_ms:8.2f} ms {row.fused_ms:8.2f} ms "
            f"{1 + found.effect:6.3f} {interval:>15}  {found.answer}"
        )
    if options.quick:
        print("quick: ran; too few and too short sessions to judge the claim")
        return 0
    slower = [row for row in rows if row.comparison.effect_low > MOST_SLOWER]
    print(
        f"claim {'FAILS' if slower else 'holds'}: slower by more than {MOST_SLOWER:.0%} in {len(slower)} of {len(rows)}"
    )
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
