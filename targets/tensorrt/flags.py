"""Arguments for ``trtexec``, per version: all that can change a latency is said, and nothing a version does not know.

Defaults that moved: workspace (16 MiB in 8.2, all memory later), CUDA graph and spin-wait (off up to 10, on in 11),
data transfers (on up to 10, off in 11), a profiling run of its own (opt-in up to 10, always in 11). Flags that moved:
``--workspace`` is ``--memPoolSize`` from 8.4, ``--buildOnly`` is ``--skipInference`` and ``--streams`` is
``--infStreams`` from 8.6; precision flags are gone in 11, where the ONNX file decides.

Source: NVIDIA/TensorRT, samples/common/sampleOptions.cpp of 8.2, 8.5 and 8.6, its change log, and NVIDIA's guides
"Migrating trtexec Usage" from 8.x to 10.x and from 10.x to 11.x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from targets.errors import UsageError
from targets.records import Precision
from targets.tensorrt.versions import TensorrtVersion

CHOICES: dict[str, tuple[str, ...]] = {
    "cuda_graph": ("off", "on"),
    "spin_wait": ("on", "off"),
    "transfers": ("off", "on"),
    "tf32": ("off", "on"),
    "workspace_mib": ("1024", "256", "512", "2048", "4096"),
}
"""Options by name; the first value is the default."""

WARM_UP_MS = 500
"""Unseen warm-up before the timed part, milliseconds."""

_PRECISIONS = {Precision.FP32: (), Precision.FP16: ("--fp16",), Precision.INT8: ("--int8",)}


@dataclass(frozen=True)
class BuildFlags:
    """What decides an engine.

    Attributes:
        version: Of the tool.
        precision: Numeric type.
        options: A value for every name in :data:`CHOICES`.
    """

    version: TensorrtVersion
    precision: Precision
    options: Mapping[str, str]

    def arguments(self) -> tuple[str, ...]:
        """The flags that shape the engine; no paths, so that they can be part of its key.

        Raises:
            UsageError: If TensorRT has no such precision.
        """
        if self.precision not in _PRECISIONS:
            raise UsageError(
                f"trtexec is not told to compute in {self.precision} by this kit", "Take fp32, fp16 or int8."
            )
        pool = self.options["workspace_mib"]
        flags = ["--device=0", f"--memPoolSize=workspace:{pool}" if self.version >= (8, 4) else f"--workspace={pool}"]
        if self.version < (11, 0):
            flags += _PRECISIONS[self.precision]
        if self.options["tf32"] == "off":
            flags.append("--noTF32")
        if self.version >= (8, 6):
            flags.append("--builderOptimizationLevel=3")
        return (*flags, "--profilingVerbosity=detailed")


def build_arguments(flags: BuildFlags, *, model: str, engine: str, timing_cache: str) -> tuple[str, ...]:
    """Arguments that build an engine and time nothing.

    Args:
        flags: What decides the engine.
        model: ONNX file on the device.
        engine: File to write.
        timing_cache: File that keeps kernel timings between builds, so that a rebuild chooses alike.
    """
    return (
        f"--onnx={model}",
        f"--saveEngine={engine}",
        "--skipInference" if flags.version >= (8, 6) else "--buildOnly",
        *flags.arguments(),
        f"--timingCacheFile={timing_cache}",
    )


def run_arguments(
    flags: BuildFlags, *, engine: str, seconds: float, min_runs: int, exports: Mapping[str, str]
) -> tuple[str, ...]:
    """Arguments that time an engine, one inference at a time.

    Args:
        flags: What decided the engine.
        engine: File to load.
        seconds: Length of the timed part; rounded up to whole seconds, which is what 8.2 reads.
        min_runs: Fewest timed inferences.
        exports: Files to write by kind: ``times``, and for a profile ``profile`` and ``layers``.
    """
    version, options = flags.version, flags.options
    arguments = [
        f"--loadEngine={engine}",
        "--device=0",
        f"--warmUp={WARM_UP_MS}",
        f"--duration={max(1, math.ceil(seconds))}",
        f"--iterations={min_runs}",
        "--avgRuns=100",
        "--percentile=99",
        "--infStreams=1" if version >= (8, 6) else "--streams=1",
        *_switches(version, options),
        f"--exportTimes={exports['times']}",
    ]
    if "profile" in exports:
        arguments += [
            "--profilingVerbosity=detailed",
            f"--exportProfile={exports['profile']}",
            f"--exportLayerInfo={exports['layers']}",
        ]
        if version < (11, 0):
            arguments.append("--separateProfileRun")
    return tuple(arguments)


def _switches(version: TensorrtVersion, options: Mapping[str, str]) -> list[str]:
    """What is on by default up to 10 is off in 11 and the other way round: each version is told where it differs."""
    graph, spin, transfers = (options[name] == "on" for name in ("cuda_graph", "spin_wait", "transfers"))
    if version >= (11, 0):
        wanted = {"--noCudaGraph": not graph, "--noSpinWait": not spin, "--includeDataTransfers": transfers}
    else:
        wanted = {"--useCudaGraph": graph, "--useSpinWait": spin, "--noDataTransfers": not transfers}
    return [flag for flag, on in wanted.items() if on]
