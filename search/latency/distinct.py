"""The distinct blocks of a space: all of them where they can be listed, else many of them and how many there can be.

A coded space (``Space.coding``) lists every block. In the others a block's widths are mask groups with hundreds of
values each, so that its distinct blocks are products of them: those are counted, and a sample is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.latency.table import BlockKey
from search.spaces.block import BlockSpec
from search.spaces.space import Space


@dataclass(frozen=True)
class DistinctBlocks:
    """Distinct blocks of a space at an input size.

    Attributes:
        blocks: By key; all of them where ``exact``, else a sample.
        exact: Whether ``blocks`` is all.
        most: How many there are where ``exact``; else no fewer than there are, counted as products of widths.
    """

    blocks: Mapping[BlockKey, BlockSpec]
    exact: bool
    most: int


def distinct_blocks(
    space: Space[Any], input_size: tuple[int, int], *, seed: int = 0, draws: int = 200
) -> DistinctBlocks:
    """The distinct blocks of a space.

    Args:
        space: The space.
        input_size: Height and width in pixels.
        seed: Seed of the sample, where one is drawn.
        draws: Architectures in the sample; the smallest and the biggest are added.

    Raises:
        UsageError: If the space's networks cannot take the input size.
    """
    coding = space.coding(input_size)
    if coding is not None:
        return DistinctBlocks({block.key: block for block in coding.blocks}, True, len(coding.blocks))
    rng = random.Random(seed)
    archs = [space.smallest(), space.biggest(), *(space.sample(rng) for _ in range(draws))]
    found = {block.key: block for arch in archs for block in space.blocks(arch, input_size)}
    return DistinctBlocks(found, False, most_blocks(space, input_size))


def most_blocks(space: Space[Any], input_size: tuple[int, int]) -> int:
    """No fewer than the distinct blocks of a space whose widths are mask groups.

    For each block at full width: the number of widths of every group that its key depends on, multiplied. Blocks in
    different places with one key at full width count once. A width of 0, which takes a branch away, counts as a width.

    Args:
        space: The space; its biggest network and that one's neighbours have every block that it can have.
        input_size: Height and width in pixels.
    """
    biggest = space.biggest()
    known = set(space.channel_plan(biggest).groups)
    others = [arch for arch in space.neighbours(biggest) if not known.issuperset(space.channel_plan(arch).groups)]
    counted: dict[BlockKey, int] = {}
    for arch in (biggest, *others):
        specs = {spec.name: spec for spec in space.blocks(arch, input_size)}
        if counted.keys() >= {spec.key for spec in specs.values()}:
            continue
        widths = dict.fromkeys(specs, 1)
        for group in space.channel_plan(arch).groups.values():
            if group.width > group.floor:
                fewer = space.with_widths(arch, {group.name: group.width - 1})
                for spec in space.blocks(fewer, input_size):
                    if spec.key != specs[spec.name].key:
                        widths[spec.name] *= group.width - group.floor + 1
        for name, spec in specs.items():
            counted.setdefault(spec.key, widths[name])
    return sum(counted.values())
