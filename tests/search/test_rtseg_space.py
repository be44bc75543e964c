import math
import random
import subprocess
import sys

import pytest
import torch

from search.spaces.block import total
from search.spaces.registry import find_arch, find_space
from search.spaces.rtseg.arch import Inverted, Skip
from search.spaces.rtseg.counts import supernet_cost, supernet_count
from search.spaces.rtseg.groups import group_widths, places
from search.spaces.rtseg.points import family
from targets.errors import UsageError

torch.set_num_threads(1)
NAMES = ("rtseg", "rtseg-small", "rtseg-tiny")


def test_the_supernet_costs_what_was_published():
    params, macs = supernet_cost(find_space("rtseg"), (512, 1024))
    assert params == 24_225_251
    assert abs(params / 24.43e6 - 1) < 0.02
    assert macs == 136_453_279_744
    assert abs(macs / 136.0e9 - 1) < 0.02


def test_attention_is_what_the_module_says():
    space = find_space("rtseg")
    heads = {name: tuple(block.heads for block in find_space(name).attentions()) for name in NAMES}
    assert heads == {"rtseg": (2, 4, 8), "rtseg-small": (1, 1, 2), "rtseg-tiny": (1, 1, 1)}
    assert [(block.key, block.value, block.patch) for block in space.attentions()] == [
        (40, 80, 1),
        (80, 160, 1),
        (160, 320, 1),
    ]
    both, alone = supernet_count(space)["total"], find_arch("rtseg-lir-80")
    params, macs = both.conv_params, both.macs
    assert round((params - 22_525_651) / 1e6, 2) == 1.70
    assert round((macs - total(alone.blocks((512, 1024)))[1]) / 1e9, 2) == 10.75
    assert round(8192**2 * (40 + 80) / 1e9, 1) == 8.1  # the products of the finest stage


@pytest.mark.parametrize(("name", "base"), [("rtseg", 80), ("rtseg-small", 32), ("rtseg-tiny", 8)])
def test_ends(name, base):
    space = find_space(name)
    big, small = space.biggest(), space.smallest()
    assert big == family(base, space=name)
    assert all(block == Skip() for stage in small.stages for block in stage.blocks)
    floor = 2 if name == "rtseg-tiny" else 8
    for group, width in group_widths(small).items():
        assert width == min(floor, group_widths(big)[group] // 2)
    for arch in (big, small):
        space.validate(arch)


@pytest.mark.parametrize("name", NAMES)
def test_samples_lie_in_the_space_and_reach_everything(name):
    space, rng = find_space(name), random.Random(0)
    paths, seen = set(), {}
    for _ in range(300):
        arch = space.sample(rng)
        space.validate(arch)
        paths |= {(s, i, b.path) for s, stage in enumerate(arch.stages) for i, b in enumerate(stage.blocks)}
        for group, width in group_widths(arch).items():
            seen.setdefault(group, set()).add(width)
    assert len(paths) == 5 * 3
    assert set(seen) == set(group_widths(space.biggest())) | {
        f"stages.{s}.blocks.{i}.mhsa.hidden" for s, i in ((0, 0), (1, 0), (2, 0), (2, 1), (2, 2))
    }
    assert seen["stem.squeeze"] == set(range(2 if name == "rtseg-tiny" else 4, 9))
    assert any(width % 2 for width in seen["head.conv"])


def test_same_seed_same_draws_in_another_process():
    code = (
        "import random; from search.spaces.registry import find_space; r = random.Random(7);"
        "print(*(find_space('rtseg').sample(r).sha256() for _ in range(5)))"
    )
    rng = random.Random(7)
    here = [find_space("rtseg").sample(rng).sha256() for _ in range(5)]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert here == there


def test_count_is_exact():
    space = find_space("rtseg-tiny")
    full = group_widths(space.biggest())

    def choices(group):
        return full[group] - min(2, full[group] // 2) + 1

    expected = math.prod(choices(group) for group in full if ".blocks." not in group)
    for stage, depth, trunk in ((0, 1, 8), (1, 1, 16), (2, 3, 32)):
        lir = choices(f"stages.{stage}.blocks.0.lir.lead") * choices(f"stages.{stage}.blocks.0.lir.expand")
        expected *= (1 + lir + trunk - 2 + 1) ** depth
    assert space.count() == expected
    assert (full["stages.2.blocks.1.lir.lead"], full["stages.2.blocks.1.lir.expand"]) == (32, 192)


def test_neighbours_differ_in_one_choice():
    space = find_space("rtseg-tiny")
    arch = space.sample(random.Random(3))
    widths, found = group_widths(arch), list(space.neighbours(arch))
    other_paths = 0
    for other in found:
        space.validate(other)
        changed = [
            (s, i)
            for s in range(3)
            for i, block in enumerate(other.stages[s].blocks)
            if block.path != arch.stages[s].blocks[i].path
        ]
        if changed:
            other_paths += 1
            prefixes = tuple(f"stages.{s}.blocks.{i}." for s, i in changed)
            assert len(changed) == 1
            kept = {group: width for group, width in group_widths(other).items() if not group.startswith(prefixes)}
            assert kept.items() <= widths.items()
        else:
            assert sum(width != widths[group] for group, width in group_widths(other).items()) == 1
    assert other_paths == 5 * 2
    assert len(found) - other_paths >= len(widths)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"space": "rtseg-tiny"}, "space: 'rtseg-tiny' is not 'rtseg'"),
        ({"classes": 4}, "classes: 4 is not 19"),
        ({"head": 7}, "head: 7 is not from 8 to 2560"),
        ({"bga_out": 321}, "bga_out: 321 is not from 8 to 320"),
        ({"detail": ((80, 81), (160,) * 3, (320,) * 3)}, "detail[0][1]: 81"),
    ],
)
def test_architectures_outside_are_refused_by_the_field(change, says):
    space = find_space("rtseg")
    with pytest.raises(UsageError) as caught:
        space.validate(space.biggest().model_copy(update=change))
    assert says in str(caught.value)


