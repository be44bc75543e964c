import copy
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.spaces.block import total
from search.spaces.inas.arch import DECODER, FACTORS, TRANSPORT, INASArch
from search.spaces.inas.space import INASSpace
from targets.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
SPACES = {id: INASSpace(id) for id in FACTORS}
seeds = st.integers(0, 2**32)
archs = st.builds(lambda id, seed: SPACES[id].sample(random.Random(seed)), st.sampled_from(list(FACTORS)), seeds)


def text_of(path):
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def places(value, path=()):
    """Every field of a JSON value, by path, lists and their members alike."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def parent_of(content, path):
    for part in path[:-1]:
        content = content[part]
    return content


def wrong_values(value):
    """JSON values that no field of this type may have."""
    others = [None, True, "9", 1.5, {}, {"0": 1}, -1, 10**6, 10**30, [[[[1]]]], []]
    if isinstance(value, str):
        return [*others, "", value + " ", value.upper(), [value], 1]
    if isinstance(value, list):
        return [
            *others,
            3,
            [value],
            [None, *value],
            [*value, *value],
            [*value, 1.0],
            "".join(map(str, value)),
            value[:0],
        ]
    return [*others, float(value), float(value) + 0.5, str(value), [value], {"value": value}, -value - 1]


def legal(value):
    """Whether some field may hold the value: whole numbers, and lists of them."""
    return type(value) is int or (isinstance(value, list) and value != [] and all(map(legal, value)))


def refused(content):
    with pytest.raises(UsageError) as caught:
        INASArch.from_json(json.dumps(content))
    message = str(caught.value)
    assert "\n" not in message
    return message


@given(archs)
def test_json_round_trip_bit_for_bit(arch):
    again = INASArch.from_json(arch.to_json())
    assert again == arch
    assert again.to_json() == arch.to_json()
    assert again.sha256() == arch.sha256()
    shuffled = json.dumps(dict(reversed(json.loads(arch.to_json()).items())), indent=3)
    assert INASArch.from_json(shuffled).sha256() == arch.sha256()


@given(archs, archs)
def test_hash_tells_architectures_apart(one, other):
    assert (one == other) == (one.sha256() == other.sha256()) == (one.to_json() == other.to_json())


def test_hash_stays():
    space = INASSpace("inas")
    assert space.smallest().sha256() == "f9502b710fe233851f61b0aff80d61844e1f7fa2069385a36b2e4b11835e2a97"
    assert space.sample(random.Random(1)).sha256() == "429dc1d0cc63cbe9ce3b7c47396faa6778c84817aade65d839743c6fd8a73960"


@pytest.mark.parametrize("id", FACTORS)
def test_every_mutated_field_is_refused_with_its_path(id):
    arch = SPACES[id].sample(random.Random(3))
    content = json.loads(arch.to_json())
    for path in list(places(content)):
        parent, last = parent_of(content, path), path[-1]
        value = parent[last]
        for wrong in wrong_values(value):
            parent[last] = wrong
            assert text_of(path) in refused(content), wrong
        parent[last] = value
    assert INASArch.from_json(json.dumps(content)) == arch


@given(archs, st.data())
def test_a_field_mutated_in_any_way_is_refused_with_its_path(arch, data):
    content = json.loads(arch.to_json())
    path = data.draw(st.sampled_from(list(places(content))), label="path")
    parent = parent_of(content, path)
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
    parent[path[-1]] = data.draw(anything.filter(lambda value: not legal(value)), label="value")
    assert text_of(path) in refused(content)


@given(archs, st.data())
def test_missing_and_unknown_keys_are_refused(arch, data):
    content = json.loads(arch.to_json())
    missing = data.draw(st.sampled_from(list(content)))
    assert f"{missing}: Field required" in refused({key: content[key] for key in content if key != missing})
    assert "widht: " in refused({**content, "widht": 1})


@given(archs, st.data())
def test_wrong_lengths_are_refused(arch, data):
    content = json.loads(arch.to_json())
    lists = [path for path in places(content) if isinstance(parent_of(content, path)[path[-1]], list)]
    path = data.draw(st.sampled_from([path for path in lists if len(path) <= 2]), label="path")
    values = parent_of(content, path)[path[-1]]
    if len(path) == 1 or path[0] == "kernels":
        change = data.draw(st.sampled_from([values[:-1], [*values, values[-1]]]))
    elif path[0] == "widths":
        change = data.draw(st.sampled_from([[values[0]] * 7, values[:1] if path[1] not in (0, 6) else []]))
    else:
        change = data.draw(st.sampled_from([[], [*values, values[-1]]]))
    parent_of(content, path)[path[-1]] = change
    assert text_of(path) in refused(content)


@pytest.mark.parametrize(
    ("field", "path", "value", "says"),
    [
        ("stem", (), 33, "stem: 33 is not one of 32, 36, 40"),
        ("widths", (3, 1), 83, "widths[3][1]: 83 is not one of 80, 84, 88"),
        ("widths", (0,), [16, 16, 16], "widths[0]: 3 layers is not one of 1, 2"),
        ("widths", (3,), [80, 80, 80], "kernels[3]: 2 layers, but widths[3] has 3"),
        ("kernels", (2, 1), [11], "kernels[2][1][0]: 11 is not one of 3, 5, 7, 9"),
        ("kernels", (0, 0), [5], "kernels[0][0][0]: 5 is not one of 3"),
        ("kernels", (2, 1), [5, 3], "kernels[2][1]: must be ascending, each value once"),
        ("kernels", (2, 1), [3, 3], "kernels[2][1]: must be ascending, each value once"),
        ("transport", (3,), [0, 4], "transport[3]: must hold 3"),
        ("transport", (3,), [3, 5], "transport[3][1]: 5 is not one of 0, 1, 2, 3, 4"),
        ("transport", (3,), [3, 0], "transport[3]: must be ascending, each value once"),
        ("decoder", (1,), [1, 4], "decoder[1]: must hold 1, 2"),
        ("decoder", (1,), [0, 1, 2], "decoder[1][0]: 0 is not one of 1, 2, 3, 4"),
        ("decoder", (4,), [3, 4], "decoder[4][0]: 3 is not one of 4"),
        ("decoder_kernels", (2,), [], "decoder_kernels[2]: "),
        ("transport_kernels", (2,), [4], "transport_kernels[2][0]: 4 is not one of 3, 5, 7, 9"),
        ("space", (), "inas-tiny", "stem: 32 is not one of 8, 9, 10"),
        ("schema_version", (), 2, "schema_version: "),
        ("classes", (), True, "classes: "),
    ],
)
def test_message_names_the_field_and_the_rule(field, path, value, says):
    content = json.loads(INASSpace("inas").smallest().to_json())
    whole = (field, *path)
    parent_of(content, whole)[whole[-1]] = value
    assert says in refused(content)


@given(st.text(max_size=60) | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps))
def test_other_json_is_one_clear_line(text):
    with pytest.raises(UsageError, match="INAS architecture JSON is not valid") as caught:
        INASArch.from_json(text)
    assert "\n" not in str(caught.value)


def test_architectures_cannot_be_changed():
    arch = INASSpace("inas").smallest()
    before = copy.deepcopy(arch)
    with pytest.raises(ValueError, match="frozen"):
        arch.stem = 36
    assert arch == before


def test_choices_of_connections():
    assert [len(level.subsets) for level in TRANSPORT] == [16] * 5
    assert [len(level.subsets) for level in DECODER] == [8, 4, 2, 1, 1]
    assert all(set(level.forced) <= set(subset) for level in (*TRANSPORT, *DECODER) for subset in level.subsets)


def test_two_processes_with_one_seed_draw_the_same():
    program = (
        "import random; from search.spaces.inas.space import INASSpace; draw = random.Random(7)\n"
        "print([INASSpace(i).sample(draw).sha256() for i in ('inas', 'inas-small', 'inas-tiny') for _ in range(20)])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(set(json.loads(outputs[0].replace("'", '"')))) == 60


# Worked out by hand for the smallest `inas-tiny` at 64x32: stem 8, widths 4, 6, 10, 20, 28, 48, 80.
HAND = {
    "stem": (27 * 8 + 8, 27 * 8 * 32 * 16),
    # 8 -> 4, hidden 8, squeeze 2, 32x16: 64+8, 72+8, 16+2+16+8, 32+4, shortcut 32
    "stages.0.0": (72 + 80 + 42 + 36 + 32, (64 + 72 + 32 + 32) * 512 + 32),
    # 4 -> 6, hidden 24, squeeze 6, 32x16 to 16x8: 96+24, 216+24, 144+6+144+24, 144+6, shortcut 24
    "stages.1.0": (120 + 240 + 318 + 150 + 24, 96 * 512 + (216 + 144 + 24) * 128 + 288),
    # 6 -> 6: hidden 36, squeeze 9, no shortcut convolution
    "stages.1.1": (216 + 36 + 324 + 36 + 648 + 9 + 36 + 216 + 6, (216 + 324 + 216) * 128 + 648),
    # level 0 has 4 channels at 32x16: twice (3x3 depthwise, 1x1)
    "transport.0.fuse": (2 * (36 + 4 + 16 + 4), 2 * (36 + 16) * 512),
    # level 1 (6 channels at 16x8) to level 0: convolved at 16x8
    "decoder.0.from1": (24 + 4, 24 * 128),
    "decoder.0.fuse": (36 + 4 + 16 + 4, 52 * 512),
    "head": (4, 4 * 512),
}


def test_parameters_and_macs_by_hand():
    blocks = INASSpace("inas-tiny").smallest().blocks((64, 32))
    found = {block.name: (block.params, block.macs) for block in blocks}
    assert {name: found[name] for name in HAND} == HAND
    assert total(blocks) == (sum(p for p, _ in found.values()), sum(m for _, m in found.values()))


def test_blocks_of_the_smallest():
    blocks = INASSpace("inas-tiny", classes=19).smallest().blocks((64, 32))
    names = [block.name for block in blocks]
    depths = (1, 2, 2, 2, 2, 2, 1)
    assert names == [
        "stem",
        *(f"stages.{stage}.{layer}" for stage, depth in enumerate(depths) for layer in range(depth)),
        *(f"transport.{level}.fuse" for level in range(5)),
        "decoder.4.fuse",
        *(f"decoder.{level}.{end}" for level in (3, 2, 1, 0) for end in (f"from{level + 1}", "fuse")),
        "head",
    ]
    by_name = {block.name: block for block in blocks}
    assert by_name["stem"].inputs == ((3, 64, 32),)
    assert by_name["stages.6.0"].outputs == ((80, 2, 1),)
    assert by_name["transport.0.fuse"].inputs == ((4, 32, 16),)
    assert by_name["decoder.0.fuse"].inputs == ((4, 32, 16),) * 2
    assert by_name["head"].outputs == ((19, 64, 32),)
    assert dict(by_name["stages.1.0"].settings) == {"hidden": 24, "kernel": 3, "shortcut": 1, "stride": 2}
    assert dict(by_name["stages.1.1"].settings) == {"hidden": 36, "kernel": 3, "shortcut": 0, "stride": 1}


def test_branches_convolve_at_the_coarser_size():
    blocks = {block.name: block for block in INASSpace("inas-tiny").biggest().blocks((64, 64))}
    widths = (6, 8, 12, 32, 88)
    for level in range(5):
        for other in range(5):
            if other == level:
                assert f"transport.{level}.from{other}" not in blocks
                continue
            block = blocks[f"transport.{level}.from{other}"]
            coarse = 32 >> max(level, other)
            assert block.macs == widths[level] * widths[other] * coarse**2
            assert block.params == widths[level] * (widths[other] + 1)
            assert block.outputs == ((widths[level], 32 >> level, 32 >> level),)


@given(archs, st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_only_the_largest_kernel_of_a_set_counts(arch, size):
    plain = arch.model_copy(
        update={
            "kernels": tuple(tuple(layer[-1:] for layer in stage) for stage in arch.kernels),
            "transport_kernels": tuple(kernels[-1:] for kernels in arch.transport_kernels),
            "decoder_kernels": tuple(kernels[-1:] for kernels in arch.decoder_kernels),
        }
    )
    pixels = (32 * size[0], 32 * size[1])
    blocks = arch.blocks(pixels)
    assert plain.blocks(pixels) == blocks
    assert len({block.name for block in blocks}) == len(blocks)


@pytest.mark.parametrize("size", [(224, 230), (225, 224), (0, 32), (-32, 32), (16, 16)])
def test_other_sizes_are_refused_with_the_multiple(size):
    with pytest.raises(UsageError, match="multiples of 32"):
        INASSpace("inas").smallest().blocks(size)
