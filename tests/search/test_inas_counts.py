"""iNAS's published counts to the digit, and the deployed network's against its blocks."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search.reparameterize import reparameterize
from search.spaces.block import total
from search.spaces.inas.arch import FACTORS
from search.spaces.inas.counts import original_counts, table
from search.spaces.inas.layers import SMSU
from search.spaces.inas.network import build_subnet
from search.spaces.inas.parts import MBConv
from search.spaces.registry import find_space
from tests.search.inas_randomise import draws

torch.set_num_threads(1)
SPACE = find_space("inas")
ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.Hardsigmoid)


def test_published_counts():
    small_params, small_macs = original_counts(SPACE.smallest())
    big_params, big_macs = original_counts(SPACE.biggest())
    assert (f"{small_params / 1e6:.2f}", f"{small_macs / 1e9:.3f}") == ("4.36", "0.365")
    assert (f"{big_params / 1e6:.2f}", f"{big_macs / 1e9:.3f}") == ("19.94", "1.329")


def test_published_macs_at_320():
    assert f"{original_counts(SPACE.smallest(), (320, 320))[1] / 1e9:.3f}" == "0.744"
    assert f"{original_counts(SPACE.biggest(), (320, 320))[1] / 1e9:.2f}" == "2.70"


@pytest.mark.parametrize("arch", [*draws("inas", 1), *draws("inas-tiny", 1)], ids=lambda arch: arch.sha256()[:6])
def test_original_counts_are_those_of_a_network_with_its_dead_weight(arch):
    """The convention applied to modules, by hooks, instead of to data."""
    with torch.device("meta"):
        network = build_subnet(arch).eval()
        network.auxiliary = nn.ModuleDict()
        params = 0
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, SMSU):
                    params += sum(matrix.numel() for matrix in child.matrices.values())
                    setattr(module, name, child.fused())
            if isinstance(module, MBConv) and module.shortcut is None:
                params += module.expand.conv.in_channels * module.project.conv.out_channels
        params += sum(weights.numel() for weights in network.parameters())
        macs = []
        for module in network.modules():
            module.register_forward_hook(lambda module, inputs, y: macs.append(cost(module, inputs[0], y)))
        network(torch.empty(1, 3, 96, 64))
    assert original_counts(arch, (96, 64)) == (params, sum(macs))


def cost(module, x, y):
    if isinstance(module, nn.Conv2d):
        return y.numel() * (module.weight[0].numel() + (module.bias is not None))
    if isinstance(module, nn.BatchNorm2d):
        return 2 * x.numel()
    if isinstance(module, (nn.AvgPool2d, nn.MaxPool2d)):
        return x.numel()
    return y.numel() if isinstance(module, ACTIVATIONS) else 0


@pytest.mark.parametrize("classes", [1, 19])
@pytest.mark.parametrize("name", FACTORS)
def test_blocks_sum_to_the_deployed_network(name, classes):
    space = find_space(name, classes)
    archs = [space.biggest() if classes == 1 else space.smallest(), *draws(name, 1, classes, seed=classes)]
    for arch, size in zip(archs, [(224, 224), (96, 512)], strict=True):
        with torch.device("meta"):
            deployed = reparameterize(build_subnet(arch))
            with FlopCounterMode(display=False) as counter:
                deployed(torch.empty(1, 3, *size))
        params = sum(weights.numel() for weights in deployed.parameters())
        assert (params, counter.get_total_flops() // 2) == total(arch.blocks(size))


def note(seen, path, _, inputs, output):
    seen[path] = (inputs[0], output)


@pytest.mark.parametrize("name", FACTORS)
def test_each_block_has_its_modules_parameters_and_shapes(name):
    for arch in draws(name, 1):
        with torch.device("meta"):
            deployed = reparameterize(build_subnet(arch))
            seen = {}
            for path, module in deployed.named_modules():
                module.register_forward_hook(functools.partial(note, seen, path))
            deployed(torch.empty(1, 3, 96, 64))
        for block in arch.blocks((96, 64)):
            inputs, output = seen[block.name]
            inputs = inputs if isinstance(inputs, list) else [inputs]
            assert block.inputs == tuple(tuple(x.shape[1:]) for x in inputs)
            assert block.outputs == (tuple(output.shape[1:]),)
            module = deployed.get_submodule(block.name)
            assert block.params == sum(weights.numel() for weights in module.parameters())


def test_table_shows_both_conventions_and_the_supernet_with_five_heads():
    found = table()
    for figure in ("4,364,091", "4,295,424", "19,938,601", "1,328,598,192", "20,075,665", "inas-tiny:biggest"):
        assert figure in found