def test_blocks_outside_are_refused_by_the_field():
    space = find_space("rtseg")
    big = space.biggest()

    def refused(stage, says, **change):
        stages = list(big.stages)
        stages[stage] = stages[stage].model_copy(update=change)
        with pytest.raises(UsageError) as caught:
            space.validate(big.model_copy(update={"stages": tuple(stages)}))
        assert says in str(caught.value)

    own = space.attentions()[1]
    refused(1, "stages[1].blocks[0].key: 40 must be 80", blocks=(own.model_copy(update={"key": 40}),))
    refused(1, "stages[1].blocks[0].patch: 2 must be 1", blocks=(own.model_copy(update={"patch": 2}),))
    refused(1, "stages[1].blocks: must be 1", blocks=(own, own))
    refused(1, "stages[1].blocks[0].path", blocks=(Inverted(path="ge", lead=10, expand=60),))
    refused(1, "stages[1].blocks[0].hidden: 7 is not", blocks=(own.model_copy(update={"hidden": 7}),))
    refused(0, "stages[0].down.path", down=find_arch("bisenetv2").stages[0].down)
    refused(2, "stages[2].trunk: 321", trunk=321)


def test_widths_by_group():
    space = find_space("rtseg")
    arch = space.with_widths(space.biggest(), {"detail.2.1": 9, "stages.2.trunk": 33, "stages.2.blocks.1.lir.lead": 21})
    assert (arch.detail[2][1], arch.stages[2].trunk, arch.stages[2].blocks[1].lead) == (9, 33, 21)
    assert arch.stages[2].blocks[1].expand == space.biggest().stages[2].blocks[1].expand
    grouped = space.with_widths(find_arch("bisenetv2"), {"stages.0.down.lead": 5, "stages.1.blocks.0.ge.lead": 3})
    assert (grouped.stages[0].down.expand, grouped.stages[1].blocks[0].expand) == (30, 18)
    with pytest.raises(UsageError, match=r"no mask group 'stages\.0\.down\.width'"):
        space.with_widths(arch, {"stages.0.down.width": 8})
    with pytest.raises(UsageError, match="head"):
        space.with_widths(arch, {"head.conv": 0})


def test_names_and_classes():
    assert find_arch("bisenetv2-c11").classes == find_arch("rtseg-c11:bisenetv2").classes == 11
    assert find_arch("rtseg-lir-24-full-c3").detail[0] == (48, 48)
    assert find_arch("rtseg-lir-24").detail[0] == (24, 24)
    assert find_space("rtseg-tiny-c2").sample(random.Random(0)).classes == 2
    assert find_space("rtseg-tiny").point("bisenetv2") is None
    assert set(find_space("rtseg").points()) >= {"bisenetv2", "bisenetv2-lir", "rtseg-lir-32"}
    for impossible in ("rtseg-lir-0", "rtseg-lir-999", "bisenetv2-c0"):
        with pytest.raises(UsageError):
            find_arch(impossible)


