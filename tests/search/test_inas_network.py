"""iNAS networks: the supernet runs what its slices run, and the deployed form gives the same numbers."""

import itertools

import pytest
import torch
from torch import nn

from search.reparameterize import reparameterize
from search.spaces.inas.arch import FACTORS, KERNELS
from search.spaces.inas.layers import SMSU
from search.spaces.inas.network import build_subnet, build_supernet, slice_supernet
from search.spaces.registry import find_space
from search.spaces.sliced import SlicedBatchNorm2d
from targets.errors import UsageError
from tests.search.inas_randomise import SPREAD, draws, image, randomise

torch.set_num_threads(1)
SUBSETS = [subset for count in range(1, 5) for subset in itertools.combinations(KERNELS, count)]
TINY = find_space("inas-tiny")
PLAIN = {
    *(nn.Conv2d, nn.SiLU, nn.ReLU, nn.Sigmoid, nn.Hardsigmoid, nn.Upsample),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.Sequential, nn.ModuleList, nn.ModuleDict),
}


def different(outputs):
    return all((a - b).abs().max() > 1e-6 for a, b in itertools.combinations(outputs, 2))


@pytest.fixture(scope="module")
def supernet():
    return randomise(build_supernet(TINY, seed=1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernels", SUBSETS, ids=str)
def test_smsu_is_one_depthwise_convolution_of_the_largest_kernel(kernels, stride):
    unit = randomise(SMSU(6, KERNELS, stride), seed=stride)
    unit.activate(5, kernels)
    x = torch.randn(2, 5, 14, 10, dtype=torch.float64)
    fused = unit.fused()
    assert type(fused) is nn.Conv2d
    assert fused.kernel_size == (max(kernels),) * 2
    expected = unit(x)
    assert expected.shape == (2, 5, 14 // stride, 10 // stride)
    assert (fused(x) - expected).abs().max() < 1e-12
    assert (torch.stack([_branch(unit, x, kernel) for kernel in kernels]).mean(0) - expected).abs().max() < 1e-12


def _branch(unit, x, kernel):
    """One branch by its definition, written out."""
    edge = (9 - kernel) // 2
    centre = unit.conv.weight[:5, 0, edge : 9 - edge, edge : 9 - edge].flatten(1)
    weight = (centre @ unit.matrices[str(kernel)]).reshape(5, 1, kernel, kernel)
    y = nn.functional.conv2d(x, weight, stride=unit.conv.stride, padding=kernel // 2, groups=5)
    norm = unit.norms[str(kernel)]
    shaped = [part[:5, None, None] for part in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    return (y - shaped[0]) / (shaped[1] + norm.eps).sqrt() * shaped[2] + shaped[3]


def test_smsu_starts_with_centre_crops_as_they_are():
    unit = SMSU(3, KERNELS)
    assert torch.equal(unit.kernel(9), unit.conv.weight)
    assert torch.equal(unit.kernel(5), unit.conv.weight[:, :, 2:7, 2:7])


@pytest.mark.parametrize("name", FACTORS)
def test_supernet_equals_slice_equals_deployed(name):
    supernet = randomise(build_supernet(find_space(name), seed=1))
    outputs = []
    with torch.no_grad():
        for arch in draws(name, SPREAD.count(name)):
            supernet.activate(arch)
            subnet = slice_supernet(supernet, arch)
            expected, found = supernet(image(), all_heads=True), subnet(image(), all_heads=True)
            assert max((a - b).abs().max() for a, b in zip(expected, found, strict=True)) < 1e-10
            assert (reparameterize(subnet)(image()) - found[0]).abs().max() < 1e-12
            outputs.append(found[0])
    assert len(outputs) == SPREAD.count(name)
    assert different(outputs)


def test_ends_and_classes_agree_too():
    space = find_space("inas-tiny", 19)
    supernet = randomise(build_supernet(space, seed=1))
    with torch.no_grad():
        for arch in (space.smallest(), space.biggest()):
            supernet.activate(arch)
            subnet = slice_supernet(supernet, arch)
            main, auxiliary = supernet(image(), all_heads=True)
            assert main.shape == auxiliary.shape == (1, 19, 64, 64)
            assert (subnet(image()) - main).abs().max() < 1e-10
            assert (reparameterize(subnet)(image()) - subnet(image())).abs().max() < 1e-12
            assert main.min() < 0


def test_activated_supernet_can_be_deployed_itself(supernet):
    arch = draws("inas-tiny", 1, seed=3)[0]
    supernet.activate(arch)
    deployed, sliced = reparameterize(supernet), reparameterize(slice_supernet(supernet, arch))
    shapes = {name: value.shape for name, value in sliced.state_dict().items()}
    assert {name: value.shape for name, value in deployed.state_dict().items()} == shapes
    assert (deployed(image()) - sliced(image())).abs().max() < 1e-12


def test_deployed_form_is_made_of_plain_layers_with_clean_names():
    arch = TINY.biggest()
    deployed = reparameterize(randomise(build_subnet(arch)))
    leaves = [module for module in deployed.modules() if not list(module.children())]
    assert {type(leaf) for leaf in leaves} <= PLAIN
    assert not any(word in name for name in deployed.state_dict() for word in ("matri", "norm", "auxiliary"))
    modules = dict(deployed.named_modules())
    assert {"stem", "stages.6.1", "transport.0.from4", "transport.4.fuse", "decoder.1.from2", "head"} <= set(modules)
    assert modules["stages.2.0.depthwise"].kernel_size == (9, 9)
    assert modules["stages.2.1"].shortcut is None  # widths agree
    assert modules["stages.2.0"].shortcut.bias is None
    assert isinstance(deployed(image(), all_heads=True), tuple)
    assert len(deployed(image(), all_heads=True)) == 1
    assert not any(weights.requires_grad for weights in deployed.parameters())


def test_forward_gives_saliency_maps_from_every_level():
    outputs = build_subnet(TINY.smallest())(image().float(), all_heads=True)
    assert [tuple(output.shape) for output in outputs] == [(1, 1, 64, 64)] * 5
    assert all(output.min() >= 0 and output.max() <= 1 for output in outputs)


def test_activation_does_not_leak(supernet):
    first, second = draws("inas-tiny", 2)
    with torch.no_grad():
        supernet.activate(first)
        before = supernet(image())
        supernet.activate(second)
        other = supernet(image())
        supernet.activate(first)
        assert torch.equal(supernet(image()), before)
    assert different([before, other])


def test_training_moves_the_shared_weights_of_the_active_part_alone():
    supernet = randomise(build_supernet(TINY, seed=1)).train()
    arch = TINY.smallest()
    supernet.activate(arch)
    subnet = slice_supernet(supernet, arch)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    old = {name: value.clone() for name, value in subnet.state_dict().items()}
    for network in (supernet, subnet):
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
        sum(output.mean() for output in network(image(batch=3), all_heads=True)).backward()
        optimiser.step()
    after = supernet.state_dict()
    hidden = arch.stem
    assert not torch.equal(after["stem.norm.running_mean"][:hidden], before["stem.norm.running_mean"][:hidden])
    assert torch.equal(after["stem.norm.running_mean"][hidden:], before["stem.norm.running_mean"][hidden:])
    assert torch.equal(after["stages.2.2.expand.conv.weight"], before["stages.2.2.expand.conv.weight"])
    resliced = slice_supernet(supernet, arch).state_dict()
    for name, value in subnet.state_dict().items():
        assert (resliced[name] - value).abs().max() < 1e-9, name
        if value.dim() == 4:
            assert not torch.equal(old[name], value), name


@pytest.mark.parametrize("momentum", [0.1, None])
def test_sliced_norm_is_a_batch_norm_of_its_own(momentum):
    sliced, own = SlicedBatchNorm2d(7, momentum=momentum).double(), nn.BatchNorm2d(4, momentum=momentum).double()
    for seed in range(3):
        x = torch.randn(2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(sliced(x), own(x))
    assert (sliced.running_var[:4] - own.running_var).abs().max() < 1e-12
    assert torch.equal(sliced.running_var[4:], torch.ones(3))
    assert (sliced.eval()(x) - own.eval()(x)).abs().max() < 1e-12


def test_slices_are_copies(supernet):
    arch = TINY.smallest()
    subnet = slice_supernet(supernet, arch)
    whole = {value.untyped_storage().data_ptr() for value in supernet.state_dict().values()}
    assert not whole & {value.untyped_storage().data_ptr() for value in subnet.state_dict().values()}
    assert subnet.arch == arch
    assert not subnet.training


def test_residual_branches_start_at_zero():
    network = build_subnet(TINY.smallest(), seed=3)
    gains = [stage[0].project.norm.weight for stage in network.stages]
    assert all(gain.abs().max() == 0 for gain in gains)


def test_seeds_repeat_and_leave_the_global_generator_alone():
    arch = TINY.smallest()
    before = torch.random.get_rng_state()
    first, second, other = (build_subnet(arch, seed).state_dict() for seed in (0, 0, 1))
    slice_supernet(build_supernet(TINY), arch)
    reparameterize(build_subnet(arch))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_what_does_not_belong_together_is_refused(supernet):
    foreign, other_classes = find_space("inas").smallest(), find_space("inas-tiny", 19).smallest()
    for arch in (foreign, other_classes):
        with pytest.raises(UsageError, match="cannot run"):
            supernet.activate(arch)
        with pytest.raises(UsageError, match="cannot slice"):
            slice_supernet(supernet, arch)
    with pytest.raises(UsageError, match="subnet of inas-tiny-c1"):
        build_subnet(TINY.smallest()).activate(TINY.biggest())
    with pytest.raises(UsageError, match="cannot slice"):
        slice_supernet(nn.Identity(), TINY.smallest())
