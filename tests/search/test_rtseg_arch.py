import copy
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.spaces.block import total
from search.spaces.registry import find_arch, find_space
from search.spaces.rtseg.arch import RTSegArch
from search.spaces.rtseg.counts import auxiliary_params, count
from targets.errors import UsageError

BAD_INTEGERS = (0, -1, 10**6, "8", 8.5, True, None, [8], {})
BAD_WORDS = ("", "other", 1, None)
BAD_CONTAINERS = (None, 7, "x")
OPTIONAL = {"patch"}
POINTS = ("bisenetv2", "bisenetv2-lir", "rtseg-lir-16")


def example(seed):
    if seed < len(POINTS):
        return find_arch(POINTS[seed])
    return find_space(("rtseg", "rtseg-small", "rtseg-tiny")[seed % 3]).sample(random.Random(seed))


def walk(value, path=()):
    """Every path below the top of plain data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from walk(child, (*path, key))


def spelled(path):
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def at(content, path):
    for step in path:
        content = content[step]
    return content


def refusal(content):
    with pytest.raises(UsageError) as caught:
        RTSegArch.from_json(json.dumps(content))
    text = str(caught.value)
    assert "\n" not in text
    assert "RTSeg architecture JSON is not valid" in text
    return text


@given(st.integers(0, 40), st.data())
def test_every_field_changed_to_nonsense_is_refused_by_its_path(seed, data):
    content = json.loads(example(seed).to_json())
    path = data.draw(st.sampled_from(sorted(walk(content), key=str)))
    old = at(content, path)
    kind = BAD_INTEGERS if isinstance(old, int) else BAD_WORDS if isinstance(old, str) else BAD_CONTAINERS
    bad = data.draw(st.sampled_from(kind))
    at(content, path[:-1])[path[-1]] = bad
    text = refusal(content)
    if path[-1] == "path" and path[-3] == "blocks":
        assert f"{spelled(path[:-1])}: " in text and "'path'" in text
    else:
        assert f" {spelled(path)}" in text


@given(st.integers(0, 40), st.data())
def test_a_missing_or_a_surprising_field_is_refused_by_its_path(seed, data):
    content = json.loads(example(seed).to_json())
    places = sorted(((), *walk(content)), key=str)
    holders = [path for path in places if isinstance(at(content, path), dict)]
    path = data.draw(st.sampled_from(holders))
    holder = at(content, path)
    extra = copy.deepcopy(content)
    at(extra, path)["surprise"] = 1
    assert f" {spelled((*path, 'surprise'))}: " in refusal(extra)
    if required := sorted(set(holder) - OPTIONAL):
        gone = data.draw(st.sampled_from(required))
        del holder[gone]
        text = refusal(content)
        tagged = gone == "path" and path[-2] == "blocks"
        assert f" {spelled(path)}: " in text and "'path'" in text if tagged else f" {spelled((*path, gone))}: " in text


@given(st.integers(0, 10**6))
def test_json_round_trip_keeps_every_bit(seed):
    arch = example(seed)
    again = RTSegArch.from_json(arch.to_json())
    assert again == arch
    assert (again.to_json(), again.sha256()) == (arch.to_json(), arch.sha256())
    shuffled = json.dumps(dict(reversed(json.loads(arch.to_json()).items())), indent=2)
    assert RTSegArch.from_json(shuffled).sha256() == arch.sha256()


@pytest.mark.parametrize(
    ("place", "change", "says"),
    [
        ((), {"expand": 95, "path": "ge"}, "stages[0].down.expand: must be 6 x lead = 96 in a ge block, not 95"),
        ((0,), {"path": "ge", "lead": 8, "expand": 47}, "stages[0].blocks[0].expand: must be 6 x lead"),
        ((0,), {"path": "mhsa", "heads": 3, "key": 16, "value": 33, "hidden": 9}, "stages[0].blocks[0].key: 16 chan"),
        ((0,), {"path": "mhsa", "heads": 4, "key": 16, "value": 33, "hidden": 9}, "stages[0].blocks[0].value: 33"),
        ((0,), {"path": "mhsa", "heads": 4, "key": 16, "value": 32, "hidden": 9, "patch": 17}, "patch"),
        ((0,), {"path": "skip", "lead": 3}, "stages[0].blocks[0].lead"),
    ],
)
def test_fields_that_contradict_each_other_are_named(place, change, says):
    content = json.loads(find_arch("rtseg-lir-32").to_json())
    if place:
        content["stages"][0]["blocks"] = [change]
    else:
        content["stages"][0]["down"].update(change)
    assert says in refusal(content)


def test_lists_have_their_lengths():
    content = json.loads(find_arch("bisenetv2").to_json())
    for path, length in ((("detail",), 3), (("detail", 0), 2), (("stages",), 3)):
        for other in (length - 1, length + 1):
            changed = copy.deepcopy(content)
            holder = at(changed, path[:-1])
            holder[path[-1]] = (2 * holder[path[-1]])[:other]
            assert spelled(path) in refusal(changed)


PARTS = {
    "detail.0": (38_848, 5.058),
    "detail.1": (110_976, 3.624),
    "detail.2": (369_408, 3.020),
    "stem": (6_432, 0.262),
    "stages.0": (25_936, 0.260),
    "stages.1": (94_368, 0.245),
    "stages.2": (868_160, 0.497),
    "context": (164_608, 0.076),
    "bga": (478_720, 1.738),
    "head": (1_201_171, 9.823),
    "total": (3_358_627, 24.603),
}


def test_bisenetv2_counts():
    found = count(find_arch("bisenetv2"))
    assert {name: (part.params, round(part.macs / 1e9, 3)) for name, part in found.items()} == PARTS
    assert found["total"].conv_params == 3_341_299
    assert sum(part.params - part.conv_params for name, part in found.items() if name.startswith("detail")) == 1_408
    assert found["bga"].params - found["bga"].conv_params == 1_280
    assert found["head"].params - found["head"].conv_params == 2_048
    assert round(count(find_arch("bisenetv2"), (1024, 2048))["total"].macs / 1e9, 3) == 98.413


def test_bisenetv2_auxiliary_heads_and_blocks():
    arch = find_arch("bisenetv2")
    assert auxiliary_params(arch) == (37_475, 112_211, 374_291, 1_348_883)
    assert sum(auxiliary_params(arch)) + 3_358_627 == 5_231_487
    blocks = {block.name: block for block in arch.blocks((512, 1024))}
    assert blocks["stages.2.down"].inputs == ((64, 32, 64),)
    assert blocks["stages.2.down"].outputs == ((128, 16, 32),)
    assert blocks["bga"].inputs == ((128, 64, 128), (128, 16, 32))
    assert blocks["head"].outputs == ((19, 512, 1024),)
    assert dict(blocks["stages.0.down"].settings) == {"expand": 96, "grouped": 1, "lead": 16}


@pytest.mark.parametrize(
    ("head", "params", "gmacs"), [(64, 2_232_547, 15.394), (128, 2_307_619, 16.008), (256, 2_457_763, 17.236)]
)
def test_bisenetv2_with_other_heads(head, params, gmacs):
    found = count(find_arch("bisenetv2").model_copy(update={"head": head}))["total"]
    assert (found.params, round(found.macs / 1e9, 3)) == (params, gmacs)


def test_lir_counts():
    found = count(find_arch("bisenetv2-lir"))
    assert found["total"][:2] == (3_723_619, 3_699_187)
    assert round(found["total"].macs / 1e9, 3) == 25.006
    assert [round(found[f"stages.{stage}"].macs / 1e9, 3) for stage in range(3)] == [0.361, 0.346, 0.698]
    semantic = ("stem", "stages.0", "stages.1", "stages.2", "context")
    assert sum(found[name].params for name in semantic) == 1_524_496
    assert find_arch("bisenetv2-lir") == find_arch("rtseg-lir-32-full")


@pytest.mark.parametrize(
    ("name", "million", "gmacs"),
    [
        ("rtseg-lir-16", "0.938", "5.56"),
        ("rtseg-lir-32", "3.652", "20.66"),
        ("rtseg-lir-32-full", "3.699", "25.01"),
        ("rtseg-lir-64", "14.45", "80.7"),
        ("rtseg-lir-64-full", "14.63", "97.9"),
        ("rtseg-lir-80", "22.53", "125.7"),
        ("rtseg-lir-80-full", "22.82", "152.4"),
        ("rtseg-lir-84", "24.82", "138.5"),
    ],
)
def test_width_table(name, million, gmacs):
    found = count(find_arch(name))["total"]
    assert f"{found.conv_params / 1e6:.{len(million.split('.')[1])}f}" == million
    assert f"{found.macs / 1e9:.{len(gmacs.split('.')[1])}f}" == gmacs


def test_blocks_hold_the_folded_parameters():
    arch = find_arch("bisenetv2")
    training = count(arch)["total"]
    params, macs = total(arch.blocks((512, 1024)))
    assert macs == training.macs
    folded = params - training.conv_params  # biases that folding adds: one a channel, where batch norm has two
    assert folded == (training.params - training.conv_params - 2 * 128) // 2


def test_input_sizes():
    arch = find_arch("bisenetv2")
    for size in ((513, 513), (500, 500), (512, 16), (0, 0)):
        with pytest.raises(UsageError, match="multiples of 32"):
            arch.blocks(size)
    free = arch.model_copy(update={"resize": "detail"})
    blocks = {block.name: block for block in free.blocks((513, 385))}
    assert blocks["bga"].inputs == ((128, 65, 49), (128, 17, 13))
    assert blocks["head"].outputs == ((19, 513, 385),)
    with pytest.raises(UsageError, match="at least 32"):
        free.blocks((513, 31))
    assert free.blocks((512, 1024)) == arch.blocks((512, 1024))


def test_patches_ask_for_larger_multiples():
    content = json.loads(find_arch("rtseg-lir-32").to_json())
    attention = {"path": "mhsa", "heads": 4, "key": 16, "value": 32, "hidden": 9, "patch": 4}
    content["stages"][2]["blocks"] = [attention]
    arch = RTSegArch.from_json(json.dumps(content))
    with pytest.raises(UsageError, match="multiples of 128"):
        arch.blocks((96, 128))
    block = next(block for block in arch.blocks((128, 256)) if block.kind == "rtseg.mhsa")
    tokens, wide = 1 * 2, 128 * 16
    assert block.params == 4 * wide + wide * (16 + 16 + 32) + 33 * wide + 9 * wide + 9 + 9 * wide + wide
    assert block.macs == tokens * wide * (16 + 16 + 32 + 32 + 9 + 9) + tokens**2 * (16 + 32)
    content["resize"] = "detail"
    assert "stages[2].blocks[0].patch" in refusal(content)
