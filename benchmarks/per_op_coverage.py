"""Claim: nearly all of a profile's time is joined to modules, and its sum is the unprofiled inference.

For CSNet-x1 and for a network of many kinds of operations, on every runtime: attributed share at
least 92 % (onnxruntime with all graph optimisations), 95 % (openvino), 97 % (tflite), and the sum
of operations, the cost of profiling taken off, within 5 % of the interleaved unprofiled inference.
Each profile is taken in a fresh process; the median over rounds counts, of the residual the median
of its absolute values.

    python -m benchmarks.per_op_coverage            # 3 rounds of 8 s
    python -m benchmarks.per_op_coverage --quick    # 1 round of 2 s, without the mixed network on tflite
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.nets import mixed
from inas_deploy.model_cache import cache_folder
from inas_deploy.models import artifact_for, resolve_model
from search import export_torch, onnx_exporters
from targets.inventory import load_inventory
from targets.jobs import Job
from targets.records import Artifact, OpProfile, RunSettings
from targets.runtimes.registry import get_runtime
from targets.session import run_profile
from targets.transports.registry import open_transport

LEAST_ATTRIBUTED = {"onnxruntime": 0.92, "openvino": 0.95, "tflite": 0.97}
MOST_RESIDUAL = 0.05
NETWORKS = ("csnet-x1", "mixed")


def mixed_file(kind: str) -> Path:
    """The mixed network as ``onnx`` or ``tflite``, exported once into the kit's cache."""
    exporter, export = {
        "onnx": (export_torch.onnx_exporter(), mixed.export_onnx),
        "tflite": (export_torch.tflite_exporter(), mixed.export_tflite),
    }[kind]
    sources = [Path(module.__file__ or "").read_bytes() for module in (mixed, export_torch, onnx_exporters)]
    key = hashlib.sha256(b"".join([exporter.encode(), *sources])).hexdigest()[:16]
    path = cache_folder() / f"mixed-{key}.{kind}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        export(path)
    return path


def artifact_of(network: str, runtime: str) -> Artifact:
    """What the runtime loads for a network."""
    formats = get_runtime(runtime).formats
    text = network if network != "mixed" else str(mixed_file("onnx" if "onnx" in formats else "tflite"))
    return artifact_for(resolve_model(text), formats)


def profiles_of(
    run: Callable[[Job], OpProfile], cases: Sequence[tuple[str, str]], seconds: float, rounds: int
) -> dict[tuple[str, str], list[OpProfile]]:
    """Profiles by runtime and network, each in a fresh process."""
    artifacts = {key: artifact_of(key[1], key[0]) for key in cases}
    found: dict[tuple[str, str], list[OpProfile]] = {key: [] for key in cases}
    for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
        for key, artifact in artifacts.items():
            job = Job(task="profile", artifact=artifact, settings=RunSettings(runtime=key[0]), seconds=seconds)
            found[key].append(run(job))
    return found


def judged(runtime: str, network: str, profiles: Sequence[OpProfile]) -> bool:
    """Print one line and say whether the bounds hold for the median over rounds."""
    attributed, layout, signed, unprofiled_us = (
        float(np.median([getattr(profile, name) for profile in profiles]))
        for name in ("attributed_share", "layout_share", "residual_share", "unprofiled_us")
    )
    # Of absolute values: misses of both signs must not cancel.
    residual = float(np.median([abs(profile.residual_share) for profile in profiles]))
    good = attributed >= LEAST_ATTRIBUTED[runtime] and residual <= MOST_RESIDUAL
    bounds = f"(>= {LEAST_ATTRIBUTED[runtime]:.0%}, <= {MOST_RESIDUAL:.0%})"
    print(
        f"{runtime:12} {network:9} {len(profiles[0].ops):4} ops {unprofiled_us / 1e3:8.2f} ms   "
        f"attributed {attributed:6.1%}   layout {layout:5.1%}   |residual| {residual:5.1%} (signed {signed:+.1%})   "
        f"{bounds} {'ok' if good else 'MISSED'}"
    )
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 2.0
    cases = [(runtime, network) for runtime in LEAST_ATTRIBUTED for network in NETWORKS]
    if options.quick:
        cases.remove(("tflite", "mixed"))  # its conversion alone takes half the minute
    with open_transport(load_inventory(None).select("local")[0]) as transport:
        found = profiles_of(lambda job: run_profile(transport, job), cases, options.seconds, options.rounds)
    print(f"per-op profiles, 1 thread, fp32, median of {options.rounds} profiles of {options.seconds:g} s")
    verdicts = [judged(runtime, network, profiles) for (runtime, network), profiles in found.items()]
    good = all(verdicts)
    print(f"claim {'holds' if good else 'FAILS'}: attributed share and residual within bounds")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
