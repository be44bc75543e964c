"""Blocks as numbers: what several inputs of one shape become."""

import pytest

from search.latency.block_predictor import BlockPredictor
from search.latency.fields import folded, form_key, forms_of
from search.spaces.block import BlockSpec
from tests.search.latency.made_tables import made_table


def block(*inputs, kind="inas.transport_fuse"):
    return BlockSpec("fuse", kind, inputs, ((16, 8, 8),), (("kernel", 3),), 0, 0)


SAME, OTHER = (16, 8, 8), (16, 4, 4)


def test_inputs_of_one_shape_are_told_once_with_their_number():
    assert folded(block(SAME)) == block(SAME)
    assert folded(block(SAME, OTHER)) == block(SAME, OTHER)
    found = folded(block(SAME, SAME, SAME))
    assert found.inputs == (SAME,)
    assert dict(found.settings) == {"inputs": 3, "kernel": 3}


def test_sums_of_one_two_and_three_maps_share_a_form():
    specs = [block(SAME), block(SAME, SAME), block(SAME, SAME, SAME)]
    forms = forms_of(specs)
    assert list(forms) == [("inas.transport_fuse", 1, 1)]
    form = forms[form_key(specs[0])]
    at = form.columns.index("set.inputs")
    assert [form.fields(spec)[at] for spec in specs] == [1, 2, 3]
    assert form.is_choice[at]
    assert form_key(block(SAME, OTHER)) == ("inas.transport_fuse", 2, 1)


@pytest.fixture(scope="module")
def predictor():
    return BlockPredictor.fit(made_table(), epochs=1, members=2)


def test_a_number_of_inputs_that_was_never_measured_is_refused(predictor):
    known = next(spec for spec in made_table().rows.values() if len(spec.inputs) > 1).spec
    assert not predictor.refusal(known)
    assert "inputs 9 is none of" in predictor.refusal(known._replace(inputs=known.inputs[:1] * 9))


def test_inputs_of_one_shape_are_refused_where_no_block_of_the_kind_has_several(predictor):
    stem = next(row.spec for row in made_table().rows.values() if row.kind == "inas.stem")
    assert "the setting inputs" in predictor.refusal(stem._replace(inputs=stem.inputs * 2))
