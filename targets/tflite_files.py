"""Read what a ``.tflite`` file declares without running any native code on it.

The native loaders trust parts of a file that a truncated or hostile one gets wrong, and then end the process.
This reader checks every offset against the end of the file, follows no reference twice, and stops with one line.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from targets.errors import InvalidModel
from targets.records import Artifact, TensorSpec
from targets.tflite_schema import ACTIVATION_FIELDS, ACTIVATIONS, BUILTIN_OPERATORS, ELEMENT_TYPES

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
# A flatbuffer addresses itself with signed 32-bit offsets.
MAX_BYTES = 2**31 - 1

_EXPORT_AGAIN = "Export or copy the file again; `file` and `sha256sum` tell what it is."


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor of the main graph.

    Attributes:
        name: Name in the file; converters keep module paths here.
        shape: Dimensions at load time.
        dtype: numpy name, or ``"type <code>"`` where numpy has none.
        constant: Whether the file holds its values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool


@dataclass(frozen=True)
class TfliteOp:
    """One operator of the main graph.

    Attributes:
        index: Position in the graph: the node index that profilers report.
        op_type: Builtin name, for example ``CONV_2D``; the custom code for custom operators.
        custom: Whether the operator is a custom one.
        inputs: Tensor indices, -1 for an absent optional input.
        outputs: Tensor indices.
        activation: Fused activation, for example ``RELU``; ``""`` without one.
    """

    index: int
    op_type: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str = ""


@dataclass(frozen=True)
class TfliteFile:
    """What a file declares about its main graph.

    Attributes:
        sha256: Hash of the file's bytes.
        inputs: Graph inputs, in order; unnamed or doubly named ones are called ``input_<position>``.
        outputs: Graph outputs, in order, named in the same way.
        ops: Operators in the order of the file, which is the execution order.
        tensors: All tensors of the main graph.
        input_tensors: Tensor index of each input.
        output_tensors: Tensor index of each output.
        signature_inputs: Tensor index by the first signature's input names; empty without a signature.
        signature_outputs: The same for its outputs.
        subgraphs: Number of graphs in the file; more than one means control flow.
    """

    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops: tuple[TfliteOp, ...]
    tensors: tuple[TfliteTensor, ...]
    input_tensors: tuple[int, ...]
    output_tensors: tuple[int, ...]
    signature_inputs: dict[str, int]
    signature_outputs: dict[str, int]
    subgraphs: int

    @property
    def custom_ops(self) -> tuple[str, ...]:
        """Custom operator names, each once, in order of appearance."""
        return tuple(dict.fromkeys(op.op_type for op in self.ops if op.custom))


class _Corrupt(Exception):
    """An offset, length or number in the file cannot be right."""


class _Buffer:
    """Bounds-checked access to a flatbuffer."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        # A file may name one list many times: reading stays in proportion to its size all the same.
        self.budget = 4 * len(data)

    def number(self, at: int, code: str) -> int:
        size = struct.calcsize(code)
        if at < 0 or at + size > len(self.data):
            raise _Corrupt(f"an offset points to byte {at} of {len(self.data)}")
        return int(struct.unpack_from("<" + code, self.data, at)[0])

    def reference(self, at: int) -> int:
        """Target of the unsigned forward offset stored at ``at``."""
        return at + self.number(at, "I")

    def vector(self, at: int, item_bytes: int) -> tuple[int, int]:
        """First byte and length of the vector at ``at``."""
        length = self.number(at, "I")
        if at + 4 + length * item_bytes > len(self.data):
            raise _Corrupt(f"a list of {length} items at byte {at} runs past the end")
        self.budget -= length * item_bytes
        if self.budget < 0:
            raise _Corrupt("its lists overlap")
        return at + 4, length


