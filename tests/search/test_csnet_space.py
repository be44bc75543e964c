import copy
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.spaces.block import total
from search.spaces.csnet.arch import CSNetArch
from search.spaces.csnet.channels import widths
from search.spaces.csnet.space import CSNetSpace
from search.spaces.registry import arch_from_json, find_space
from targets.errors import UsageError
from tests.search.csnet_lists import X1_L, X2_L

SPACE = CSNetSpace()
HOLES = CSNetArch(
    stem=(0, 5), stage1=((4, 0), (3, 3), (6,)), stage2=((4, 4), (0, 3), (5,), (6,)),
    stage3=((4, 0), (4, 4), (4, 4), (4, 4), (4, 4), (7,)), stage4=((4,), (4, 4), (4, 4), (8,)),
    csf_mid=(5, 0, 6), dilated=((0,) * 5, (0,) * 5, (1, 0, 2, 0, 1)), csf_out=9,
)  # fmt: skip


def draws(count, seed=0):
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]


def test_ends():
    small = SPACE.smallest()
    assert small.stem == (1, 1)
    assert small.dilated == ((1, 0, 0, 0, 0),) * 3
    assert set(widths(small).values()) == {0, 1}
    assert SPACE.biggest() == CSNetArch.fixed(2)
    for arch in (small, SPACE.biggest(), X1_L, X2_L, CSNetArch.fixed(1)):
        SPACE.validate(arch)


def test_samples_reach_both_ends_of_every_width_and_lie_in_the_space():
    found = draws(600)
    for arch in found[:100]:
        SPACE.validate(arch)
    seen = {name: {widths(arch)[name] for arch in found} for name in ("stem.0", "csf.dilated.0x16", "stage1.2.1")}
    assert seen == {"stem.0": set(range(1, 21)), "csf.dilated.0x16": set(range(7)), "stage1.2.1": set(range(1, 21))}


def test_count_by_hand():
    blocks = 20**8 * 40**6 * 80 * 80**10 * 160 * 80**6 * 160
    rows = (6**4 * 7 - 1) * (11**4 * 14 - 1) ** 2
    assert SPACE.count() == blocks * (26 * 53 * 53) * rows * 132


def test_neighbours_of_the_smallest():
    small = SPACE.smallest()
    found = list(SPACE.neighbours(small))
    choices = [*widths(SPACE.biggest()).values()]
    assert len(found) == sum(choices) - sum(1 for name in widths(small) if "dilated" not in name) - 3
    assert len(set(found)) == len(found)
    own = widths(small)
    assert all(sum(own[name] != width for name, width in widths(arch).items()) == 1 for arch in found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stem": [21, 4]}, "stem[0] is 21, not 1 to 20"),
        ({"stem": [0, 4]}, "stem[0] is 0, not 1 to 20"),
        ({"stage1": [[4], [4, 4], [4, 4]]}, "stage1[0] has other scales"),
        ({"dilated": [[1, 0, 0, 0, 0], [0] * 5, [1, 0, 0, 0, 0]]}, "dilated[1] has no channels"),
        ({"csf_out": 133}, "csf_out is 133, not 1 to 132"),
    ],
)
def test_what_lies_outside_is_named(change, says):
    arch = CSNetArch.from_json(json.dumps({**json.loads(X1_L.to_json()), **change}))
    with pytest.raises(UsageError) as caught:
        SPACE.validate(arch)
    assert says in str(caught.value)


def test_points_and_classes():
    assert SPACE.point("csnet-x1.5-s3-1") == CSNetArch.fixed(1.5, (3, 1))
    assert SPACE.point("resnet50") is None
    assert SPACE.points()["csnet-x2"] == SPACE.biggest()
    assert find_space("csnet-c1").classes == 1
    with pytest.raises(UsageError, match="one output map, not 19"):
        find_space("csnet-c19")


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(child, (*path, key))
    else:
        yield path


def changed(content, path, value):
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(content)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_mutated_field_is_refused_by_its_path(data):
    content = json.loads(data.draw(st.sampled_from([X1_L, X2_L, CSNetArch.fixed(1)])).to_json())
    path = data.draw(st.sampled_from([*leaves(content)]))
    bad = [None, "8", 8.0, True, -1, 8193, [], {}, 1e999]
    if len(path) == 1:
        bad.append(...)
    text = changed(content, path, data.draw(st.sampled_from(bad)))
    with pytest.raises(UsageError) as caught:
        CSNetArch.from_json(text)
    assert "\n" not in str(caught.value)
    written = "".join(f"[{key}]" if isinstance(key, int) else key for key in path)
    assert f"not valid: {written}" in str(caught.value)


