import itertools
import math
import random
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import export_torch
from search.spaces.export import export_network
from search.spaces.inas.arch import DECODER, FACTORS, KERNELS, STAGES, TRANSPORT, INASArch
from search.spaces.inas.space import INASSpace
from search.spaces.registry import arch_from_json, find_arch, find_space
from targets.errors import UsageError

spaces = st.builds(INASSpace, st.sampled_from(list(FACTORS)), st.sampled_from([None, 1, 19]))
seeds = st.integers(0, 2**32)


def fields_of(arch):
    """Every choice by name, depths included."""
    found = {"stem": arch.stem}
    for stage, (widths, kernels) in enumerate(zip(arch.widths, arch.kernels, strict=True)):
        found[f"depth{stage}"] = len(widths)
        for layer in range(len(widths)):
            found[f"width{stage}.{layer}"] = widths[layer]
            found[f"kernel{stage}.{layer}"] = kernels[layer]
    for name in ("transport", "transport_kernels", "decoder", "decoder_kernels"):
        found |= {f"{name}{level}": value for level, value in enumerate(getattr(arch, name))}
    return found


def test_count_is_the_published_one():
    space = INASSpace("inas")
    assert isinstance(space.count(), int)
    assert f"{space.count():.2e}" == "8.78e+61"
    assert f"{space.count_latency_distinct():.1e}" == "1.7e+44"
    transport, decoder = (16 * 15) ** 5, 8 * 4 * 2 * 15**5
    assert space.count() % (transport * decoder) == 0
    backbone = space.count() // (transport * decoder)
    assert (f"{backbone:.2e}", f"{transport:.2e}", f"{decoder:.2e}") == ("2.27e+42", "7.96e+11", "4.86e+07")
    assert {INASSpace(id).count() for id in FACTORS} == {space.count()}


def test_count_agrees_with_enumeration_of_two_stages():
    for stage, kernel_sets in ((STAGES[0], 1), (STAGES[6], 15)):
        layer = list(itertools.product(stage.widths, range(kernel_sets)))
        enumerated = sum(1 for depth in stage.depths for _ in itertools.product(layer, repeat=depth))
        per_depth = sum((len(stage.widths) * kernel_sets) ** depth for depth in stage.depths)
        assert enumerated == per_depth
        assert INASSpace("inas").count() % per_depth == 0


@pytest.mark.parametrize("id", FACTORS)
def test_smallest_and_biggest_hold_the_least_and_the_most(id):
    space = INASSpace(id)
    small, big = space.smallest(), space.biggest()
    assert [len(widths) for widths in small.widths] == [min(stage.depths) for stage in STAGES]
    assert [len(widths) for widths in big.widths] == [max(stage.depths) for stage in STAGES]
    assert sum(map(len, small.widths)) == 12
    assert sum(map(len, big.widths)) == 26
    assert small.stem == 32 * FACTORS[id]
    assert big.stem == 40 * FACTORS[id]
    assert {kernels for stage in small.kernels for kernels in stage} == {(3,)}
    assert big.transport == ((0, 1, 2, 3, 4),) * 5
    assert small.transport == ((0,), (1,), (2,), (3,), (4,))
    assert small.decoder == ((0, 1), (1, 2), (2, 3), (3, 4), (4,))
    assert big.decoder == ((0, 1, 2, 3, 4), (1, 2, 3, 4), (2, 3, 4), (3, 4), (4,))
    low, high = space.cost(small, (224, 224)), space.cost(big, (224, 224))
    for seed in range(50):
        params, macs = space.cost(space.sample(random.Random(seed)), (224, 224))
        assert low[0] < params < high[0]
        assert low[1] < macs < high[1]


@given(spaces, seeds)
def test_samples_lie_in_the_space(space, seed):
    arch = space.sample(random.Random(seed))
    space.validate(arch)
    assert (arch.space, arch.classes) == (space.id, space.classes)
    assert arch == space.sample(random.Random(seed))
    assert arch_from_json(arch.to_json()) == arch


def test_drawing_leaves_the_global_generator_alone():
    before = random.getstate()
    INASSpace("inas").sample(random.Random(0))
    assert random.getstate() == before


def chi_square_is_small(counts, choices):
    """Whether counts of equally likely choices lie within 6 standard deviations of chi-square's mean."""
    total, degrees = sum(counts.values()), len(choices) - 1
    assert set(counts) <= set(choices)
    expected = total / len(choices)
    chi = sum((counts[choice] - expected) ** 2 / expected for choice in choices)
    return chi <= degrees + 6 * math.sqrt(2 * degrees)


def test_every_choice_is_uniform():
    space, draw = INASSpace("inas"), random.Random(20)
    archs = [space.sample(draw) for _ in range(4000)]
    kernel_sets = [subset for size in (1, 2, 3, 4) for subset in itertools.combinations(KERNELS, size)]
    assert chi_square_is_small(Counter(arch.stem for arch in archs), (32, 36, 40))
    for stage, choices in enumerate(STAGES):
        layers = [arch.widths[stage][0] for arch in archs]
        assert chi_square_is_small(Counter(len(arch.widths[stage]) for arch in archs), choices.depths)
        assert chi_square_is_small(Counter(layers), choices.widths)
        if choices.kernels == KERNELS:
            assert chi_square_is_small(Counter(arch.kernels[stage][-1] for arch in archs), kernel_sets)
    for level in range(5):
        for name, subsets in (("transport", TRANSPORT[level].subsets), ("decoder", DECODER[level].subsets)):
            assert chi_square_is_small(Counter(getattr(arch, name)[level] for arch in archs), subsets)
            kernels = Counter(getattr(arch, f"{name}_kernels")[level] for arch in archs)
            assert chi_square_is_small(kernels, kernel_sets)


