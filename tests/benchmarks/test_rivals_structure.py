"""Every block and the wiring of the rivals against forwards written out from the published structure."""

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from benchmarks.rivals.backbones.res2net import Res2Block  # noqa: E402
from benchmarks.rivals.backbones.resnet import WIDTHS, Bottleneck, ResNet50  # noqa: E402
from benchmarks.rivals.csf import CrossScale, MultiScale, csf_res2net50  # noqa: E402
from benchmarks.rivals.u2net import ResidualU, U2Net  # noqa: E402


class Values:
    """A state_dict, and the operations on it below one prefix."""

    def __init__(self, state, prefix=""):
        self.state, self.prefix = state, prefix

    def __getitem__(self, name):
        return Values(self.state, f"{self.prefix}{name}.")

    def value(self, name):
        return self.state.get(self.prefix + name)

    def conv(self, x, stride=1, padding=0, dilation=1):
        return functional.conv2d(x, self.value("weight"), self.value("bias"), stride, padding, dilation)

    def norm(self, x):
        mean, variance = self.value("running_mean"), self.value("running_var")
        return functional.batch_norm(x, mean, variance, self.value("weight"), self.value("bias"), eps=1e-5)

    def group_norm_prelu(self, x):
        x = functional.group_norm(x, 32, self["0"].value("weight"), self["0"].value("bias"), eps=1e-5)
        return functional.prelu(x, self["1"].value("weight"))


