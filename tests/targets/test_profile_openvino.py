import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.errors import UnknownLayout
from targets.extras import installed
from targets.profiles import openvino_measure
from targets.profiles.join import ModuleIndex
from targets.profiles.openvino import parse_executed_graph, parse_openvino_counters, read_counters, rows_of
from targets.profiles.openvino_join import join_counters
from targets.records import RunSettings
from targets.runtimes.registry import get_runtime
from tests.targets.tiny_models import artifact_of, one_op, save, tiny_model

SAMPLE = json.loads((Path(__file__).parent / "fixtures" / "openvino_2026.4.1.json").read_text())
COUNTERS = json.dumps(SAMPLE["counters"])
GRAPH = json.dumps(SAMPLE["graph"])
needs_openvino = pytest.mark.skipif(not installed("openvino"), reason="openvino is not installed")
MODULES = {
    "x_abcd_acdb_node_Conv_1/WithoutBiases": "stem.0",
    "node_Conv_1/WithoutBiases": "stem.0",
    "node_mean": "se",
    "node_fc": "se.fc",
    "node_mul": "se",
    "MVN_36": "mix.norm",
    "node_linear": "mix.linear",
    "node_head": "head",
    "node_up": "up",
}


def without_modules(model):
    for node in model.graph.node:
        del node.metadata_props[:]
    return model


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return ModuleIndex.from_onnx(save(tiny_model(), tmp_path_factory.mktemp("m") / "tiny.onnx"))


def test_captured_counters_are_read():
    counters = parse_openvino_counters(COUNTERS)
    assert [counter.average_us for counter in counters] == [row["average_us"] for row in SAMPLE["counters"]]
    assert {counter.name for counter in counters if counter.executed} == set(MODULES)


def test_every_executed_operation_joins_to_its_module(index):
    counters = [counter for counter in parse_openvino_counters(COUNTERS) if counter.executed]
    joined = join_counters(counters, parse_executed_graph(GRAPH), index, SAMPLE["aliases"])
    assert {counter.name: join.module for counter, join in zip(counters, joined, strict=True)} == MODULES
    by_name = {counter.name: join for counter, join in zip(counters, joined, strict=True)}
    assert by_name["node_Conv_1/WithoutBiases"].source_nodes == ("node_Conv_1", "node_prelu")
    assert by_name["node_up"].source_nodes == ("node_up", "node_sigmoid")  # the last node bears its value's name
    assert by_name["MVN_36"].source_nodes == ("node_layer_norm",)
    assert [name for name, join in by_name.items() if join.kind == "layout"] == [
        "x_abcd_acdb_node_Conv_1/WithoutBiases"
    ]


def test_an_operation_without_any_neighbour_stays_unattributed(index):
    row = {"name": "Mystery_1", "node_type": "Subgraph", "kernel": "k", "status": "EXECUTED", "average_us": 5}
    graph = [{"name": "Mystery_1", "layer_type": "Subgraph", "precision": "f32", "originals": "", "inputs": []}]
    joined = join_counters(read_counters([row]), parse_executed_graph(json.dumps(graph)), index, {})
    assert joined[0].module is None


@pytest.mark.parametrize(
    ("change", "quoted"),
    [
        ({"status": "SKIPPED"}, "SKIPPED"),
        ({"average_us": 1.5}, "microseconds"),
        ({"average_us": "9"}, "microseconds"),
        ({"average_us": -1}, "microseconds"),
        ({"average_us": True}, "microseconds"),
        ({"status": "NOT_RUN"}, "did not run"),
        ({"name": ""}, "no name"),
        ({"node_type": None}, "no name or type"),
        ({"extra": 1}, "other keys"),
        ({"name": "node_mean"}, "share a name"),
    ],
)
def test_other_counters_are_refused_and_quoted(change, quoted):
    rows = json.loads(COUNTERS)
    next(row for row in rows if row["name"] == "node_head").update(change)
    with pytest.raises(UnknownLayout, match=quoted):
        parse_openvino_counters(json.dumps(rows))