def test_the_test_of_uniformity_sees_a_bias():
    draw = random.Random(0)  # size first, then members
    kernel_sets = [subset for size in (1, 2, 3, 4) for subset in itertools.combinations(KERNELS, size)]
    biased = Counter(tuple(sorted(draw.sample(KERNELS, draw.randint(1, 4)))) for _ in range(4000))
    assert not chi_square_is_small(biased, kernel_sets)


def members_apart(one, other):
    return len(set(one) ^ set(other)) if isinstance(one, tuple) else 1


@pytest.mark.parametrize("id", FACTORS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neighbours_differ_in_one_choice(id, seed):
    space = INASSpace(id)
    arch = space.sample(random.Random(seed))
    mine = fields_of(arch)
    neighbours = list(space.neighbours(arch))
    assert len(set(neighbours)) == len(neighbours)
    assert arch not in neighbours
    for other in neighbours:
        space.validate(other)
        theirs = fields_of(other)
        changed = [name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]]
        assert len(changed) == 1
        if changed[0].startswith("depth"):
            assert abs(mine[changed[0]] - theirs[changed[0]]) == 1
            assert len(mine.keys() ^ theirs.keys()) == 2
        else:
            assert mine.keys() == theirs.keys()
            assert members_apart(mine[changed[0]], theirs[changed[0]]) == 1


def test_number_of_neighbours_of_both_ends():
    space = INASSpace("inas")
    # stem, widths, layers longer or shorter, kernel sets of layers (one of 4 removed, or one of 3 added), head
    widths_small = 2 + 2 * (1 + 2 + 2 + 2) + 4 * 2 + 6 * 2 + 8
    small = widths_small + 7 + 3 * (2 + 2 + 2 + 2 + 1) + 5 * 4 + 5 * 3 + (3 + 2 + 1) + 5 * 3
    assert len(list(space.neighbours(space.smallest()))) == small
    widths_big = 2 + 2 * (2 + 3 + 3 + 4) + 4 * 6 + 6 * 6 + 8 * 2
    big = widths_big + 7 + 4 * (3 + 4 + 6 + 6 + 2) + 5 * 4 + 5 * 4 + (3 + 2 + 1) + 5 * 4
    assert len(list(space.neighbours(space.biggest()))) == big


def amount(arch):
    """Grows with every choice."""
    widths = [width for stage in arch.widths for width in stage]
    subsets = [*itertools.chain(*arch.kernels), *arch.transport, *arch.decoder]
    return arch.stem + sum(widths) + sum(map(len, (*subsets, *arch.transport_kernels, *arch.decoder_kernels)))


def test_steps_through_neighbours_lead_from_smallest_to_biggest():
    space = INASSpace("inas-tiny")
    arch = space.smallest()
    for _ in range(1000):
        bigger = next((other for other in space.neighbours(arch) if amount(other) > amount(arch)), None)
        if bigger is None:
            break
        arch = bigger
    assert arch == space.biggest()


def test_the_space_refuses_what_it_does_not_hold():
    space = INASSpace("inas")
    with pytest.raises(UsageError, match="space: 'inas-tiny' is not 'inas'"):
        space.validate(INASSpace("inas-tiny").smallest())
    with pytest.raises(UsageError, match="classes: 19 is not 1"):
        space.validate(INASSpace("inas", 19).smallest())
    unchecked = space.smallest().model_copy(update={"decoder": ((0, 2), (1, 2), (2, 3), (3, 4), (4,))})
    with pytest.raises(UsageError, match=r"decoder\[0\]: must hold 0, 1"):
        space.validate(unchecked)


def test_names_lead_to_the_space():
    assert find_arch("inas:smallest") == INASSpace("inas").smallest()
    assert find_arch("inas-tiny-c19:biggest") == INASSpace("inas-tiny", 19).biggest()
    assert find_arch("inas-small:random-5") == INASSpace("inas-small").sample(random.Random(5))
    assert find_space("inas-small").arch_class is INASArch


def test_sampling_and_blocks_are_fast():
    space, draw = INASSpace("inas"), random.Random(0)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(200):
            space.sample(draw).blocks((224, 224))
        seconds.append(time.process_time() - start)
    assert 200 / min(seconds) >= 2000


def test_uneven_widths_can_have_more_parameters_than_the_biggest():
    space = INASSpace("inas")
    big = space.biggest()
    assert any(space.cost(arch, (64, 64))[0] > space.cost(big, (64, 64))[0] for arch in space.neighbours(big))


@pytest.mark.parametrize(("classes", "name"), [(1, "saliency"), (19, "logits")])
def test_the_output_of_several_classes_is_called_logits(classes, name, monkeypatch, tmp_path):
    space = INASSpace("inas-tiny", classes)
    seen = {}
    monkeypatch.setattr(export_torch, "export_onnx", lambda *args, **named: seen.update(named))
    export_network(None, space.smallest(), tmp_path / "x.onnx", input_size=(64, 64))
    assert seen["output_name"] == space.output_name == name
