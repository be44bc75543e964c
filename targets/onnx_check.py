"""The ONNX checker and shape inference on an untrusted file, in a process of its own.

They are native code: a crash, endless work or a memory bomb there must not take the command line down.
Run as ``python -m targets.onnx_check``; request and answer are JSON on the standard streams,
the answer on the last line.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError

import targets
from targets.errors import FailureKind, InvalidModel, SessionFailed, printable
from targets.onnx_external import bytes_needed, embed_external
from targets.onnx_shapes import apply_shapes, dtype_name, leaves_open
from targets.records import TensorSpec
from targets.transports.local import LocalTransport

TIMEOUT_S = 120.0
_MEMORY_BYTES = 12 * 2**30
_LARGE_BYTES = 2**16
_EMBED_BYTES = 2**28
_REFUSALS = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    DecodeError,
    EncodeError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def checked_outputs(
    path: Path, inputs: Sequence[TensorSpec], *, timeout_s: float = TIMEOUT_S
) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """Check a model and infer its outputs for static inputs, in a fresh process.

    Args:
        path: The model; references to outside data were checked before.
        inputs: Every input with its static shape.
        timeout_s: Deadline.

    Returns:
        The outputs with static shapes, and the names of those whose shape depends on the data.

    Raises:
        InvalidModel: If the checker or the inference refuses the model, crashes on it, or takes too long.
    """
    request = json.dumps({"path": str(path.absolute()), "inputs": [spec.model_dump() for spec in inputs]})
    root = str(Path(targets.__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH", "")
    env = {"PYTHONPATH": os.pathsep.join([root, known]) if known else root}
    with LocalTransport() as here:
        try:
            done = here.run(
                [sys.executable, "-P", "-m", "targets.onnx_check"],
                input_bytes=request.encode(),
                timeout_s=timeout_s,
                env=env,
            )
        except SessionFailed as error:
            if error.kind is not FailureKind.TIMEOUT:
                raise
            raise InvalidModel(f"{path}: checking it takes longer than {timeout_s:g} s", "Export it again.") from error
    if done.returncode != 0:
        raise InvalidModel(f"{path}: the ONNX checker {_how_it_died(done.returncode, done.stderr)}", "Export it again.")
    answer = _last_line(path, done.stdout)
    if "refused" in answer:
        raise InvalidModel(f"{path}: {answer['refused']}", answer["fix"])
    return tuple(TensorSpec.model_validate(spec) for spec in answer["outputs"]), tuple(answer["dynamic"])


def _last_line(path: Path, stdout: bytes) -> dict[str, Any]:
    lines = stdout.decode(errors="replace").strip().splitlines()
    try:
        answer = json.loads(lines[-1] if lines else "")
    except ValueError as error:
        said = f"'{printable(lines[-1])}' in place of an answer" if lines else "nothing"
        raise InvalidModel(f"{path}: the ONNX checker printed {said}", "Export it again.") from error
    if not isinstance(answer, dict) or not {"refused", "outputs"} & answer.keys():
        raise InvalidModel(f"{path}: the ONNX checker gave an answer of another form", "Export it again.")
    return answer


def _how_it_died(returncode: int, stderr: bytes) -> str:
    if returncode < 0:
        known = {s.value for s in signal.Signals}
        return f"crashed on it ({signal.Signals(-returncode).name if -returncode in known else returncode})"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return f"failed on it: {printable(lines[-1]) if lines else f'status {returncode}'}"


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    path, inputs = Path(request["path"]), [TensorSpec.model_validate(spec) for spec in request["inputs"]]
    model = onnx.load(str(path), load_external_data=False)
    try:
        _leave_weights_out(path, model)
    except InvalidModel as error:
        return {"refused": error.what.removeprefix(f"{path}: "), "fix": error.fix}
    # What operations outside the standard put out is only known from the file, and only for the file's own shapes.
    declared = {} if leaves_open(model.graph, inputs) else {value.name: value.type for value in model.graph.output}
    fallback = {name: onnx.TypeProto.FromString(kind.SerializeToString()) for name, kind in declared.items()}
    apply_shapes(model.graph, inputs)
    try:
        _check(model)
    except _REFUSALS as error:
        return {"refused": f"the ONNX checker refuses it: {_one_line(error)}", "fix": "Export the model again."}
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except _REFUSALS as error:
        shapes = ", ".join(f"{printable(s.name)}={'x'.join(map(str, s.shape))}" for s in inputs)
        return {
            "refused": f"its operations do not fit together at {shapes}: {_one_line(error)}",
            "fix": "Give sizes the network can take.",
        }
    return _outputs(model.graph, fallback)


def _leave_weights_out(path: Path, model: onnx.ModelProto) -> None:
    """Turn large weights into inputs, which check and infer just as well; read small ones, which may be shapes."""
    graph = model.graph
    kept, given = [], {value.name for value in graph.input}
    for tensor in graph.initializer:
        needed, stored = bytes_needed(tensor), len(tensor.raw_data)
        if tensor.HasField("raw_data") and needed is not None and stored != needed:
            text = f"{path}: tensor {printable(tensor.name)!r} has {stored} bytes of data, its shape needs {needed}"
            raise InvalidModel(text, "Export or copy the model again.")
        if (needed or 0) <= _LARGE_BYTES:
            kept.append(tensor)
        elif tensor.name not in given:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    embed_external(path, model, _EMBED_BYTES)


def _check(model: onnx.ModelProto) -> None:
    """Run the checker without its demand that outputs declare a rank, which the standard leaves optional."""
    bare = [v.type.tensor_type for v in model.graph.output if v.type.HasField("tensor_type")]
    for tensor in bare:
        tensor.shape.SetInParent()
    onnx.checker.check_model(model)
    for tensor in bare:
        tensor.ClearField("shape")


def _outputs(graph: onnx.GraphProto, fallback: Mapping[str, onnx.TypeProto]) -> dict[str, Any]:
    static: list[dict[str, Any]] = []
    dynamic: list[str] = []
    for value in graph.output:
        sizes = _sizes(value.type)
        if sizes is None and value.name in fallback:
            sizes = _sizes(fallback[value.name])
        if sizes is None:
            dynamic.append(printable(value.name))
        else:
            static.append({"name": value.name, "shape": sizes, "dtype": dtype_name(value.type.tensor_type.elem_type)})
    return {"outputs": static, "dynamic": dynamic}


def _sizes(kind: onnx.TypeProto) -> list[int] | None:
    tensor = kind.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return sizes if tensor.HasField("shape") and all(size >= 0 for size in sizes) else None


def _one_line(error: BaseException) -> str:
    text = str(error).replace("[ShapeInferenceError]", "").replace("Inference error(s):", "")
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words[:300] or type(error).__name__


def main() -> None:
    """Answer one request under a memory limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES if hard < 0 else min(_MEMORY_BYTES, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.dup(1)
    os.dup2(2, 1)  # what native code prints must not end up in the answer
    answer = json.dumps(_answer(json.load(sys.stdin)))
    with os.fdopen(answers, "w") as stream:
        stream.write(f"\n{answer}\n")


if __name__ == "__main__":
    main()
