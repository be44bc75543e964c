"""Claim: a network computes one function in every form: multi-branch, fused, ONNX and TFLite.

For random architectures of each space with seeded weights: multi-branch against fused in float64 (at most 1e-12),
then, in float32, fused against the exported file in ONNX Runtime and OpenVINO (at most 1e-5) and TFLite (at most
1e-4). A difference is the largest one, relative to the largest output (at least 1).

    python -m benchmarks.equivalence --out equivalence.jsonl    # 50 architectures a space: hours; resumes
    python -m benchmarks.equivalence --quick                    # 1 of each small space; TFLite of one
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import nn

from inas_deploy.models import artifact_for, resolve_model
from search.reparameterize import reparameterize
from search.spaces.arch import Arch
from search.spaces.export import export_network, seeded_subnet
from search.spaces.registry import find_arch, space_of
from targets.errors import KitError
from targets.records import RunSettings
from targets.runtimes.registry import get_runtime

LIMITS = {"fused": 1e-12, "onnxruntime": 1e-5, "openvino": 1e-5, "tflite": 1e-4}
SPACES = ("csnet", "inas", "rtseg")
QUICK_SPACES = ("csnet", "inas-tiny", "rtseg-tiny")
Array = NDArray[Any]


def difference(found: Array, expected: Array) -> float:
    """Largest difference, relative to the largest output (at least 1); infinite where the shapes differ."""
    if found.shape != expected.shape:
        return math.inf
    worst = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
    return worst if math.isfinite(worst) else math.inf


def check(name: str, size: tuple[int, int], runtimes: Sequence[str]) -> dict[str, Any]:
    """Differences of one architecture, by form.

    Args:
        name: Name of the architecture.
        size: Height and width of the input.
        runtimes: Which of the forms in ``LIMITS`` to check.

    Returns:
        What goes into the file of results. A form that cannot be made has an infinite difference and an error.
    """
    arch = find_arch(name)
    seed = int(arch.sha256()[:8], 16)  # its own, whatever else is checked in one call
    network = seeded_subnet(arch, size, seed=seed)
    image = np.random.default_rng(seed + 1).standard_normal((1, 3, *size))
    row: dict[str, Any] = {"name": name, "sha256": arch.sha256(), "size": list(size), "seed": seed, "errors": {}}
    row.update(covered(arch))
    with torch.no_grad():
        deployed = reparameterize(network)
        expected = deployed(torch.from_numpy(image).float()).numpy()
        if "fused" in runtimes:
            double = network.double()
            branches = _saliency(double(torch.from_numpy(image)).numpy(), arch)
            row["fused"] = difference(reparameterize(double)(torch.from_numpy(image)).numpy(), branches)
    single = image.astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="inas-equivalence-") as folder:
        for runtime in runtimes:
            if runtime != "fused":
                try:
                    row[runtime] = difference(run_in(runtime, deployed, arch, Path(folder), single), expected)
                except KitError as error:
                    row[runtime], row["errors"][runtime] = math.inf, str(error)
    return row


def _saliency(output: Array, arch: Arch) -> Array:
    """The training form's output as the fused form gives it."""
    return 1 / (1 + np.exp(-output)) if space_of(arch).logits_in_training else output


def covered(arch: Arch) -> dict[str, Any]:
    """Strides of the blocks, and sizes of the kernel sets of an iNAS network (else empty)."""
    settings = [dict(block.settings) for block in arch.blocks((256, 256))]
    kernels = getattr(arch, "kernels", ())
    return {
        "kinds": sorted({block.kind for block in arch.blocks((256, 256))}),
        "strides": sorted({s["stride"] for s in settings if "stride" in s}),
        "branches": sorted({len(one) for stage in kernels for one in stage}),
    }