def test_counters_of_another_api_are_refused():
    status = SimpleNamespace(name="EXECUTED")
    info = SimpleNamespace(node_name="a", node_type="b", exec_type="c", status=status, real_time=12)
    with pytest.raises(UnknownLayout, match="no duration"):
        rows_of([info])
    del info.exec_type
    with pytest.raises(UnknownLayout, match="exec_type"):
        rows_of([info])
    info = SimpleNamespace(
        node_name="a", node_type="b", exec_type="c", status=status, real_time=timedelta(seconds=2, microseconds=3)
    )
    assert rows_of([info])[0]["average_us"] == 2_000_003


@pytest.mark.parametrize("key", ["name", "layer_type", "precision", "originals", "inputs"])
def test_a_graph_node_without_a_key_is_refused(key):
    rows = json.loads(GRAPH)
    del rows[2][key]
    with pytest.raises(UnknownLayout, match="other keys"):
        parse_executed_graph(json.dumps(rows))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    text = data.decode("utf-8", errors="replace")
    with pytest.raises(UnknownLayout):
        parse_openvino_counters(text)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(COUNTERS)), st.integers(0, 20), st.text(max_size=4))
def test_damaged_counters_are_refused_or_whole(start, length, inserted):
    try:
        counters = parse_openvino_counters(COUNTERS[:start] + inserted + COUNTERS[start + length :])
    except UnknownLayout:
        return
    assert all(type(counter.average_us) is int and counter.average_us >= 0 for counter in counters)


@needs_openvino
def test_profile_of_a_real_run_adds_up_and_is_attributed(tmp_path):
    file = save(tiny_model(), tmp_path / "tiny.onnx")
    runtime = get_runtime("openvino")
    profile = runtime.profile(artifact_of(file), RunSettings(runtime="openvino"), seconds=0.3)
    assert profile.attributed_share == pytest.approx(1.0)
    assert sum(op.latency_us for op in profile.ops) == pytest.approx(profile.unprofiled_us)
    assert profile.residual_share == pytest.approx(profile.sum_us / profile.unprofiled_us - 1)
    assert list(dict.fromkeys(op.module.partition(".")[0] for op in profile.ops)) == ["stem", "se", "mix", "head", "up"]
    assert not any("names no modules" in note for note in profile.notes)


@needs_openvino
def test_a_file_without_modules_is_profiled_by_node_and_says_so(tmp_path):
    file = save(without_modules(tiny_model()), tmp_path / "plain.onnx")
    profile = get_runtime("openvino").profile(artifact_of(file), RunSettings(runtime="openvino"), seconds=0.1)
    assert "node_head" in {op.module for op in profile.ops}
    assert profile.notes[0].startswith("The file names no modules: each node stands for itself")


@needs_openvino
@pytest.mark.parametrize("factor", [1000, 1 / 1000])
def test_counters_in_another_unit_are_refused(tmp_path, monkeypatch, factor):
    def other_unit(infos):
        return [{**row, "average_us": int(row["average_us"] * factor)} for row in rows_of(infos)]

    monkeypatch.setattr(openvino_measure, "rows_of", other_unit)
    file = save(one_op("Erf", shape=(1, 16, 512, 512)), tmp_path / "slow.onnx")
    artifact = artifact_of(file, (1, 16, 512, 512))
    with pytest.raises(UnknownLayout, match=r"counters say an inference takes .* where the clock says"):
        get_runtime("openvino").profile(artifact, RunSettings(runtime="openvino"), seconds=0.1)


@pytest.mark.parametrize("op_us", [(400.0, 500.0), (300.0, 200.0), (500.0, 501.5)])
def test_counters_that_fit_the_clock_are_kept(op_us):
    openvino_measure._check_unit(op_us, [1000.0] * 12)
