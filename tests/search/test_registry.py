import json
import subprocess
import sys

import pytest

from search.spaces.arch import MAX_PARAMETERS, MAX_PIXELS
from search.spaces.registry import arch_from_json, find_arch, find_space
from search.spaces.rtseg.arch import RTSegArch
from targets.errors import UsageError, printable

RTSEG = json.loads(find_arch("rtseg-lir-32").to_json())


def refusal(call, *arguments):
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert text.isprintable()
    return text


def changed(**fields):
    return json.dumps({**RTSEG, **fields})


def with_block(**fields):
    stages = [{**RTSEG["stages"][0], "blocks": [fields]}, *RTSEG["stages"][1:]]
    return changed(stages=stages)


@pytest.mark.parametrize("key", ["\x1b[31mred", "\u202ereversed", "k" * 100_000, "\x1b" * 5000])
def test_a_strange_key_is_escaped_and_cut(key):
    text = refusal(arch_from_json, changed(**{key: 1}))
    assert f" {printable(key, 80)}: Extra inputs" in text
    assert len(text) < 300
    nested = refusal(arch_from_json, with_block(path="skip", **{key: 1}))
    assert f" stages[0].blocks[0].{printable(key, 80)}: Extra inputs" in nested
    assert len(nested) < 300


@pytest.mark.parametrize("word", ["\x1b[31mred", "k" * 100_000])
def test_a_strange_value_is_escaped_and_cut(word):
    for text in (with_block(path=word), changed(schema_version=word), changed(resize=word), changed(space=word)):
        assert len(refusal(arch_from_json, text)) < 400


@pytest.mark.parametrize(
    ("block", "place"),
    [
        ({"path": "lir", "lead": "x", "expand": 3}, "stages[0].blocks[0].lead: Input should be a valid integer"),
        ({"path": "ge", "lead": 8}, "stages[0].blocks[0].expand: Field required"),
        ({"path": "skip", "skip": 3}, "stages[0].blocks[0].skip: Extra inputs"),
        ({"path": "mhsa", "heads": 0, "key": 8, "value": 8, "hidden": 8}, "stages[0].blocks[0].heads: "),
        ({"path": "none"}, "stages[0].blocks[0]: Input tag 'none'"),
    ],
)
def test_a_place_is_a_path_of_the_file(block, place):
    text = refusal(arch_from_json, with_block(**block))
    assert f" is not valid: {place}" in text


@pytest.mark.parametrize("read", [arch_from_json, RTSegArch.from_json])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"space": "inas", ' + changed()[1:], "the key 'space' is there twice"),
        (changed().replace('"lead": ', '"lead": 8, "lead": ', 1), "the key 'lead' is there twice"),
        ('{"\x1b[31m": 1, "\x1b[31m": 1}', "no JSON"),
        (b"\xef\xbb\xbf" + changed().encode(), "byte order mark"),
        ("\ufeff" + changed(), "byte order mark"),
        (changed().encode("utf-16"), "not UTF-8"),
        (changed().encode("utf-16-le"), "not plain UTF-8"),
        (changed(head=float("nan")), " head: "),
        ("[" * 100_000, "no JSON"),
        ("9" * 5000, "no JSON"),
        ("", "no JSON"),
    ],
)
def test_both_readers_refuse_the_same_texts(read, text, says):
    found = refusal(read, text)
    assert says in found
    assert len(found) < 400


def test_what_is_written_is_read_by_both_from_text_and_bytes():
    arch = find_arch("rtseg-lir-32")
    for read in (arch_from_json, RTSegArch.from_json):
        assert read(arch.to_json()) == read(arch.to_json().encode()) == arch


@pytest.mark.parametrize(
    "name", ["inas:random-\u0663", "inas-c\u0661\u0669:smallest", "inas-c\uff15:smallest", "rtseg:random-\u096a"]
)
def test_digits_of_other_scripts_make_no_name(name):
    refusal(find_arch, name)
    assert find_space("inas-c19").classes == 19
    assert find_arch("inas:random-3")


def huge():
    trunk = {"trunk": 8192, "down": {"path": "lir", "lead": 8192, "expand": 8192}, "blocks": []}
    stem = dict.fromkeys(("conv", "squeeze", "left", "fuse"), 8192)
    detail = [[8192] * len(widths) for widths in RTSEG["detail"]]
    return arch_from_json(changed(stages=[trunk] * 3, stem=stem, detail=detail, bga=8192, bga_out=8192, head=8192))


def test_networks_and_inputs_beyond_all_measure_are_refused():
    assert f"The most is {MAX_PARAMETERS:,}" in refusal(huge().check_request, (64, 64))
    small = find_arch("inas-tiny:smallest")
    assert f"an input of 320000x320000 (height x width) is too large. The most is {MAX_PIXELS:,}" in refusal(
        small.check_request, (320_000, 320_000)
    )
    assert "multiples of" in refusal(small.check_request, (65, 64))
    small.check_request((8192, 8192))
    for name in ("inas:biggest", "rtseg:biggest", "csnet:biggest", "bisenetv2"):
        find_arch(name).check_request((1024, 2048))


@pytest.mark.parametrize("size", [(64, 64), (320_000, 320_000)])
def test_nothing_is_built_for_them(size, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from search.spaces import export

    monkeypatch.setattr(export, "space_of", lambda arch: pytest.fail("a network would be built"))
    arch = huge() if size == (64, 64) else find_arch("inas-tiny:smallest")
    for call in (
        lambda: export.seeded_subnet(arch, size),
        lambda: export.export_arch(arch, tmp_path / "x.onnx", input_size=size),
    ):
        assert "The most is" in refusal(call)
    assert list(tmp_path.iterdir()) == []


def test_reading_architectures_needs_neither_torch_nor_onnx():
    code = (
        "import sys; from search.spaces.registry import find_arch, arch_from_json\n"
        "arch_from_json(find_arch('inas:smallest').to_json())\n"
        "print([name for name in ('torch', 'onnx', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
