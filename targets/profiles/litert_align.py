"""Join operators that XNNPACK ran to the TFLite operators they came from.

XNNPACK reports its operators in graph order, numbered within a partition, and tells nothing of their origin. It
may drop an operator (a pad or an activation fused into a convolution) or run several for one (a concatenation).
The join keeps the order and pairs only types that belong together. Where several assignments do that, an operator
that they place differently stays unassigned, with all its candidates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from targets.tflite_files import TfliteFile, TfliteOp

_INFINITY = 10**9
_INSERTED = 1
_OWN = -1

_CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
_PADS = frozenset({"PAD", "PADV2"})
_CLAMPS = frozenset({"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"})
_VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
# Operators XNNPACK may put in by itself.
_INSERTABLE = frozenset({"transpose", "copy", "convert"})

#: XNNPACK operators that may execute a TFLite operator, where the names differ.
_TWINS: dict[str, tuple[str, ...]] = {
    "SUB": ("subtract",),
    "MUL": ("multiply",),
    "DIV": ("divide",),
    "POW": ("power",),
    "CONV_2D": ("convolution", "fullyconnected", "dynamicfullyconnected"),
    "DEPTHWISE_CONV_2D": ("convolution",),
    "TRANSPOSE_CONV": ("deconvolution",),
    "FULLY_CONNECTED": ("fullyconnected", "dynamicfullyconnected"),
    "BATCH_MATMUL": ("batchmatrixmultiply", "fullyconnected", "dynamicfullyconnected"),
    "AVERAGE_POOL_2D": ("averagepooling", "mean"),
    "MAX_POOL_2D": ("maxpooling",),
    "LOGISTIC": ("sigmoid",),
    "PRELU": ("prelu",),
    "LEAKY_RELU": ("leakyrelu",),
    "GELU": ("gelu", "approxgelu"),
    "RSQRT": ("reciprocalsquareroot",),
    "SQRT": ("squareroot",),
    "NEG": ("negate",),
    "COS": ("cosine",),
    "SIN": ("sine",),
    "CEIL": ("ceiling",),
    "STRIDED_SLICE": ("slice",),
    "CONCATENATION": ("copy", "concatenate"),
    "SPLIT": ("copy", "slice"),
    "SPLIT_V": ("copy", "slice"),
    "QUANTIZE": ("convert",),
    "DEQUANTIZE": ("convert",),
    "CAST": ("convert",),
    **dict.fromkeys(_PADS, ("constantpad",)),
    **dict.fromkeys(_CLAMPS, ("clamp",)),
    **dict.fromkeys(_VIEWS, ("staticreshape", "staticexpanddims", "copy")),
}


@dataclass(frozen=True)
class Aligned:
    """The TFLite operators behind one executed operator.

    Attributes:
        op: The operator it executes; ``None`` where that cannot be told.
        absorbed: Operators fused into it.
        candidates: The operators it may execute, one of them for certain; empty where it may be XNNPACK's own.
    """

    op: TfliteOp | None
    absorbed: tuple[TfliteOp, ...] = ()
    candidates: tuple[TfliteOp, ...] = ()


def split_tag(tag: str) -> tuple[str, str]:
    """Split an XNNPACK tag into operation and kernel: ``("Convolution (NHWC, F32)", "IGEMM")``."""
    head, bracket, kernel = tag.rpartition(")")
    return (head + bracket, kernel.strip()) if bracket else (tag, "")


def align(ops: Sequence[TfliteOp], tags: Sequence[str], file: TfliteFile) -> list[Aligned]:
    """Assign the executed operators of one delegate partition to the operators it replaced.

    Args:
        ops: Operators of the partition, in graph order.
        tags: XNNPACK tags of the partition, in execution order.
        file: The graph, for the neighbours of an operator.

    Returns:
        One entry a tag. All are empty where no assignment pairs types that belong together.
    """
    names = [_letters(tag.split(" (", 1)[0]) for tag in tags]
    rules = [_rule(op, file) for op in ops]
    forward = _costs(rules, names)
    total = forward[len(ops)][len(tags)]
    if total >= _INFINITY:
        return [Aligned(None)] * len(tags)
    backward = _costs_from(rules, names)
    candidates: list[set[int]] = [set() for _ in tags]
    for i, rule in enumerate(rules):
        for j in range(len(tags) + 1):
            for count in rule.counts(names, j):
                rest = backward[i + 1][j + count]
                if forward[i][j] + rest == total:
                    for position in range(j, j + count):
                        candidates[position].add(i)
    _add_inserted(candidates, names, forward, backward)
    possible = [() if _OWN in found else tuple(ops[index] for index in sorted(found)) for found in candidates]
    chosen = [found[0] if len(found) == 1 else None for found in possible]
    absorbed = _absorbed([op for op in chosen if op is not None], ops, file)
    return [
        Aligned(op, absorbed.get(op.index, ()) if op else (), found) for op, found in zip(chosen, possible, strict=True)
    ]


@dataclass(frozen=True)
class _Rule:
    twins: frozenset[str]
    fewest: int
    most: int
    tail: str

    def counts(self, names: Sequence[str], start: int) -> list[int]:
        """How many names from ``start`` on this operator may have run as."""
        found = [0] if self.fewest == 0 else []
        for count in range(1, self.most + 1):
            if start + count > len(names) or names[start + count - 1] not in self.twins:
                break
            found.append(count)
            if self.tail and names[start + count : start + count + 1] == [self.tail]:
                found.append(count + 1)
        return sorted(set(found))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rule(op: TfliteOp, file: TfliteFile) -> _Rule:
    twins = frozenset(_TWINS.get(op.op_type, (_letters(op.op_type),)))
    most = {"CONCATENATION": len(op.inputs), "SPLIT": len(op.outputs), "SPLIT_V": len(op.outputs)}.get(op.op_type, 1)
    tail = {"": "", "TANH": "tanh"}.get(op.activation, "clamp")
    return _Rule(twins, 0 if _may_vanish(op, file) else 1, max(1, most), tail)


def _may_vanish(op: TfliteOp, file: TfliteFile) -> bool:
    if op.op_type in _PADS:
        readers = [other for other in file.ops if op.outputs[0] in other.inputs]
        return bool(readers) and all(reader.op_type in _CONVOLUTIONS for reader in readers)
    return op.op_type in _CLAMPS | _VIEWS | {"DEQUANTIZE"}


def _costs(rules: Sequence[_Rule], names: Sequence[str]) -> list[list[int]]:
    """Lowest cost of assigning the first ``j`` names to the first ``i`` operators, by ``[i][j]``."""
    width = len(names) + 1
    table = [[_INFINITY] * width for _ in range(len(rules) + 1)]
    table[0][0] = 0
    for i in range(len(rules) + 1):
        row = table[i]
        for j in range(width):
            if row[j] >= _INFINITY:
                continue
            if j < len(names) and names[j] in _INSERTABLE:
                row[j + 1] = min(row[j + 1], row[j] + _INSERTED)
            if i == len(rules):
                continue
            for count in rules[i].counts(names, j):
                cost = row[j]
                table[i + 1][j + count] = min(table[i + 1][j + count], cost)
    return table


def _costs_from(rules: Sequence[_Rule], names: Sequence[str]) -> list[list[int]]:
    """Lowest cost of assigning what is left from name ``j`` and operator ``i`` on, by ``[i][j]``."""
    last = len(names)
    table = [[_INFINITY] * (last + 1) for _ in range(len(rules) + 1)]
    table[-1][last] = 0
    for i in range(len(rules), -1, -1):
        row = table[i]
        for j in range(last, -1, -1):
            if j < last and names[j] in _INSERTABLE:
                row[j] = min(row[j], row[j + 1] + _INSERTED)
            if i == len(rules):
                continue
            for count in rules[i].counts(names, j):
                row[j] = min(row[j], table[i + 1][j + count])
    return table


def _add_inserted(
    candidates: list[set[int]], names: Sequence[str], forward: list[list[int]], backward: list[list[int]]
) -> None:
    """Mark names that an equally good assignment takes for XNNPACK's own: they belong to no operator for certain."""
    total = backward[0][0]
    for j, name in enumerate(names):
        costs = (before[j] + _INSERTED + after[j + 1] for before, after in zip(forward, backward, strict=True))
        if name in _INSERTABLE and total in costs:
            candidates[j].add(_OWN)


def _absorbed(chosen: Sequence[TfliteOp], ops: Sequence[TfliteOp], file: TfliteFile) -> dict[int, tuple[TfliteOp, ...]]:
    """Operators without an event of their own, by the index of the operator that does their work."""
    ran = {op.index for op in chosen}
    makers = {tensor: op for op in file.ops for tensor in op.outputs}
    found: dict[int, list[TfliteOp]] = {}
    for op in ops:
        if op.index in ran:
            continue
        step = _reader(file) if op.op_type in _PADS else (lambda other: makers.get(other.inputs[0]))
        host = step(op)
        while host is not None and host.index not in ran and host.op_type == op.op_type:
            host = step(host)
        if host is not None and host.index in ran:
            found.setdefault(host.index, []).append(op)
    return {index: tuple(absorbed) for index, absorbed in found.items()}


def _reader(file: TfliteFile) -> Callable[[TfliteOp], TfliteOp | None]:
    return lambda op: next((other for other in file.ops if op.outputs[0] in other.inputs), None)
