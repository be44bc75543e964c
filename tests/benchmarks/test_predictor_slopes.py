"""Pairs of a narrower and a wider block, in listed spaces and in those with mask groups."""

import numpy as np
import pytest

from benchmarks.predictor_slopes import widened
from search.latency.block_predictor import BlockPredictor
from search.latency.table import LatencyTable
from tests.search.latency.made_tables import made_table


@pytest.mark.parametrize("space", ["inas-tiny", "rtseg-tiny"])
def test_wider_blocks_of_a_device_with_even_stairs_are_slower(space):
    table = made_table(space)
    blocks = BlockPredictor.fit(table, epochs=20, members=2)
    found = widened(blocks, table, 200)
    assert len(found.ratios) == 200
    assert np.median(found.ratios) > 1
    assert (found.ratios == widened(blocks, table, 200).ratios).all()


def test_pairs_of_which_the_wider_is_faster_on_the_device_are_left_out():
    table = made_table("inas-tiny")
    blocks = BlockPredictor.fit(table, epochs=1, members=2)
    upside_down = LatencyTable.of(
        table.header, [row.model_copy(update={"p50_us": 1e6 / row.p50_us}) for row in table.rows.values()]
    )
    assert widened(blocks, upside_down, 200).falling > 3 * widened(blocks, table, 200).falling
