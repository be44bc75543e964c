import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.errors import UnknownLayout
from targets.profiles.join import ModuleIndex
from targets.profiles.onnxruntime import OrtEvent, parse_ort_profile
from targets.profiles.onnxruntime_join import OptimizedNode, aligned, join_events
from targets.records import RunSettings
from targets.runtimes.onnxruntime import OnnxRuntime
from tests.targets.tiny_models import artifact_of, if_model, save, tiny_model

FIXTURES = Path(__file__).parent / "fixtures"
SAMPLE = (FIXTURES / "onnxruntime_1.31.1_profile.json").read_text()
OPTIMIZED = tuple(
    OptimizedNode(n["name"], n["op_type"], n["domain"], tuple(n["inputs"]), tuple(n["outputs"]))
    for n in json.loads((FIXTURES / "onnxruntime_1.31.1_optimized.json").read_text())
)
MODULES = {
    "conv_nchwc": "stem.0",
    "ReorderOutput": "stem.0",
    "node_prelu": "stem.2",
    "node_mean": "se",
    "ReorderInput": "se",
    "gate_nchwc": "se.fc",
    "ReorderOutput_token_10": "se",
    "node_mul": "se",
    "node_view": "mix",
    "node_transpose": "mix",
    "node_layer_norm": "mix.norm",
    "gemm_input_reshape": "mix.norm",
    "node_MatMul_2/MatMulAddFusion": "mix.linear",
    "gemm_output_reshape_new_reshape": "mix",
    "ReorderInput_token_6": "mix",
    "logits_nchwc": "head",
    "large_nchwc": "up",
    "node_sigmoid": "",
    "ReorderOutput_token_11": "",
}


def without_modules(model):
    for node in model.graph.node:
        del node.metadata_props[:]
    return model


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return ModuleIndex.from_onnx(save(tiny_model(), tmp_path_factory.mktemp("m") / "tiny.onnx"))


def node_event(trace, number=0):
    return [event for event in trace if event["cat"] == "Node"][number]


def run_event(trace):
    return next(event for event in trace if event["name"] == "model_run")


def test_captured_sample_is_read():
    runs = parse_ort_profile(SAMPLE)
    trace = json.loads(SAMPLE)
    assert len(runs) == 2
    assert [event.name for event in runs[0].events] == list(MODULES)
    assert [run.total_us for run in runs] == [e["dur"] for e in trace if e["name"] == "model_run"]
    assert runs[0].events[0] == OrtEvent(
        "conv_nchwc", "Conv", 22, 10047, node_event(trace)["dur"], "CPUExecutionProvider", 16384
    )
    for run in runs:
        assert 0 < sum(event.duration_us for event in run.events) <= run.total_us


def test_every_event_of_the_sample_joins_to_its_module(index):
    events = parse_ort_profile(SAMPLE)[1].events
    joined, kernels = join_events(events, OPTIMIZED, index)
    assert {event.name: join.module for event, join in zip(events, joined, strict=True)} == MODULES
    layout = {event.op_type for event, join in zip(events, joined, strict=True) if join.kind == "layout"}
    assert layout == {"ReorderInput", "ReorderOutput", "Reshape"}
    by_name = {event.name: join for event, join in zip(events, joined, strict=True)}
    assert by_name["gate_nchwc"].source_nodes == ("node_fc", "node_gate")
    assert by_name["node_transpose"].kind == "compute"  # the model's own transpose
    assert [k for e, k in zip(events, kernels, strict=True) if e.name == "conv_nchwc"] == ["nchwc"]


def test_names_alone_join_what_they_can_and_guess_nothing(index):
    events = parse_ort_profile(SAMPLE)[0].events
    joined, _ = join_events(events, (), index)
    for event, join in zip(events, joined, strict=True):
        assert join.module in (MODULES[event.name], None)
        assert (join.module is None) == event.name.startswith(("Reorder", "gemm_"))


def test_nameless_nodes_are_joined_by_position_only_where_all_types_agree():
    events = parse_ort_profile(SAMPLE)[0].events
    nameless = tuple(OptimizedNode("", n.op_type, n.domain, n.inputs, n.outputs) for n in OPTIMIZED)
    assert aligned(events, nameless) == nameless
    wrong = (OptimizedNode("", "Relu", "", (), ()), *nameless[1:])
    assert set(aligned(events, wrong)) == {None}


def change(**changes):
    def apply(trace):
        node_event(trace).update(changes)

    return apply


def change_args(**changes):
    def apply(trace):
        node_event(trace)["args"].update(changes)

    return apply


def drop(key):
    def apply(trace):
        del node_event(trace)[key]

    return apply


def drop_arg(key):
    def apply(trace):
        del node_event(trace)["args"][key]

    return apply


def unit(trace):
    for event in trace:
        if event["cat"] == "Node":
            event["dur"] *= 1000


def no_runs(trace):
    trace[:] = [event for event in trace if event["name"] != "model_run"]


def other_nodes_later(trace):
    nodes = [event for event in trace if event["cat"] == "Node"]
    nodes[-1]["name"] = "node_other_kernel_time"


