"""RTSeg's blocks and wiring against their definition, computed from the weights alone.

The blocks are BiSeNetV2's (Yu et al., IJCV 2021), the 1x1 expansion and the choice of blocks RTSeg's (Li et al., AAAI
2023). Counts of parameters and MACs do not see an activation, a pooling, a gate, a residual or how a map is resized.
"""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from search.spaces.registry import find_space
from search.spaces.rtseg import arch as data
from search.spaces.rtseg.attention import ChannelNorm
from search.spaces.rtseg.layers import Aggregation, Auxiliary, Context, Down, Head, Inverted
from search.spaces.rtseg.network import build_subnet
from search.spaces.rtseg.points import family

torch.set_num_threads(1)


def under(weights, path):
    return {name.removeprefix(f"{path}."): value for name, value in weights.items() if name.startswith(f"{path}.")}


def norm(x, weights):
    mean, variance, gain, shift = (
        weights[name][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * gain + shift


def conv_norm(x, weights, stride=1):
    """A kernel with fewer input channels than the map is a grouped one."""
    kernel = weights["conv.weight"]
    groups = x.shape[1] // kernel.shape[1]
    y = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
    return norm(y, under(weights, "norm"))


def conv_norm_relu(x, weights, stride=1):
    return functional.relu(conv_norm(x, weights, stride))


def resized(x, factor, size=None):
    """By a factor, or to a size where one is given."""
    factor = None if size else factor
    return functional.interpolate(x, size=size, scale_factor=factor, mode="bilinear", align_corners=False)


def stem(x, weights):
    x = conv_norm_relu(x, under(weights, "conv"), 2)
    left = conv_norm_relu(conv_norm_relu(x, under(weights, "squeeze")), under(weights, "left"), 2)
    pooled = functional.max_pool2d(x, 3, 2, padding=1)
    return conv_norm_relu(torch.cat([left, pooled], 1), under(weights, "fuse"))


def inverted(x, weights, path):
    y = conv_norm_relu(x, under(weights, "lead"))
    y = conv_norm_relu(y, under(weights, "expand"))
    if path == "lir":
        y = conv_norm_relu(y, under(weights, "depthwise"))
    return functional.relu(conv_norm(y, under(weights, "project")) + x)


def down(x, weights, path):
    y = conv_norm_relu(x, under(weights, "lead"))
    if path == "lir":
        y = conv_norm_relu(y, under(weights, "expand"))
        y = conv_norm(y, under(weights, "strided"), 2)
    else:
        y = conv_norm(y, under(weights, "expand"), 2)
    y = conv_norm_relu(y, under(weights, "depthwise"))
    y = conv_norm(y, under(weights, "project"))
    beside = conv_norm(x, under(weights, "shortcut.depthwise"), 2)
    return functional.relu(y + conv_norm(beside, under(weights, "shortcut.project")))


def attention(x, weights, heads):
    """With patches of one pixel."""

    def linear(tokens, name):
        return functional.linear(tokens, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def layer_norm(tokens, name):
        return functional.layer_norm(tokens, tokens.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    tokens = x.flatten(2).transpose(1, 2)
    y = layer_norm(tokens, "norm1")
    query, key, value = (
        linear(y, name).unflatten(-1, (heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
    )
    y = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    tokens = tokens + linear(y, "project")
    y = functional.relu(linear(layer_norm(tokens, "norm2"), "expand"))
    tokens = tokens + linear(y, "reduce")
    return tokens.transpose(1, 2).reshape(x.shape)


def context(x, weights):
    y = norm(functional.adaptive_avg_pool2d(x, 1), under(weights, "norm"))
    y = conv_norm_relu(y, under(weights, "conv"))
    return conv_norm_relu(x + y.expand_as(x), under(weights, "fuse"))


def aggregation(detail, semantic, weights, size=None):
    fine = conv_norm(detail, under(weights, "detail_depthwise"))
    fine = functional.conv2d(fine, weights["detail_project.weight"])
    coarse = conv_norm(detail, under(weights, "detail_down"), 2)
    coarse = functional.avg_pool2d(coarse, 3, 2, padding=1, count_include_pad=True)
    fine_gate = resized(conv_norm(semantic, under(weights, "semantic_up")), 4, size)
    coarse_gate = conv_norm(semantic, under(weights, "semantic_depthwise"))
    coarse_gate = functional.conv2d(coarse_gate, weights["semantic_project.weight"])
    left = fine * torch.sigmoid(fine_gate)
    right = resized(coarse * torch.sigmoid(coarse_gate), 4, size)
    return conv_norm_relu(left + right, under(weights, "fuse"))


def head(x, weights):
    y = conv_norm_relu(x, under(weights, "conv"))
    return functional.conv2d(y, weights["classify.weight"], weights["classify.bias"])


def auxiliary(x, weights):
    y = conv_norm_relu(x, under(weights, "conv"))
    y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
    y = conv_norm_relu(y, under(weights, "expand"))
    return functional.conv2d(y, weights["classify.weight"], weights["classify.bias"])


def network_outputs(image, weights, arch):
    """All outputs in training form, the main one first."""
    detail = image
    for stage, widths in enumerate(arch.detail):
        for layer in range(len(widths)):
            detail = conv_norm_relu(detail, under(weights, f"detail.{stage}.{layer}"), 1 if layer else 2)
    maps = [stem(image, under(weights, "stem"))]
    for index, stage in enumerate(arch.stages):
        x = down(maps[-1], under(weights, f"stages.{index}.down"), stage.down.path)
        for number, block in enumerate(stage.blocks):
            own = under(weights, f"stages.{index}.blocks.{number}")
            if block.path == "mhsa":
                x = attention(x, own, block.heads)
            elif block.path != "skip":
                x = inverted(x, own, block.path)
        maps.append(x)
    by_size = arch.resize == "detail"
    detail_size, image_size = (tuple(x.shape[2:]) if by_size else None for x in (detail, image))
    joined = aggregation(detail, context(maps[-1], under(weights, "context")), under(weights, "bga"), detail_size)
    outputs = [resized(head(joined, under(weights, "head")), 8, image_size)]
    for index, (x, factor) in enumerate(zip(maps, (4, 8, 16, 32), strict=True)):
        outputs.append(resized(auxiliary(x, under(weights, f"auxiliary.{index}")), factor // 2, image_size))
    return outputs


def randomised(network, seed=3):
    """Norms that do something, in float64."""
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


def built(make, *arguments):
    """A block with weights that are the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return randomised(make(*arguments))


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert expected.std() > 1e-4  # not a constant, which hides everything before it
    assert (found - expected).abs().max() < 1e-12 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("path", ["lir", "ge"])
@torch.no_grad()
def test_inverted(path):
    block = built(Inverted, 6, data.Inverted(path=path, lead=5, expand=30))
    x = noise(2, 6, 7, 10)
    assert_same(block(x), inverted(x, block.state_dict(), path))


@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
@pytest.mark.parametrize("path", ["lir", "ge"])
@torch.no_grad()
def test_down(path, size):
    block = built(Down, 5, 7, data.Down(path=path, lead=4, expand=24))
    x = noise(2, 5, *size)
    assert block(x).shape == (2, 7, -(-size[0] // 2), -(-size[1] // 2))
    assert_same(block(x), down(x, block.state_dict(), path))


@torch.no_grad()
def test_context_embedding():
    block = built(Context, 8)
    x = noise(2, 8, 5, 4) + noise(1, 8, 1, 1, seed=1)
    assert_same(block(x), context(x, block.state_dict()))


@torch.no_grad()
def test_aggregation_by_factor():
    block = built(Aggregation, 6, 5, 8, 7, False)
    detail, semantic = noise(2, 6, 16, 24), noise(2, 5, 4, 6, seed=1)
    assert_same(block(detail, semantic), aggregation(detail, semantic, block.state_dict()))


@torch.no_grad()
def test_aggregation_by_size():
    block = built(Aggregation, 6, 5, 8, 7, True)
    detail, semantic = noise(2, 6, 10, 7), noise(2, 5, 3, 2, seed=1)
    assert_same(block(detail, semantic), aggregation(detail, semantic, block.state_dict(), (10, 7)))


@torch.no_grad()
def test_head():
    block = built(Head, 6, 9, 4)
    x = noise(2, 6, 5, 7)
    assert_same(block(x), head(x, block.state_dict()))


@pytest.mark.parametrize("factor", [4, 8])
@torch.no_grad()
def test_auxiliary_head(factor):
    block = built(Auxiliary, 6, 4, factor)
    x = noise(2, 6, 5, 7)
    assert_same(block(x), auxiliary(x, block.state_dict()))


def mixed_arch():
    """Every kind of block after a stage's first one, and attention with more than one head."""
    arch = family(8, 3)
    first, second, third = arch.stages
    block = data.Attention(heads=2, key=6, value=8, hidden=9)
    return arch.model_copy(
        update={
            "stages": (
                first.model_copy(update={"blocks": (block,)}),
                second.model_copy(update={"blocks": (data.Skip(),)}),
                third.model_copy(update={"blocks": (third.blocks[0], data.Skip(), block)}),
            )
        }
    )


def check_network(arch, height, width):
    network = randomised(build_subnet(arch, seed=4))
    image = noise(1, 3, height, width)
    found = network(image, all_heads=True)
    expected = network_outputs(image, network.state_dict(), arch)
    assert len(found) == len(expected) == 5
    for mine, other in zip(found, expected, strict=True):
        assert mine.shape == (1, arch.classes, height, width)
        assert_same(mine, other)
    assert torch.equal(network(image), found[0])


@pytest.mark.parametrize("arch", [family(8, 3, path="ge", full_detail=True), family(8, 3), mixed_arch()],
                         ids=["ge", "lir", "mixed"])  # fmt: skip
@torch.no_grad()
def test_every_part_reads_what_it_should(arch):
    check_network(arch, 64, 96)
    check_network(arch.model_copy(update={"resize": "detail"}), 77, 45)


@torch.no_grad()
def test_drawn_networks_too():
    rng, space = random.Random(6), find_space("rtseg-tiny", 2)
    for _ in range(4):
        check_network(space.sample(rng), 64, 64)
