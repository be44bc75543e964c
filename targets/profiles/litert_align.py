"""Join operators that XNNPACK ran to the TFLite operators they came from.

XNNPACK reports its operators in graph order, numbered within a partition, and tells nothing of their origin. It
may drop an operator (a pad or an activation fused into a convolution) or run several for one (a concatenation).
The join keeps the order and pairs only types that belong together. Where several assignments do that, an operator
that they place differently stays unassigned, with all its candidates.

An operator that runs in an unforeseen way takes a run of any events; the join wants as few of these as possible.
An event in such a run stays unassigned unless its type belongs to the operator. Where more than a quarter of the
operators would need one, the events are not those of the graph, and nothing is joined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from targets.tflite_files import TfliteFile, TfliteOp

_INFINITY = 10**9
_INSERTED = 1
# An operator or event without an explanation; dearer than any number of inserted ones.
_UNFORESEEN = 10**5
_UNFORESEEN_SHARE = 0.25
_LONGEST_RUN = 12

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
    "ROUND": ("bankersrounding", "bankdersrounding"),
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
        One entry a tag. All are empty where too few types belong together.
    """
    names = [_letters(tag.split(" (", 1)[0]) for tag in tags]
    rules = [_rule(op, file) for op in ops]
    candidates, dropped = _agreed(rules, names)
    possible = [tuple(ops[index] for index in sorted(found)) for found in candidates]
    chosen = [found[0] if len(found) == 1 else None for found in possible]
    absorbed = _absorbed([op for op in chosen if op is not None], [ops[index] for index in dropped], file)
    return [
        Aligned(op, absorbed.get(op.index, ()) if op else (), found) for op, found in zip(chosen, possible, strict=True)
    ]


@dataclass(frozen=True)
class _Rule:
    """How an operator may run: one event of ``twins`` or more, before them ``head``, after them ``tail``."""

    twins: frozenset[str]
    fewest: int
    most: int
    head: str
    tail: str

    def counts(self, names: Sequence[str], start: int) -> list[int]:
        """How many names from ``start`` on this operator may have run as."""
        found = {0} if self.fewest == 0 else set()
        begins = [start, start + 1] if self.head and names[start : start + 1] == [self.head] else [start]
        for begin in begins:
            for end in range(begin + 1, min(begin + self.most, len(names)) + 1):
                if names[end - 1] not in self.twins:
                    break
                found.add(end - start)
                if self.tail and names[end : end + 1] == [self.tail]:
                    found.add(end + 1 - start)
        return sorted(found)

    def steps(self, names: Sequence[str], start: int, budget: int) -> dict[int, int]:
        """Cost by the number of names from ``start`` on, as far as the budget goes."""
        found = dict.fromkeys(self.counts(names, start), 0)
        if budget >= _UNFORESEEN:
            for count in range(min(_LONGEST_RUN, len(names) - start) + 1):
                found.setdefault(count, _UNFORESEEN)
        return found


def _agreed(rules: Sequence[_Rule], names: Sequence[str]) -> tuple[list[set[int]], list[int]]:
    """What the cheapest assignments agree and differ in.

    Returns:
        For each name the operators it may execute, empty where it may belong to none or no type fits; and the
        operators that ran as nothing by all assignments.
    """
    forward, backward = _tables(rules, names)
    total = forward[-1][-1]
    fitting: list[set[int]] = [set() for _ in names]
    others: list[set[int]] = [set() for _ in names]
    if total >= _INFINITY:
        return fitting, []
    dropped = []
    for i, rule in enumerate(rules):
        ways = set()
        for j, before in enumerate(forward[i]):
            if before + backward[i][j] != total:
                continue
            for count, cost in rule.steps(names, j, total - before).items():
                if before + cost + backward[i + 1][j + count] != total:
                    continue
                ways.add((count, cost))
                for position in range(j, j + count):
                    fits = cost == 0 or names[position] in rule.twins
                    (fitting if fits else others)[position].add(i)
        if ways == {(0, 0)}:
            dropped.append(i)
    for j, name in enumerate(names):
        cost = _own_cost(name)
        if any(before[j] + cost + after[j + 1] == total for before, after in zip(forward, backward, strict=True)):
            fitting[j].clear()
    return [fit | other if fit else set() for fit, other in zip(fitting, others, strict=True)], dropped


