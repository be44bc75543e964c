"""What a model asks of a chip, operation by operation: multiply-adds and bytes, read from its file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from targets.errors import InvalidModel
from targets.onnx_graph import MAX_NODES
from targets.profiles.join import ModuleIndex
from targets.profiles.tflite_modules import module_of
from targets.records import Artifact
from targets.tflite_files import TfliteFile, TfliteOp, inspect_tflite

_FREE = frozenset({"Constant", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "RESHAPE", "SQUEEZE", "Shape"})
Shape = Sequence[int]


@dataclass(frozen=True)
class Work:
    """One operation.

    Attributes:
        name: Its name in the model.
        op_type: Its type.
        module: Module that made it; ``None`` where the file does not tell.
        macs: Multiply-adds of its convolution or product, else 0.
        elements: Values it reads and writes, weights included.
        computed: Values it writes.
    """

    name: str
    op_type: str
    module: str | None
    macs: int
    elements: int
    computed: int


@dataclass(frozen=True)
class Workload:
    """All operations of a model.

    Attributes:
        works: In the order of the file, those that cost nothing left out.
        unknown: Operations whose shapes the file does not tell; they cost their start only.
    """

    works: tuple[Work, ...]
    unknown: int


def workload_of(artifact: Artifact) -> Workload:
    """Read the operations of an artifact.

    Args:
        artifact: An ONNX or TFLite file with static shapes.

    Raises:
        InvalidModel: If the file cannot be read.
    """
    if artifact.format == "tflite":
        return _of_tflite(inspect_tflite(Path(artifact.path)))
    return _of_onnx(Path(artifact.path), {spec.name: spec.shape for spec in artifact.inputs})


def _of_tflite(file: TfliteFile) -> Workload:
    works = []
    for op in file.ops:
        if op.op_type in _FREE:
            continue
        shapes = [file.tensors[index].shape for index in (*op.inputs, *op.outputs) if index >= 0]
        works.append(
            Work(
                name=f"{op.index}",
                op_type=op.op_type,
                module=module_of(op, file),
                macs=_tflite_macs(op, file),
                elements=sum(math.prod(shape) for shape in shapes),
                computed=sum(math.prod(file.tensors[index].shape) for index in op.outputs),
            )
        )
    return Workload(tuple(works), 0)


def _tflite_macs(op: TfliteOp, file: TfliteFile) -> int:
    shapes = [file.tensors[index].shape if index >= 0 else () for index in op.inputs]
    out = math.prod(file.tensors[op.outputs[0]].shape) if op.outputs else 0
    if op.op_type in {"CONV_2D", "FULLY_CONNECTED"} and len(shapes) > 1:
        return out * math.prod(shapes[1][1:])
    if op.op_type == "DEPTHWISE_CONV_2D" and len(shapes) > 1:
        return out * math.prod(shapes[1][1:3])
    if op.op_type == "TRANSPOSE_CONV" and len(shapes) > 2:
        return math.prod(shapes[2]) * math.prod(shapes[1][:3])
    if op.op_type == "BATCH_MATMUL" and shapes and shapes[0]:
        return out * shapes[0][-1]
    return 0


def _of_onnx(path: Path, inputs: Mapping[str, Shape]) -> Workload:
    try:
        model = onnx.load(str(path), load_external_data=False)
        if len(model.graph.node) > MAX_NODES:
            raise InvalidModel(f"{path.name} has more than {MAX_NODES} nodes", "Split the model.")
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (DecodeError, OSError, ValueError, onnx.shape_inference.InferenceError) as error:
        raise InvalidModel(f"{path.name} cannot be read as ONNX: {error}", "Export the model again.") from error
    graph = inferred.graph
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.output, *graph.input):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.HasField("shape") and all(dims):
            shapes[value.name] = dims
    shapes.update(inputs)
    index = ModuleIndex.from_onnx(path)
    works, unknown = [], 0
    for position, node in enumerate(graph.node):
        if node.op_type in _FREE:
            continue
        reads = [name for name in node.input if name]
        writes = [name for name in node.output if name]
        known = all(name in shapes for name in (*reads, *writes))
        unknown += not known
        found = index.node_or_value(node.name or (writes[0] if writes else ""))
        works.append(
            Work(
                name=node.name or f"{node.op_type}_{position}",
                op_type=node.op_type,
                module=found.module if found else None,
                macs=_onnx_macs(node, shapes) if known else 0,
                elements=sum(math.prod(shapes[name]) for name in (*reads, *writes)) if known else 0,
                computed=sum(math.prod(shapes[name]) for name in writes) if known else 0,
            )
        )
    return Workload(tuple(works), unknown)


def _onnx_macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    out, first = math.prod(shapes[node.output[0]]), shapes[node.input[0]] if node.input else ()
    weights = shapes.get(node.input[1], ()) if len(node.input) > 1 else ()
    if node.op_type == "Conv":
        return out * math.prod(weights[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(weights[1:])
    if node.op_type == "Gemm" and len(weights) == 2:
        return math.prod(first) * math.prod(weights) // max(1, _shared(node, weights))
    if node.op_type == "MatMul" and first:
        return out * first[-1]
    return 0


def _shared(gemm: onnx.NodeProto, weights: Shape) -> int:
    """The dimension that both factors of a Gemm have."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in gemm.attribute)
    return weights[1] if transposed else weights[0]
