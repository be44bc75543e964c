"""Whether a fitted predictor says that a wider block is faster where the device does not.

Devices do: a kernel for blocks of 16 channels halves the time of a branch when 28 channels become 32.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.latency.block_predictor import BlockPredictor
from search.latency.fields import Form, form_key, forms_of
from search.latency.table import LatencyTable
from search.spaces.block import BlockSpec
from search.spaces.registry import find_space
from search.spaces.space import Space

PAIRS = 1000
_PATIENCE = 100
"""Pairs drawn for each that is wanted, at most: a predictor that knows little refuses many."""


@dataclass(frozen=True)
class Widening:
    """Pairs of a narrower and a wider block.

    Attributes:
        ratios: Predicted latency of the wider over that of the narrower one; 1 and above where nothing falls.
        falling: Pairs drawn beside them and left out, because the wider one was measured to be faster.
    """

    ratios: NDArray[np.float64]
    falling: int


def widened(blocks: BlockPredictor, table: LatencyTable, count: int = PAIRS, seed: int = 0) -> Widening:
    """Predict pairs of blocks that differ in widths only.

    Args:
        blocks: The predictor.
        table: What it was fitted to.
        count: Pairs, at most.
        seed: Of the draw.
    """
    conditions = blocks.conditions
    space: Space[Any] = find_space(conditions.space, conditions.classes)
    rng = random.Random(seed)
    coding = space.coding(conditions.input_size)
    pairs = _listed(coding.blocks, rng) if coding is not None else _drawn(space, conditions.input_size, rng)
    chosen, falling = list[tuple[BlockSpec, BlockSpec]](), 0
    for pair in islice(pairs, _PATIENCE * count):
        if len(chosen) == count:
            break
        if any(map(blocks.refusal, pair)):
            continue
        if _measured_to_fall(pair, table):
            falling += 1
        else:
            chosen.append(pair)
    narrow, wide = ([pair[side] for pair in chosen] for side in (0, 1))
    ratios: NDArray[np.float64] = blocks.predict_blocks(wide).latency_us / blocks.predict_blocks(narrow).latency_us
    return Widening(ratios, falling)


def _measured_to_fall(pair: tuple[BlockSpec, BlockSpec], table: LatencyTable) -> bool:
    narrow, wide = (table.rows.get(block.key) for block in pair)
    return narrow is not None and wide is not None and wide.p50_us < narrow.p50_us


def _listed(blocks: Sequence[BlockSpec], rng: random.Random) -> Iterator[tuple[BlockSpec, BlockSpec]]:
    """Of blocks that can be listed: all pairs of which one has at least as many channels everywhere, shuffled."""
    forms = forms_of(blocks)
    alike: dict[tuple[object, ...], list[tuple[NDArray[np.int64], BlockSpec]]] = defaultdict(list)
    for block in blocks:
        form: Form = forms[form_key(block)]
        fields, wide = np.array(form.fields(block)), np.array(form.is_width)
        alike[form, *fields[~wide].tolist()].append((fields[wide], block))
    found = [
        (mine, other)
        for group in alike.values()
        for widths, mine in group
        for others, other in group
        if (others >= widths).all() and (others > widths).any()
    ]
    rng.shuffle(found)
    yield from found


def _drawn(space: Space[Any], size: tuple[int, int], rng: random.Random) -> Iterator[tuple[BlockSpec, BlockSpec]]:
    """Of blocks whose widths are mask groups: those that a few more channels of one group change."""
    while True:
        arch = space.sample(rng)
        groups = space.channel_plan(arch).groups
        name = rng.choice(sorted(groups))
        other = space.with_widths(arch, {name: groups[name].width + rng.choice((1, 2, 4, 8))})
        for before, after in zip(space.blocks(arch, size), space.blocks(other, size), strict=True):
            if before.key != after.key:
                yield before, after
