"""From a per-op profile to the times of blocks: every operation goes to the block whose module made it.

Layout changes between two blocks go to neither: whether one is needed depends on both, and a short block would seem to
take a third more in one network than in another.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search.spaces.block import BlockSpec
from targets.profiles.join import ModuleIndex
from targets.records import Artifact, OpProfile

_PRODUCTS = ("conv", "gemm", "matmul", "fullyconnected", "fully_connected")


@dataclass(frozen=True)
class SourceModules:
    """Where the nodes of a source model lie.

    Attributes:
        by_node: Module path of each node by its name.
        readers: By node, the modules of the nodes that read what it writes.
    """

    by_node: Mapping[str, str] = field(default_factory=dict)
    readers: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, artifact: Artifact) -> SourceModules:
        """Of an ONNX artifact; empty of a TFLite file, whose operations tell their modules themselves.

        Raises:
            InvalidModel: If the file cannot be read.
        """
        if artifact.format != "onnx":
            return cls()
        index = ModuleIndex.from_onnx(Path(artifact.path))
        by_value: dict[str, set[str]] = {}
        for node in index.nodes.values():
            for value in node.inputs:
                by_value.setdefault(value, set()).add(node.module)
        named = {**index.producers, **index.nodes}
        readers = {
            name: frozenset[str]().union(*(by_value.get(value, set()) for value in node.outputs))
            for name, node in named.items()
        }
        return cls({name: node.module for name, node in named.items()}, readers)


@dataclass(frozen=True)
class BlockTimes:
    """What one profile says of a network's blocks.

    Attributes:
        blocks_us: Sum of each block's operations by ``BlockSpec.name``, microseconds; a block that has none is 0.
        unattributed_us: Operations that belong to no block, layout changes between blocks among them.
        straddling_us: Operations that execute nodes of several blocks and were given to one of them, a part of
            ``blocks_us``.
    """

    blocks_us: dict[str, float]
    unattributed_us: float
    straddling_us: float


def block_times(profile: OpProfile, blocks: Sequence[BlockSpec], source: SourceModules) -> BlockTimes:
    """Sum a profile's operations by block.

    An operation's own module counts, by the longest block name that is its path or a prefix of it. Where none is (the
    runtime fused nodes of two blocks, so that only their common parent is told), its source nodes decide: the first
    that lies in a block, one that multiplies before one that does not, because that is where the time goes.

    Args:
        profile: Operations, rescaled to the unprofiled total.
        blocks: The network's blocks.
        source: Tells the modules of source nodes.
    """
    sums = dict.fromkeys((block.name for block in blocks), 0.0)
    unattributed_us = straddling_us = 0.0
    for op in profile.ops:
        sources = [(node, _block_of(source.by_node.get(node), sums)) for node in op.source_nodes]
        found = _block_of(op.module, sums) or _deciding(sources)
        if found is None or (op.kind == "layout" and _leaves(op.source_nodes, source, sums)):
            unattributed_us += op.latency_us
            continue
        sums[found] += op.latency_us
        if len({block for _, block in sources if block is not None}) > 1:
            straddling_us += op.latency_us
    return BlockTimes(sums, unattributed_us, straddling_us)


def _leaves(nodes: Sequence[str], source: SourceModules, names: Container[str]) -> bool:
    """Whether what the last of these nodes writes is read in another block than the one it lies in."""
    if not nodes:
        return False
    own = _block_of(source.by_node.get(nodes[-1]), names)
    return any(_block_of(reader, names) != own for reader in source.readers.get(nodes[-1], ()))


def _block_of(module: str | None, names: Container[str]) -> str | None:
    while module and module not in names:
        module = module.rpartition(".")[0]
    return module or None


def _deciding(sources: Sequence[tuple[str, str | None]]) -> str | None:
    inside = [(node, block) for node, block in sources if block is not None]
    products = [block for node, block in inside if any(word in node.lower() for word in _PRODUCTS)]
    return next(iter([*products, *(block for _, block in inside)]), None)
