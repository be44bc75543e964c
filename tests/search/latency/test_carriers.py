"""Carriers: what they cover, and that a weight steers them."""

import random
from collections import Counter

import pytest

from search.latency.carriers import next_carriers
from search.latency.distinct import distinct_blocks
from search.spaces.block import total
from search.spaces.registry import find_space


def keys_of(archs, size):
    return Counter(spec.key for arch in archs for spec in arch.blocks(size))


def test_carriers_cover_more_than_random_networks():
    space, size = find_space("inas-tiny"), (64, 64)
    carriers = next_carriers(space, size, seen=Counter(), count=12, rng=random.Random(0))
    for arch in carriers:
        space.validate(arch)
    draw = random.Random(0)
    ours, theirs = (len(keys_of(archs, size)) for archs in (carriers, [space.sample(draw) for _ in carriers]))
    assert ours > 1.3 * theirs
    macs = [total(arch.blocks(size))[1] for arch in carriers]
    assert max(macs) > 1.3 * min(macs)


def test_one_place_needs_324_carriers():
    coding = find_space("inas").coding((224, 224))
    kinds = {slot.name: len(set(slot.table.ravel()) - {-1}) for slot in coding.slots}
    assert max(kinds.values()) == kinds["stages.6.1"] == 324


def test_what_was_seen_comes_last():
    space, size = find_space("inas-tiny"), (64, 64)
    every = distinct_blocks(space, size).blocks
    few = [key for key in every if key[0] == "inas.decoder_fuse"][::9]
    seen = Counter(dict.fromkeys(every, 1))
    for key in few:
        del seen[key]
    before = dict(seen)
    (arch,) = next_carriers(space, size, seen=seen, count=1, rng=random.Random(1))
    assert len(keys_of([arch], size).keys() & set(few)) >= 3
    assert seen == before


def test_a_weight_steers():
    space, size = find_space("inas-tiny"), (64, 64)
    seen = Counter(dict.fromkeys(distinct_blocks(space, size).blocks, 5))

    def weight(key):
        return 100.0 if key[0] == "inas.mbconv" and ("kernel", 9) in key[-1] else 1.0

    def nines(arch):
        return sum(count for key, count in keys_of([arch], size).items() if weight(key) > 1)

    (steered,) = next_carriers(space, size, seen=seen, weight=weight, count=1, rng=random.Random(2))
    assert nines(steered) >= 8


def test_same_generator_same_carriers():
    space, size = find_space("inas-tiny"), (64, 64)
    first, second = (next_carriers(space, size, seen=Counter(), count=2, rng=random.Random(3)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["rtseg-small", "csnet"])
def test_spaces_of_many_widths(name):
    space, size = find_space(name), (64, 64)
    archs = next_carriers(space, size, seen=Counter(), count=4, rng=random.Random(0))
    assert archs[:2] == [space.biggest(), space.smallest()]
    assert archs == next_carriers(space, size, seen=Counter(), count=4, rng=random.Random(0))
    for arch in archs:
        space.validate(arch)
    seen = keys_of(archs[:2], size)
    more = next_carriers(space, size, seen=seen, count=2, rng=random.Random(1))
    assert space.biggest() not in more and space.smallest() not in more


def test_widths_on_and_beside_the_grid():
    space = find_space("rtseg")
    archs = next_carriers(space, (64, 64), seen=Counter(), count=5, rng=random.Random(0))[2:]
    widths = [group.width for arch in archs for group in space.channel_plan(arch).groups.values()]
    left = Counter(width % 8 for width in widths)
    assert left[0] > len(widths) / 3
    assert left[1] + left[7] > len(widths) / 8
