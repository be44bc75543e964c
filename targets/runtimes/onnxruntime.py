"""ONNX Runtime on the CPU, with nothing left to its defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import InvalidModel, UsageError
from targets.extras import version_of
from targets.profiles.timing import Pace
from targets.records import Artifact, OpProfile, Precision, RunSettings
from targets.runtimes.base import Tensors, seeded_inputs
from targets.runtimes.checks import check_artifact, check_inputs, choose, copy_into

CHOICES: dict[str, tuple[str, ...]] = {
    "graph_optimization": ("all", "extended", "basic", "disabled"),
    "spinning": ("on", "off"),
    "denormals_as_zero": ("off", "on"),
}
"""Options by name; the first value is the default."""

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
_PROVIDER = "CPUExecutionProvider"
_CXX_PLACE = re.compile(r"^\S+:\d+ .*?\) (?=[A-Z])")  # source file, line and signature before the message
_FATAL_ONLY = 4  # errors come as exceptions; the log would repeat them on stderr
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def module() -> Any:
    """The ``onnxruntime`` package, imported late because it takes long."""
    import onnxruntime

    return onnxruntime


@dataclass(frozen=True)
class OptionValues:
    """Values of ``SessionOptions`` as plain data, so that a device is told exactly what this host tells itself.

    Attributes:
        values: Plain attributes.
        enums: Attributes whose value is a member of one of the package's enumerations, as (enumeration, member).
        entries: Configuration entries.
    """

    values: dict[str, int | bool]
    enums: dict[str, tuple[str, str]]
    entries: dict[str, str]


def option_values(settings: RunSettings) -> OptionValues:
    """Every setting that can change a latency, made explicit.

    Args:
        settings: Precision, threads and the options of :data:`CHOICES`.

    Raises:
        UsageError: If a setting is not possible on ONNX Runtime.
    """
    if settings.precision is not Precision.FP32:
        raise UsageError(
            f"onnxruntime's CPU provider cannot be told to compute in {settings.precision}",
            "Use precision fp32, or openvino for bf16 on a processor that has it.",
        )
    chosen = choose(settings, CHOICES)
    return OptionValues(
        values={
            "intra_op_num_threads": settings.threads,
            "inter_op_num_threads": 1,
            "enable_cpu_mem_arena": True,
            "enable_mem_pattern": True,
            "log_severity_level": _FATAL_ONLY,
        },
        enums={
            "execution_mode": ("ExecutionMode", "ORT_SEQUENTIAL"),
            "graph_optimization_level": ("GraphOptimizationLevel", _LEVELS[chosen["graph_optimization"]]),
        },
        entries={
            "session.intra_op.allow_spinning": "1" if chosen["spinning"] == "on" else "0",
            "session.inter_op.allow_spinning": "0",
            "session.set_denormal_as_zero": "1" if chosen["denormals_as_zero"] == "on" else "0",
            "mlas.enable_gemm_fastmath_arm64_bfloat16": "0",
        },
    )


def session_options(settings: RunSettings) -> Any:
    """``SessionOptions`` of :func:`option_values` (arguments and errors as there)."""
    ort, chosen = module(), option_values(settings)
    options = ort.SessionOptions()
    for name, value in chosen.values.items():
        setattr(options, name, value)
    for name, (kind, member) in chosen.enums.items():
        setattr(options, name, getattr(getattr(ort, kind), member))
    for key, entry in chosen.entries.items():
        options.add_session_config_entry(key, entry)
    return options


def open_session(model: Path | bytes, options: Any) -> Any:
    """Load and optimise a model on the CPU provider.

    Args:
        model: File, or the serialised model.
        options: From :func:`session_options`.

    Returns:
        An ``InferenceSession``.

    Raises:
        InvalidModel: If ONNX Runtime refuses it, with its own words (they name the node).
    """
    ort = module()
    name = model.name if isinstance(model, Path) else "the model"
    try:
        return ort.InferenceSession(str(model) if isinstance(model, Path) else model, options, providers=[_PROVIDER])
    except refusals() as error:
        raise InvalidModel(
            f"onnxruntime refuses {name}: {_reason(error)}", "Export the model again, or use another runtime."
        ) from error


def refusals() -> tuple[type[Exception], ...]:
    """Everything ONNX Runtime raises by itself (its errors have no base class of their own)."""
    state = module().capi.onnxruntime_pybind11_state
    found = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*found, RuntimeError, ValueError)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).removeprefix("[ONNXRuntimeError] : ")
    text = _CXX_PLACE.sub("", text.rpartition(" failed:")[2])
    return text[:400].rstrip(" .") or type(error).__name__


class OnnxLoaded:
    """An ONNX Runtime session with inputs and outputs bound to arrays of our own.

    Args:
        session: The session.
        tensors: Inputs by name; kept alive and written in place by :meth:`feed`.

    Raises:
        InvalidModel: If an output has no static shape or an element type numpy lacks.
    """

    def __init__(self, session: Any, tensors: Tensors) -> None:
        self._session = session
        self._inputs = tensors
        self._outputs: list[NDArray[Any]] = []
        self._binding = session.io_binding()
        for name, array in tensors.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for value in session.get_outputs():
            array = _empty_for(value)
            self._outputs.append(array)
            self._binding.bind_output(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self.actual: dict[str, str] = _actual(session)

    def run(self) -> None:
        """Run one inference on the bound inputs."""
        self._session.run_with_iobinding(self._binding)

    def feed(self, tensors: Tensors) -> None:
        """Overwrite the bound inputs.

        Raises:
            UsageError: If a name, shape or element type differs.
        """
        copy_into(self._inputs, tensors)

    def outputs(self) -> list[NDArray[Any]]:
        """Copies of the outputs of the last inference."""
        return [array.copy() for array in self._outputs]


def _empty_for(value: Any) -> NDArray[Any]:
    if value.type not in _DTYPES:
        raise InvalidModel(f"output {value.name!r} is a {value.type}, which cannot be preallocated")
    if not all(isinstance(extent, int) for extent in value.shape):
        raise InvalidModel(
            f"output {value.name!r} has no static shape: {value.shape}", "Fix the input shapes before measuring."
        )
    return np.empty(value.shape, np.dtype(_DTYPES[value.type]))


def _actual(session: Any) -> dict[str, str]:
    """What the session itself says it runs with."""
    options = session.get_session_options()
    element_types = sorted({_DTYPES.get(v.type, v.type) for v in [*session.get_inputs(), *session.get_outputs()]})
    return {
        "precision": "as stored in the model",
        "element_types": ",".join(element_types),
        "provider": ",".join(session.get_providers()),
        "threads": str(options.intra_op_num_threads),
        "inter_op_threads": str(options.inter_op_num_threads),
        "streams": "1",
        "execution_mode": options.execution_mode.name,
        "graph_optimization": options.graph_optimization_level.name,
        "spinning": options.get_session_config_entry("session.intra_op.allow_spinning"),
        "denormals_as_zero": options.get_session_config_entry("session.set_denormal_as_zero"),
        "memory_arena": str(options.enable_cpu_mem_arena),
        "memory_pattern": str(options.enable_mem_pattern),
    }


def bound(session: Any, artifact: Artifact) -> OnnxLoaded:
    """Bind a session to the artifact's seeded inputs and to preallocated outputs.

    Raises:
        InvalidModel: If the file's inputs are not those of the record.
    """
    check_inputs(artifact, {value.name: tuple(value.shape) for value in session.get_inputs()})
    return OnnxLoaded(session, seeded_inputs(artifact))


class OnnxRuntime:
    """ONNX Runtime's CPU provider; the base runtime, always installed."""

    name: str = "onnxruntime"
    extra: str = ""
    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[Precision, ...] = (Precision.FP32,)

    def versions(self) -> dict[str, str]:
        """Version of the ``onnxruntime`` package.

        Raises:
            MissingExtra: If it cannot be imported.
        """
        return {"onnxruntime": version_of("onnxruntime") or str(module().__version__)}

    def load(self, artifact: Artifact, settings: RunSettings) -> OnnxLoaded:
        """Load, optimise and bind; see :meth:`targets.runtimes.base.Runtime.load`.

        Raises:
            InvalidModel: If the file is missing, refused, or not what its record says.
            UsageError: If a setting is not possible.
        """
        path = check_artifact(artifact, self.formats, self.name)
        return bound(open_session(path, session_options(settings)), artifact)

    def profile(
        self, artifact: Artifact, settings: RunSettings, *, seconds: float, pace: Pace | None = None
    ) -> OpProfile:
        """Per-op times; see :func:`targets.profiles.onnxruntime_measure.profile_onnxruntime`.

        Raises:
            InvalidModel: If the file is refused.
            UsageError: If a setting is not possible.
            UnknownLayout: If the profile has a layout the parser does not know.
        """
        from targets.profiles.onnxruntime_measure import profile_onnxruntime  # loading for timing needs no profiler

        path = check_artifact(artifact, self.formats, self.name)
        return profile_onnxruntime(path, artifact, settings, seconds=seconds, pace=pace)
