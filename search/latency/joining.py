"""From a per-op profile to the times of blocks: every operation goes to the block whose module made it."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.spaces.block import BlockSpec
from targets.profiles.join import ModuleIndex
from targets.records import Artifact, OpProfile

Modules = Callable[[str], str | None]
"""Module path of a source node's name, ``None`` where it is not known."""
_PRODUCTS = ("conv", "gemm", "matmul", "fullyconnected", "fully_connected")


@dataclass(frozen=True)
class BlockTimes:
    """What one profile says of a network's blocks.

    Attributes:
        blocks_us: Sum of each block's operations by ``BlockSpec.name``, microseconds; a block that has none is 0.
        unattributed_us: Operations that belong to no block.
        straddling_us: Operations that execute nodes of several blocks and were given to one of them, a part of
            ``blocks_us``.
    """

    blocks_us: dict[str, float]
    unattributed_us: float
    straddling_us: float


def block_times(profile: OpProfile, blocks: Sequence[BlockSpec], modules: Modules) -> BlockTimes:
    """Sum a profile's operations by block.

    An operation's own module counts, by the longest block name that is its path or a prefix of it. Where none is (the
    runtime fused nodes of two blocks, so that only their common parent is told), its source nodes decide: the first
    that lies in a block, one that multiplies before one that does not, because that is where the time goes.

    Args:
        profile: Operations, rescaled to the unprofiled total.
        blocks: The network's blocks.
        modules: Tells the module of a source node.
    """
    sums = dict.fromkeys((block.name for block in blocks), 0.0)
    unattributed_us = straddling_us = 0.0
    for op in profile.ops:
        sources = [(node, _block_of(modules(node), sums)) for node in op.source_nodes]
        found = _block_of(op.module, sums) or _deciding(sources)
        if found is None:
            unattributed_us += op.latency_us
            continue
        sums[found] += op.latency_us
        if len({block for _, block in sources if block is not None}) > 1:
            straddling_us += op.latency_us
    return BlockTimes(sums, unattributed_us, straddling_us)


def node_modules(artifact: Artifact) -> Modules:
    """Modules of an ONNX artifact's nodes; a TFLite file's operations tell their modules themselves.

    Raises:
        InvalidModel: If the file cannot be read.
    """
    if artifact.format != "onnx":
        return lambda node: None
    index = ModuleIndex.from_onnx(Path(artifact.path))

    def module(node: str) -> str | None:
        found = index.node_or_value(node)
        return found.module if found else None

    return module


def _block_of(module: str | None, names: Container[str]) -> str | None:
    while module and module not in names:
        module = module.rpartition(".")[0]
    return module or None


def _deciding(sources: Sequence[tuple[str, str | None]]) -> str | None:
    inside = [(node, block) for node, block in sources if block is not None]
    products = [block for node, block in inside if any(word in node.lower() for word in _PRODUCTS)]
    return next(iter([*products, *(block for _, block in inside)]), None)
