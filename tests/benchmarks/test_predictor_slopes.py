"""Pairs of a narrower and a wider block, in listed spaces and in those with mask groups."""

import numpy as np
import pytest

from benchmarks.predictor_slopes import widening_ratios
from search.latency.block_predictor import BlockPredictor
from tests.search.latency.made_tables import made_table


@pytest.mark.parametrize("space", ["inas-tiny", "rtseg-tiny"])
def test_wider_blocks_of_a_device_with_even_stairs_are_slower(space):
    blocks = BlockPredictor.fit(made_table(space), epochs=20, members=2)
    ratios = widening_ratios(blocks, 200)
    assert len(ratios) == 200
    assert np.median(ratios) > 1
    assert (ratios == widening_ratios(blocks, 200)).all()