class _Table:
    """One flatbuffer table: fields by their number in the schema."""

    def __init__(self, buffer: _Buffer, at: int) -> None:
        self.buffer = buffer
        self.at = at
        self.slots = at - buffer.number(at, "i")
        self.slot_bytes = buffer.number(self.slots, "H")
        if self.slot_bytes < 4 or self.slot_bytes % 2:
            raise _Corrupt(f"the table at byte {at} has no valid field list")

    def field(self, number: int) -> int | None:
        """Where field ``number`` lies, or ``None`` where it has its default."""
        slot = 4 + 2 * number
        if slot + 2 > self.slot_bytes:
            return None
        offset = self.buffer.number(self.slots + slot, "H")
        return self.at + offset if offset else None

    def number(self, field: int, code: str, default: int = 0) -> int:
        at = self.field(field)
        return default if at is None else self.buffer.number(at, code)

    def text(self, field: int) -> str:
        at = self.field(field)
        if at is None:
            return ""
        start, length = self.buffer.vector(self.buffer.reference(at), 1)
        return self.buffer.data[start : start + length].decode("utf-8", "replace")

    def integers(self, field: int) -> tuple[int, ...]:
        at = self.field(field)
        if at is None:
            return ()
        start, length = self.buffer.vector(self.buffer.reference(at), 4)
        return struct.unpack_from(f"<{length}i", self.buffer.data, start)

    def tables(self, field: int) -> Iterator[_Table]:
        at = self.field(field)
        if at is None:
            return
        start, length = self.buffer.vector(self.buffer.reference(at), 4)
        for index in range(length):
            yield _Table(self.buffer, self.buffer.reference(start + 4 * index))


def inspect_tflite(path: Path | str) -> TfliteFile:
    """Read inputs, outputs and operators of an untrusted ``.tflite`` file.

    Args:
        path: The file.

    Returns:
        What the file declares; nothing of it was executed.

    Raises:
        InvalidModel: If the file is missing, empty, too large, not a TFLite flatbuffer, damaged, dynamic in an
            input or output, or keeps its weights in other files.
    """
    path = Path(path)
    data = _read(path)
    if data[4:8] != IDENTIFIER:
        raise InvalidModel(f"{path} is no TFLite file: bytes 4 to 8 are not 'TFL3'", _EXPORT_AGAIN)
    try:
        return _main_graph(_Table(_Buffer(data), _Buffer(data).reference(0)), path, hashlib.sha256(data).hexdigest())
    except _Corrupt as error:
        raise InvalidModel(f"{path} is damaged: {error}", _EXPORT_AGAIN) from error


def tflite_artifact(path: Path | str, *, source_sha256: str | None = None, converter: str = "") -> Artifact:
    """Describe a ``.tflite`` file as an artifact.

    Args:
        path: The file.
        source_sha256: Hash of what it was made from; its own where absent.
        converter: Tool and version that made it.

    Returns:
        The artifact. The layout is ``NHWC`` where the first image input ends in 1, 3 or 4 channels, else ``NCHW``.

    Raises:
        InvalidModel: As :func:`inspect_tflite`.
    """
    file = inspect_tflite(path)
    image = next((spec.shape for spec in file.inputs if len(spec.shape) == 4), ())
    channels_last = len(image) == 4 and image[3] in {1, 3, 4} and image[1] not in {1, 3, 4}
    return Artifact(
        path=str(path),
        format="tflite",
        sha256=file.sha256,
        source_sha256=source_sha256 or file.sha256,
        inputs=file.inputs,
        layout="NHWC" if channels_last else "NCHW",
        converter=converter,
    )


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InvalidModel(f"{path} is not a file", "Name a .tflite file.")
        if size > MAX_BYTES:
            raise InvalidModel(f"{path} has {size} bytes; a TFLite file has at most {MAX_BYTES}", _EXPORT_AGAIN)
        data = path.read_bytes()
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}", "Check the path and its permissions.") from error
    if len(data) < 8:
        raise InvalidModel(f"{path} is no TFLite file: it has only {len(data)} bytes", _EXPORT_AGAIN)
    return data


def _main_graph(model: _Table, path: Path, sha256: str) -> TfliteFile:
    version = model.number(0, "I")
    if version != SCHEMA_VERSION:
        raise InvalidModel(f"{path} has TFLite schema version {version}; only {SCHEMA_VERSION} is known", _EXPORT_AGAIN)
    constant = tuple(_holds_data(buffer) for buffer in model.tables(4))
    graphs = list(model.tables(2))
    if not graphs:
        raise _Corrupt("it holds no graph")
    tensors = tuple(_tensor(table, constant) for table in graphs[0].tables(0))
    codes = tuple(_operator_code(table) for table in model.tables(1))
    ops = tuple(_operator(index, table, codes, len(tensors)) for index, table in enumerate(graphs[0].tables(3)))
    inputs, outputs = (_checked(graphs[0].integers(field), len(tensors)) for field in (1, 2))
    if not outputs:
        raise _Corrupt("its graph has no output")
    signature = next(model.tables(7), None)
    return TfliteFile(
        sha256=sha256,
        inputs=_specs("input", inputs, tensors, path),
        outputs=_specs("output", outputs, tensors, path),
        ops=ops,
        tensors=tensors,
        input_tensors=inputs,
        output_tensors=outputs,
        signature_inputs=_signature(signature, 0, len(tensors)),
        signature_outputs=_signature(signature, 1, len(tensors)),
        subgraphs=len(graphs),
    )