def cut_after_a_node(trace):
    trace[:] = trace[: trace.index(node_event(trace, 25)) + 1]


@pytest.mark.parametrize(
    ("mutate", "quoted"),
    [
        (change(ph="B"), "no complete event"),
        (change(dur=1.5), "microseconds"),
        (change(dur="112"), "microseconds"),
        (change(dur=-1), "microseconds"),
        (change(dur=True), "microseconds"),
        (change(ts=None), "microseconds"),
        (change(cat="Kernel"), "Kernel"),
        (change(name="conv_nchwc_fence_before"), "fence_before"),
        (change(name="conv_nchwc"), "conv_nchwc"),
        (change(extra=1), "other keys"),
        (change(args=[]), "no complete event"),
        (drop("dur"), "other keys"),
        (drop_arg("op_name"), "op_name"),
        (drop_arg("provider"), "provider"),
        (drop_arg("output_size"), "output_size"),
        (change_args(node_index="x"), "node_index"),
        (change_args(node_index=3), "node_index"),
        (lambda trace: run_event(trace).update(name="model_run_2"), "model_run_2"),
        (lambda trace: run_event(trace).update(dur=1), "outside its time"),
        (lambda trace: trace.reverse(), "run"),
        (unit, "overlaps"),
        (no_runs, "not complete"),
        (cut_after_a_node, "not complete"),
        (other_nodes_later, "node_other"),
        (lambda trace: trace.clear(), "[]"),
    ],
)
def test_another_layout_is_refused_and_quoted(mutate, quoted):
    trace = json.loads(SAMPLE)
    mutate(trace)
    with pytest.raises(UnknownLayout) as caught:
        parse_ort_profile(json.dumps(trace))
    assert quoted in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{}", "null", "[1]", SAMPLE[:-5], SAMPLE.replace('"dur": 112', '"dur": NaN'), "[" * 9999]
)
def test_text_that_is_no_trace_is_refused(text):
    with pytest.raises(UnknownLayout):
        parse_ort_profile(text)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    with pytest.raises(UnknownLayout):
        parse_ort_profile(data.decode("utf-8", errors="replace"))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SAMPLE)), st.integers(0, 40), st.text(max_size=6))
def test_a_damaged_sample_is_refused_or_still_sums_up(start, length, inserted):
    try:
        runs = parse_ort_profile(SAMPLE[:start] + inserted + SAMPLE[start + length :])
    except UnknownLayout:
        return
    for run in runs:
        assert 0 <= sum(event.duration_us for event in run.events) <= run.total_us


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), st.lists, max_leaves=4
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_sample_with_another_value_is_refused_or_still_sums_up(data):
    trace = json.loads(SAMPLE)
    event = data.draw(st.sampled_from(trace))
    holder = data.draw(st.sampled_from([event, event["args"]] if event["args"] else [event]))
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(JSON)
    try:
        runs = parse_ort_profile(json.dumps(trace))
    except UnknownLayout:
        return
    assert all(sum(e.duration_us for e in run.events) <= run.total_us for run in runs)


@pytest.mark.parametrize("level", ["all", "extended", "basic", "disabled"])
def test_profile_of_a_real_run_adds_up_and_is_attributed(tmp_path, monkeypatch, level):
    monkeypatch.chdir(tmp_path)
    file = save(tiny_model(), tmp_path / "tiny.onnx")
    chosen = RunSettings(runtime="onnxruntime", options={"graph_optimization": level})
    profile = OnnxRuntime().profile(artifact_of(file), chosen, seconds=0.2)
    assert profile.attributed_share == pytest.approx(1.0)
    assert sum(op.latency_us for op in profile.ops) == pytest.approx(profile.unprofiled_us)
    assert sum(op.share for op in profile.ops) == pytest.approx(1.0)
    assert profile.residual_share == pytest.approx(profile.sum_us / profile.unprofiled_us - 1)
    assert profile.profiled_us > profile.unprofiled_us
    assert {op.module.partition(".")[0] for op in profile.ops} == {"stem", "se", "mix", "head", "up", ""}
    assert not any("names no modules" in note for note in profile.notes)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


def test_a_file_without_modules_is_profiled_by_node_and_says_so(tmp_path):
    file = save(without_modules(tiny_model()), tmp_path / "plain.onnx")
    profile = OnnxRuntime().profile(artifact_of(file), RunSettings(runtime="onnxruntime"), seconds=0.1)
    assert "node_head" in {op.module for op in profile.ops}
    assert profile.notes[0].startswith("The file names no modules: each node stands for itself")


def test_a_branch_is_counted_once_and_nameless_nodes_are_joined(tmp_path):
    file = save(if_model(), tmp_path / "if.onnx")
    profile = OnnxRuntime().profile(artifact_of(file), RunSettings(runtime="onnxruntime"), seconds=0.1)
    assert [op.op_type for op in profile.ops] == ["ReduceSum", "Less", "If", "Neg"]
    assert all(op.module is not None for op in profile.ops)
