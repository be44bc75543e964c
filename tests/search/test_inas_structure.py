"""iNAS's blocks and wiring against their definition (Gu et al., ICCV 2021), computed from the weights alone.

Counts of parameters and MACs do not see an activation, a pooling, a mean, a residual or the order of two layers.
"""

import pytest
import torch
from torch.nn import functional

from search.spaces.inas.layers import SqueezeExcite
from search.spaces.inas.network import build_subnet
from search.spaces.inas.parts import MBConv
from search.spaces.registry import find_space
from tests.search.inas_randomise import draws, image, randomise

torch.set_num_threads(1)
SIZES = [(32 >> level, 48 >> level) for level in range(5)]
"""Height and width of each level, for an image of 64 x 96."""
STRIDES = (1, 2, 2, 2, 1, 2, 1)
TAPPED_STAGES = (0, 1, 2, 4, 6)


def under(weights, path):
    return {name.removeprefix(f"{path}."): value for name, value in weights.items() if name.startswith(f"{path}.")}


def norm(x, weights):
    mean, variance, gain, shift = (
        weights[name][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * gain + shift


def conv_norm(x, weights, stride=1):
    kernel = weights["conv.weight"]
    y = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    return norm(y, under(weights, "norm"))


def smsu(x, weights, kernels, stride=1):
    stored = weights["conv.weight"]
    branches = []
    for size in kernels:
        edge = (stored.shape[-1] - size) // 2
        centre = stored[:, 0, edge : edge + size, edge : edge + size].flatten(1)
        kernel = (centre @ weights[f"matrices.{size}"]).reshape(-1, 1, size, size)
        y = functional.conv2d(x, kernel, stride=stride, padding=size // 2, groups=len(kernel))
        branches.append(norm(y, under(weights, f"norms.{size}")))
    return torch.stack(branches).mean(0)


def excitation(x, weights):
    """What squeeze-excite multiplies the channels with."""
    y = functional.adaptive_avg_pool2d(x, 1)
    y = functional.relu(functional.conv2d(y, weights["reduce.weight"], weights["reduce.bias"]))
    y = functional.conv2d(y, weights["expand.weight"], weights["expand.bias"])
    return functional.relu6(y + 3) / 6


def mbconv(x, weights, kernels, stride):
    y = functional.silu(conv_norm(x, under(weights, "expand")))
    y = functional.silu(smsu(y, under(weights, "depthwise"), kernels, stride))
    y = y * excitation(y, under(weights, "excite"))
    y = conv_norm(y, under(weights, "project"))
    if stride == 2:
        x = functional.avg_pool2d(x, 2)
    if x.shape[1] != y.shape[1]:
        x = functional.conv2d(x, weights["shortcut.weight"])
    return y + x


def enlarged(x, factor):
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)


def transport_branch(x, weights, level, other):
    conv = under(weights, "conv")
    if other < level:
        return conv_norm(functional.max_pool2d(x, 2 ** (level - other)), conv)
    return enlarged(conv_norm(x, conv), 2 ** (other - level))


def decoder_branch(x, weights, level, other):
    return enlarged(functional.silu(conv_norm(x, under(weights, "conv"))), 2 ** (other - level))


def transport_fuse(maps, weights, kernels):
    x = torch.stack(maps).mean(0)
    y = smsu(x, under(weights, "depthwise1"), kernels)
    y = functional.silu(conv_norm(y, under(weights, "conv1")))
    y = smsu(y, under(weights, "depthwise2"), kernels)
    return functional.silu(conv_norm(y, under(weights, "conv2")) + x)


def decoder_fuse(maps, weights, kernels):
    y = smsu(torch.stack(maps).mean(0), under(weights, "depthwise"), kernels)
    return functional.silu(conv_norm(y, under(weights, "conv")))


def prediction(x, weights, level, classes):
    y = functional.conv2d(x, weights["conv.weight"])
    return enlarged(torch.sigmoid(y) if classes == 1 else y, 2 ** (level + 1))


def network_outputs(x, weights, arch):
    """All outputs in training form, the main one first."""
    x = functional.silu(conv_norm(x, under(weights, "stem"), 2))
    backbone = []
    for stage, subsets in enumerate(arch.kernels):
        for layer, kernels in enumerate(subsets):
            x = mbconv(x, under(weights, f"stages.{stage}.{layer}"), kernels, 1 if layer else STRIDES[stage])
        if stage in TAPPED_STAGES:
            backbone.append(x)
    transported = []
    for level in range(5):
        own = under(weights, f"transport.{level}")
        found = [
            backbone[level]
            if other == level
            else transport_branch(backbone[other], under(own, f"from{other}"), level, other)
            for other in arch.transport[level]
        ]
        transported.append(transport_fuse(found, under(own, "fuse"), arch.transport_kernels[level]))
    decoded = {}
    for level in (4, 3, 2, 1, 0):
        own = under(weights, f"decoder.{level}")
        found = [transported[level]]
        for other in arch.decoder[level]:
            if other > level:
                found.append(decoder_branch(decoded[other], under(own, f"from{other}"), level, other))
        decoded[level] = decoder_fuse(found, under(own, "fuse"), arch.decoder_kernels[level])
    outputs = [prediction(decoded[0], under(weights, "head"), 0, arch.classes)]
    for level in (1, 2, 3, 4) if arch.classes == 1 else (2,):
        outputs.append(prediction(decoded[level], under(weights, f"auxiliary.{level}"), level, arch.classes))
    return outputs


def built(make, *arguments, **options):
    """A block with weights that are the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return randomise(make(*arguments, **options))


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert expected.std() > 1e-4  # not a constant, which hides everything before it
    assert (found - expected).abs().max() < 1e-12 * max(1.0, float(expected.abs().max()))


@pytest.fixture(scope="module")
def biggest():
    """The network of a space's biggest architecture, which has every connection and every kernel."""
    return randomise(build_subnet(find_space("inas-tiny").biggest(), seed=2), seed=2)


@pytest.fixture(scope="module")
def taps(biggest):
    return [biggest.arch.widths[stage][-1] for stage in TAPPED_STAGES]


def level_map(taps, level, seed=0):
    return noise(2, taps[level], *SIZES[level], seed=seed)


@torch.no_grad()
def test_stem(biggest):
    x = noise(2, 3, 64, 96)
    assert_same(biggest.stem(x), functional.silu(conv_norm(x, biggest.stem.state_dict(), 2)))


@torch.no_grad()
def test_squeeze_excite():
    unit = built(SqueezeExcite, 24)
    x = noise(3, 24, 6, 5) + noise(1, 24, 1, 1, seed=1) * 2
    scale = excitation(x, unit.state_dict())
    assert ((scale > 0) & (scale < 1)).float().mean() > 0.5
    assert_same(unit(x), x * scale)


@pytest.mark.parametrize("supernet", [False, True])
@pytest.mark.parametrize(("kernels", "expand"), [((3,), 1), ((3, 7, 9), 6)])
@pytest.mark.parametrize("width_out", [6, 9])
@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_mbconv(stride, width_out, kernels, expand, supernet):
    block = built(MBConv, 6, width_out, kernels, expand, stride, supernet=supernet)
    x = noise(2, 6, 12, 16)
    found = block(x)
    assert found.shape == (2, width_out, 12 // stride, 16 // stride)
    assert_same(found, mbconv(x, block.state_dict(), kernels, stride))


@pytest.mark.parametrize("level", range(5))
@torch.no_grad()
def test_transport_branches(biggest, taps, level):
    others = [other for other in range(5) if other != level]
    for other in others:
        branch = getattr(biggest.transport[level], f"from{other}")
        x = level_map(taps, other)
        assert branch(x).shape == level_map(taps, level).shape
        assert_same(branch(x), transport_branch(x, branch.state_dict(), level, other))


@pytest.mark.parametrize("level", range(4))
@torch.no_grad()
def test_decoder_branches(biggest, taps, level):
    for other in range(level + 1, 5):
        branch = getattr(biggest.decoder[level], f"from{other}")
        x = level_map(taps, other)
        assert branch(x).shape == level_map(taps, level).shape
        assert_same(branch(x), decoder_branch(x, branch.state_dict(), level, other))


@pytest.mark.parametrize(("part", "fuse"), [("transport", transport_fuse), ("decoder", decoder_fuse)])
@pytest.mark.parametrize("inputs", [1, 2, 5])
@torch.no_grad()
def test_fusions(biggest, taps, part, fuse, inputs):
    for level in (1, 4):
        block = getattr(biggest, part)[level].fuse
        maps = [level_map(taps, level, seed) for seed in range(inputs)]
        assert_same(block(maps), fuse(maps, block.state_dict(), getattr(biggest.arch, f"{part}_kernels")[level]))


@pytest.mark.parametrize("level", range(5))
@torch.no_grad()
def test_predictions(biggest, taps, level):
    block = biggest.auxiliary[str(level)] if level else biggest.head
    x = level_map(taps, level)
    assert block(x).shape == (2, 1, 64, 96)
    assert_same(block(x), prediction(x, block.state_dict(), level, 1))


@pytest.mark.parametrize("classes", [1, 19])
@torch.no_grad()
def test_every_level_reads_what_it_should(classes):
    space = find_space("inas-tiny", classes)
    archs = [space.smallest(), space.biggest(), *draws("inas-tiny", 4, classes)]
    x = torch.cat([image(64), image(64, seed=1)], 3)[..., :96]
    for number, arch in enumerate(archs):
        network = randomise(build_subnet(arch, seed=number), seed=number)
        for predicting in (network.head, *network.auxiliary.values()):
            predicting.conv.weight.mul_(0.1)  # a saturated sigmoid hides what is before it
        expected = network_outputs(x, network.state_dict(), arch)
        found = network(x, all_heads=True)
        assert len(found) == len(expected) == (5 if classes == 1 else 2)
        for mine, other in zip(found, expected, strict=True):
            assert mine.shape == (1, classes, 64, 96)
            assert_same(mine, other)