def randomised(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for name, value in module.state_dict().items():
        if value.is_floating_point() and value.dim() < 4:  # convolutions drew theirs
            low, high = (-0.3, 0.3) if name.endswith(("bias", "running_mean")) else (0.5, 1.5)
            value.uniform_(low, high, generator=generator)
    return module


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def images(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_equal(found, expected):
    assert found.shape == expected.shape
    assert float(expected.std()) > 1e-3
    assert float((found - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))


def bilinear(x, height, width):
    return functional.interpolate(x, (height, width), mode="bilinear", align_corners=False)


def halved(x):
    return functional.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)


def unit(values, x, dilation=1):
    return functional.relu(values["norm"].norm(values["conv"].conv(x, padding=dilation, dilation=dilation)))


def rsu(values, x, levels):
    entry = unit(values["entry"], x)
    y, maps = entry, []
    for level in range(levels - 1):
        y = unit(values["encoder"][level], halved(y) if level > 0 else y)
        maps.append(y)
    y = unit(values["bottom"], y, 2)
    for level in range(levels - 2, -1, -1):
        beside = maps[level]
        y = unit(values["decoder"][level], torch.cat([bilinear(y, *beside.shape[2:]), beside], 1))
    return y + entry


def rsu_4f(values, x):
    entry = unit(values["entry"], x)
    one = unit(values["encoder"][0], entry, 1)
    two = unit(values["encoder"][1], one, 2)
    three = unit(values["encoder"][2], two, 4)
    four = unit(values["bottom"], three, 8)
    y = unit(values["decoder"][2], torch.cat([four, three], 1), 4)
    y = unit(values["decoder"][1], torch.cat([y, two], 1), 2)
    return unit(values["decoder"][0], torch.cat([y, one], 1), 1) + entry


@pytest.mark.parametrize("levels", [4, 5, 6, 7])
def test_a_pooled_residual_u(levels):
    block, x = randomised(ResidualU(levels, 5, 3, 4)), images(2, 5, 37, 70)
    with torch.no_grad():
        assert_equal(block(x), rsu(Values(block.state_dict()), x, levels))


def test_a_dilated_residual_u():
    block, x = randomised(ResidualU(None, 5, 3, 4)), images(2, 5, 19, 22)
    with torch.no_grad():
        assert_equal(block(x), rsu_4f(Values(block.state_dict()), x))


def u2net(values, image):
    encoder, decoder, sides = values["encoder"], values["decoder"], values["sides"]
    one = rsu(encoder[0], image, 7)
    two = rsu(encoder[1], halved(one), 6)
    three = rsu(encoder[2], halved(two), 5)
    four = rsu(encoder[3], halved(three), 4)
    five = rsu_4f(encoder[4], halved(four))
    six = rsu_4f(encoder[5], halved(five))

    def joined(deeper, beside):
        return torch.cat([bilinear(deeper, *beside.shape[2:]), beside], 1)

    five_d = rsu_4f(decoder[4], joined(six, five))
    four_d = rsu(decoder[3], joined(five_d, four), 4)
    three_d = rsu(decoder[2], joined(four_d, three), 5)
    two_d = rsu(decoder[1], joined(three_d, two), 6)
    one_d = rsu(decoder[0], joined(two_d, one), 7)
    found = [one_d, two_d, three_d, four_d, five_d, six]
    maps = [bilinear(sides[i].conv(x, padding=1), *image.shape[2:]) for i, x in enumerate(found)]
    return torch.sigmoid(values["fuse"].conv(torch.cat(maps, 1)))


def test_the_wiring_of_u2net():
    encoder = tuple((2, 3 + stage) for stage in range(6))  # unlike widths: no two maps can be exchanged unseen
    network, image = randomised(U2Net(encoder, encoder[:5])), images(1, 3, 75, 98)
    with torch.no_grad():
        assert_equal(network(image), u2net(Values(network.state_dict()), image))


def conv_norm(values, x, stride=1, padding=0):
    return values["norm"].norm(values["conv"].conv(x, stride, padding))


def res2(values, x, stride, first):
    a, b, c, d = functional.relu(conv_norm(values["reduce"], x)).chunk(4, 1)
    convs = values["convs"]

    def conv(number, y):
        return functional.relu(conv_norm(convs[number], y, stride, 1))

    ya = conv(0, a)
    if first:
        yb, yc, yd = conv(1, b), conv(2, c), functional.avg_pool2d(d, 3, stride, padding=1)
        pooled = functional.avg_pool2d(x, stride, stride, ceil_mode=True, count_include_pad=False)
        shortcut = conv_norm(values["shortcut"], pooled)
    else:
        yb = conv(1, ya + b)
        yc = conv(2, yb + c)
        yd, shortcut = d, x
    return functional.relu(conv_norm(values["expand"], torch.cat([ya, yb, yc, yd], 1)) + shortcut)


def bottleneck(values, x, stride, first):
    y = functional.relu(conv_norm(values["reduce"], x))
    y = functional.relu(conv_norm(values["conv"], y, stride, 1))
    shortcut = conv_norm(values["shortcut"], x, stride) if first else x
    return functional.relu(conv_norm(values["expand"], y) + shortcut)


@pytest.mark.parametrize(("kind", "reference"), [(Res2Block, res2), (Bottleneck, bottleneck)])
@pytest.mark.parametrize(("inputs", "stride", "first"), [(24, 1, True), (24, 2, True), (64, 1, False)])
def test_a_block_of_a_backbone(kind, reference, inputs, stride, first):
    block, x = randomised(kind(inputs, 64, stride, first)), images(2, inputs, 11, 14)
    with torch.no_grad():
        assert_equal(block(x), reference(Values(block.state_dict()), x, stride, first))


def backbone(values, image, reference):
    if reference is res2:
        x = functional.relu(conv_norm(values["stem"][0], image, 2, 1))
        x = functional.relu(conv_norm(values["stem"][1], x, 1, 1))
        x = functional.relu(conv_norm(values["stem"][2], x, 1, 1))
    else:
        x = functional.relu(conv_norm(values["stem"], image, 2, 3))
    x, maps = functional.max_pool2d(x, 3, 2, padding=1), []
    for stage, depth in enumerate((3, 4, 6, 3)):
        for index in range(depth):
            stride = 2 if index == 0 and stage > 0 else 1
            x = reference(values["stages"][stage][index], x, stride, index == 0)
        maps.append(x)
    return maps


def cross_scale(values, maps, targets):
    out = []
    for target in range(targets):
        size = maps[target].shape[2:]
        total = 0
        for source, x in enumerate(maps):
            conv = values["convs"][target][source]
            total = total + (conv.conv(bilinear(x, *size)) if source < target else bilinear(conv.conv(x), *size))
        out.append(values["finish"][target].group_norm_prelu(total))
    return out


def multi_scale(values, x):
    parts = [values["convs"][i].conv(x, padding=d, dilation=d) for i, d in enumerate((1, 2, 4, 8, 16))]
    return values["finish"].group_norm_prelu(torch.cat(parts, 1))


def pyramid(channels, height=24, width=37):
    return [images(1, c, -(-height // 2**i), -(-width // 2**i), seed=i) for i, c in enumerate(channels)]


@pytest.mark.parametrize("outputs", [(32, 64, 96, 32), (96,)])
def test_a_fusion_across_scales(outputs):
    block, maps = randomised(CrossScale((5, 6, 7, 8), outputs)), pyramid((5, 6, 7, 8))
    with torch.no_grad():
        expected = cross_scale(Values(block.state_dict()), maps, len(outputs))
        for one, other in zip(block(maps), expected, strict=True):
            assert_equal(one, other)


def test_the_dilations_of_a_multi_scale_block_in_their_order():
    block, x = randomised(MultiScale(64)), images(1, 64, 21, 34)
    values = block.state_dict()
    assert [values[f"convs.{i}.weight"].shape[0] for i in range(5)] == [12, 12, 12, 12, 16]
    with torch.no_grad():
        assert_equal(block(x), multi_scale(Values(values), x))


def csf(values, maps, image):
    maps = [multi_scale(values["multiscale"][i], x) for i, x in enumerate(cross_scale(values["fuse"], maps, 4))]
    (joined,) = cross_scale(values["join"], maps, 1)
    return torch.sigmoid(bilinear(values["head"].conv(joined), *image.shape[2:]))


def test_the_wiring_of_csf_on_res2net():
    network, image = randomised(csf_res2net50()), images(1, 3, 43, 66)
    values = Values(network.state_dict())
    with torch.no_grad():
        maps = backbone(values["backbone"], image, res2)
        assert [x.shape[1] for x in maps] == list(WIDTHS)
        assert_equal(network(image), csf(values, maps, image))


def test_the_wiring_of_resnet():
    network, image = randomised(ResNet50()), images(1, 3, 43, 66)
    with torch.no_grad():
        expected = backbone(Values(network.state_dict()), image, bottleneck)
        for one, other in zip(network(image), expected, strict=True):
            assert_equal(one, other)