def run_in(runtime: str, network: nn.Module, arch: Arch, folder: Path, image: Array) -> Array:
    """Export a network, where that was not done yet, and run it with the kit's own runtime in float32.

    Args:
        runtime: Name of the runtime.
        network: The deployed network.
        arch: Its architecture.
        folder: Where the exported files are.
        image: Input (1, 3, H, W).

    Returns:
        Output (1, classes, H, W).
    """
    tool = get_runtime(runtime)
    nhwc = runtime == "tflite"
    path = folder / ("network.tflite" if nhwc else "network.onnx")
    if not path.exists():
        size = (image.shape[2], image.shape[3])
        export_network(network, arch, path, input_size=size, format="tflite" if nhwc else "onnx")
    artifact = artifact_for(resolve_model(str(path)), tool.formats)
    loaded = tool.load(artifact, RunSettings(runtime=runtime))
    loaded.feed({artifact.inputs[0].name: np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if nhwc else image})
    loaded.run()
    (output,) = loaded.outputs()
    return output.transpose(0, 3, 1, 2) if nhwc else output


def finished(path: Path | None, size: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Rows of an earlier call by name, where the architecture of that name is still the same."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return {
        row["name"]: row
        for row in rows
        if row["size"] == list(size) and row["sha256"] == find_arch(row["name"]).sha256()
    }


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """An earlier row with the forms that were checked since; without the seed where the two differ in it."""
    row = {**old, **new, "errors": {**old["errors"], **new["errors"]}}
    if old.get("seed") != new["seed"]:
        del row["seed"]
    return row


def report(space: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Print a space's line and say whether the bounds hold."""
    good, cells = True, []
    for form, limit in LIMITS.items():
        found = [row[form] for row in rows if form in row]
        bad = sum(not value <= limit for value in found)
        good = good and not bad
        share = f"{bad}/{len(found)} over" if bad else f"of {len(found)}"
        cells.append(f"{max(found):12.1e} {share:>10}" if found else f"{'not run':>23}")
    print(f"{space:12}" + "".join(cells))
    for what in ("strides", "branches", "kinds"):
        values = sorted({value for row in rows for value in row[what]})
        if values:
            print(f"{'':12}   {what}: {', '.join(map(str, values))}")
    for row in rows:
        for runtime, error in row["errors"].items():
            print(f"{'':12}   {row['name']} in {runtime}: {error}")
    return good


def verdict(rows: Sequence[Mapping[str, Any]], good: bool) -> tuple[str, bool]:
    """The last line, which claims nothing for a form that was not run, and whether the claim holds."""
    counts = {form: sum(form in row for row in rows) for form in LIMITS}
    run = ", ".join(f"{form} of {count}" for form, count in counts.items() if count)
    absent = ", ".join(form for form, count in counts.items() if not count)
    if not run:
        return "claim NOT CHECKED: no form was run", False
    return f"claim {'holds' if good else 'FAILS'}: {run} networks{f' (not run: {absent})' if absent else ''}", good


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=SPACES, help="space ids")
    parser.add_argument("--count", type=int, default=50, help="architectures a space")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 96), metavar=("H", "W"))
    parser.add_argument("--forms", nargs="+", default=tuple(LIMITS), choices=tuple(LIMITS))
    parser.add_argument("--out", type=Path, help="file of results, one JSON line each; what it holds is not repeated")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.spaces, options.count = QUICK_SPACES, 1
    torch.set_num_threads(1)
    size = (options.size[0], options.size[1])
    rows = finished(options.out, size)
    names = [f"{space}:random-{index}" for space in options.spaces for index in range(options.count)]
    for name in track(names, "checking", console=Console(stderr=True)):
        forms = [form for form in options.forms if form not in rows.get(name, {})]
        if options.quick and not name.startswith("inas"):  # one conversion to TFLite takes half a minute
            forms = [form for form in forms if form != "tflite"]
        if forms:
            found = check(name, size, forms)
            rows[name] = merged(rows[name], found) if name in rows else found
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[name]) + "\n")
    print(f"{'':12}" + "".join(f"{f'{form} (<= {limit:g})':>23}" for form, limit in LIMITS.items()))
    checked = [rows[name] for name in names if name in rows]
    goods = [report(s, [row for row in checked if row["name"].startswith(f"{s}:")]) for s in options.spaces]
    line, holds = verdict(checked, all(goods))
    print(f"{line}, at {size[0]}x{size[1]}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
