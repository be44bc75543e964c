"""Which nodes of the source model an executed OpenVINO operation stands for.

Rules in order: the plugin's own list of originals, without ``/WithoutBiases``; the read model, where
a node that OpenVINO named itself (``MVN_384``) leads to the source node it is a part of; a
``Reorder``'s value; last, the one module its neighbours in the executed graph share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from targets.profiles.assemble import Joined
from targets.profiles.join import ModuleIndex, Node, from_neighbours
from targets.profiles.openvino import Counter, ExecutedNode

_PARTS = ("/WithoutBiases",)
_LAYOUT = {"Reorder", "Transpose"}
_SOURCES = {"Const", "Input"}
_FARTHEST = 6  # nodes from a part of a decomposed operation to the node that carries its name


def read_model_aliases(model: Any, index: ModuleIndex) -> dict[str, str]:
    """Names that OpenVINO gave while reading, mapped to the source node that they are a part of.

    Args:
        model: ``openvino.Model`` before compiling.
        index: The source model.
    """
    nodes = model.get_ordered_ops()
    place = {node.get_friendly_name(): i for i, node in enumerate(nodes)}
    rows = []
    for node in nodes:
        readers = {port.get_node().get_friendly_name() for out in node.outputs() for port in out.get_target_inputs()}
        rows.append(ReadNode(node.get_friendly_name(), node.get_type_name(), tuple(place[name] for name in readers)))
    return aliases_of(rows, index)


@dataclass(frozen=True)
class ReadNode:
    """One node of the model as OpenVINO read it.

    Attributes:
        name: Its name.
        type: Its type.
        readers: Positions of the nodes that read what it writes.
    """

    name: str
    type: str
    readers: tuple[int, ...]


def aliases_of(nodes: Sequence[ReadNode], index: ModuleIndex) -> dict[str, str]:
    """The same from plain rows, which a device can send.

    An ONNX node that becomes several OpenVINO nodes leaves its name on the last of them, so the
    others are followed to their reader.

    Args:
        nodes: All nodes of the read model.
        index: The source model.
    """
    aliases: dict[str, str] = {}
    for start in nodes:
        if index.node_or_value(start.name) is not None or start.type in ("Constant", "Parameter", "Result"):
            continue
        node = start
        for _ in range(_FARTHEST):
            if len(set(node.readers)) != 1:
                break
            node = nodes[node.readers[0]]
            source = index.node_or_value(node.name)
            if source is not None:
                aliases[start.name] = source.name
                break
    return aliases


def join_counters(
    counters: Sequence[Counter], graph: Sequence[ExecutedNode], index: ModuleIndex, aliases: Mapping[str, str]
) -> tuple[Joined, ...]:
    """Join executed operations to source nodes and modules.

    Args:
        counters: Executed operations in order.
        graph: The executed graph.
        index: The source model.
        aliases: From :func:`read_model_aliases`.
    """
    position = {node.name: i for i, node in enumerate(graph)}
    reads = [
        [
            position[name]
            for name in node.inputs
            if name in position and graph[position[name]].layer_type not in _SOURCES
        ]
        for node in graph
    ]
    sources = [_sources(node, index, aliases) for node in graph]
    modules = [_main_module(node.name, found) for node, found in zip(graph, sources, strict=True)]
    moved = [_is_moved(node, found) for node, found in zip(graph, sources, strict=True)]
    for i, inputs in enumerate(reads):
        if modules[i] is None and moved[i]:  # a change of layout belongs to the module whose value it converts
            modules[i] = next((modules[j] for j in inputs if modules[j] is not None), None)
    settled = from_neighbours(modules, reads)
    joined = {
        node.name: Joined(
            tuple(source.name for source in found),
            module,
            "layout" if layout else "compute",
            guessed=before is None and module is not None,
        )
        for node, found, before, module, layout in zip(graph, sources, modules, settled, moved, strict=True)
    }
    return tuple(joined.get(counter.name, Joined()) for counter in counters)


def _sources(node: ExecutedNode, index: ModuleIndex, aliases: Mapping[str, str]) -> list[Node]:
    found: dict[str, Node] = {}
    for original in node.originals or (node.name,):
        for part in _PARTS:
            original = original.removesuffix(part)
        source = index.node_or_value(original) or index.node_or_value(aliases.get(original, ""))
        if source is not None:
            found.setdefault(source.name, source)
    return list(found.values())


def _main_module(name: str, sources: Sequence[Node]) -> str | None:
    """Module of the source that the operation is named after, else of the first one."""
    for part in _PARTS:
        name = name.removesuffix(part)
    main = next((source for source in sources if source.name == name), sources[0] if sources else None)
    return None if main is None else main.module


def _is_moved(node: ExecutedNode, sources: Sequence[Node]) -> bool:
    """Whether the operation is a change of layout that is not in the source model."""
    return node.layer_type in _LAYOUT and not any(source.op_type == "Transpose" for source in sources)
