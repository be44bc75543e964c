"""Random and damaged files: a result or one line, never anything else, and soon."""

from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from targets.errors import InvalidModel, KitError, UsageError
from targets.inventory import load_inventory
from targets.onnx_files import OnnxInfo, inspect_onnx, parse_shape_option

ANY_FIXTURE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
QUICK = settings(max_examples=150, deadline=timedelta(seconds=5), suppress_health_check=ANY_FIXTURE)
# Files that still parse go on to a fresh checking process, which costs a good part of a second each.
SLOW = settings(max_examples=60, deadline=timedelta(seconds=60), suppress_health_check=ANY_FIXTURE)

TOML = b"""\
[devices.nova6]
transport = "adb"
serial = "ABCD1234"
tags = ["android", "huawei"]
threads = 4
pinned_cores = [4, 5]
stand_in = "virtual"

[devices.local]
precision = "fp32"
"""


@cache
def _onnx() -> bytes:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv1", pads=[1, 1, 1, 1], strides=[1, 1]),
        helper.make_node("MaxPool", ["c"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "s"], ["y"], name="flat"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 48))],
        [
            numpy_helper.from_array(np.ones((3, 2, 3, 3), np.float32), "w"),
            numpy_helper.from_array(np.array([1, -1], np.int64), "s"),
        ],
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return made


@st.composite
def damaged(draw, whole):
    """A valid file with some bytes overwritten, put in, taken out, or the end cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        piece = draw(st.binary(min_size=0, max_size=4))
        kind = draw(st.sampled_from(["overwrite", "insert", "delete", "cut"]))
        if kind == "overwrite":
            data[at : at + len(piece)] = piece
        elif kind == "insert":
            data[at:at] = piece
        elif kind == "delete":
            del data[at : at + 4]
        else:
            del data[max(at, len(data) - 40) :]
    return bytes(data)


@st.composite
def flipped(draw, whole):
    """A valid file with one or two bytes changed: most of these still parse, and get further in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def _one_line(error: KitError) -> None:
    text = str(error)
    assert text and "\n" not in text and "\x1b" not in text and len(text) < 1500


def _inspect(folder: Path, data: bytes) -> OnnxInfo | None:
    path = folder / "net.onnx"
    path.write_bytes(data)
    try:
        return inspect_onnx(path)
    except InvalidModel as error:
        _one_line(error)
        return None


def test_the_whole_file_is_fine(tmp_path):
    info = _inspect(tmp_path, _onnx())
    assert info is not None and info.outputs[0].shape == (1, 48)


@QUICK
@given(data=st.binary(max_size=400))
def test_random_bytes_are_no_model(tmp_path, data):
    assert _inspect(tmp_path, data) is None


@SLOW
@given(data=damaged(_onnx()) | flipped(_onnx()))
@example(data=_onnx().replace(b"conv1", b"con\xff1"))
@example(data=_onnx().replace(b"Conv", b"Con\xff"))
@example(data=_onnx().replace(b"MaxPool", b"MaxPoo\xff"))
@example(data=_onnx().replace(b"strides@\x02", b"strides@\x00"))
@example(data=_onnx().replace(b"\x01x\x12", b"\x01\xff\x12"))
def test_a_damaged_model_is_described_or_refused(tmp_path, data):
    described = _inspect(tmp_path, data)
    assert described is None or described.node_count >= 0


def test_every_short_beginning_of_a_model_is_refused(tmp_path):
    # The trailing opset field may be lost without the rest being damaged; that too must be noticed.
    for length in range(len(_onnx())):
        assert _inspect(tmp_path, _onnx()[:length]) is None


def _load(folder: Path, data: bytes) -> bool:
    """Whether the inventory is read or refused as it should be; anything else raises."""
    path = folder / "devices.toml"
    path.write_bytes(data)
    try:
        devices = load_inventory(path).devices
    except UsageError as error:
        _one_line(error)
        return str(path) in str(error)
    return devices[0].name == "local"


@QUICK
@given(data=st.binary(max_size=300))
def test_random_bytes_as_inventory(tmp_path, data):
    assert _load(tmp_path, data)


@QUICK
@given(text=st.text(st.sampled_from("[]{}=.\"'#\n\\ adevics0123_-,:tT\x00\u2028"), max_size=120))
def test_random_toml_as_inventory(tmp_path, text):
    assert _load(tmp_path, text.encode())


@QUICK
@given(data=damaged(TOML) | flipped(TOML))
def test_a_damaged_inventory(tmp_path, data):
    assert _load(tmp_path, data)


VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.booleans().map(lambda b: str(b).lower()),
    st.text(st.characters(exclude_categories=["C"], exclude_characters="'\\"), max_size=20).map(lambda t: f"'{t}'"),
    st.sampled_from(["[]", "{}", "[[1]]", "1979-05-27", "07:32:00", "{a=1}", "['a','a']", "0x10", "inf", '"\\u001b"']),
)
KEYS = st.sampled_from(
    ["name", "tags", "transport", "host", "port", "user", "key_file", "serial", "runtime", "precision", "threads"]
)


@QUICK
@given(key=KEYS, value=VALUES)
def test_any_value_of_any_key(tmp_path, key, value):
    assert _load(tmp_path, f"[devices.a]\n{key} = {value}\n".encode())


@settings(max_examples=300, deadline=timedelta(seconds=5))
@given(st.text(max_size=40) | st.from_regex(r"[a-z]{0,3}=?[0-9x]{0,12}", fullmatch=True))
def test_any_shape_option(text):
    try:
        name, shape = parse_shape_option(text)
    except UsageError as error:
        _one_line(error)
    else:
        assert shape and all(size > 0 for size in shape) and text.strip().startswith(name)