@given(st.data())
def test_a_missing_or_added_width_is_refused(data):
    content = json.loads(X1_L.to_json())
    path = data.draw(st.sampled_from([path for path in leaves(content) if len(path) == 2 and path[0] != "stem"]))
    with pytest.raises(UsageError, match=path[0]):
        CSNetArch.from_json(changed(content, path, ...))


# From here on with torch.
torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from search.reparameterize import reparameterize  # noqa: E402
from search.spaces.export import seeded_subnet  # noqa: E402

torch.set_num_threads(1)


@pytest.mark.parametrize(
    "arch", [CSNetArch.fixed(1), CSNetArch.fixed(1, (1, 0)), X2_L, HOLES, SPACE.smallest(), *draws(6)]
)
def test_blocks_sum_to_the_folded_network(arch):
    size = (96, 160)
    with torch.device("meta"):
        network = SPACE.build_subnet(arch)
        folded = reparameterize(network)
        with FlopCounterMode(display=False) as counter:
            folded(torch.empty(1, 3, *size))
    blocks = arch.blocks(size)
    counted = sum(p.numel() for p in folded.parameters()), counter.get_total_flops() // 2
    assert counted == total(blocks)
    for block in blocks:
        assert sum(p.numel() for p in folded.get_submodule(block.name).parameters()) == block.params, block.name
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


@torch.no_grad()
def test_block_shapes_are_those_of_the_modules():
    for arch in (X2_L, HOLES):
        folded = reparameterize(SPACE.build_subnet(arch))
        found = {}

        def note(name, found=found):
            def hook(module, inputs, output):
                found[name] = [flat(*inputs), flat(output)]

            return hook

        blocks = arch.blocks((64, 96))
        for block in blocks:
            folded.get_submodule(block.name).register_forward_hook(note(block.name))
        folded(torch.randn(1, 3, 64, 96))
        for block in blocks:
            wanted = [[*block.inputs], [*block.outputs]]
            if block.name == "head":  # its block ends with the resize to the input's size
                wanted[1] = found["head"][1]
                assert block.outputs == ((1, 64, 96),)
            assert found[block.name] == wanted, block.name


def flat(maps):
    maps = maps if isinstance(maps, list) else [maps]
    return [tuple(x.shape[1:]) for x in maps if x is not None]


def test_block_keys_tell_pooling_from_striding():
    pooled, strided = (arch.blocks((32, 32)) for arch in (CSNetArch.fixed(1), CSNetArch.fixed(1, (1, 0))))
    assert dict(pooled[4].settings) == {"kernel": 3, "pooled": 1, "stride": 2}
    assert dict(strided[8].settings)["pooled"] == 0
    assert dict(X2_L.blocks((32, 32))[-3].settings)["input1_dilation2"] == 6
    assert len({block.name for block in pooled}) == len(pooled) == 22


@torch.no_grad()
def test_supernet_equals_slice_equals_folded_for_50_architectures():
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    supernet = alive(SPACE.build_supernet(seed=2).double(), image)
    whole = supernet(image)
    for arch in draws(50, seed=4):
        supernet.activate(arch)
        alive(supernet, image)
        subnet = SPACE.slice_from(supernet, arch)
        assert subnet.arch == arch
        (logits,) = subnet(image, all_heads=True)
        assert logits.std() > 1e-4
        scale = max(1, float(logits.abs().max()))
        assert (supernet(image) - logits).abs().max() < 1e-10 * scale
        deployed = reparameterize(subnet)
        assert (deployed(image) - logits.sigmoid()).abs().max() < 1e-12
        deployed.sigmoid = nn.Identity()  # a saturated sigmoid would hide differences
        assert (deployed(image) - logits).abs().max() < 1e-12 * scale
    assert torch.equal(reparameterize(supernet)(image), reparameterize(subnet)(image))
    assert supernet.arch == arch
    supernet.activate(SPACE.biggest())
    assert (supernet(image) - whole).abs().max() > 1e-6  # the statistics are another architecture's


def alive(network, image):
    """Batch norm that does something, with statistics that let the signal through to the output."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            module.reset_running_stats()
            module.momentum = None
    network.train()
    network(torch.cat([image, image.flip(3), -image]))
    return network.eval()


def test_building_and_folding_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    reparameterize(SPACE.build_subnet(SPACE.smallest()))
    SPACE.build_supernet(seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_reparameterizing_twice_changes_nothing():
    folded = reparameterize(seeded_subnet(SPACE.smallest(), (64, 64)))
    again = reparameterize(folded)
    assert all(torch.equal(a, b) for a, b in zip(folded.parameters(), again.parameters(), strict=True))


def test_arch_json_names_the_space():
    arch = draws(1)[0]
    assert arch_from_json(arch.to_json()) == arch
