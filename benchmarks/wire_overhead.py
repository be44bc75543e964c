"""Claim: the wire does not touch the figure: p50 on a device over SSH or ADB is that of the same runtime run locally.

The devices are virtual: a real sshd and a real adbd on loopback, so that both sides run on the same processor. Each
round runs one session on either side for every pair, in an order drawn anew, so that drift falls on both. The ratio is
the median over rounds.

    python -m benchmarks.wire_overhead            # 12 rounds
    python -m benchmarks.wire_overhead --quick    # 3 rounds; shows that it runs
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from inas_deploy.models import artifact_for, resolve_model
from targets.errors import UsageError
from targets.inventory import LOCAL
from targets.jobs import Job
from targets.opening import Target, open_target
from targets.records import Artifact, RunSettings
from targets.runtimes.registry import get_runtime
from targets.statistics import session_percentile_ms
from targets.virtual.board import VirtualBoard
from targets.virtual.phone import VirtualPhone

LOW, HIGH = 0.95, 1.05
WAYS = (("board", "onnxruntime"), ("board", "openvino"), ("phone", "tflite"))


@dataclass
class Pair:
    """One runtime on a device and here.

    Attributes:
        name: Virtual device.
        runtime: Registry name.
        artifact: What both load.
        device: The device opened.
        p50s_ms: Medians of the sessions on the device, and here.
    """

    name: str
    runtime: str
    artifact: Artifact
    device: Target
    p50s_ms: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    @property
    def ratios(self) -> np.ndarray:
        """Device over local, one a round."""
        there, here = map(np.array, self.p50s_ms)
        return np.asarray(there / here)


def p50_ms(target: Target, runtime: str, artifact: Artifact, seconds: float) -> float:
    """Median of one session, milliseconds.

    Raises:
        UsageError: If the tool on the device does not tell a median.
    """
    job = Job(task="time", artifact=artifact, settings=RunSettings(runtime=runtime), seconds=seconds)
    median = session_percentile_ms(target.run_session(job), 50)
    if median is None:
        raise UsageError(f"{runtime} on {target.device.name} tells no median", "Take a tool that does.")
    return median


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--model", default="csnet-x1")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 3, 0.5
    source = resolve_model(options.model)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inas-wire-")))
        board = stack.enter_context(VirtualBoard(folder / "board"))
        phone = stack.enter_context(VirtualPhone(folder / "phone"))
        here = stack.enter_context(open_target(LOCAL))
        opened = {
            "board": stack.enter_context(open_target(board.device)),
            "phone": stack.enter_context(open_target(phone.device)),
        }
        pairs = [
            Pair(name, runtime, artifact_for(source, get_runtime(runtime).formats), opened[name])
            for name, runtime in WAYS
        ]
        measure(pairs, here, options.rounds, options.seconds)
    print(f"{options.model}, 1 thread, fp32, {options.rounds} rounds of {options.seconds} s, p50 in ms")
    print(f"{'virtual device':14} {'runtime':12} {'device':>9} {'local':>9} {'ratio':>7}   middle half of the ratios")
    good = True
    for pair in pairs:
        low, ratio, high = np.percentile(pair.ratios, [25, 50, 75])
        good = good and bool(LOW <= ratio <= HIGH)
        there, local = (float(np.median(values)) for values in pair.p50s_ms)
        print(f"{pair.name:14} {pair.runtime:12} {there:9.3f} {local:9.3f} {ratio:7.3f}   {low:.3f} to {high:.3f}")
    print(f"claim {'holds' if good else 'FAILS'}: each ratio within {LOW} to {HIGH}")
    return 0 if good else 1


def measure(pairs: Sequence[Pair], here: Target, rounds: int, seconds: float) -> None:
    """Run all rounds, adding to the pairs' medians."""
    draw = random.Random(0)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=rounds * len(pairs) * 2)
        for _ in range(rounds):
            for pair in pairs:
                sides = [(pair.p50s_ms[0], pair.device), (pair.p50s_ms[1], here)]
                draw.shuffle(sides)
                for values, target in sides:
                    progress.update(task, description=f"{pair.runtime} on {target.device.name}")
                    values.append(p50_ms(target, pair.runtime, pair.artifact, seconds))
                    progress.advance(task)


if __name__ == "__main__":
    sys.exit(main())
