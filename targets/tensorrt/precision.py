"""Which numbers an ONNX file holds, and whether a TensorRT version reads it and computes in the precision asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from targets.errors import InvalidModel, UsageError
from targets.records import Precision
from targets.tensorrt.versions import TensorrtVersion, newest_opset

RANDOM_RANGES = (
    "The file holds no quantization (Q/DQ nodes) and no calibration was given: trtexec makes up the ranges of int8, "
    "so the latency is real and the outputs are not."
)


@dataclass(frozen=True)
class OnnxNumbers:
    """What decides the precision of a strongly typed build.

    Attributes:
        half: Whether weights, inputs or casts are 16-bit floating point.
        quantized: Whether there are QuantizeLinear or DequantizeLinear nodes.
        opset: Version of the default operator set, 0 where the file tells none.
    """

    half: bool
    quantized: bool
    opset: int = 0

    @property
    def precision(self) -> Precision:
        """The precision that the file itself stands for."""
        if self.quantized:
            return Precision.INT8
        return Precision.FP16 if self.half else Precision.FP32


def numbers_of(path: Path) -> OnnxNumbers:
    """Look at an ONNX file (weights kept outside it are not read).

    Raises:
        InvalidModel: If it cannot be read as ONNX.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise InvalidModel(f"{path.name} cannot be read as ONNX: {error}", "Export it again.") from error
    nodes = list(_nodes(model.graph))
    casts = (a.i for node in nodes if node.op_type == "Cast" for a in node.attribute if a.name == "to")
    types = {tensor.data_type for tensor in model.graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in model.graph.input}
    half = TensorProto.FLOAT16 in types or TensorProto.FLOAT16 in set(casts)
    quantized = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in nodes)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    return OnnxNumbers(half, quantized, opset)


def opset_notes(numbers: OnnxNumbers, version: TensorrtVersion) -> list[str]:
    """One sentence where a file is of a newer opset than the version is documented to read, else nothing."""
    newest = newest_opset(version)
    if numbers.opset <= newest:
        return []
    return [
        f"The file is of opset {numbers.opset}, and TensorRT {version.major}.{version.minor} is documented to read up "
        f"to {newest}: write opset = {newest} for the device to export with that."
    ]


def check_precision(name: str, numbers: OnnxNumbers, precision: Precision, version: TensorrtVersion) -> list[str]:
    """Refuse what would run in another precision than asked, and say what a reader must know.

    Args:
        name: The file's name, for the error.
        numbers: What it holds.
        precision: Asked for.
        version: Of TensorRT on the device.

    Returns:
        Notes for the record, one sentence each.

    Raises:
        UsageError: If this file does not give that precision with this version; the line says how to get it.
    """
    own = numbers.precision
    if precision is Precision.BF16:
        raise UsageError("tensorrt is not told to compute in bf16 by this kit", "Take fp32, fp16 or int8.")
    if version >= (11, 0):
        if own is not precision:
            raise UsageError(
                f"TensorRT {version} computes in the file's own types, and {name} is {own}, not {precision}",
                _how_to_make(precision),
            )
        return []
    if own is not precision and own is not Precision.FP32:
        raise UsageError(f"{name} is {own} already and cannot be built as {precision}", f"Use --precision {own}.")
    return [RANDOM_RANGES] if precision is Precision.INT8 and not numbers.quantized else []


def _how_to_make(precision: Precision) -> str:
    if precision is Precision.FP16:
        return "Give it an fp16 ONNX file: export the network in half precision, or use NVIDIA ModelOpt AutoCast."
    if precision is Precision.INT8:
        return "Give it an ONNX file with QuantizeLinear/DequantizeLinear nodes, as NNCF or NVIDIA ModelOpt write it."
    return "Give it an fp32 ONNX file."


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from _nodes(body)
