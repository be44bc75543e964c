import time

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from targets.errors import InvalidModel
from targets.profiles.assemble import Joined, Row, finished
from targets.profiles.join import (
    NAME_SCOPES,
    ModuleIndex,
    Node,
    common_module,
    from_neighbours,
    parse_name_scopes,
)
from targets.profiles.timing import TimedRuns
from tests.targets.tiny_models import if_model, save, tiny_model


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N", "P"], exclude_characters="\\")), min_size=1))
def test_scopes_are_read_as_python_writes_them(names):
    names = [name for name in names if not ("'" in name and '"' in name)] or [""]
    assert parse_name_scopes(str(names)) == tuple(names)


@given(st.text(max_size=60))
def test_any_other_text_is_no_list_of_scopes(text):
    found = parse_name_scopes(text)
    assert found is None or all(name.isprintable() for name in found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "['a'",
        "['a',]",
        "['a', 1]",
        "('a',)",
        "[__import__('os')]",
        "['a'] + ['b']",
        "['\\x1b']",
        "['\x1b']",
        "[" * 5000,
        "['" + "a" * 9000 + "']",
    ],
)
def test_hostile_scopes_are_not_read(text):
    assert parse_name_scopes(text) is None


def module_of_node(index, name):
    return index.nodes[name].module if name in index.nodes else None


def module_of_value(index, name):
    return index.producers[name].module if name in index.producers else None


def test_index_of_an_export(tmp_path):
    index = ModuleIndex.from_onnx(save(tiny_model(), tmp_path / "t.onnx"))
    assert module_of_node(index, "node_Conv_1") == "stem.0"  # its scope is the folded batch norm's, stem.1
    assert module_of_node(index, "node_prelu") == "stem.2"
    assert module_of_node(index, "node_sigmoid") == ""
    assert module_of_value(index, "fc") == "se.fc"
    assert module_of_value(index, "x") is None
    assert module_of_node(index, "nothing") is None
    assert index.names_modules and index.notes() == []


def _nodes(*nodes, tmp_path):
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph(list(nodes), "g", value[:1], value[1:])
    return ModuleIndex.from_onnx(save(helper.make_model(graph), tmp_path / "m.onnx"))


def test_files_without_metadata_are_joined_by_their_names(tmp_path):
    index = _nodes(
        helper.make_node("Neg", ["x"], ["a"], name="/stage1/conv/Neg"),
        helper.make_node("Neg", ["a"], ["b"], name="/Neg_1"),
        helper.make_node("Neg", ["b"], ["c"], name="plain"),
        helper.make_node("Neg", ["c"], ["y"]),
        tmp_path=tmp_path,
    )
    assert module_of_node(index, "/stage1/conv/Neg") == "stage1.conv"
    assert module_of_node(index, "/Neg_1") == ""
    assert module_of_node(index, "plain") == "plain"
    assert module_of_value(index, "y") == "y"
    assert module_of_node(index, "") is None
    assert index.names_modules
    assert index.notes() == ["The file names no module for 2 of its 4 nodes: each of those stands for itself."]


def test_a_file_that_names_no_module_at_all_says_so(tmp_path):
    nodes = [helper.make_node("Neg", [a], [b], name=n) for a, b, n in (("x", "a", "one"), ("a", "y", ""))]
    index = _nodes(*nodes, tmp_path=tmp_path)
    assert not index.names_modules
    assert index.notes() == [
        "The file names no modules: each node stands for itself, so the joined share says nothing."
    ]


def test_a_name_that_two_modules_share_joins_nothing(tmp_path):
    nodes = [helper.make_node("Neg", [a], [b], name="n") for a, b in (("x", "a"), ("a", "y"))]
    for node, scope in zip(nodes, ("one", "two"), strict=True):
        node.metadata_props.add(key=NAME_SCOPES, value=str(["", scope, "neg"]))
    index = _nodes(*nodes, tmp_path=tmp_path)
    assert module_of_node(index, "n") is None
    assert (module_of_value(index, "a"), module_of_value(index, "y")) == ("one", "two")


def test_bodies_of_control_flow_are_indexed(tmp_path):
    assert module_of_node(ModuleIndex.from_onnx(save(if_model(), tmp_path / "if.onnx")), "inner") == "inner"


@pytest.mark.parametrize("data", [b"text\n" * 9, tiny_model().SerializeToString()[:999]])
def test_a_damaged_source_is_refused(tmp_path, data):
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=r"bad\.onnx"):
        ModuleIndex.from_onnx(path)
    with pytest.raises(InvalidModel, match=r"none\.onnx"):
        ModuleIndex.from_onnx(tmp_path / "none.onnx")


def test_weights_kept_outside_the_file_are_not_read(tmp_path):
    model = tiny_model()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location="../../secret.bin")
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert module_of_node(ModuleIndex.from_onnx(save(model, tmp_path / "e.onnx")), "node_mean") == "se"


def test_common_module():
    assert common_module(["a.b.c", "a.b.d"]) == "a.b"
    assert common_module(["a.b", "a.bc"]) == "a"
    assert common_module(["a", "b"]) is None
    assert common_module(["a", ""]) is None
    assert common_module([]) is None


def test_operations_between_two_of_one_module_belong_to_it():
    modules = ["att.q", None, None, "att.k", None, "head"]
    reads = [[], [0], [1], [2], [3], [4]]
    assert from_neighbours(modules, reads) == ("att.q", "att", "att", "att.k", None, "head")
    assert from_neighbours([None, None], [[1], [0]]) == (None, None)  # a cycle ends


def test_shares_and_residual_of_a_finished_profile():
    rows = [
        Row("a", "Conv", "", 60.0, Joined(("n",), "m.0")),
        Row("r", "Reorder", "", 30.0, Joined((), "m.1", "layout")),
        Row("u", "Split", "", 10.0, Joined()),
        Row("v", "Reshape", "", -1.0, Joined((), "z")),
    ]
    profile = finished("onnxruntime", rows, runs=3, unprofiled_us=110.0, profiled_us=120.0, notes=["note"])
    assert profile.sum_us == pytest.approx(99.0)
    assert profile.residual_share == pytest.approx(-0.1)
    assert (profile.attributed_share, profile.layout_share) == (pytest.approx(0.9), pytest.approx(0.3))
    assert [op.latency_us for op in profile.ops] == pytest.approx([66.0, 33.0, 11.0, 0.0])


def test_runs_are_timed_and_told_apart():
    timed = TimedRuns(lambda: time.sleep(0.002))
    timed.burst(12)
    assert len(timed.wall_us) == 12 and min(timed.wall_us) >= 2000
    assert set(timed.undisturbed) <= set(range(12))
    timed.wall_us, timed.undisturbed = [1.0, 9.0, 5.0, 6.0, 7.0], [1, 2, 3, 4]
    assert (timed.fast(timed.wall_us), timed.fast_us) == ([2, 3, 4], 6.0)
    timed.undisturbed = [1]
    assert timed.fast(timed.wall_us) == [0, 2, 3]


def test_a_node_is_found_by_name_before_value():
    one, two = Node("n", "Neg", "a", (), ("v",)), Node("v", "Neg", "b", (), ("w",))
    index = ModuleIndex.from_nodes([one, two])
    assert index.node_or_value("v") is two
    assert index.node_or_value("w") is two
