import random

import numpy as np
import pytest
import torch

from search.latency.block_predictor import BlockPredictor
from search.latency.gradient import DifferentiableLatency, latency_and_gradient
from search.spaces.registry import find_space
from targets.errors import UsageError
from tests.search.latency.made_tables import NOISE, SIZES, made_table

SPACE = find_space("rtseg-tiny")
SIZE = SIZES["rtseg-tiny"]


@pytest.fixture(scope="module")
def predictor():
    return BlockPredictor.fit(made_table("rtseg-tiny", archs=60), epochs=40)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_is_finite_and_equals_finite_differences(predictor, seed):
    arch = SPACE.sample(random.Random(seed))
    latency, gradient = latency_and_gradient(predictor, arch, SIZE)
    groups = SPACE.channel_plan(arch).groups
    assert set(gradient) == set(groups)
    assert latency > 0
    function = DifferentiableLatency(predictor, arch, SIZE)
    for name, slope in gradient.items():
        step = 1e-3
        low, high = (function({name: torch.tensor(groups[name].width + sign * step)}) for sign in (-1.0, 1.0))
        assert np.isfinite(slope)
        assert slope == pytest.approx((high - low).item() / (2 * step), rel=0.05)


def test_the_trend_is_near_the_prediction_and_follows_the_widths(predictor):
    arch = SPACE.sample(random.Random(3))
    function = DifferentiableLatency(predictor, arch, SIZE)
    exact = predictor.predict_blocks(SPACE.blocks(arch, SIZE)).latency_us.sum() / 1e3
    assert function({}).item() == pytest.approx(exact, rel=0.05)
    assert sum(part.item() for part in function.by_block({}).values()) == pytest.approx(function({}).item())
    name, group = next(iter(SPACE.channel_plan(arch).groups.items()))
    other = SPACE.with_widths(arch, {name: group.width - 1})
    there = DifferentiableLatency(predictor, other, SIZE)
    assert function({name: torch.tensor(float(group.width - 1))}).item() == pytest.approx(there({}).item(), rel=1e-9)


def test_widening_never_lowers_a_block_by_more_than_the_noise(predictor):
    rng, narrow, wide = random.Random(5), [], []
    while len(narrow) < 1000:
        arch = SPACE.sample(rng)
        groups = SPACE.channel_plan(arch).groups
        name = rng.choice(list(groups))
        other = SPACE.with_widths(arch, {name: groups[name].width + rng.choice((1, 2, 4))})
        for before, after in zip(SPACE.blocks(arch, SIZE), SPACE.blocks(other, SIZE), strict=True):
            if before.key != after.key and not predictor.refusal(before) and not predictor.refusal(after):
                narrow.append(before)
                wide.append(after)
    ratio = predictor.predict_blocks(wide).latency_us / predictor.predict_blocks(narrow).latency_us
    assert ratio.min() > 1 - NOISE
    assert np.median(ratio) > 1


def test_what_has_no_gradient_is_refused(predictor):
    inas = find_space("inas-tiny")
    with pytest.raises(UsageError, match="cannot know"):
        latency_and_gradient(predictor, inas.smallest(), (64, 64))
    arch = SPACE.biggest()
    with pytest.raises(UsageError, match="no mask group 'nose'"):
        DifferentiableLatency(predictor, arch, SIZE)({"nose": torch.tensor(3.0)})
    with pytest.raises(UsageError, match="no mask groups"):
        latency_and_gradient(BlockPredictor.fit(made_table(archs=2), epochs=1, members=2), inas.smallest(), (64, 64))
