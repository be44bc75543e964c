"""Claim: a session's p50 is the runtime's own: 0.97 to 1.03 of its tool, or of a bare loop, at 1 thread.

Each round runs one session of the kit and one run of the other tool for every runtime, in an order
drawn anew, so that drift falls on both. The ratio is the median over rounds.

    python -m benchmarks.harness_overhead            # 12 rounds
    python -m benchmarks.harness_overhead --quick    # 3 rounds; shows that it runs
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from inas_deploy.models import artifact_for, resolve_model
from targets.errors import UnknownLayout
from targets.inventory import load_inventory
from targets.jobs import Job
from targets.records import Artifact, RunSettings
from targets.runtimes.registry import get_runtime
from targets.session import run_session
from targets.statistics import sampled_percentile_ms
from targets.transports.base import Transport
from targets.transports.registry import open_transport

LOW, HIGH = 0.97, 1.03

_ORT_LOOP = """
import sys, time, numpy, onnxruntime
path, seconds = sys.argv[1], float(sys.argv[2])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
spec = session.get_inputs()[0]
feed = {spec.name: numpy.random.default_rng(0).standard_normal(spec.shape, dtype=numpy.float32)}
for timed in (0.5, seconds):
    samples, end = [], time.perf_counter() + timed
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feed)
        samples.append(time.perf_counter() - start)
print(numpy.median(samples) * 1e3)
"""

_TFLITE_LOOP = """
import sys, time, numpy
from ai_edge_litert.interpreter import Interpreter
path, seconds = sys.argv[1], float(sys.argv[2])
interpreter = Interpreter(path, num_threads=1)
interpreter.allocate_tensors()
spec = interpreter.get_input_details()[0]
feed = numpy.random.default_rng(0).standard_normal(spec["shape"], dtype=numpy.float32)
interpreter.set_tensor(spec["index"], feed)
for timed in (0.5, seconds):
    samples, end = [], time.perf_counter() + timed
    while time.perf_counter() < end:
        start = time.perf_counter()
        interpreter.invoke()
        samples.append(time.perf_counter() - start)
print(numpy.median(samples) * 1e3)
"""


# OpenVINO's tools send events over the network and write into the home directory, but not in automated jobs.
_NO_TELEMETRY = {"CI": "true"}


def _output(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    whole = {**os.environ, **(env or {})}
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=whole).stdout


def bare_onnxruntime(artifact: Artifact, seconds: float) -> float:
    """Median of a plain ``session.run`` loop, milliseconds."""
    return float(_output([sys.executable, "-c", _ORT_LOOP, artifact.path, str(seconds)]))


def bare_tflite(artifact: Artifact, seconds: float) -> float:
    """Median of a plain ``interpreter.invoke`` loop, milliseconds."""
    return float(_output([sys.executable, "-c", _TFLITE_LOOP, artifact.path, str(seconds)]).splitlines()[-1])


def benchmark_app(artifact: Artifact, seconds: float) -> float:
    """Median of OpenVINO's own tool, milliseconds."""
    tool = str(Path(sys.executable).with_name("benchmark_app"))
    flags = "-d CPU -hint none -api sync -nstreams 1 -nthreads 1 -nireq 1 -infer_precision f32 -pin NO"
    text = _output([tool, "-m", artifact.path, *flags.split(), "-t", str(max(1, round(seconds)))], _NO_TELEMETRY)
    found = re.search(r"Median:\s+([\d.]+) ms", text)
    if found is None:
        raise UnknownLayout(f"benchmark_app printed no median: {text[-200:]!r}", "Check the tool's version.")
    return float(found[1])


def litert_benchmark(artifact: Artifact, seconds: float) -> float:
    """Median of LiteRT's own tool, milliseconds."""
    tool = str(Path(sys.executable).with_name("litert-benchmark"))
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        runs = max(5, round(seconds / 0.05))
        flags = ["--num_threads", "1", "--num_runs", str(runs), "--warmup_runs", "10", "--result_json", str(result)]
        _output([tool, "--model", artifact.path, *flags])
        document = json.loads(result.read_text())
    text = json.dumps(document)
    found = re.search(r'"[a-z_]*median[a-z_]*": ([\d.]+)', text)
    if found is None:
        raise UnknownLayout(f"litert-benchmark wrote no median: {text[:200]}", "Check the tool's version.")
    return float(found[1])


TOOLS: dict[str, dict[str, Callable[[Artifact, float], float]]] = {
    "onnxruntime": {"bare loop": bare_onnxruntime},
    "openvino": {"benchmark_app": benchmark_app},
    "tflite": {"bare loop": bare_tflite, "litert-benchmark": litert_benchmark},
}


def kit(transport: Transport, runtime: str, artifact: Artifact, seconds: float) -> float:
    """Median of one session of the kit, milliseconds."""
    job = Job(task="time", artifact=artifact, settings=RunSettings(runtime=runtime), seconds=seconds)
    return sampled_percentile_ms(run_session(transport, job), 50)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the claim; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--model", default="csnet-x1")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 3, 1.0
    source = resolve_model(options.model)
    artifacts = {name: artifact_for(source, get_runtime(name).formats) for name in TOOLS}
    ours: dict[tuple[str, str], list[float]] = {}
    theirs: dict[tuple[str, str], list[float]] = {}
    draw = random.Random(0)
    with open_transport(load_inventory(None).select("local")[0]) as transport:
        for _ in track(range(options.rounds), "rounds", console=Console(stderr=True)):
            for runtime, tools in TOOLS.items():
                for tool, measure in tools.items():
                    key, artifact = (runtime, tool), artifacts[runtime]
                    sides: list[tuple[dict[tuple[str, str], list[float]], Callable[[], float]]] = [
                        (ours, lambda r=runtime, a=artifact: kit(transport, r, a, options.seconds)),  # type: ignore[misc]
                        (theirs, lambda m=measure, a=artifact: m(a, options.seconds)),  # type: ignore[misc]
                    ]
                    draw.shuffle(sides)
                    for results, side in sides:
                        results.setdefault(key, []).append(side())
    print(f"{options.model}, 1 thread, fp32, {options.rounds} rounds of {options.seconds} s, p50 in ms")
    print(f"{'runtime':12} {'against':18} {'kit':>9} {'other':>9} {'ratio':>7}   middle half of the ratios")
    holds: dict[str, bool] = {}
    for key, values in ours.items():
        ratios = np.array(values) / np.array(theirs[key])
        low, ratio, high = np.percentile(ratios, [25, 50, 75])
        runtime, tool = key
        holds[runtime] = holds.get(runtime, True) and LOW <= ratio <= HIGH
        medians = f"{np.median(values):9.3f} {np.median(theirs[key]):9.3f}"
        print(f"{runtime:12} {tool:18} {medians} {ratio:7.3f}   {low:.3f} to {high:.3f}")
    good = all(holds.values())
    fitting = ", ".join(runtime for runtime, fits in holds.items() if fits) or "no runtime"
    print(f"claim {'holds' if good else 'FAILS'}: ratio within {LOW} to {HIGH} for {fitting}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
