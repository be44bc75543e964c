"""Populations: sums over blocks, coded and listed."""

import random

import numpy as np
import pytest

from search.latency.population import CodedPopulation, ListedPopulation, population_of, sample_population
from search.spaces.registry import find_space
from targets.errors import UsageError

SPACES = [("inas-tiny", (64, 96)), ("rtseg-tiny", (64, 64)), ("csnet", (64, 64))]


def drawn(name, count=12):
    space, rng = find_space(name), random.Random(5)
    return space, [space.smallest(), space.biggest(), *(space.sample(rng) for _ in range(count))]


@pytest.mark.parametrize(("name", "size"), SPACES)
def test_sums_are_those_of_each_architecture(name, size):
    space, archs = drawn(name)
    population = population_of(space, size, archs)
    assert list(population) == archs
    assert population_of(space, size, population) is population
    values = np.random.default_rng(0).uniform(1, 9, len(population.blocks))
    by_key = {block.key: value for block, value in zip(population.blocks, values, strict=True)}
    wanted = [sum(by_key[spec.key] for spec in arch.blocks(size)) for arch in archs]
    np.testing.assert_allclose(population.sum_blocks(values), wanted, rtol=1e-12)
    two = population.sum_blocks(np.stack([values, values**2], axis=1))
    assert two.shape == (len(archs), 2)
    np.testing.assert_allclose(two[:, 0], wanted, rtol=1e-12)
    parts = population.sum_by_part(values)
    np.testing.assert_allclose(sum(parts.values()), wanted, rtol=1e-12)
    for part, sums in parts.items():
        mine = [sum(by_key[s.key] for s in arch.blocks(size) if s.name.split(".")[0] == part) for arch in archs]
        np.testing.assert_allclose(sums, mine, rtol=1e-12)


@pytest.mark.parametrize(("name", "size"), SPACES)
def test_ids_name_each_block(name, size):
    space, archs = drawn(name, 4)
    population = population_of(space, size, archs)
    for arch, ids in zip(archs, population.block_ids(), strict=True):
        found = {slot: population.blocks[i].key for slot, i in zip(population.slots, ids, strict=True) if i >= 0}
        assert found == {spec.name: spec.key for spec in arch.blocks(size)}
    used = population.used()
    keys = {spec.key for arch in archs for spec in arch.blocks(size)}
    assert {block.key for block, there in zip(population.blocks, used, strict=True) if there} == keys


@pytest.mark.parametrize(("name", "size"), SPACES)
def test_a_part_of_a_population(name, size):
    space, archs = drawn(name)
    population = population_of(space, size, archs)
    values = np.arange(1.0, len(population.blocks) + 1)
    some = population[3:9]
    assert list(some) == archs[3:9]
    assert population[-1] == archs[-1]
    assert np.array_equal(some.sum_blocks(values), population.sum_blocks(values)[3:9])


def test_unknown_values_of_unused_blocks_do_not_matter():
    space, archs = drawn("inas-tiny", 3)
    population = population_of(space, (64, 96), archs)
    values = np.where(population.used(), 1.0, np.nan)
    assert population.sum_blocks(values).tolist() == [len(arch.blocks((64, 96))) for arch in archs]
    values[population.block_ids()[1, 0]] = np.nan
    assert np.isnan(population.sum_blocks(values)[1])


def test_many_rows_in_chunks():
    space = find_space("inas-tiny")
    population = sample_population(space, (64, 64), 20_000, np.random.default_rng(0))
    values = np.random.default_rng(1).uniform(1, 2, len(population.blocks))
    ids = population.block_ids()
    np.testing.assert_allclose(population.sum_blocks(values), np.append(values, 0)[ids].sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("name", ["inas-tiny", "rtseg-tiny"])
def test_a_seed_draws_the_same(name):
    space = find_space(name)
    first, second = (list(sample_population(space, (64, 64), 5, np.random.default_rng(4))) for _ in range(2))
    assert first == second
    assert list(sample_population(space, (64, 64), 5, np.random.default_rng(5))) != first


def test_refusals():
    space, archs = drawn("inas-tiny", 1)
    population = population_of(space, (64, 64), archs)
    with pytest.raises(UsageError, match="not one for each"):
        population.sum_blocks(np.ones(3))
    with pytest.raises(UsageError, match="population is of inas-tiny"):
        population_of(space, (96, 96), population)
    with pytest.raises(UsageError, match="not of the space rtseg-tiny"):
        population_of(find_space("rtseg-tiny"), (64, 64), archs)
    for wrong in (population.codes + 100, population.codes - 1, population.codes[:, 1:]):
        with pytest.raises(UsageError, match="no architectures"):
            CodedPopulation(space, (64, 64), population.coding, wrong)
    with pytest.raises(UsageError):
        ListedPopulation(space, (65, 64), archs)
