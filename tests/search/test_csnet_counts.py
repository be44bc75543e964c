import pytest

from search.spaces.csnet.arch import CSNetArch
from search.spaces.csnet.counts import Count, count
from targets.errors import UsageError
from tests.search.csnet_lists import X1_L, X2_L

# name: arch, parameters, paper MACC in G (4 digits), convolution MACs in M (1 digit), at 224x224
PUBLISHED = {
    "x1": (CSNetArch.fixed(1), 210_985, 0.6106, 432.8),
    "x1 1/0": (CSNetArch.fixed(1, (1, 0)), 210_985, 0.9071, 715.8),
    "x1 3/1": (CSNetArch.fixed(1, (3, 1)), 210_985, 0.7805, 561.1),
    "x1 1/3": (CSNetArch.fixed(1, (1, 3)), 210_985, 0.4672, 330.9),
    "x1.2": (CSNetArch.fixed(1.2), 298_633, 0.8163, 602.2),
    "x1.5": (CSNetArch.fixed(1.5), 455_631, 1.1670, 899.3),
    "x1.8": (CSNetArch.fixed(1.8), 645_565, 1.5763, 1255.2),
    "x2": (CSNetArch.fixed(2), 788_631, 1.8710, 1516.3),
    "x1-L": (X1_L, 93_647, 0.4354, 284.3),
    "x2-L": (X2_L, 140_894, 0.7167, 496.4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name):
    arch, params, macc_g, conv_m = PUBLISHED[name]
    total = count(arch).total
    assert total.params == params
    assert round(total.macc / 1e9, 4) == macc_g
    assert round(total.conv_macs / 1e6, 1) == conv_m


def test_parts_and_kinds_of_x1():
    parts = count(CSNetArch.fixed(1)).parts
    assert {name: part.params for name, part in parts.items()} == {
        "stem": 1_080, "stage1": 2_820, "stage2": 16_320, "stage3": 73_760, "stage4": 85_440,
        "csf.reduce": 13_195, "csf.dilated": 13_884, "csf.fuse": 4_420, "head": 66,
    }  # fmt: skip
    macs = [round(part.conv_macs / 1e6, 1) for part in parts.values()]
    assert macs == [28.2, 60.2, 95.6, 122.7, 39.0, 26.1, 42.9, 17.2, 0.8]


def test_the_reference_counter_truncates_channels():
    total = count(X2_L).total
    assert round(total.macc_conv / 1e6, 1) == 494.7
    kinds = (total.macc_norm, total.macc_prelu, total.macc_avg_pool, total.macc_max_pool, total.macc_resize)
    assert [round(kind / 1e6, 1) for kind in kinds] == [82.9, 62.2, 9.1, 2.3, 65.5]


def test_sums_and_size():
    small, large = count(X1_L, (224, 224)), count(X1_L, (448, 224))
    assert large.total.conv_macs == 2 * small.total.conv_macs
    assert sum(small.parts.values(), Count()) == small.total
    with pytest.raises(UsageError, match="multiples of 16"):
        count(X1_L, (225, 224))


@pytest.mark.parametrize("name", [*PUBLISHED, "tiny", "rectangle"])
def test_counts_equal_what_torch_counts(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from torch.utils.flop_counter import FlopCounterMode

    from search.spaces.csnet.network import build_csnet

    size = (96, 160) if name == "rectangle" else (224, 224)
    arch = PUBLISHED[name][0] if name in PUBLISHED else CSNetArch.fixed(0.1 if name == "tiny" else 1.3, (1, 3))
    with torch.device("meta"):
        network = build_csnet(arch)
        with FlopCounterMode(display=False) as counter:
            out = network(torch.empty(1, 3, *size))
    assert out.shape == (1, 1, *size)
    assert counter.get_total_flops() == 2 * count(arch, size).total.conv_macs
    assert sum(p.numel() for p in network.parameters()) == count(arch, size).total.params
