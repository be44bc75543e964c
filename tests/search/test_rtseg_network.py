"""The RTSeg network: forms that must give the same numbers, and each block against a plainer way to compute it."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from search.mask_slicing import slice_masked
from search.masks import attach_masks
from search.reparameterize import reparameterize
from search.spaces.registry import find_arch, find_space
from search.spaces.rtseg.arch import Attention as AttentionData
from search.spaces.rtseg.attention import Attention, ChannelNorm
from search.spaces.rtseg.layers import Context, Stem
from search.spaces.rtseg.network import Mixed, RTSeg, build_subnet
from search.spaces.rtseg.points import family
from targets.errors import UsageError

torch.set_num_threads(1)


def randomised(network, seed=3):
    """Norms that do something, in float64; no channel's scale is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | ChannelNorm):
                module.weight.uniform_(0.4, 0.9, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.double().eval()


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gap(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.mark.parametrize(("name", "draws", "size"), [("rtseg-tiny", 50, (64, 96)), ("rtseg-small", 50, (64, 64)),
                                                     ("rtseg", 2, (64, 64))])  # fmt: skip
@torch.no_grad()
def test_supernet_equals_slice_equals_fused(name, draws, size):
    space = find_space(name)
    supernet = randomised(space.build_supernet(seed=1))
    rng, image = random.Random(11), noise(1, 3, *size)
    supernet.activate(space.biggest())
    before = supernet(image)
    seen = set()
    archs = [*(space.sample(rng) for _ in range(draws)), space.smallest(), space.biggest()]
    for number, arch in enumerate(archs):
        seen.update(block.path for stage in arch.stages for block in stage.blocks)
        supernet.activate(arch)
        assert supernet.arch == arch
        subnet = space.slice_from(supernet, arch)
        assert not subnet.training
        assert subnet.arch == arch
        found = subnet(image)
        assert gap(supernet(image), found) < 1e-10
        assert gap(reparameterize(subnet)(image), found) < 1e-12
        if number % 10 == 0:  # the auxiliary heads cost more than all the rest
            pairs = list(zip(subnet(image, all_heads=True), supernet(image, all_heads=True), strict=True))
            assert len(pairs) == 5
            assert max(gap(a, b) for a, b in pairs) < 1e-10
        assert arch == space.biggest() or gap(found, before) > 1e-3
    assert seen == {"skip", "lir", "mhsa"}
    assert gap(supernet(image), before) < 1e-10  # the biggest again: nothing sticks


@pytest.mark.parametrize("name", ["bisenetv2", "bisenetv2-lir", "rtseg-lir-16-full"])
@torch.no_grad()
def test_named_networks_fuse_exactly(name):
    network = randomised(build_subnet(find_arch(name)))
    image = noise(1, 3, 64, 96)
    deployed = reparameterize(network)
    assert gap(deployed(image), network(image)) < 1e-12
    kinds = {type(module) for module in deployed.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.Dropout}
    assert deployed(image).std() > 1e-3
    assert len(network.auxiliary) == 4  # the training form is left as it was


@torch.no_grad()
def test_any_size_where_resizing_is_to_the_detail_map():
    space = find_space("rtseg-tiny")
    supernet = randomised(space.build_supernet())
    arch = space.sample(random.Random(2)).model_copy(update={"resize": "detail"})
    subnet = space.slice_from(supernet, arch)
    image = noise(1, 3, 513, 513)
    heads = subnet(image, all_heads=True)
    assert {tuple(head.shape) for head in heads} == {(1, 19, 513, 513)}
    supernet.activate(arch)
    image = noise(1, 3, 77, 33)
    assert gap(supernet(image), subnet(image)) < 1e-10
    assert gap(reparameterize(subnet)(image), subnet(image)) < 1e-12
    fixed = space.slice_from(supernet, arch.model_copy(update={"resize": "scale"}))
    assert gap(fixed(noise(1, 3, 96, 64)), subnet(noise(1, 3, 96, 64))) < 1e-12
    with pytest.raises(UsageError, match="at least 32"):
        subnet(noise(1, 3, 64, 31))


def test_sizes_that_do_not_fit_are_refused():
    network = build_subnet(find_space("rtseg-tiny").smallest())
    with pytest.raises(UsageError, match="multiples of 32"):
        network(torch.zeros(1, 3, 500, 500))


def test_the_supernet_refuses_what_its_space_does_not_hold():
    tiny = find_space("rtseg-tiny")
    supernet = tiny.build_supernet()
    with pytest.raises(UsageError, match="space"):
        supernet.activate(find_arch("bisenetv2"))
    with pytest.raises(UsageError, match="space"):
        tiny.slice_from(supernet, find_space("rtseg-small").smallest())


def test_a_slice_shares_no_memory():
    space = find_space("rtseg-tiny")
    supernet = space.build_supernet()
    subnet = space.slice_from(supernet, space.biggest())
    assert subnet.training
    kept = supernet.head.classify.weight.detach().clone()
    with torch.no_grad():
        subnet.head.classify.weight.add_(1)
    assert torch.equal(supernet.head.classify.weight, kept)


def test_training_reaches_the_active_path_only():
    space = find_space("rtseg-tiny", 2)
    supernet = space.build_supernet().train()
    arch = space.biggest()
    attention = space.attention(arch.stages[0].trunk)
    first = arch.stages[0].model_copy(update={"blocks": (attention,)})
    supernet.activate(arch.model_copy(update={"stages": (first, *arch.stages[1:])}))
    outputs = supernet(torch.randn(2, 3, 64, 64), all_heads=True)
    assert [tuple(output.shape) for output in outputs] == [(2, 2, 64, 64)] * 5
    sum(output.square().mean() for output in outputs).backward()
    silent = {name.rsplit(".", 2)[0] for name, value in supernet.named_parameters() if value.grad is None}
    assert silent
    assert all(
        name.startswith(("stages.0.blocks.0.lir", "stages.1.blocks.0.mhsa", "stages.2.blocks.")) for name in silent
    )
    assert supernet.stages[0].blocks[0].mhsa.query.weight.grad is not None
    assert all(supernet.stages[2].blocks[i].lir.lead.conv.weight.grad is not None for i in range(3))


def test_a_skipped_block_is_nothing():
    x = torch.randn(1, 4, 8, 8)
    mixed = Mixed(nn.ReLU(), nn.Sigmoid())
    mixed.path = "skip"
    assert mixed(x) is x
    mixed.path = "lir"
    assert torch.equal(mixed(x), x.relu())
    mixed.path = "mhsa"
    assert torch.equal(mixed(x), x.sigmoid())


def test_residual_branches_start_at_zero():
    network = build_subnet(find_arch("bisenetv2"))
    zero = {name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.any()}
    blocks = [f"stages.{s}.blocks.{i}" for s, n in enumerate((1, 1, 3)) for i in range(n)]
    assert zero == {f"{place}.project.norm" for place in [*blocks, *(f"stages.{s}.down" for s in range(3))]}


@torch.no_grad()
def test_the_stem_pools_as_a_padded_max_pool_does():
    stem = randomised(Stem(find_arch("bisenetv2").stem))
    for size in ((64, 64), (33, 47)):
        x = stem.conv(noise(1, 3, *size))
        pooled = functional.max_pool2d(x, 3, 2, padding=1)
        expected = stem.fuse(torch.cat([stem.left(stem.squeeze(x)), pooled], 1))
        assert gap(stem(noise(1, 3, *size)), expected) == 0


@torch.no_grad()
def test_the_context_embedding_folds_the_norm_before_its_convolution():
    context = randomised(Context(6))
    plain = reparameterize(context)
    assert gap(plain(noise(2, 6, 5, 4)), context(noise(2, 6, 5, 4))) < 1e-13
    assert isinstance(plain.norm, nn.Identity)


@torch.no_grad()
def test_the_channel_norm_of_kept_channels_is_their_layer_norm():
    norm = randomised(ChannelNorm(12))
    x = noise(2, 5, 12) * 3 + 1
    plain = functional.layer_norm(x, (12,), norm.weight, norm.bias)
    assert gap(norm(x), plain) < 1e-13
    norm.keep = torch.ones(12)
    assert gap(norm(x), plain) < 1e-13
    keep = torch.tensor([1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0], dtype=torch.bool)
    norm.keep = keep
    found = norm(x * keep)
    expected = functional.layer_norm(x[..., keep], (7,), norm.weight[keep], norm.bias[keep])
    assert gap(found[..., keep], expected) < 1e-13
    assert not found[..., ~keep].any()


@pytest.mark.parametrize("patch", [1, 2])
@torch.no_grad()
def test_attention_is_what_torch_computes(patch):
    block = randomised(Attention(6, AttentionData(heads=2, key=4, value=8, hidden=5, patch=patch)))
    x = noise(2, 6, 4, 6)
    # Tokens by hand: row by row of patches; in a token channel after channel, each row by row.
    cut = x.unfold(2, patch, patch).unfold(3, patch, patch)
    tokens = cut.permute(0, 2, 3, 1, 4, 5).reshape(2, 24 // patch**2, 6 * patch**2)
    normed = block.norm1(tokens)
    heads = [layer(normed).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (block.query, block.key, block.value)]
    mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    tokens = tokens + block.project(mixed)
    tokens = tokens + block.reduce(block.expand(block.norm2(tokens)).relu())
    back = tokens.reshape(2, 4 // patch, 6 // patch, 6, patch, patch).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
    assert gap(block(x), back) < 1e-12


@torch.no_grad()
def test_masked_grouped_blocks_and_patches_slice_exactly():
    arch = family(12, 3, path="ge")
    block = AttentionData(heads=2, key=6, value=8, hidden=9, patch=2)
    last = arch.stages[2].model_copy(update={"blocks": (block, *arch.stages[2].blocks[1:])})
    arch = arch.model_copy(update={"stages": (*arch.stages[:2], last)})
    network = randomised(RTSeg(arch))
    space, image = find_space("rtseg"), noise(1, 3, 64, 128)
    plan = space.channel_plan(arch)
    masks = attach_masks(network, plan)
    whole = network(image)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        keep = {name: torch.rand(group.width, generator=generator) < 0.7 for name, group in plan.groups.items()}
        for mask in keep.values():
            mask[0] = True
        masks.set_all(keep)
        expected = network(image)
        assert gap(slice_masked(space, network, keep)(image), expected) < 1e-10
        assert gap(expected, whole) > 1e-3
