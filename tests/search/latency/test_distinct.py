"""Distinct blocks: listed where they can be, else counted."""

import itertools

from search.latency.distinct import distinct_blocks, most_blocks
from search.spaces.registry import find_space


def test_inas_has_2476():
    found = distinct_blocks(find_space("inas"), (224, 224))
    assert found.exact
    assert found.most == len(found.blocks) == 2476
    assert all(key == block.key for key, block in found.blocks.items())


def test_rtseg_is_sampled_and_counted():
    space, size = find_space("rtseg-tiny"), (64, 64)
    found = distinct_blocks(space, size, draws=20)
    assert not found.exact
    assert found.blocks.keys() == distinct_blocks(space, size, draws=20).blocks.keys()
    assert len(found.blocks) < found.most


def test_the_count_is_that_of_all_combinations():
    """Two widths decide the first two blocks of RTSeg's detail branch; their combinations are few enough to list."""

    class FirstBlocks(type(find_space("rtseg-tiny"))):
        def blocks(self, arch, input_size):
            return super().blocks(arch, input_size)[:2]

    space, size = FirstBlocks("rtseg-tiny"), (64, 64)
    groups = space.channel_plan(space.biggest()).groups
    ranges = {name: range(groups[name].floor, groups[name].width + 1) for name in ("detail.0.0", "detail.0.1")}
    keys = {
        block.key
        for chosen in itertools.product(*ranges.values())
        for block in space.blocks(space.with_widths(space.biggest(), dict(zip(ranges, chosen, strict=True))), size)
    }
    assert most_blocks(space, size) == len(keys) == 7 + 7 * 7
