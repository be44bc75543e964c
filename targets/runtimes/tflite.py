"""TFLite on a CPU: ``ai-edge-litert``, or ``tflite-runtime`` where a device has only that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from targets.errors import InvalidModel, MissingExtra, UsageError
from targets.extras import DISTRIBUTION, installed, require, version_of
from targets.profiles.timing import Pace
from targets.records import Artifact, OpProfile, Precision, RunSettings
from targets.runtimes.base import Tensors, seeded_inputs
from targets.runtimes.checks import check_artifact, choose
from targets.runtimes.native_output import captured_stderr
from targets.tflite_files import TfliteFile, inspect_tflite

Delegate = Literal["xnnpack", "none"]

#: Options and their values, the default first.
DELEGATES = {"delegate": ("xnnpack", "none")}

#: Interpreter modules by distribution, the preferred one first.
INTERPRETERS = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}


class TFLiteModel:
    """An allocated interpreter with its inputs set.

    Args:
        interpreter: An ``Interpreter`` after ``allocate_tensors``.
        file: What the file declares.
        actual: What the interpreter runs with.

    Attributes:
        actual: Delegate, how many operators it took, threads and precision.
        interpreter: The native interpreter.
        file: What the file declares.
    """

    def __init__(self, interpreter: Any, file: TfliteFile, actual: dict[str, str]) -> None:
        self.interpreter = interpreter
        self.file = file
        self.actual = actual
        self._invoke = interpreter.invoke

    def run(self) -> None:
        """Run one inference on the bound inputs."""
        self._invoke()

    def feed(self, tensors: Tensors) -> None:
        """Replace bound inputs.

        Args:
            tensors: Arrays by input name, with the shapes and types of the file.

        Raises:
            UsageError: If a name is unknown, or a shape or type differs.
        """
        specs = {
            spec.name: (spec, index) for spec, index in zip(self.file.inputs, self.file.input_tensors, strict=True)
        }
        for name, array in tensors.items():
            if name not in specs:
                raise UsageError(f"the model has no input {name!r}", f"Its inputs are: {', '.join(specs)}.")
            spec, index = specs[name]
            if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype):
                raise UsageError(
                    f"input {name!r} is {array.dtype} {list(array.shape)}; "
                    f"the model takes {spec.dtype} {list(spec.shape)}",
                    "Resize, transpose or cast the array.",
                )
            self.interpreter.set_tensor(index, np.ascontiguousarray(array))

    def outputs(self) -> list[NDArray[Any]]:
        """Outputs of the last inference, copied, in the file's order."""
        return [self.interpreter.get_tensor(index) for index in self.file.output_tensors]


class TFLiteRuntime:
    """The TFLite interpreter on this host's CPU.

    Option ``delegate`` is ``xnnpack`` (set where absent) or ``none`` (the builtin kernels).
    """

    name = "tflite"
    extra = "tflite"
    formats = ("tflite",)
    precisions = (Precision.FP32,)

    def versions(self) -> dict[str, str]:
        """Version of the interpreter package that is used.

        Raises:
            MissingExtra: If neither package is installed.
        """
        distribution = interpreter_distribution()
        return {distribution: version_of(distribution) or "unknown"}

    def load(self, artifact: Artifact, settings: RunSettings) -> TFLiteModel:
        """Check the file, build the interpreter with explicit threads and delegate, and set seeded inputs.

        Raises:
            InvalidModel: If the file is damaged, holds an operator nobody knows, or is refused.
            UsageError: If a setting is not possible here.
            MissingExtra: If no interpreter is installed.
        """
        delegate = checked_delegate(settings)
        path = check_artifact(artifact, self.formats, self.name)
        file = inspect_tflite(path)
        interpreter = build_interpreter(path, file, threads=settings.threads, delegate=delegate)
        model = TFLiteModel(interpreter, file, describe(interpreter, file, settings.threads, delegate))
        model.feed(seeded_inputs(artifact.model_copy(update={"inputs": file.inputs})))
        return model

    def profile(
        self, artifact: Artifact, settings: RunSettings, *, seconds: float, pace: Pace | None = None
    ) -> OpProfile:
        """Per-op times through LiteRT's profiler; see :func:`targets.profiles.litert.profile_tflite`.

        Raises:
            UnknownLayout: If the installed LiteRT is another version, or its events do not make sense.
            MissingExtra: If only ``tflite-runtime`` is installed, or nothing.
            InvalidModel: As :meth:`load`.
            UsageError: As :meth:`load`.
        """
        from targets.profiles.litert import profile_tflite
        from targets.profiles.litert_api import check_version

        check_version()
        return profile_tflite(self.load(artifact, settings), artifact, settings, seconds=seconds, pace=pace)


def interpreter_distribution() -> str:
    """Distribution whose interpreter is used on this host.

    Raises:
        MissingExtra: If there is none.
    """
    for distribution, module in INTERPRETERS.items():
        if installed(module):
            return distribution
    raise MissingExtra("no TFLite interpreter is installed", f"Install it with: pip install '{DISTRIBUTION}[tflite]'")


