"""Shapes of an ONNX model's inputs: what the file fixes, what the person adds, what is still open."""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from targets.errors import InvalidModel, UsageError, printable
from targets.records import TensorSpec

MAX_ELEMENTS = 2**28
_FEEDABLE = frozenset(
    ["bool", "float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
)
_GUESS = {"batch": 1, "channels": 3, "side": 224}
Shapes = Mapping[str, tuple[int, ...]]


@dataclass
class _Input:
    name: str
    dtype: str
    dims: list[int | str] | None  # a name, or "?" where the file gives none; None: not even the rank

    @property
    def open_dims(self) -> list[str]:
        return [dim for dim in self.dims or [] if isinstance(dim, str)]

    @property
    def dynamic(self) -> bool:
        return self.dims is None or bool(self.open_dims)


def parse_shape_option(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``--shape``: ``input=1x3x224x224``, or ``1x3x224x224`` for a model with one input.

    Args:
        text: What was typed.

    Returns:
        The input's name (``""`` where none was given) and its shape.

    Raises:
        UsageError: If it does not read like that.
    """
    found = re.fullmatch(r"(?:(?P<name>.+)=)?(?P<dims>[0-9]{1,10}(?:[xX][0-9]{1,10})*)", text.strip(), re.DOTALL)
    shape = tuple(int(part) for part in re.split("[xX]", found["dims"])) if found else ()
    if not found or 0 in shape:
        raise UsageError(f"--shape {printable(text)!r} is not a shape", "Write it like --shape input=1x3x224x224.")
    return found["name"] or "", shape


def static_inputs(path: Path, graph: onnx.GraphProto, shapes: Shapes | None) -> tuple[TensorSpec, ...]:
    """Inputs of a graph with every dimension fixed.

    Args:
        path: For the messages.
        graph: The model's main graph.
        shapes: Shapes by input name for what the file leaves open; ``""`` names the only input. A named
            dimension that one shape fixes is fixed wherever the name appears.

    Raises:
        InvalidModel: If dimensions stay open (the message holds the option to pass), a shape contradicts the
            file or names no input, an input is no tensor of a plain number type or has over ``MAX_ELEMENTS``.
    """
    stored = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    inputs = [_read(path, value) for value in graph.input if value.name not in stored]
    given = _by_name(path, inputs, shapes or {})
    symbols: dict[str, int] = {}
    for entry in inputs:
        if entry.name in given:
            _fix(path, entry, given[entry.name], symbols)
    for entry in inputs:
        entry.dims = [symbols.get(d, d) if isinstance(d, str) else d for d in entry.dims] if entry.dims else entry.dims
    _refuse_open(path, inputs)
    specs = tuple(TensorSpec(name=i.name, shape=_ints(i.dims), dtype=i.dtype) for i in inputs)
    for spec in specs:
        if math.prod(spec.shape) > MAX_ELEMENTS:
            text = f"{path}: input {printable(spec.name)!r} has more than {MAX_ELEMENTS} elements"
            raise InvalidModel(text, "Give it a smaller --shape.")
    return specs


def leaves_open(graph: onnx.GraphProto, inputs: Sequence[TensorSpec]) -> bool:
    """Whether the graph itself leaves open some dimension that these inputs fix."""
    shapes = {spec.name: list(spec.shape) for spec in inputs}
    return any(
        [dim.dim_value for dim in value.type.tensor_type.shape.dim] != shapes[value.name]
        for value in graph.input
        if value.name in shapes
    )


def apply_shapes(graph: onnx.GraphProto, inputs: Sequence[TensorSpec]) -> None:
    """Write static shapes into a graph's inputs and drop every shape that was derived from the old ones.

    Args:
        graph: Changed in place.
        inputs: As :func:`static_inputs` gave them.
    """
    shapes = {spec.name: spec.shape for spec in inputs}
    for value in graph.input:
        if value.name in shapes:
            set_shape(value, shapes[value.name])
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]


def set_shape(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    """Give a tensor value a static shape."""
    target = value.type.tensor_type.shape
    del target.dim[:]
    for size in shape:
        target.dim.add().dim_value = size


def _read(path: Path, value: onnx.ValueInfoProto) -> _Input:
    name = printable(value.name)
    if not isinstance(value.name, str) or not value.name:
        raise InvalidModel(f"{path}: an input has no readable name ({name!r})", "Export the model again.")
    if value.type.WhichOneof("value") != "tensor_type":
        raise InvalidModel(f"{path}: input {name!r} is not a tensor", "Export a model that takes tensors.")
    tensor = value.type.tensor_type
    dtype = dtype_name(tensor.elem_type)
    if dtype not in _FEEDABLE:
        raise InvalidModel(
            f"{path}: input {name!r} has element type {dtype}", f"Usable: {', '.join(sorted(_FEEDABLE))}."
        )
    if not tensor.HasField("shape"):
        return _Input(value.name, dtype, None)
    # A zero or negative size is how some exporters write "not known".
    dims = [d.dim_value if d.dim_value > 0 else printable(d.dim_param) or "?" for d in tensor.shape.dim]
    return _Input(value.name, dtype, dims)


def dtype_name(element_type: int) -> str:
    """Numpy's name of an ONNX element type; ``"type 99"`` for a number that means nothing."""
    try:
        name = onnx.TensorProto.DataType.Name(element_type)
        return "string" if name == "STRING" else str(onnx.helper.tensor_dtype_to_np_dtype(element_type))
    except (KeyError, ValueError):
        return f"type {element_type}"


def _by_name(path: Path, inputs: Sequence[_Input], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    named = dict(shapes)
    if "" in named:
        wanted = [i for i in inputs if i.dynamic] or list(inputs)
        if len(wanted) != 1:
            names = ", ".join(printable(i.name) for i in wanted) or "none"
            raise InvalidModel(
                f"{path}: a shape without a name fits no single input (inputs: {names})", "Write NAME=SHAPE."
            )
        named.setdefault(wanted[0].name, named.pop(""))
    known = [i.name for i in inputs]
    for name in named:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {printable(close[0])!r}? " if close else ""
            listed = ", ".join(printable(k) for k in known) or "none"
            raise InvalidModel(f"{path} has no input called {printable(name)!r}", f"{hint}Inputs: {listed}.")
    return named


def _fix(path: Path, entry: _Input, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    what = f"{path}: shape {_joined(shape)} for input {printable(entry.name)!r}"
    if any(size < 1 for size in shape):
        raise InvalidModel(f"{what} has a size below 1", "Give positive sizes.")
    if entry.dims is None:
        entry.dims = list(shape)
        return
    declared = _joined(entry.dims)
    if len(shape) != len(entry.dims):
        raise InvalidModel(
            f"{what} has {len(shape)} dimensions, the model says {len(entry.dims)} ({declared})",
            f"Pass {_option(entry)}.",
        )
    for size, dim in zip(shape, entry.dims, strict=True):
        if isinstance(dim, int) and dim != size:
            raise InvalidModel(f"{what} contradicts the model, which fixes it as {declared}", f"Pass {_option(entry)}.")
        if isinstance(dim, str) and dim != "?" and symbols.setdefault(dim, size) != size:
            raise InvalidModel(
                f"{what} sets {dim} to {size}, and another place sets it to {symbols[dim]}", "Use one size for it."
            )
    entry.dims = list(shape)


def _refuse_open(path: Path, inputs: Sequence[_Input]) -> None:
    waiting = [entry for entry in inputs if entry.dynamic]
    if not waiting:
        return
    first = waiting[0]
    if first.dims is None:
        problem = f"input {printable(first.name)!r} has no shape at all"
    else:
        problem = f"input {printable(first.name)!r} has the dynamic shape {_joined(first.dims)}"
    others = ", ".join(printable(entry.name) for entry in waiting[1:])
    more = f" (and so have: {others})" if others else ""
    # Sizes are a guess at what an image network takes; the person knows better.
    options = " ".join(_option(entry) for entry in waiting)
    raise InvalidModel(f"{path}: {problem}{more}; latency needs static shapes", f"Pass, for example, {options}")


def _option(entry: _Input) -> str:
    rank = len(entry.dims) if entry.dims is not None else 4
    dims: list[int | str] = entry.dims if entry.dims is not None else ["?"] * 4
    channels_at = -1 if rank != 4 else 3 if dims[3] in (1, 3, 4) else 1
    sizes = [
        dim
        if isinstance(dim, int)
        else _GUESS["batch" if index == 0 else "channels" if index == channels_at else "side"]
        for index, dim in enumerate(dims)
    ]
    return f"--shape {shlex.quote(printable(entry.name))}={_joined(sizes)}"


def _joined(dims: Sequence[int | str]) -> str:
    return "x".join(str(dim) for dim in dims) or "scalar"


def _ints(dims: list[int | str] | None) -> tuple[int, ...]:
    return tuple(dim for dim in dims or [] if isinstance(dim, int))
