import random

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from search.mask_slicing import slice_masked  # noqa: E402
from search.masks import attach_masks, binarise, norm_threshold  # noqa: E402
from search.spaces.export import seeded_subnet  # noqa: E402
from search.spaces.registry import find_arch, find_space  # noqa: E402

torch.set_num_threads(1)
SPACE = find_space("rtseg-tiny")
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def alive(arch):
    return seeded_subnet(arch, (64, 64), seed=1)


@torch.no_grad()
def difference(network, keep):
    """Largest difference of masked and sliced: the main output in float32, all heads in float64 (relative above 1)."""
    found = []
    plan = SPACE.channel_plan(network.arch)
    for dtype in (torch.float32, torch.float64):
        network.to(dtype)
        whole = network(IMAGE.to(dtype))
        masks = attach_masks(network, plan)
        masks.set_all(keep)
        masked, sliced = (net(IMAGE.to(dtype), all_heads=True) for net in (network, slice_masked(SPACE, network, keep)))
        masks.remove()
        assert masked[0].std() > 1e-4
        assert (masked[0] - whole).abs().max() > 1e-4 or all(mask.all() for mask in keep.values())
        pairs = list(zip(masked, sliced, strict=True))
        if dtype == torch.float32:
            found.append(float((masked[0] - sliced[0]).abs().max()))
            continue
        found.append(max(float((a - b).abs().max() / max(1, a.abs().max())) for a, b in pairs))
    network.float()
    return found


def archs(count, seed):
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]


def test_50_random_mask_states():
    generator = torch.Generator().manual_seed(1)
    for number, arch in enumerate(archs(10, 3)):
        network = alive(arch)
        plan = SPACE.channel_plan(arch)
        for state in range(5):
            scores = {name: torch.rand(group.width, generator=generator) for name, group in plan.groups.items()}
            threshold = 2.0 if state == 4 else (0.2, 0.5, 0.7)[(number + state) % 3]  # 2.0: all but the floors
            keep = binarise(scores, plan, threshold)
            if state == 4:
                assert {name: int(mask.sum()) for name, mask in keep.items()} == {
                    name: min(group.floor, group.width) for name, group in plan.groups.items()
                }
            single, double = difference(network, keep)
            assert single < 1e-6, (number, state)
            assert double < 1e-12, (number, state)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_batch_norm_threshold_states(share):
    generator = torch.Generator().manual_seed(2)
    for arch in archs(3, 4):
        network = alive(arch)
        plan = SPACE.channel_plan(arch)
        before = {name: module.weight.detach().clone() for name, module in norms(network)}
        with torch.no_grad():
            for _, module in norms(network):
                module.weight[torch.rand(module.num_features, generator=generator) < share] *= 1e-25
        keep = norm_threshold(network, plan)
        assert not all(mask.all() for mask in keep.values())
        with torch.no_grad():
            for name, module in norms(network):
                module.weight.copy_(before[name])  # so that a signal arrives whatever was dropped
        single, double = difference(network, keep)
        assert single < 1e-6
        assert double < 1e-12


def norms(network):
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


def test_grouped_expansion_and_attention_are_covered():
    paths = {block.path for arch in archs(10, 3) for stage in arch.stages for block in stage.blocks}
    assert {"lir", "mhsa", "skip"} <= paths
    generator = torch.Generator().manual_seed(5)
    arch = SPACE.with_widths(find_arch("bisenetv2"), {"head.conv": 32})  # the one with grouped expansions
    network = alive(arch)
    plan = SPACE.channel_plan(arch)
    scores = {name: torch.rand(group.width, generator=generator) for name, group in plan.groups.items()}
    single, double = difference(network, binarise(scores, plan))
    assert single < 1e-6
    assert double < 1e-12


def test_a_group_that_would_vanish_stays_at_its_floor():
    arch = SPACE.biggest()
    plan = SPACE.channel_plan(arch)
    gone = binarise({name: torch.zeros(group.width) for name, group in plan.groups.items()}, plan)
    counts = {name: int(mask.sum()) for name, mask in gone.items()}
    assert min(counts.values()) >= 1
    assert all(counts[name] == group.floor for name, group in plan.groups.items())
    SPACE.validate(SPACE.with_widths(arch, counts))
