"""Claim: every network of the kit is built by TensorRT-RTX without a GPU, or the node in the way is named.

All names worth suggesting (both ends of each space, its named points) and the rivals, exported as the kit exports
them, parsed and built for one compute capability in a fresh process each. Where one does not build, the claim still
asks for the name of the node. Needs the extras ``tensorrt`` and ``torch``.

    python -m benchmarks.tensorrt_check            # every network
    python -m benchmarks.tensorrt_check --quick    # the smallest of each space
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track

from benchmarks.rivals import RIVALS
from inas_deploy.models import resolve_model
from inas_deploy.networks import RIVAL
from search.spaces.registry import known_names
from targets.tensorrt.check import CheckResult, check_model

QUICK = ("csnet-x1", "inas-tiny:smallest", "rtseg-tiny:smallest")


def networks(quick: bool) -> list[str]:
    """Names of the networks that are checked."""
    return list(QUICK) if quick else [*known_names(), *(f"{RIVAL}{name}" for name in RIVALS)]


def named(result: CheckResult) -> bool:
    """Whether it builds or the node in the way is known."""
    return result.builds or bool(result.failing)


def line(name: str, result: CheckResult) -> str:
    """One line of the table."""
    verdict = "builds" if result.builds else f"{result.problem} fails"
    nodes = ", ".join(f"{node.name} ({node.op_type}): {node.reason[:80]}" for node in result.failing[:3])
    rest = nodes or result.message
    memory = f"{result.peak_rss_mb:.0f} MB" if result.peak_rss_mb else "-"
    return f"{name:24} {verdict:12} {result.nodes:5} nodes  {result.seconds:6.1f} s  {memory:>8}  {rest}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--compute-capability", default="sm86")
    parser.add_argument("--only", action="append", help="check this network only; repeatable")
    options = parser.parse_args(arguments)
    results: dict[str, CheckResult] = {}
    names = options.only or networks(options.quick)
    for name in track(names, "checking", console=Console(stderr=True)):
        model = resolve_model(name)
        results[name] = check_model(model.path, compute_capability=options.compute_capability)
        print(line(name, results[name]), file=sys.stderr, flush=True)
    for name, result in results.items():
        print(line(name, result))
    versions = sorted({version for result in results.values() for version in result.versions.values()})
    good, told = sum(r.builds for r in results.values()), sum(map(named, results.values()))
    holds = told == len(results)
    print(
        f"claim {'holds' if holds else 'FAILS'}: {good} of {len(results)} networks build for "
        f"{options.compute_capability} with TensorRT-RTX {', '.join(versions)}, {told - good} more name the node"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
