"""Whether a fitted predictor ever says that a wider block is faster."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.latency.block_predictor import BlockPredictor
from search.latency.fields import Form, form_key, forms_of
from search.spaces.block import BlockSpec
from search.spaces.registry import find_space
from search.spaces.space import Space

PAIRS = 1000


def widening_ratios(blocks: BlockPredictor, count: int = PAIRS, seed: int = 0) -> NDArray[np.float64]:
    """Predicted latency of wider blocks over that of narrower ones.

    Args:
        blocks: The predictor.
        count: Pairs, of blocks that differ in widths only.
        seed: Of the draw.

    Returns:
        At most ``count`` ratios; 1 and above where nothing falls.
    """
    conditions = blocks.conditions
    space: Space[Any] = find_space(conditions.space, conditions.classes)
    rng = random.Random(seed)
    coding = space.coding(conditions.input_size)
    pairs = _listed(coding.blocks, rng) if coding is not None else _drawn(space, conditions.input_size, rng)
    known = (pair for pair in pairs if not any(map(blocks.refusal, pair)))
    chosen = [pair for pair, _ in zip(known, range(count), strict=False)]
    narrow, wide = ([pair[side] for pair in chosen] for side in (0, 1))
    ratios: NDArray[np.float64] = blocks.predict_blocks(wide).latency_us / blocks.predict_blocks(narrow).latency_us
    return ratios


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
