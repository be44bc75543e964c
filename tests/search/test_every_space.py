"""What holds for every registered space, whatever it is made of."""

import json
import os
import random
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search.reparameterize import reparameterize
from search.spaces.block import total
from search.spaces.registry import SPACES, arch_from_json, find_arch, find_space, space_of
from targets.errors import UsageError

torch.set_num_threads(1)
DRAWS = 4
HEAVY = {"inas", "inas-small", "rtseg", "rtseg-small"}  # same code as their smaller siblings
SEEDED = """
import random, sys
from search.spaces.registry import find_space
rng = random.Random(5)
space = find_space(sys.argv[1])
print(*(space.sample(rng).sha256() for _ in range(20)))
"""


def light(names=SPACES):
    return sorted(set(names) - HEAVY)


def draws(name, n=DRAWS):
    rng = random.Random(1)
    return [find_space(name).sample(rng) for _ in range(n)]


def size_of(space):
    return (max(2 * space.multiple, 64),) * 2


def randomised(network):
    """Batch norm that does something, damped so that deep sums stay tame; nothing is zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) * 0.4 + 0.4)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
                module.running_mean.copy_(torch.randn(module.weight.shape, generator=generator) * 0.1)
                module.running_var.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
    return network.double().eval()


def difference(a, b):
    """Largest difference, relative where outputs are large (forty layers of random weights)."""
    return ((a - b).abs().max() / max(1.0, b.abs().max())).item()


def image_for(space):
    return torch.randn(1, 3, *size_of(space), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SPACES)
def test_json_round_trip_bit_for_bit(name):
    space = find_space(name)
    for arch in [*draws(name, 20), space.smallest(), space.biggest()]:
        again = arch_from_json(arch.to_json())
        assert again == arch
        assert again.to_json() == arch.to_json()
        assert again.sha256() == arch.sha256()
        assert space_of(again).id == arch.space == name
        space.validate(again)


@pytest.mark.parametrize("name", SPACES)
def test_two_processes_with_one_seed_draw_the_same(name):
    found = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-c", SEEDED, name]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1
    assert len(set(found.pop().split())) > 1


@pytest.mark.parametrize("name", SPACES)
def test_the_smallest_costs_least_and_nothing_is_wider_than_the_biggest(name):
    space = find_space(name)
    size = size_of(space)
    low, high = space.cost(space.smallest(), size), space.cost(space.biggest(), size)
    widest = space.channel_plan(space.biggest()).groups
    for arch in draws(name):
        assert low[0] <= space.cost(arch, size)[0]
        assert low[1] <= space.cost(arch, size)[1]
        groups = space.channel_plan(arch).groups
        assert all(groups[group].width <= widest[group].width for group in groups.keys() & widest.keys())
    assert low[0] < high[0]
    assert low[1] < high[1]
    assert space.count() > 1


@pytest.mark.parametrize("name", SPACES)
def test_blocks_and_cost_are_those_of_the_architecture(name):
    space = find_space(name)
    arch = space.smallest()
    assert space.blocks(arch, size_of(space)) == arch.blocks(size_of(space))
    assert space.cost(arch, size_of(space)) == total(arch.blocks(size_of(space)))


@pytest.mark.parametrize("name", SPACES)
def test_neighbours_are_other_valid_architectures(name):
    space = find_space(name)
    arch = draws(name, 1)[0]
    found = list(space.neighbours(arch))
    assert found
    assert arch not in found
    for other in found[:200]:
        space.validate(other)
        assert arch_from_json(other.to_json()) == other
    assert len({other.sha256() for other in found}) == len(found)


@pytest.mark.parametrize("name", SPACES)
def test_names_lead_to_architectures(name):
    space = find_space(name)
    assert find_arch(f"{name}:smallest") == space.smallest()
    assert find_arch(f"{name}:BIGGEST") == space.biggest()
    assert find_arch(f"{name}:random-9") == space.sample(random.Random(9))
    with pytest.raises(UsageError, match="has no network"):
        find_arch(f"{name}:nothing-such")


@pytest.mark.parametrize("name", SPACES)
def test_sizes_that_do_not_fit_are_refused_with_the_multiple(name):
    space = find_space(name)
    arch = space.smallest()
    with pytest.raises(UsageError, match=f"multiples of {space.multiple}"):
        arch.blocks((space.multiple * 3 + 1, space.multiple * 3))


@pytest.mark.parametrize("name", SPACES)
def test_wrong_schema_versions_and_spaces_are_refused(name):
    content = json.loads(find_space(name).smallest().to_json())
    with pytest.raises(UsageError, match="schema_version"):
        arch_from_json(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(UsageError, match="no search space"):
        arch_from_json(json.dumps({**content, "space": "elsewhere"}))
    with pytest.raises(UsageError, match="surprise"):
        arch_from_json(json.dumps({**content, "surprise": 1}))


@pytest.mark.parametrize("name", light())
def test_blocks_sum_to_the_deployed_network(name):
    space = find_space(name)
    size = size_of(space)
    for arch in draws(name):
        with torch.device("meta"):
            deployed = reparameterize(space.build_subnet(arch))
            with FlopCounterMode(display=False) as counter:
                deployed(torch.empty(1, 3, *size))
        counted = sum(p.numel() for p in deployed.parameters()), counter.get_total_flops() // 2
        assert counted == total(arch.blocks(size))


@pytest.mark.parametrize("name", light())
def test_block_names_are_modules_of_the_deployed_network(name):
    space = find_space(name)
    arch = draws(name, 1)[0]
    modules = dict(reparameterize(space.build_subnet(arch)).named_modules())
    names = [block.name for block in arch.blocks(size_of(space))]
    assert [block for block in names if block not in modules] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", light())
def test_supernet_equals_slice_equals_fused(name):
    space = find_space(name)
    supernet = randomised(space.build_supernet(seed=1))
    image = image_for(space)
    outputs = []
    with torch.no_grad():
        for arch in draws(name):
            supernet.activate(arch)
            subnet = space.slice_from(supernet, arch).eval()
            expected, found = supernet(image), subnet(image)
            assert difference(found, expected) < 1e-10
            deployed = reparameterize(subnet)(image)
            reference = found.sigmoid() if space.logits_in_training else found
            assert difference(deployed, reference) < 1e-12
            assert difference(reparameterize(supernet)(image), deployed) < 1e-12
            outputs.append(found)
    assert any(difference(output, outputs[0]) > 1e-6 for output in outputs[1:])


def outsiders(space):
    """Architectures of every other space, with other classes, and of names that lie outside."""
    found = [find_space(other).smallest() for other in SPACES if other != space.id]
    if "classes" in space.arch_class.model_fields:
        found.append(find_space(space.id, space.classes + 1).smallest())
    for arch in space.points().values():
        try:
            space.validate(arch)
        except UsageError:
            found.append(arch)
    return found


@pytest.mark.parametrize("name", SPACES)
def test_the_space_refuses_architectures_outside(name):
    space = find_space(name)
    for arch in outsiders(space):
        with pytest.raises(UsageError, match=name):
            space.validate(arch)


@pytest.mark.parametrize("name", light())
def test_the_supernet_runs_and_gives_its_own_space_only(name):
    space = find_space(name)
    supernet = space.build_supernet()
    assert supernet.arch == space.biggest()
    arch = draws(name, 1)[0]
    supernet.activate(arch)
    assert supernet.arch == arch
    for other in outsiders(space):
        with pytest.raises(UsageError):
            supernet.activate(other)
        with pytest.raises(UsageError):
            space.slice_from(supernet, other)
        assert supernet.arch == arch
    with pytest.raises(UsageError, match="cannot slice from this network"):
        space.slice_from(nn.Identity(), arch)


@pytest.mark.parametrize("name", light())
def test_a_refused_architecture_changes_nothing(name):
    space = find_space(name)
    supernet = randomised(space.build_supernet(seed=1))
    image = image_for(space)
    with torch.no_grad():
        supernet.activate(draws(name, 1)[0])
        before = supernet(image)
        for other in outsiders(space):
            with pytest.raises(UsageError):
                supernet.activate(other)
        assert torch.equal(supernet(image), before)


@pytest.mark.parametrize("name", light())
def test_seeds_repeat_and_leave_the_global_generator_alone(name):
    space = find_space(name)
    arch = space.smallest()
    before = torch.random.get_rng_state()
    first, second, other = (space.build_subnet(arch, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