def _tables(rules: Sequence[_Rule], names: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
    """Costs up to and from each pair of positions, with as small a budget for the unforeseen as will do."""
    most = int(_UNFORESEEN_SHARE * len(rules))
    allowed = 0
    while True:
        budget = (allowed + 1) * _UNFORESEEN - 1
        forward = _costs(rules, names, budget)
        if forward[-1][-1] <= budget:
            return forward, _costs_from(rules, names, budget)
        if allowed == most:
            forward[-1][-1] = _INFINITY
            return forward, forward
        allowed = min(most, 4 * allowed + 1)


def _own_cost(name: str) -> int:
    return _INSERTED if name in _INSERTABLE else _UNFORESEEN


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rule(op: TfliteOp, file: TfliteFile) -> _Rule:
    twins = frozenset(_TWINS.get(op.op_type, (_letters(op.op_type),)))
    most = {"CONCATENATION": len(op.inputs), "SPLIT": len(op.outputs), "SPLIT_V": len(op.outputs)}.get(op.op_type, 1)
    head = "staticreshape" if op.op_type == "FULLY_CONNECTED" and _flattens(op, file) else ""
    tail = {"": "", "TANH": "tanh"}.get(op.activation, "clamp")
    return _Rule(twins, 0 if _may_vanish(op, file) else 1, max(1, most), head, tail)


def _flattens(op: TfliteOp, file: TfliteFile) -> bool:
    """Whether a linear layer drops leading dimensions: XNNPACK reshapes its input to two first."""
    return len(file.tensors[op.inputs[0]].shape) != len(file.tensors[op.outputs[0]].shape)


def _may_vanish(op: TfliteOp, file: TfliteFile) -> bool:
    if op.op_type in _PADS:
        readers = [other for other in file.ops if op.outputs[0] in other.inputs]
        return bool(readers) and all(reader.op_type in _CONVOLUTIONS for reader in readers)
    return op.op_type in _CLAMPS | _VIEWS | {"DEQUANTIZE"}


def _costs(rules: Sequence[_Rule], names: Sequence[str], budget: int) -> list[list[int]]:
    """Lowest cost of assigning the first ``j`` names to the first ``i`` operators, by ``[i][j]``."""
    width = len(names) + 1
    table = [[_INFINITY] * width for _ in range(len(rules) + 1)]
    table[0][0] = 0
    for i, row in enumerate(table):
        for j in range(width):
            if row[j] > budget:
                continue
            if j < len(names):
                row[j + 1] = min(row[j + 1], row[j] + _own_cost(names[j]))
            if i < len(rules):
                below = table[i + 1]
                for count, cost in rules[i].steps(names, j, budget - row[j]).items():
                    below[j + count] = min(below[j + count], row[j] + cost)
    return table


def _costs_from(rules: Sequence[_Rule], names: Sequence[str], budget: int) -> list[list[int]]:
    """Lowest cost of assigning what is left from name ``j`` and operator ``i`` on, by ``[i][j]``."""
    last = len(names)
    table = [[_INFINITY] * (last + 1) for _ in range(len(rules) + 1)]
    table[-1][last] = 0
    for i in range(len(rules), -1, -1):
        row = table[i]
        for j in range(last, -1, -1):
            if j < last:
                row[j] = min(row[j], row[j + 1] + _own_cost(names[j]))
            if i < len(rules):
                below = table[i + 1]
                nearest = min(below[j : j + _LONGEST_RUN + 1])
                for count, cost in rules[i].steps(names, j, budget - nearest).items():
                    row[j] = min(row[j], below[j + count] + cost)
    return table


def _absorbed(
    chosen: Sequence[TfliteOp], dropped: Sequence[TfliteOp], file: TfliteFile
) -> dict[int, tuple[TfliteOp, ...]]:
    """Operators that left no event, by the index of the operator that does their work."""
    ran = {op.index for op in chosen}
    makers = {tensor: op for op in file.ops for tensor in op.outputs}
    found: dict[int, list[TfliteOp]] = {}
    for op in dropped:
        step = _reader(file) if op.op_type in _PADS else (lambda other: makers.get(other.inputs[0]))
        host = step(op)
        while host is not None and host.index not in ran and host.op_type == op.op_type:
            host = step(host)
        if host is not None and host.index in ran:
            found.setdefault(host.index, []).append(op)
    return {index: tuple(absorbed) for index, absorbed in found.items()}


def _reader(file: TfliteFile) -> Callable[[TfliteOp], TfliteOp | None]:
    return lambda op: next((other for other in file.ops if op.outputs[0] in other.inputs), None)
