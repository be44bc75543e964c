"""Fusing: what it refuses, and that a block's fused form is made of its parts alone."""

import pytest
import torch
from torch import nn

from search.mask_slicing import slice_masked
from search.masks import attach_masks, prefix_masks
from search.reparameterize import reparameterize
from search.spaces.export import seeded_subnet
from search.spaces.registry import find_arch, find_space
from search.spaces.rtseg.layers import Context
from targets.errors import UsageError

torch.set_num_threads(1)
NAMES = ("csnet:smallest", "csnet:random-1", "rtseg-tiny:smallest", "rtseg-tiny:random-1")


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_subnet_is_refused_in_one_line_until_it_is_sliced(name):
    arch = find_arch(name)
    space = find_space(arch.space)
    network = seeded_subnet(arch, (64, 64)).double()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = space.channel_plan(arch)
    keep = prefix_masks(plan, {group: max(one.floor, (one.width + 1) // 2) for group, one in plan.groups.items()})
    masks = attach_masks(network, plan)
    masks.set_all(keep)
    with pytest.raises(UsageError, match="Slice the masked network first"):
        reparameterize(network)
    with torch.no_grad():
        masked = network(image)
        sliced = reparameterize(slice_masked(space, network, keep))(image)
    assert (sliced - (masked.sigmoid() if space.logits_in_training else masked)).abs().max() < 1e-12
    masks.remove()
    reparameterize(network)


@pytest.mark.parametrize("add", ["register_forward_hook", "register_forward_pre_hook"])
def test_any_hook_that_would_be_lost_is_refused(add):
    network = nn.Sequential(seeded_subnet(find_arch("inas-tiny:smallest"), (64, 64)))
    for module in (network, network[0].stem, network[0].stem.conv):
        handle = getattr(module, add)(lambda *_: None)
        with pytest.raises(UsageError, match="forward hooks"):
            reparameterize(network)
        handle.remove()
    reparameterize(network)


@pytest.mark.parametrize("name", ["csnet", "rtseg-tiny"])
def test_a_supernet_inside_another_module_gives_its_active_subnet(name):
    space = find_space(name)
    supernet = space.build_supernet().double().eval()
    supernet.activate(space.smallest())
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    deployed = reparameterize(nn.Sequential(supernet, nn.Identity()))
    alone = reparameterize(space.slice_from(supernet, space.smallest()))
    assert torch.equal(deployed(image), alone(image))
    assert sum(p.numel() for p in deployed.parameters()) == space.cost(space.smallest(), (64, 64))[0]


def test_the_context_block_is_fused_from_its_parts():
    block = Context(3).double().eval()
    block.extra = nn.BatchNorm2d(3)
    fused = block.fused()
    assert type(fused) is Context
    assert not hasattr(fused, "extra")
    assert {p.device.type for p in fused.parameters()} == {"cpu"}
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (fused.eval()(x) - block(x)).abs().max() < 1e-12
    assert isinstance(block.norm, nn.BatchNorm2d)
