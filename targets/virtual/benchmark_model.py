"""A stand-in for the phone's ``benchmark_model``: its flags and its words, with LiteRT of this Python doing the work.

``python -m targets.virtual.benchmark_model --graph=FILE ...`` runs real inferences with XNNPACK or the builtin kernels
and prints what the real tool prints, after a first line that says what it is. ``BENCHMARK_MODEL_LAYOUT`` chooses
``new`` (percentiles, ``INFO: `` before lines) or ``old`` (neither; no CSV). It has no GPU and no NNAPI.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from targets.errors import InvalidModel, KitError
from targets.extras import version_of
from targets.runtimes.base import seeded_inputs
from targets.runtimes.tflite import TFLiteModel, build_interpreter, delegated_ops
from targets.tflite_files import inspect_tflite, tflite_artifact
from targets.virtual.benchmark_flags import FlagError, Flags, parse_flags, usage

_TOO_LONG = 1_000_000


def _stat_line(samples_us: Sequence[int], *, percentiles: bool) -> str:
    """Count, extremes, mean and deviation in the tool's own notation."""
    count, mean = len(samples_us), sum(samples_us) / len(samples_us)
    if min(samples_us) == max(samples_us):
        line = f"count={count} curr={samples_us[-1]}" + ("(all same)" if count > 1 else "")
    else:
        variance = sum(sample * sample for sample in samples_us) / count - mean * mean
        line = (
            f"count={count} first={samples_us[0]} curr={samples_us[-1]} min={min(samples_us)} max={max(samples_us)} "
            f"avg={mean:g} std={int(max(0.0, variance) ** 0.5)}"
        )
    if percentiles:
        ordered = sorted(samples_us)
        at = [ordered[count * percent // 100] for percent in (5, 50, 95)]
        line += f" p5={at[0]} median={at[1]} p95={at[2]}"
    return line


class Tool:
    """One run of the tool.

    Args:
        flags: What it was told.
        layout: ``new`` or ``old``.
        out: Where it prints.
    """

    def __init__(self, flags: Flags, layout: str, out: TextIO) -> None:
        self._flags, self._out = flags, out
        self._new = layout == "new"
        self._prefix = "INFO: " if self._new else ""

    def say(self, line: str) -> None:
        """Print a line as the tool logs it."""
        self._out.write(f"{self._prefix}{line}\n")

    def run(self) -> None:
        """Do everything: load, warm up, time, and profile where that is asked for.

        Raises:
            KitError: If the model is refused.
        """
        flags = self._flags
        for line in flags.echo():
            self.say(line)
        graph = Path(flags.text("graph"))
        start = time.perf_counter_ns()
        model = self._load(graph)
        init_us = (time.perf_counter_ns() - start) // 1000
        self.say(f"The input model file size (MB): {graph.stat().st_size / 1e6:g}")
        self.say(f"Initialized session in {init_us / 1e3:g}ms.")
        gc.collect()
        gc.disable()
        profile = None
        step = _timed(model.run)
        if flags.truth("enable_op_profiling"):
            from targets.virtual.benchmark_ops import OpRecorder

            profile = OpRecorder(
                graph, model, threads=flags.whole("num_threads"), builtin=not flags.truth("use_xnnpack")
            )
            step = profile.run
        warmup = self._pass(step, flags.whole("warmup_runs"), flags.real("warmup_min_secs"))
        if profile is not None:
            profile.clear()
        regular = self._pass(step, flags.whole("num_runs"), flags.real("min_secs"))
        gc.enable()
        warm, timed = (f"{sum(samples) / len(samples):g}" for samples in (warmup, regular))
        self.say(
            f"Inference timings in us: Init: {init_us}, First inference: {warmup[0]}, Warmup (avg): {warm}, "
            f"Inference (avg): {timed}"
        )
        self.say(
            "Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the "
            "actual memory footprint of the model at runtime. Take the information at your discretion."
        )
        self.say("Memory footprint delta from the start of the tool (MB): init=0 overall=0")
        if profile is not None:
            self._tables(profile.text(csv=self._csv, start=not self._new))

    @property
    def _csv(self) -> bool:
        return self._new and self._flags.text("op_profiling_output_mode") == "csv"

    def _tables(self, text: str) -> None:
        file = self._flags.text("op_profiling_output_file") if self._new else ""
        if file:
            Path(file).write_text(text, encoding="utf-8")
        else:
            self._out.write(f"{self._prefix}{text}")

    def _pass(self, step: Callable[[], float], runs: int, seconds: float) -> list[int]:
        longest = self._flags.real("max_secs")
        self.say(
            f"Running benchmark for at least {runs} iterations and at least {seconds:g} seconds but terminate if "
            f"exceeding {longest:g} seconds."
        )
        clock = time.perf_counter_ns
        samples: list[int] = []
        begin = now = clock()
        end, latest = begin + int(seconds * 1e9), begin + int(longest * 1e9)
        while (len(samples) < runs or now < end) and now <= latest and len(samples) < _TOO_LONG:
            samples.append(int(step()))
            now = clock()
        self.say(f"{_stat_line(samples, percentiles=self._new)}\n")
        return samples

    def _load(self, graph: Path) -> TFLiteModel:
        flags = self._flags
        artifact = tflite_artifact(graph)
        file = inspect_tflite(graph)
        self.say(f"Loaded model {graph}")
        for name, flag in (("GPU", "use_gpu"), ("NNAPI", "use_nnapi")):
            if flags.truth(flag):
                self._out.write(f"{self._prefix and 'WARN: '}{name} acceleration is unsupported on this platform.\n")
        xnnpack = flags.truth("use_xnnpack")
        interpreter = build_interpreter(
            graph, file, threads=flags.whole("num_threads"), delegate="xnnpack" if xnnpack else "none"
        )
        if xnnpack:
            self._out.write("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
            parts = delegated_ops(interpreter, file) or []
            taken = sum(len(part) for part in parts)
            left = len(file.ops) - taken
            if taken:
                pieces = len(parts) + (left > 0)
                self._out.write(
                    f"VERBOSE: Replacing {taken} out of {len(file.ops)} node(s) with delegate (TfLiteXNNPackDelegate) "
                    f"node, yielding {pieces} partitions for subgraph 0 (main).\n"
                )
            self.say(_applied(len(parts), left))
        model = TFLiteModel(interpreter, file, {})
        model.feed(seeded_inputs(artifact.model_copy(update={"inputs": file.inputs})))
        return model


def _timed(run: Callable[[], None]) -> Callable[[], float]:
    """A step that tells how long it took, microseconds."""
    clock = time.perf_counter_ns

    def step() -> float:
        start = clock()
        run()
        return (clock() - start) / 1000

    return step


def _applied(kernels: int, left: int) -> str:
    if not kernels:
        return "Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate."
    start = "Explicitly applied XNNPACK delegate, and the model graph will be"
    if kernels == 1 and not left:
        return f"{start} completely executed by the delegate."
    return f"{start} partially executed by the delegate w/ {kernels} delegate kernels."


def main(arguments: Sequence[str], out: TextIO, error: TextIO) -> int:
    """Run the tool.

    Args:
        arguments: Its flags.
        out: Standard output.
        error: Standard error.

    Returns:
        The exit status: 0, or 1 after a refusal.
    """
    out.write(f"STAND-IN for benchmark_model on LiteRT {version_of('ai-edge-litert') or 'unknown'}, no phone\n")
    layout = "old" if os.environ.get("BENCHMARK_MODEL_LAYOUT") == "old" else "new"
    prefix = "INFO: " if layout == "new" else ""
    out.write(f"{prefix}STARTING!\n")
    try:
        flags = parse_flags(arguments, old=layout == "old")
        if flags.truth("help"):
            error.write(usage(old=layout == "old"))
            return 1
        if flags.unknown:
            out.write(f"{prefix and 'WARN: '}Unconsumed cmdline flags: {' '.join(flags.unknown)}\n")
        if not flags.text("graph"):
            raise FlagError("Please specify the name of your TF Lite input file with --graph")
        Tool(flags, layout, out).run()
    except FlagError as refusal:
        error.write(f"ERROR: {refusal}\nERROR: Benchmarking failed.\n")
        return 1
    except InvalidModel as refusal:
        error.write(f"ERROR: Failed to load model {refusal.what}\nERROR: Benchmarking failed.\n")
        return 1
    except KitError as refusal:
        error.write(f"ERROR: {refusal}\nERROR: Benchmarking failed.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout, sys.stderr))
