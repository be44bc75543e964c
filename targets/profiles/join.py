"""From a model's node and value names to the modules that made them.

The module path of a node is read from the ``pkg.torch.onnx.name_scopes`` metadata that
``torch.onnx.export(dynamo=True)`` writes, else from a slash-separated node name as the older
exporter writes (``/stage1/conv/Conv``), else the node's own name stands for its module.
Which of a runtime's operations executes which node is the business of one file a runtime.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from targets.errors import InvalidModel

NAME_SCOPES = "pkg.torch.onnx.name_scopes"

_LONGEST_SCOPES = 8192
_QUOTED = r"'[^'\\]*'|\"[^\"\\]*\""
_SCOPES = re.compile(rf"\[(?:{_QUOTED})(?:, (?:{_QUOTED}))*\]")
_ITEM = re.compile(_QUOTED)


def parse_name_scopes(text: str) -> tuple[str, ...] | None:
    """Read a list of quoted strings such as ``['', 'stem', 'stem.1', 'prelu']`` without evaluating it.

    Args:
        text: The metadata value; it comes out of a file and is not trusted.

    Returns:
        The strings, or ``None`` where the text is anything else, too long, or holds control characters.
    """
    if len(text) > _LONGEST_SCOPES or not text.isprintable() or not _SCOPES.fullmatch(text):
        return None
    return tuple(item[1:-1] for item in _ITEM.findall(text))


@dataclass(frozen=True)
class Node:
    """One node of the source model.

    Attributes:
        name: Node name, possibly empty.
        op_type: ONNX operator.
        module: Module path, ``""`` for the top module.
        inputs: Names of the values it reads.
        outputs: Names of the values it writes.
        stands_alone: Whether the file names no module for it, so that ``module`` is its own name.
    """

    name: str
    op_type: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stands_alone: bool = False


@dataclass(frozen=True)
class ModuleIndex:
    """Nodes of a source model by name and by the value they write.

    Attributes:
        nodes: Nodes by name; a name that two nodes of different modules share is left out.
        producers: The node that writes each value.
        alone: Number of nodes that the file names no module for.
        count: Number of nodes.
    """

    nodes: Mapping[str, Node] = field(repr=False)
    producers: Mapping[str, Node] = field(repr=False)
    alone: int = 0
    count: int = 0

    @property
    def names_modules(self) -> bool:
        """Whether the file names the module of any node; where not, a join to a module is true by construction."""
        return self.alone < self.count or self.count == 0

    def notes(self) -> list[str]:
        """What a reader of the joined share must know, one sentence or none."""
        if not self.names_modules:
            return ["The file names no modules: each node stands for itself, so the joined share says nothing."]
        if self.alone:
            return [
                f"The file names no module for {self.alone} of its {self.count} nodes: each of those stands for itself."
            ]
        return []

    @classmethod
    def from_onnx(cls, path: Path) -> ModuleIndex:
        """Index an ONNX file (weights kept outside it are not read).

        Args:
            path: The file.

        Raises:
            InvalidModel: If it cannot be read as ONNX.
        """
        try:
            model = onnx.load(str(path), load_external_data=False)
        except (DecodeError, OSError, ValueError) as error:
            raise InvalidModel(
                f"{path.name} cannot be read as ONNX: {error}", "Name the file that was exported."
            ) from error
        weights = {tensor.name for tensor in model.graph.initializer}
        return cls.from_nodes(_described(proto, weights) for proto in _all_nodes(model.graph))

    @classmethod
    def from_nodes(cls, nodes: Iterable[Node]) -> ModuleIndex:
        """Index nodes that are known already, in the order of the model."""
        by_name: dict[str, Node] = {}
        producers: dict[str, Node] = {}
        ambiguous: set[str] = set()
        known = tuple(nodes)
        for node in known:
            if by_name.setdefault(node.name, node).module != node.module:
                ambiguous.add(node.name)
            for value in node.outputs:
                producers.setdefault(value, node)
        ambiguous.add("")
        return cls(
            {name: node for name, node in by_name.items() if name not in ambiguous},
            producers,
            alone=sum(node.stands_alone for node in known),
            count=len(known),
        )

    def node_or_value(self, name: str) -> Node | None:
        """The node of that name, else the node that writes the value of that name."""
        return self.nodes.get(name) or self.producers.get(name)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes in order, the bodies of control flow included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from _all_nodes(body)


def _described(proto: onnx.NodeProto, weights: set[str]) -> Node:
    scopes = next((parse_name_scopes(entry.value) for entry in proto.metadata_props if entry.key == NAME_SCOPES), None)
    module = _module_from_name(proto) if scopes is None else _module_from_scopes(scopes, proto, weights)
    outputs = tuple(value for value in proto.output if value)
    alone = scopes is None and not proto.name.startswith("/")
    return Node(proto.name, proto.op_type, module, tuple(proto.input), outputs, alone)


def _module_from_scopes(scopes: tuple[str, ...], proto: onnx.NodeProto, weights: set[str]) -> str:
    """The last scope is the traced call itself, the one before it the calling module.

    A convolution into which a batch norm was folded carries the batch norm's call and scope; the name
    of its weight still tells the convolution's, which is taken where both lie in the same parent.
    """
    module = scopes[-2] if len(scopes) > 1 else ""
    if proto.op_type.startswith("Conv") and "batch_norm" in scopes[-1]:
        owner, _, last = proto.input[1].rpartition(".") if len(proto.input) > 1 else ("", "", "")
        if last == "weight" and proto.input[1] in weights and _parent(owner) == _parent(module):
            return owner
    return module


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def _module_from_name(proto: onnx.NodeProto) -> str:
    if not proto.name:
        return proto.output[0] if proto.output else ""
    if proto.name.startswith("/"):
        return ".".join(part for part in proto.name.split("/")[:-1] if part)
    return proto.name


def common_module(modules: Iterable[str]) -> str | None:
    """The deepest module that holds all of them, ``None`` where that is only the top or there are none."""
    paths = [module.split(".") for module in modules]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or None


def from_neighbours(modules: Sequence[str | None], reads: Sequence[Sequence[int]]) -> tuple[str | None, ...]:
    """Give operations that a runtime made up itself the one module that lies around them.

    Args:
        modules: Module of each operation, ``None`` where no rule joined it.
        reads: For each operation the positions of those whose results it reads.

    Returns:
        The modules, with each ``None`` replaced by the deepest module that holds all of its nearest
        joined predecessors and successors, where there is one below the top.
    """
    readers: list[list[int]] = [[] for _ in modules]
    for position, sources in enumerate(reads):
        for source in sources:
            readers[source].append(position)

    def nearest(start: int, edges: Sequence[Sequence[int]]) -> set[str]:
        found: set[str] = set()
        seen, pending = {start}, list(edges[start])
        while pending:
            position = pending.pop()
            module = modules[position]
            if module is not None:
                found.add(module)
            elif position not in seen:
                pending.extend(edges[position])
            seen.add(position)
        return found

    return tuple(
        common_module(nearest(position, reads) | nearest(position, readers)) if module is None else module
        for position, module in enumerate(modules)
    )
