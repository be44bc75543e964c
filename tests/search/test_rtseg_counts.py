"""Counts of the real modules, on the meta device, against the published figures and against the blocks as data."""

import random

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search.reparameterize import reparameterize
from search.spaces.block import total
from search.spaces.registry import find_arch, find_space
from search.spaces.rtseg.arch import Attention
from search.spaces.rtseg.counts import supernet_cost
from search.spaces.rtseg.network import Mixed, build_subnet

SIZE = (512, 1024)
AUXILIARY = [37_475, 112_211, 374_291, 1_348_883]
# Learned parameters with batch norm, MACs at 512x1024.
BISENETV2 = {
    "detail.0": (38_848, 5_058_330_624),
    "detail.1": (110_976, 3_623_878_656),
    "detail.2": (369_408, 3_019_898_880),
    "stem": (6_432, 262_144_000),
    "stages.0": (25_936, 260_177_920),
    "stages.1": (94_368, 245_432_320),
    "stages.2": (868_160, 496_795_648),
    "context": (164_608, 75_513_856),
    "bga": (478_720, 1_738_080_256),
    "head": (1_201_171, 9_823_059_968),
}


def on_meta(arch):
    with torch.device("meta"):
        return build_subnet(arch).eval()


def params(module):
    return sum(parameter.numel() for parameter in module.parameters())


def conv_params(module):
    return sum(params(layer) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def flops(network, size):
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *size, device="meta"))
    return counter


def macs(network, size=SIZE):
    return flops(network, size).get_total_flops() // 2


def inference(network):
    network.strip()
    return network


def test_bisenetv2_has_the_published_counts():
    network = on_meta(find_arch("bisenetv2"))
    assert [params(head) for head in network.auxiliary] == AUXILIARY
    assert params(network) == 5_231_487
    inference(network)
    assert params(network) == 3_358_627
    assert conv_params(network) == 3_341_299
    assert macs(network) == 24_603_312_128
    assert macs(network, (1024, 2048)) == pytest.approx(98.413e9, abs=5e5)


def test_bisenetv2_part_by_part():
    network = on_meta(find_arch("bisenetv2"))
    found = flops(network, SIZE).get_flop_counts()
    table = {
        name: (params(network.get_submodule(name)), sum(found[f"RTSeg.{name}"].values()) // 2) for name in BISENETV2
    }
    assert table == BISENETV2
    stages = [(params(stage.down), [params(block) for block in stage.blocks]) for stage in network.stages]
    assert stages == [(8_336, [17_600]), (28_448, [65_920]), (104_000, [254_720] * 3)]


def test_the_lir_variant_has_its_counts():
    network = inference(on_meta(find_arch("bisenetv2-lir")))
    assert params(network) == 3_723_619
    assert conv_params(network) == 3_699_187
    found = flops(network, SIZE).get_flop_counts()
    assert [round(sum(found[f"RTSeg.stages.{i}"].values()) / 2e9, 3) for i in range(3)] == [0.361, 0.346, 0.698]
    assert sum(found["Global"].values()) // 2 == 25_005_965_312


@pytest.mark.parametrize(
    ("name", "expected_params", "expected_macs"),
    [("16", 0.938, 5.56), ("32", 3.652, 20.66), ("64-full", 14.63, 97.9), ("80", 22.53, 125.7), ("84", 24.82, 138.5)],
)
def test_the_width_family(name, expected_params, expected_macs):
    network = inference(on_meta(find_arch(f"rtseg-lir-{name}")))
    assert conv_params(network) / 1e6 == pytest.approx(expected_params, rel=5e-4)
    assert macs(network) / 1e9 == pytest.approx(expected_macs, rel=1e-3)


def test_the_supernet_has_the_published_size():
    space = find_space("rtseg")
    with torch.device("meta"):
        supernet = inference(space.build_supernet()).eval()
    mixed = [module for module in supernet.modules() if isinstance(module, Mixed)]
    assert len(mixed) == 5
    by_path = {}
    for path in ("skip", "lir", "mhsa"):
        for block in mixed:
            block.path = path
        by_path[path] = macs(supernet)
    together = by_path["lir"] + by_path["mhsa"] - by_path["skip"]
    assert conv_params(supernet) == pytest.approx(24.43e6, rel=0.02)
    assert together == pytest.approx(136.0e9, rel=0.02)
    assert (conv_params(supernet), together) == supernet_cost(space)


def deployed_counts(arch, size):
    deployed = reparameterize(on_meta(arch))
    return params(deployed), macs(deployed, size)


@pytest.mark.parametrize(("name", "draws"), [("rtseg-tiny", 5), ("rtseg-small", 3), ("rtseg", 1)])
def test_blocks_sum_to_the_deployed_network(name, draws):
    rng = random.Random(7)
    space = find_space(name)
    for arch in [space.smallest(), space.biggest(), *(space.sample(rng) for _ in range(draws))]:
        size = (32 * rng.randint(1, 20), 32 * rng.randint(1, 20))
        assert deployed_counts(arch, size) == total(arch.blocks(size))
        any_size = arch.model_copy(update={"resize": "detail"})
        size = rng.choice(((513, 513), (rng.randint(32, 600), rng.randint(32, 600))))
        assert deployed_counts(any_size, size) == total(any_size.blocks(size))


def test_blocks_are_right_one_by_one():
    rng = random.Random(3)
    archs = [find_arch("bisenetv2"), *(find_space("rtseg-tiny").sample(rng) for _ in range(4))]
    for arch in archs:
        deployed = reparameterize(on_meta(arch))
        found = flops(deployed, (128, 192)).get_flop_counts()
        for block in arch.blocks((128, 192)):
            assert block.params == params(deployed.get_submodule(block.name))
            assert block.macs == sum(found[f"RTSeg.{block.name}"].values()) // 2


def test_patches_of_several_pixels_count_right():
    arch = find_arch("rtseg-lir-16")
    block = Attention(heads=2, key=16, value=24, hidden=20, patch=2)
    stages = tuple(stage.model_copy(update={"blocks": (block,)}) for stage in arch.stages)
    arch = arch.model_copy(update={"stages": stages})
    assert deployed_counts(arch, (128, 192)) == total(arch.blocks((128, 192)))
