"""Untrusted ONNX files: inspected before any runtime sees them, and frozen to static shapes.

Limits: a model file below 2 GiB (protobuf's own), ``onnx_graph.MAX_NODES`` nodes, ``onnx_shapes.MAX_ELEMENTS``
elements an input, ``onnx_check.TIMEOUT_S`` seconds of checking. External data may be of any size; it is
hashed, never loaded, and must lie in the model's folder.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import helper

from targets.errors import InvalidModel
from targets.files import write_atomic
from targets.onnx_check import checked_outputs
from targets.onnx_external import ExternalFile, embed_external, external_files
from targets.onnx_graph import count_ops, opsets_of
from targets.onnx_shapes import Shapes, apply_shapes, leaves_open, parse_shape_option, set_shape, static_inputs
from targets.records import TensorSpec

__all__ = ["ExternalFile", "OnnxInfo", "freeze_shapes", "inspect_onnx", "parse_shape_option"]

MAX_MODEL_BYTES = 2**31 - 1
_SAFE_IR, _SAFE_OPSET = 8, 13  # loaded by every onnxruntime this kit accepts
_NAMESAKES = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the model", "Fetch the model with: git lfs pull"),
    (b"PK\x03\x04", "is a ZIP archive, not an ONNX file", "Unpack it, or export the checkpoint in it to ONNX."),
    (b"\x80", "is a Python pickle, not an ONNX file", "Export the network to ONNX."),
)


@dataclass(frozen=True)
class OnnxInfo:
    """What an ONNX file holds, for one choice of static shapes.

    Attributes:
        path: The file.
        sha256: Hash of its bytes (external data has hashes of its own).
        inputs: Inputs to feed, all dimensions fixed; stored weights are not among them.
        outputs: Outputs whose shape is fixed.
        dynamic_outputs: Names of outputs whose shape depends on the data.
        opset: Version of the default operator set.
        ir_version: Version of the file layout.
        node_count: Nodes, those in subgraphs and functions included.
        external: Files that hold weights.
        op_types: How often each operation appears; other domains as ``domain.Op``.
        frozen: Whether a shape was given for a dimension that the file leaves open.
    """

    path: Path
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dynamic_outputs: tuple[str, ...]
    opset: int
    ir_version: int
    node_count: int
    external: tuple[ExternalFile, ...]
    op_types: Mapping[str, int]
    frozen: bool


def inspect_onnx(path: Path, shapes: Shapes | None = None) -> OnnxInfo:
    """Check an untrusted ONNX file and say what it holds; nothing outside its folder is read.

    Args:
        path: The file.
        shapes: Shapes by input name for dimensions the file leaves open (``""`` names the only input).

    Raises:
        InvalidModel: In one line: no such file, not ONNX, truncated, unsafe or missing external data, dynamic
            shapes, shapes that do not fit, operations or versions nobody here knows, or a refusal by
            ONNX's own checker.
    """
    data = _read(path)
    model = _parse(path, data)
    opsets = opsets_of(model)
    _check_versions(path, model.ir_version, opsets)
    external = external_files(path, model)
    op_types = count_ops(path, model)
    inputs = static_inputs(path, model.graph, shapes)
    outputs, dynamic = checked_outputs(path, inputs)
    return OnnxInfo(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        inputs=inputs,
        outputs=outputs,
        dynamic_outputs=dynamic,
        opset=opsets[""],
        ir_version=model.ir_version,
        node_count=sum(op_types.values()),
        external=external,
        op_types=op_types,
        frozen=leaves_open(model.graph, inputs),
    )


def freeze_shapes(path: Path, shapes: Shapes, out: Path) -> None:
    """Write a copy with static shapes and its weights embedded; whole or not at all.

    Args:
        path: The model.
        shapes: Shapes by input name.
        out: Where the copy goes; not the model itself.

    Raises:
        InvalidModel: As :func:`inspect_onnx`, or if the copy would be 2 GiB or more.
        UsageError: If ``out`` cannot be written.
    """
    info = inspect_onnx(path, shapes)
    if out.exists() and out.samefile(path):
        raise InvalidModel(f"{path} would be overwritten by its own static copy", "Name another file.")
    model = _parse(path, _read(path))
    apply_shapes(model.graph, info.inputs)
    known = {spec.name: spec.shape for spec in info.outputs}
    for value in model.graph.output:
        if value.name in known:
            set_shape(value, known[value.name])
    embed_external(path, model, MAX_MODEL_BYTES)
    try:
        data = model.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise InvalidModel(f"{path}: a static copy would be 2 GiB or larger", "Export it static instead.") from error
    write_atomic(out, data)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise InvalidModel(f"{path} is a folder", "Name the .onnx file in it.")
    if not path.exists():
        raise InvalidModel(f"{path} does not exist", "Check the path.")
    if not path.is_file():
        raise InvalidModel(f"{path} is not a regular file", "Name an .onnx file.")
    try:
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise InvalidModel(f"{path} has {size} bytes, ONNX files end below 2 GiB", "Use external data for weights.")
        with path.open("rb") as file:
            data = file.read(MAX_MODEL_BYTES)
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error
    if not data:
        raise InvalidModel(f"{path} is empty", "Export or copy the model again.")
    return data


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise _not_a_model(path, data, "cannot be parsed as ONNX: it is cut short or damaged") from error
    if not model.HasField("graph"):
        raise _not_a_model(path, data, "is not an ONNX model: it holds no graph")
    if not model.graph.node:
        raise InvalidModel(f"{path} holds a graph without nodes", "Export the model again.")
    return model


def _not_a_model(path: Path, data: bytes, otherwise: str) -> InvalidModel:
    for start, what, fix in _NAMESAKES:
        if data.startswith(start):
            return InvalidModel(f"{path} {what}", fix)
    if data[4:8] == b"TFL3":
        return InvalidModel(f"{path} is a TFLite model, not an ONNX file", "Name it .tflite and use --runtime tflite.")
    head = data[:1024]
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        first = head.decode("ascii").strip().split("\n")[0].strip()
        return InvalidModel(
            f"{path} is a text file, not an ONNX file (it begins with {first[:40]!r})", "Check the path."
        )
    return InvalidModel(f"{path} {otherwise}", "Export or copy the model again.")


def _check_versions(path: Path, ir_version: int, opsets: Mapping[str, int]) -> None:
    if "" not in opsets:
        raise InvalidModel(f"{path} does not say which ONNX opset it uses", "Export the model again.")
    opset = opsets[""]
    if _runtime_loads(ir_version, opset):
        return
    if _runtime_loads(_SAFE_IR, opset):
        newest = next((n for n in range(onnx.IR_VERSION, _SAFE_IR, -1) if _runtime_loads(n, _SAFE_OPSET)), _SAFE_IR)
        what, fix = f"IR version {ir_version}", f"Save it with IR version {newest}"
    else:
        tried = range(onnx.defs.onnx_opset_version(), _SAFE_OPSET, -1)
        newest = next((n for n in tried if _runtime_loads(_SAFE_IR, n)), _SAFE_OPSET)
        what, fix = f"opset {opset}", f"Export it with opset {newest}"
    version = importlib.metadata.version("onnxruntime")
    raise InvalidModel(f"{path} has {what}, which onnxruntime {version} does not load", f"{fix} (the newest it does).")


@functools.cache
def _runtime_loads(ir_version: int, opset: int) -> bool:
    """Whether the installed ONNX Runtime takes these versions, found out with a model of one Identity."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # the answer is all that is wanted, not a warning on the terminal
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except (native.Fail, native.InvalidGraph, native.InvalidArgument, native.InvalidProtobuf, native.NotImplemented):
        return False
    return True