def check_plan(network, plan):
    """The plan names exactly the layers with weights, and their widths are the tensors'."""
    modules = dict(network.named_modules())
    assert set(plan.layers) == {n for n, m in modules.items() if list(m.parameters(recurse=False))}
    assert {path for group in plan.groups.values() for path in group.masked} <= set(modules)
    assert all(group.masked for group in plan.groups.values())

    def channels(parts, repeat):
        return repeat * sum(part if isinstance(part, int) else plan.groups[part].width for part in parts)

    for path, layer in plan.layers.items():
        weight = modules[path].weight
        assert weight.shape[0] == channels(layer.outputs, layer.repeat), path
        if weight.ndim > 1:
            assert weight.shape[1] == (channels(layer.inputs, layer.input_repeat) if layer.inputs else 1), path


@pytest.mark.parametrize("name", NAMES)
def test_plans_fit_the_networks(name):
    space, rng = find_space(name), random.Random(2)
    with torch.device("meta"):
        check_plan(space.build_supernet(), space.supernet_plan())
        for _ in range(3):
            arch = space.sample(rng)
            plan = space.channel_plan(arch)
            check_plan(space.build_subnet(arch), plan)
            assert set(plan.groups) <= set(space.supernet_plan().groups)
            assert {group: item.width for group, item in plan.groups.items()} == group_widths(arch)
            assert all(1 <= item.floor <= item.width for item in plan.groups.values())


def test_plan_of_grouped_blocks():
    space, arch = find_space("rtseg"), find_arch("bisenetv2")
    plan = space.channel_plan(arch)
    with torch.device("meta"):
        check_plan(space.build_subnet(arch), plan)
    assert plan.layers["stages.1.blocks.0.expand.conv"].repeat == 6
    assert plan.layers["stages.1.blocks.0.project.conv"].input_repeat == 6
    assert "stages.1.blocks.0.ge.expand" not in places(arch)


def test_floors_of_a_plan_keep_its_networks_in_the_space():
    space = find_space("rtseg-small")
    for seed in range(5):
        arch = space.sample(random.Random(seed))
        groups = space.channel_plan(arch).groups
        least = space.with_widths(arch, {name: group.floor for name, group in groups.items()})
        space.validate(least)
        assert {name: group.width for name, group in space.channel_plan(least).groups.items()} == {
            name: group.floor for name, group in groups.items()
        }


def test_only_supernets_are_sliced():
    space = find_space("rtseg-tiny")
    with pytest.raises(UsageError, match="no RTSeg supernet"):
        space.slice_from(torch.nn.Identity(), space.smallest())


def test_a_name_cannot_say_other_classes_than_the_space():
    assert find_arch("rtseg-c11:bisenetv2").classes == 11
    assert find_arch("rtseg-c11:bisenetv2-c11").classes == 11
    assert find_arch("rtseg:bisenetv2-c5").classes == find_arch("bisenetv2-c5").classes == 5
    assert find_arch("rtseg:bisenetv2").classes == 19
    for name in ("rtseg-c11:bisenetv2-c5", "rtseg-c19:rtseg-lir-16-c5"):
        with pytest.raises(UsageError, match="has 5 output classes"):
            find_arch(name)


def test_digits_of_other_scripts_make_no_name():
    assert find_space("rtseg").point("rtseg-lir-\u0663\u0662") is None
    assert find_space("rtseg").point("bisenetv2-c\u0665") is None


def test_attention_everywhere_costs_more_than_the_biggest_on_large_images():
    space = find_space("rtseg")
    arch = space.biggest()
    stages = tuple(
        stage.model_copy(update={"blocks": (attention,) * len(stage.blocks)})
        for stage, attention in zip(arch.stages, space.attentions(), strict=True)
    )
    other = arch.model_copy(update={"stages": stages})
    space.validate(other)
    assert space.cost(other, (64, 64))[1] < space.cost(arch, (64, 64))[1]
    assert space.cost(other, (1024, 2048))[1] > space.cost(arch, (1024, 2048))[1]


def test_any_size_goes_by_its_name():
    arch = find_arch("bisenetv2-any-c21")
    assert (arch.resize, arch.classes) == ("detail", 21)
    assert arch.blocks((513, 513))[-1].outputs == ((21, 513, 513),)
    with pytest.raises(UsageError, match=r"multiples of 32.*bisenetv2-any"):
        find_arch("bisenetv2").blocks((513, 513))
