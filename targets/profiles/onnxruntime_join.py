"""Which nodes of the source model an executed ONNX Runtime operation stands for.

ONNX Runtime renames what it fuses, moves and converts, and its optimised model carries no metadata.
Rules in order: the exact name; a value's name with ``_nchwc`` (blocked convolutions are named after
what they write); the part before ``/`` (``node_silu/QuickGeluFusion/``); both again without
``_new_reshape`` and ``_token_N``; then the optimised graph: the source value that the operation
writes, or converts from one layout into another; last, the one module its neighbours share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from targets.profiles.assemble import Joined
from targets.profiles.join import ModuleIndex, Node, from_neighbours
from targets.profiles.onnxruntime import OrtEvent

_REORDERS = {"ReorderInput", "ReorderOutput"}
_VIEWS = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Identity"}
_ADDED = re.compile(r"_new_reshape|_token_\d+")
_LONGEST_FUSION = 4
_BLOCKED = "com.microsoft.nchwc"


@dataclass(frozen=True)
class OptimizedNode:
    """One node of the optimised graph.

    Attributes:
        name: Name, possibly empty.
        op_type: Operator.
        domain: Operator domain; ``com.microsoft.nchwc`` for blocked kernels.
        inputs: Values it reads.
        outputs: Values it writes.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_optimized(path: Path) -> tuple[OptimizedNode, ...]:
    """Nodes of the optimised model that ONNX Runtime wrote; none where it wrote no readable one.

    Args:
        path: The file.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError):
        return ()
    return tuple(
        OptimizedNode(node.name, node.op_type, node.domain, tuple(node.input), tuple(node.output))
        for node in model.graph.node
    )


def aligned(events: Sequence[OrtEvent], nodes: Sequence[OptimizedNode]) -> tuple[OptimizedNode | None, ...]:
    """The optimised node behind each event.

    Both lists are in execution order. Where lengths, types and names agree position by position
    that settles it, for nameless nodes too; else a name that is unique does.

    Args:
        events: One run's events.
        nodes: The optimised graph's nodes.
    """
    same = len(events) == len(nodes) and all(
        event.op_type == node.op_type and (not node.name or event.name == node.name)
        for event, node in zip(events, nodes, strict=True)
    )
    if same:
        return tuple(nodes)
    seen: dict[str, OptimizedNode | None] = {}
    for node in nodes:
        seen[node.name] = None if node.name in seen else node
    return tuple(seen.get(event.name) for event in events)


def join_events(
    events: Sequence[OrtEvent], nodes: Sequence[OptimizedNode], index: ModuleIndex
) -> tuple[tuple[Joined, ...], tuple[str, ...]]:
    """Join one run's events to source nodes and modules.

    Args:
        events: Events in execution order.
        nodes: The optimised graph's nodes; may be empty, then names alone decide.
        index: The source model.

    Returns:
        What each event executes, and each event's kernel family (``nchwc`` or empty).
    """
    matched = aligned(events, nodes)
    joined = [_by_rules(event, node, index) for event, node in zip(events, matched, strict=True)]
    reads = _reads(matched)
    modules = [join.module for join in joined]
    for i, join in enumerate(joined):
        if join.module is None and join.kind == "layout":  # belongs to the module whose value it converts
            modules[i] = next((modules[j] for j in reads[i] if modules[j] is not None), None)
    settled = from_neighbours(modules, reads)
    kernels = tuple("nchwc" if node is not None and node.domain == _BLOCKED else "" for node in matched)
    found = tuple(
        replace(join, module=module, guessed=before is None and module is not None)
        for join, before, module in zip(joined, modules, settled, strict=True)
    )
    return found, kernels


def _by_rules(event: OrtEvent, node: OptimizedNode | None, index: ModuleIndex) -> Joined:
    found = _by_name(event.name, index) or _by_output(node, index)
    if found is None and event.op_type in _REORDERS | _VIEWS:
        return _joined([_by_input(node, index)], layout=True)
    if event.op_type in _REORDERS:
        return _joined([found], layout=True)
    if event.name.endswith("_nchwc") and found is not None:
        return _joined(_fused(found, event.op_type, index), layout=False)
    return _joined([found], layout=event.op_type == "Transpose" and (found is None or found.op_type != "Transpose"))


def _fused(last: Node, op_type: str, index: ModuleIndex) -> list[Node]:
    """A blocked operation is named after the last value it writes: back to the node of its own type."""
    chain = [last]
    while chain[0].op_type != op_type and len(chain) < _LONGEST_FUSION:
        before = index.producers.get(chain[0].inputs[0]) if chain[0].inputs else None
        if before is None:
            break
        chain.insert(0, before)
    return chain if chain[0].op_type == op_type else [last]


def _joined(sources: Sequence[Node | None], *, layout: bool) -> Joined:
    """The first source is the main one, whose module counts."""
    nodes = [node for node in sources if node is not None]
    module = nodes[0].module if nodes else None
    return Joined(tuple(node.name for node in nodes if node.name), module, "layout" if layout else "compute")


def _by_name(name: str, index: ModuleIndex) -> Node | None:
    for candidate in _candidates(name):
        if candidate in index.nodes:
            return index.nodes[candidate]
        if candidate.endswith("_nchwc"):
            value = index.producers.get(candidate.removesuffix("_nchwc"))
            if value is not None:
                return value
    return None


def _candidates(name: str) -> Iterator[str]:
    plain = _ADDED.sub("", name)
    for text in dict.fromkeys((name, plain)):
        yield text
        while "/" in text:
            text = text.rpartition("/")[0]
            if text:
                yield text


def _by_output(node: OptimizedNode | None, index: ModuleIndex) -> Node | None:
    return None if node is None else _first_known(node.outputs, index)


def _by_input(node: OptimizedNode | None, index: ModuleIndex) -> Node | None:
    return None if node is None else _first_known(node.inputs, index)


def _first_known(values: Sequence[str], index: ModuleIndex) -> Node | None:
    """The node behind the first value of the source model; values made by a fusion bear a node's name."""
    found = (index.producers.get(value) or index.nodes.get(value) for value in values)
    return next((node for node in found if node is not None), None)


def _reads(matched: Sequence[OptimizedNode | None]) -> list[list[int]]:
    """Positions of the operations whose values each operation reads."""
    writer = {value: i for i, node in enumerate(matched) if node is not None for value in node.outputs if value}
    return [[writer[v] for v in node.inputs if v in writer] if node is not None else [] for node in matched]


def placement(events: Sequence[OrtEvent]) -> Mapping[str, int]:
    """Number of operations by the execution provider that ran them."""
    counts: dict[str, int] = {}
    for event in events:
        counts[event.provider] = counts.get(event.provider, 0) + 1
    return counts