def _holds_data(buffer: _Table) -> bool:
    offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
    if offset > 1 and offset + size > len(buffer.buffer.data):
        raise _Corrupt(f"weights at bytes {offset} to {offset + size} lie past the end")
    at = buffer.field(0)
    length = 0 if at is None else buffer.buffer.vector(buffer.buffer.reference(at), 1)[1]
    return length > 0 or size > 0


def _tensor(table: _Table, constant: tuple[bool, ...]) -> TfliteTensor:
    code = table.number(1, "b")
    buffer = table.number(2, "I")
    if buffer >= len(constant) and buffer != 0:
        raise _Corrupt(f"a tensor names buffer {buffer} of {len(constant)}")
    if table.number(10, "I"):
        raise InvalidModel("The TFLite file keeps weights in other files", "Export it as one self-contained file.")
    return TfliteTensor(
        name=table.text(3),
        shape=table.integers(0),
        dtype=ELEMENT_TYPES.get(code, f"type {code}"),
        constant=bool(constant) and constant[buffer],
    )


def _operator_code(table: _Table) -> tuple[str, bool]:
    # Codes above 127 did not fit the first field; files hold the larger of the two.
    code = max(table.number(0, "b"), table.number(3, "i"))
    if not 0 <= code < len(BUILTIN_OPERATORS):
        raise InvalidModel(
            f"The TFLite file uses operator code {code}, which schema 3 does not define up to LiteRT 2.3",
            "Convert the model with a version that this kit knows.",
        )
    name = BUILTIN_OPERATORS[code]
    return (table.text(1) or "CUSTOM", True) if name == "CUSTOM" else (name, False)


def _operator(index: int, table: _Table, codes: tuple[tuple[str, bool], ...], tensors: int) -> TfliteOp:
    code = table.number(0, "I")
    if code >= len(codes):
        raise _Corrupt(f"operator {index} names operator code {code} of {len(codes)}")
    name, custom = codes[code]
    return TfliteOp(
        index=index,
        op_type=name,
        custom=custom,
        inputs=_checked(table.integers(1), tensors, optional=True),
        outputs=_checked(table.integers(2), tensors),
        activation=_activation(table),
    )


def _activation(operator: _Table) -> str:
    field, at = ACTIVATION_FIELDS.get(operator.number(3, "B")), operator.field(4)
    if field is None or at is None:
        return ""
    code = _Table(operator.buffer, operator.buffer.reference(at)).number(field, "b")
    if not 0 <= code < len(ACTIVATIONS):
        raise _Corrupt(f"a fused activation has code {code}")
    return ACTIVATIONS[code]


def _checked(indices: tuple[int, ...], tensors: int, *, optional: bool = False) -> tuple[int, ...]:
    lowest = -1 if optional else 0
    for index in indices:
        if not lowest <= index < tensors:
            raise _Corrupt(f"tensor {index} of {tensors} is named")
    return indices


def _signature(signature: _Table | None, field: int, tensors: int) -> dict[str, int]:
    if signature is None:
        return {}
    entries = {entry.text(0): entry.number(1, "I") for entry in signature.tables(field)}
    _checked(tuple(entries.values()), tensors)
    return entries


def _specs(
    role: str, indices: tuple[int, ...], tensors: tuple[TfliteTensor, ...], path: Path
) -> tuple[TensorSpec, ...]:
    names = [tensors[index].name for index in indices]
    specs = []
    for position, index in enumerate(indices):
        tensor = tensors[index]
        if any(size <= 0 for size in tensor.shape):
            raise InvalidModel(
                f"{path}: {role} {position} ({tensor.name!r}) has the dynamic shape {list(tensor.shape)}",
                "Export the model with a fixed input size.",
            )
        if tensor.dtype.startswith("type "):
            raise InvalidModel(
                f"{path}: {role} {position} ({tensor.name!r}) has element {tensor.dtype}, which numpy cannot hold",
                "Export the model with float32, float16, integer or bool inputs and outputs.",
            )
        unique = bool(tensor.name) and names.count(tensor.name) == 1
        name = tensor.name if unique else f"{role}_{position}"
        specs.append(TensorSpec(name=name, shape=tensor.shape, dtype=tensor.dtype))
    return tuple(specs)
