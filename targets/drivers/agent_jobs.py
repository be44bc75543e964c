"""What the agent is told for each runtime: the very values that this host's own sessions use, as plain data."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from targets.errors import UsageError
from targets.jobs import Job
from targets.profiles import onnxruntime_measure, openvino_measure
from targets.profiles.calibration import CHAIN, chain_model
from targets.profiles.timing import ENOUGH_UNDISTURBED
from targets.records import Precision, RunSettings, TensorSpec
from targets.runtimes.onnxruntime import OptionValues, option_values
from targets.runtimes.openvino import SHOWN, property_values
from targets.runtimes.tflite import checked_delegate
from targets.tflite_files import TfliteFile

_CPU = "CPUExecutionProvider"
# TF32 would compute fp32 with ten bits of mantissa; the other values are ONNX Runtime's defaults, said aloud.
_CUDA = {
    "device_id": "0",
    "use_tf32": "0",
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "do_copy_in_default_stream": "1",
    "cudnn_conv_use_max_workspace": "1",
    "enable_cuda_graph": "0",
    "prefer_nhwc": "0",
}


def staged_name(job: Job) -> str:
    """Name of the model in a session's folder on the device.

    Outside data lies beside it under names that the model chooses: the folder keeps those away from the agent's own
    files, and a model cannot name its own hash.
    """
    return f"model/{job.artifact.sha256[:32]}.{job.artifact.format}"


def onnxruntime_job(job: Job) -> dict[str, Any]:
    """A ``time`` job for ONNX Runtime.

    Raises:
        UsageError: If a setting is not possible.
    """
    return {
        "config": _options(option_values(job.settings)),
        "providers": _providers(job.settings),
        "inputs": _specs(job.artifact.inputs),
    }


def onnxruntime_profile(job: Job, sizes: Sequence[int], events: int) -> dict[str, Any]:
    """A ``profile`` job for ONNX Runtime: the model and, where sizes are known, the two calibration models.

    Args:
        job: What was asked for.
        sizes: From :func:`targets.profiles.onnxruntime_measure.typical_sizes`; none for the run that finds them.
        events: Profiler's events of one inference.
    """
    measure = onnxruntime_measure
    chain = _options(option_values(measure.unfused(job.settings)))
    inputs = _specs(measure.calibration_inputs(sizes))
    parts: list[dict[str, Any]] = [
        {"name": "model", "inputs": _specs(job.artifact.inputs), "config": _options(option_values(job.settings))}
    ]
    for length in (1, CHAIN) if sizes else ():
        model = base64.b64encode(chain_model(length, sizes)).decode()
        parts.append({"name": f"chain{length}", "model": model, "inputs": inputs, "config": chain})
    return {
        "parts": parts,
        "providers": _providers(job.settings),
        "warmup_runs": measure.WARMUP_RUNS,
        "burst_seconds": measure.BURST_SECONDS,
        "fewest_runs": measure.FEWEST_RUNS if sizes else 1,
        "most_runs": max(measure.FEWEST_RUNS, measure.MOST_EVENTS // max(1, events)) if sizes else 1,
        "patience": measure.PATIENCE,
        "enough_undisturbed": ENOUGH_UNDISTURBED,
    }


def openvino_job(job: Job) -> dict[str, Any]:
    """A ``time`` or ``profile`` job for OpenVINO.

    Raises:
        UsageError: If a setting is not possible.
    """
    _cpu_only(job.settings)
    measure = openvino_measure
    precision = job.settings.precision
    return {
        "config": property_values(job.settings),
        "capability": None if precision is Precision.FP32 else precision.value.upper(),
        "shown": SHOWN,
        "inputs": _specs(job.artifact.inputs),
        "warmup_runs": measure.WARMUP_RUNS,
        "burst_seconds": measure.BURST_SECONDS,
        "fewest_runs": measure.FEWEST_RUNS,
        "enough_runs": measure.ENOUGH_RUNS,
        "patience": measure.PATIENCE,
        "chunks": measure.CHUNKS,
        "enough_undisturbed": ENOUGH_UNDISTURBED,
    }


def tflite_job(job: Job, file: TfliteFile) -> dict[str, Any]:
    """A ``time`` job for TFLite.

    Raises:
        UsageError: If a setting is not possible.
    """
    _cpu_only(job.settings)
    specs = _specs(file.inputs)
    for spec, tensor in zip(specs, file.input_tensors, strict=True):
        spec["index"] = tensor
    return {"delegate": checked_delegate(job.settings), "threads": job.settings.threads, "inputs": specs}


def _cpu_only(settings: RunSettings) -> None:
    if settings.accelerator != "cpu":
        raise UsageError(
            f"{settings.runtime} over ssh runs on the CPU, not on the {settings.accelerator}",
            "Set accelerator = 'cpu', or take onnxruntime or tensorrt for an NVIDIA GPU.",
        )


def _providers(settings: RunSettings) -> list[Any]:
    if settings.accelerator == "cpu":
        return [_CPU]
    if settings.accelerator == "gpu":
        return [["CUDAExecutionProvider", _CUDA], _CPU]
    raise UsageError("onnxruntime is run on a CPU or an NVIDIA GPU by this kit", "Set accelerator to 'cpu' or 'gpu'.")


def _options(values: OptionValues) -> dict[str, Mapping[str, Any]]:
    return {"values": values.values, "enums": values.enums, "entries": values.entries}


def _specs(inputs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in inputs]
