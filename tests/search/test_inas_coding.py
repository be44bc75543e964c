"""Rows of integers for iNAS: the same architectures and the same blocks as the objects."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.spaces.inas.arch import FACTORS
from search.spaces.registry import find_space
from targets.errors import UsageError

SIZE = (224, 224)
SPACE = find_space("inas")
CODING = SPACE.coding(SIZE)


def archs_of(space, count, seed=0):
    rng = random.Random(seed)
    return [space.smallest(), space.biggest(), *(space.sample(rng) for _ in range(count))]


@pytest.mark.parametrize(("name", "size"), [*((name, SIZE) for name in FACTORS), ("inas-c3", (96, 160))])
def test_blocks_in_order_and_round_trip(name, size):
    space = find_space(name)
    coding, archs = space.coding(size), archs_of(space, 40)
    codes = coding.encode(archs)
    for arch, row, ids in zip(archs, codes, coding.block_ids(codes), strict=True):
        assert coding.decode(row) == arch
        specs = arch.blocks(size)
        assert [slot.name for slot, found in zip(coding.slots, ids, strict=True) if found >= 0] == [
            spec.name for spec in specs
        ]
        assert [coding.blocks[found].key for found in ids if found >= 0] == [spec.key for spec in specs]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=len(CODING.genes), max_size=len(CODING.genes)))
def test_every_row_is_an_architecture(shares):
    row = np.floor(np.array(shares) * CODING.sizes).astype(np.int16)
    arch = CODING.decode(row)
    SPACE.validate(arch)
    again = CODING.encode([arch])
    assert np.array_equal(again, CODING.canonical(row[None]))
    ids = CODING.block_ids(row[None])
    assert np.array_equal(ids, CODING.block_ids(again))
    assert Counter(CODING.blocks[found].key for found in ids[ids >= 0]) == Counter(s.key for s in arch.blocks(SIZE))


def test_every_distinct_block_and_no_other():
    assert len(CODING.blocks) == len({block.key for block in CODING.blocks}) == 2476
    known = {block.key: block for block in CODING.blocks}
    for arch in archs_of(SPACE, 200, seed=1):
        for spec in arch.blocks(SIZE):
            assert known[spec.key][-2:] == spec[-2:]  # parameters and MACs
    everywhere = np.concatenate([slot.table.ravel() for slot in CODING.slots])
    assert set(everywhere) - {-1} == set(range(len(CODING.blocks)))


def test_every_block_is_in_some_architecture():
    """For each slot and each block that its table holds there is a row that has it there."""
    rng = np.random.default_rng(0)
    for index, slot in enumerate(CODING.slots):
        wanted, entries = np.unique(slot.table, return_index=True)
        rows = CODING.sample(len(wanted), rng)
        for row, entry in zip(rows, entries, strict=True):
            for column, value in zip(slot.columns, np.unravel_index(entry, slot.table.shape), strict=True):
                CODING.set_column(row, column, int(value))
        assert np.array_equal(CODING.block_ids(rows)[:, index], wanted)


def test_sampling_is_uniform_in_every_gene_and_repeats():
    codes = CODING.sample(20_000, np.random.default_rng(7))
    assert np.array_equal(codes, CODING.sample(20_000, np.random.default_rng(7)))
    assert np.array_equal(codes, CODING.canonical(codes))
    objects = CODING.encode([SPACE.sample(draw) for draw in [random.Random(3)] for _ in range(2000)])
    for gene, size, ours, theirs in zip(CODING.genes, CODING.sizes, codes.T, objects.T, strict=True):
        ours, theirs = (np.bincount(found, minlength=size) / len(found) for found in (ours, theirs))
        assert np.abs(ours - theirs).max() < 0.06, gene


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"stem": 33}, "does not hold"),
        ({"stem": 10**6}, "does not hold"),
        ({"widths": ((16,),) * 7}, "does not hold"),
        ({"kernels": ((),) * 7}, "does not hold"),
        ({"decoder": ((0,), (1, 2), (2, 3), (3, 4), (4,))}, "does not hold"),
        ({"transport_kernels": ((4,),) * 5}, "does not hold"),
        ({"transport": ((0,),) * 4}, "does not hold"),
        ({"widths": ((16,),) * 6, "kernels": (((3,),),) * 6}, "does not hold"),
        ({"classes": 5}, "classes 5"),
        ({"space": "inas-tiny"}, "inas-tiny"),
    ],
)
def test_foreign_architectures_are_refused(change, what):
    arch = SPACE.smallest()
    with pytest.raises(UsageError, match=what):
        CODING.encode([arch, arch.model_copy(update=change)])


def test_another_kind_of_architecture_is_refused():
    with pytest.raises(UsageError, match="none of inas"):
        CODING.encode([SPACE.smallest(), find_space("rtseg-tiny").smallest()])


def test_first_stages_have_kernel_3_only():
    arch = SPACE.smallest()
    kernels = (((3, 5),) * len(arch.kernels[0]), *arch.kernels[1:])
    with pytest.raises(UsageError, match="does not hold"):
        CODING.encode([arch.model_copy(update={"kernels": kernels})])


def test_none_at_all_and_other_sizes():
    assert CODING.encode([]).shape == (0, len(CODING.genes))
    with pytest.raises(UsageError, match="multiples of 32"):
        SPACE.coding((100, 224))