def checked_delegate(settings: RunSettings) -> Delegate:
    """Check precision and options, and tell the delegate asked for.

    Raises:
        UsageError: If the precision is not fp32 or an option is unknown.
    """
    if settings.precision is not Precision.FP32:
        raise UsageError(
            f"tflite on a CPU runs {settings.precision.value} only where the file itself holds it; "
            "the Python interpreter has no switch for it",
            "Use --precision fp32, or convert the model to the other type.",
        )
    return "xnnpack" if choose(settings, DELEGATES)["delegate"] == "xnnpack" else "none"


def build_interpreter(path: Path, file: TfliteFile, *, threads: int, delegate: Delegate) -> Any:
    """Build and allocate an interpreter on a file that passed :func:`inspect_tflite`.

    Args:
        path: The file.
        file: What it declares.
        threads: Threads of the interpreter and of the delegate.
        delegate: ``xnnpack``, or ``none`` for the builtin kernels.

    Returns:
        The native ``Interpreter``.

    Raises:
        InvalidModel: If the interpreter refuses the file; the operator is named where it is to blame.
        MissingExtra: If no interpreter is installed.
    """
    module = require(f"{INTERPRETERS[interpreter_distribution()]}.interpreter", "tflite")
    kinds = module.OpResolverType
    resolver = kinds.AUTO if delegate == "xnnpack" else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with captured_stderr() as printed:
        try:
            interpreter = module.Interpreter(
                model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
            )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or printed.error_line()
            raise _refused(path, file, reason) from error
    return interpreter


def delegated_ops(interpreter: Any, file: TfliteFile) -> list[tuple[int, ...]] | None:
    """Which operators each delegate partition replaced.

    A delegate node names the tensors it reads and writes; the operators between those are the ones it took.

    Args:
        interpreter: An allocated interpreter.
        file: What its file declares.

    Returns:
        Node indices of each partition in execution order (none: no delegate), or ``None`` where this version of
        the interpreter does not tell.
    """
    listing = getattr(interpreter, "_get_ops_details", None)
    if listing is None:
        return None
    maker = {tensor: op for op in file.ops for tensor in op.outputs}
    partitions = []
    for node in listing():
        if node["index"] < len(file.ops):
            continue
        known = {int(tensor) for tensor in node["inputs"]}
        pending = [int(tensor) for tensor in node["outputs"]]
        taken: set[int] = set()
        while pending:
            tensor = pending.pop()
            op = maker.get(tensor)
            if tensor in known or op is None or op.index in taken:
                continue
            taken.add(op.index)
            pending.extend(op.inputs)
        partitions.append(tuple(sorted(taken)))
    return partitions


def describe(interpreter: Any, file: TfliteFile, threads: int, delegate: Delegate) -> dict[str, str]:
    """Say what the interpreter runs with.

    Args:
        interpreter: An allocated interpreter.
        file: What its file declares.
        threads: Threads it was built with.
        delegate: Delegate that was asked for.

    Returns:
        ``threads_set`` (as set, not read back), ``precision`` (the types the operators write), ``delegate``,
        ``delegated_ops`` (``"91 of 92 in 2 partitions"``) and, where some stay behind, ``builtin_ops``.
    """
    # Integers and booleans beside floats are shapes and indices, not the arithmetic.
    types = {file.tensors[tensor].dtype for op in file.ops for tensor in op.outputs}
    types = types - {"int32", "int64", "bool"} or types
    names = {"float32": Precision.FP32.value, "float16": Precision.FP16.value}
    actual = {
        "threads_set": str(threads),  # the interpreter has no way to ask it for them
        "precision": "+".join(sorted(names.get(dtype, dtype) for dtype in types)) or "none",
        "delegate": delegate,
    }
    partitions = delegated_ops(interpreter, file)
    if partitions is None:
        return {**actual, "delegated_ops": "not told by this interpreter"}
    taken = {index for partition in partitions for index in partition}
    plural = "" if len(partitions) == 1 else "s"
    actual["delegated_ops"] = f"{len(taken)} of {len(file.ops)} in {len(partitions)} partition{plural}"
    if delegate == "xnnpack" and not taken:
        actual["delegate"] = "none (xnnpack took no operator)"
    left = dict.fromkeys(op.op_type for op in file.ops if op.index not in taken)
    if taken and left:
        actual["builtin_ops"] = ", ".join(left)
    return actual


def _refused(path: Path, file: TfliteFile, reason: str) -> InvalidModel:
    named = [name for name in file.custom_ops if name in reason]
    if named:
        return InvalidModel(
            f"{path} needs the custom operator {named[0]!r}, which this TFLite runtime does not have",
            "Export the model with builtin operators only.",
        )
    if "Flex" in reason or "Select TensorFlow op" in reason:
        flex = [name for name in file.custom_ops if name.startswith("Flex")] or ["Flex"]
        return InvalidModel(
            f"{path} needs the TensorFlow operator {flex[0]!r}, which no TFLite runtime has without TensorFlow",
            "Export the model with builtin operators only.",
        )
    return InvalidModel(f"TFLite refuses {path}: {reason}", "Convert the model again with the installed version.")
