"""OpenVINO on the CPU, with nothing left to its defaults (its default precision is bf16 where the CPU has it)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from targets.errors import InvalidModel, UsageError
from targets.extras import require, version_of
from targets.profiles.timing import Pace
from targets.records import Artifact, OpProfile, Precision, RunSettings
from targets.runtimes.base import Tensors, seeded_inputs
from targets.runtimes.checks import check_artifact, check_inputs, choose, copy_into

CHOICES: dict[str, tuple[str, ...]] = {
    "cpu_pinning": ("off", "on"),
    "denormals_as_zero": ("off", "on"),
}
"""Options by name; the first value is the default."""

DEVICE = "CPU"
_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}
_TELEMETRY = "openvino_telemetry"
SHOWN = {
    "precision": "INFERENCE_PRECISION_HINT",
    "threads": "INFERENCE_NUM_THREADS",
    "streams": "NUM_STREAMS",
    "execution_devices": "EXECUTION_DEVICES",
    "performance_hint": "PERFORMANCE_HINT",
    "execution_mode": "EXECUTION_MODE_HINT",
    "cpu_pinning": "ENABLE_CPU_PINNING",
    "hyper_threading": "ENABLE_HYPER_THREADING",
    "denormals_as_zero": "CPU_DENORMALS_OPTIMIZATION",
    "dynamic_quantization_group": "DYNAMIC_QUANTIZATION_GROUP_SIZE",
}
"""Properties of a compiled model that go into every record, by our name."""


def module() -> Any:
    """The ``openvino`` package, imported without its telemetry.

    Importing it as it comes sends an event over the network and writes a client id into the home
    directory. Its tools fall back to an inert stub where the telemetry package cannot be imported.

    Raises:
        MissingExtra: If it is not installed.
    """
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return require("openvino", "openvino")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        return require("openvino", "openvino")
    finally:
        del sys.modules[_TELEMETRY]


def properties(settings: RunSettings, core: Any) -> dict[str, str]:
    """Compile properties with every setting that can change a latency made explicit.

    Args:
        settings: Precision, threads and the options of :data:`CHOICES`.
        core: OpenVINO ``Core``, asked for what this processor can do.

    Raises:
        UsageError: If a setting is not possible on this processor.
    """
    able = [str(item) for item in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")]
    if settings.precision is not Precision.FP32 and settings.precision.value.upper() not in able:
        raise UsageError(
            f"this processor cannot compute in {settings.precision} with openvino (it has {', '.join(able)})",
            "Use precision fp32.",
        )
    return property_values(settings)


def property_values(settings: RunSettings) -> dict[str, str]:
    """The same, without asking the processor whether it can: for a device that is asked there.

    Raises:
        UsageError: If an option is unknown.
    """
    chosen = choose(settings, CHOICES)
    if settings.precision not in _HINTS:
        raise UsageError(
            f"openvino cannot be told to compute in {settings.precision}; int8 comes from the model",
            "Use precision fp32.",
        )
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "EXECUTION_MODE_HINT": "PERFORMANCE",
        "INFERENCE_PRECISION_HINT": _HINTS[settings.precision],
        "INFERENCE_NUM_THREADS": str(settings.threads),
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "YES" if chosen["cpu_pinning"] == "on" else "NO",
        "ENABLE_HYPER_THREADING": "YES",
        "SCHEDULING_CORE_TYPE": "ANY_CORE",
        "CPU_DENORMALS_OPTIMIZATION": "YES" if chosen["denormals_as_zero"] == "on" else "NO",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "PERF_COUNT": "NO",
        "CACHE_DIR": "",
        "LOG_LEVEL": "LOG_NONE",
    }


def read(core: Any, path: Path) -> Any:
    """Read an ONNX file into an ``openvino.Model``.

    The ONNX checker goes first: OpenVINO ends the whole process on a node with too few inputs, and
    tries its other front ends on a file that is no ONNX.

    Raises:
        InvalidModel: If the file is no valid ONNX, or holds an op OpenVINO has no rule for (named).
    """
    check_onnx(path)
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        raise _refused(path, error) from error


def check_onnx(path: Path) -> None:
    """Run the ONNX checker.

    Raises:
        InvalidModel: If the file is no valid ONNX.
    """
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, DecodeError, ValueError, RuntimeError) as error:
        raise InvalidModel(f"{path.name} is no valid ONNX file: {_reason(error)}", "Export it again.") from error


def compiled(core: Any, model: Any, path: Path, config: dict[str, str]) -> Any:
    """Compile a model for the CPU.

    Raises:
        InvalidModel: If OpenVINO refuses it.
    """
    try:
        return core.compile_model(model, DEVICE, config)
    except RuntimeError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: RuntimeError) -> InvalidModel:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    boilerplate = ("Exception from", "Check '", "FrontEnd API", "Model wasn't fully", "Summary:")
    told = [line.lstrip("- ") for line in lines if not line.startswith(boilerplate)] or lines[-1:]
    return InvalidModel(
        f"openvino refuses {path.name}: {'; '.join(told)[:400]}", "Replace that operation, or use onnxruntime."
    )


def _reason(error: Exception) -> str:
    lines = [line.strip().removeprefix("==> Context: ") for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines)[:300].rstrip(" .") or type(error).__name__


class OpenVINOLoaded:
    """One infer request on tensors of our own.

    Args:
        openvino: The package.
        compiled_model: What was compiled.
        tensors: Inputs by name; kept alive and written in place by :meth:`feed`.
        device_name: Full name of the processor as OpenVINO tells it.

    Raises:
        InvalidModel: If an output has no static shape.
    """

    def __init__(self, openvino: Any, compiled_model: Any, tensors: Tensors, device_name: str) -> None:
        self.request = compiled_model.create_infer_request()
        self._inputs = tensors
        self._outputs: list[NDArray[Any]] = []
        for name, array in tensors.items():
            self.request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        for index, port in enumerate(compiled_model.outputs):
            if port.partial_shape.is_dynamic:
                raise InvalidModel(f"output {index} has no static shape: {port.partial_shape}")
            array = np.empty(tuple(port.shape), port.element_type.to_dtype())
            self._outputs.append(array)
            self.request.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))
        self.actual: dict[str, str] = _actual(compiled_model, device_name)

    def run(self) -> None:
        """Run one inference on the bound inputs; outputs are handed over as views, not copied."""
        self.request.infer(share_outputs=True)

    def feed(self, tensors: Tensors) -> None:
        """Overwrite the bound inputs.

        Raises:
            UsageError: If a name, shape or element type differs.
        """
        copy_into(self._inputs, tensors)

    def outputs(self) -> list[NDArray[Any]]:
        """Copies of the outputs of the last inference."""
        return [array.copy() for array in self._outputs]


def _actual(compiled_model: Any, device_name: str) -> dict[str, str]:
    """What the compiled model itself says it runs with."""
    actual = {key: _text(compiled_model.get_property(name)) for key, name in SHOWN.items()}
    return {**actual, "executed_precisions": _executed_precisions(compiled_model), "device": device_name}


def _executed_precisions(compiled_model: Any) -> str:
    infos = [node.get_rt_info() for node in compiled_model.get_runtime_model().get_ordered_ops()]
    told = [info for info in infos if "runtimePrecision" in info]
    return most_frequent_types((_text(info["layerType"]), _text(info["runtimePrecision"])) for info in told)


def most_frequent_types(nodes: Iterable[tuple[str, str]]) -> str:
    """Types that executed nodes compute in, most frequent first.

    Args:
        nodes: Layer type and precision of each.
    """
    counts: dict[str, int] = {}
    for layer_type, precision in nodes:
        if layer_type not in {"Const", "Input", "Output"}:
            counts[precision] = counts.get(precision, 0) + 1
    return ",".join(sorted(counts, key=lambda key: -counts[key]))


def _text(value: Any) -> str:
    if hasattr(value, "to_string"):
        return str(value.to_string())
    if hasattr(value, "astype"):
        return str(value.astype(str))
    return ",".join(map(str, value)) if isinstance(value, list) else str(getattr(value, "name", value))


def bound(openvino: Any, core: Any, compiled_model: Any, artifact: Artifact) -> OpenVINOLoaded:
    """Bind a compiled model to the artifact's seeded inputs and to outputs of our own.

    Raises:
        InvalidModel: If the file's inputs are not those of the record.
    """
    found = {port.any_name: tuple(port.shape) if port.partial_shape.is_static else () for port in compiled_model.inputs}
    check_inputs(artifact, found)
    device_name = str(core.get_property(DEVICE, "FULL_DEVICE_NAME"))
    return OpenVINOLoaded(openvino, compiled_model, seeded_inputs(artifact), device_name)


class OpenVINORuntime:
    """OpenVINO's CPU plugin."""

    name: str = "openvino"
    extra: str = "openvino"
    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.BF16, Precision.FP16)

    def versions(self) -> dict[str, str]:
        """Version of OpenVINO, with its build.

        Raises:
            MissingExtra: If it is not installed.
        """
        return {"openvino": version_of("openvino") or "", "openvino_build": str(module().get_version())}

    def load(self, artifact: Artifact, settings: RunSettings) -> OpenVINOLoaded:
        """Read, compile and bind; see :meth:`targets.runtimes.base.Runtime.load`.

        Raises:
            InvalidModel: If the file is missing, refused, or not what its record says.
            UsageError: If a setting is not possible, or the compiled model took another precision.
        """
        path = check_artifact(artifact, self.formats, self.name)
        openvino = module()
        core = openvino.Core()
        config = properties(settings, core)
        loaded = bound(openvino, core, compiled(core, read(core, path), path, config), artifact)
        if loaded.actual["precision"] != config["INFERENCE_PRECISION_HINT"]:
            raise UsageError(
                f"openvino was told {settings.precision} and computes in {loaded.actual['precision']}",
                "Use precision fp32.",
            )
        return loaded

    def profile(
        self, artifact: Artifact, settings: RunSettings, *, seconds: float, pace: Pace | None = None
    ) -> OpProfile:
        """Per-op times; see :func:`targets.profiles.openvino_measure.profile_openvino`.

        Raises:
            InvalidModel: If the file is refused.
            UsageError: If a setting is not possible.
            UnknownLayout: If the counters have a layout the reader does not know.
        """
        from targets.profiles.openvino_measure import profile_openvino  # loading for timing needs no profiler

        path = check_artifact(artifact, self.formats, self.name)
        return profile_openvino(path, artifact, settings, seconds=seconds, pace=pace)
