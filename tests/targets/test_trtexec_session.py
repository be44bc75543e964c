"""The host's side of a session with trtexec: flags by version, precision, engine names, figures, joins to modules."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.chain import write_chain
from targets.errors import FailureKind, SessionFailed, UnknownLayout, UsageError
from targets.files import sha256_of
from targets.jobs import Job
from targets.profiles.join import ModuleIndex, Node
from targets.profiles.trtexec import join_layers, main_module, names_in, op_profile
from targets.records import Artifact, Precision, RunSettings, TensorSpec
from targets.tensorrt.flags import CHOICES, BuildFlags
from targets.tensorrt.layers import EngineLayer
from targets.tensorrt.precision import RANDOM_RANGES, check_precision, numbers_of
from targets.tensorrt.session import (
    DevicePaths,
    Trtexec,
    commands,
    engine_key,
    failure_of,
    session_figures,
    texts_of,
)
from targets.tensorrt.versions import known_version
from tests.targets import trtexec_files
from tests.targets.trtexec_files import PROFILED, TIMED, VERSIONS, WARM_UP, texts

STAND_IN = Path(__file__).parents[1] / "devices" / "trtexec_stand_in.py"
DEFAULTS = {name: values[0] for name, values in CHOICES.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "chain.onnx"
    write_chain(path, 4)
    return path


def job_of(model, task="time", precision=Precision.FP32, **options):
    artifact = Artifact(
        path=str(model),
        format="onnx",
        sha256=sha256_of(model),
        source_sha256="0" * 64,
        inputs=(TensorSpec(name="image", shape=(1, 32, 24, 24)),),
    )
    settings = RunSettings(runtime="tensorrt", accelerator="gpu", precision=precision, options=options)
    return Job(task=task, artifact=artifact, settings=settings, seconds=1.5)


def plan(model, version, folder="/w", program="trtexec", **given):
    paths = DevicePaths(model=f"{folder}/a; rm -rf x.onnx", engines=f"{folder}/engines", session=f"{folder}/s")
    return commands(job_of(model, **given), Trtexec(program, version, "GPU"), paths)


@pytest.mark.parametrize(
    ("version", "build", "run"),
    [
        (
            "8.2.1",
            {"--buildOnly", "--workspace=1024", "--noTF32", "--profilingVerbosity=detailed"},
            {"--streams=1", "--noDataTransfers", "--useSpinWait"},
        ),
        (
            "8.5.3",
            {"--buildOnly", "--memPoolSize=workspace:1024", "--noTF32"},
            {"--streams=1", "--noDataTransfers", "--useSpinWait"},
        ),
        (
            "8.6.1",
            {"--skipInference", "--memPoolSize=workspace:1024", "--builderOptimizationLevel=3"},
            {"--infStreams=1", "--noDataTransfers", "--useSpinWait"},
        ),
        ("10.13.0", {"--skipInference", "--noTF32"}, {"--infStreams=1", "--noDataTransfers", "--useSpinWait"}),
        ("11.1.0", {"--skipInference", "--noTF32"}, {"--infStreams=1", "--noCudaGraph"}),
    ],
)
def test_each_version_is_told_in_its_own_words(model, version, build, run):
    planned = plan(model, version)
    assert build <= set(planned.build)
    assert run <= set(planned.run)
    assert {"--warmUp=500", "--duration=2", "--iterations=10", "--avgRuns=100", "--percentile=99"} <= set(planned.run)
    assert "--onnx=/w/a; rm -rf x.onnx" in planned.build  # one argument, whatever the file is called
    new = version.startswith("11")
    assert ("--useSpinWait" in planned.run) is not new
    assert not [flag for flag in planned.build if flag in ("--fp16", "--int8", "--best")]


def test_options_turn_switches_on_and_off(model):
    wished = {"cuda_graph": "on", "spin_wait": "off", "transfers": "on", "tf32": "on"}
    old, new = plan(model, "10.13.0", **wished), plan(model, "11.1.0", **wished)
    assert "--useCudaGraph" in old.run and not {"--useSpinWait", "--noDataTransfers"} & set(old.run)
    assert {"--noSpinWait", "--includeDataTransfers"} <= set(new.run)
    assert not {"--noCudaGraph", "--useCudaGraph"} & set(new.run)
    assert "--noTF32" not in old.build
    with pytest.raises(UsageError, match="cuda_graph cannot be 'yes'"):
        plan(model, "10.13.0", cuda_graph="yes")


def test_precision_flags_up_to_10(model):
    assert "--fp16" in plan(model, "10.13.0", precision=Precision.FP16).build
    int8 = plan(model, "8.6.1", precision=Precision.INT8)
    assert "--int8" in int8.build
    assert int8.notes[0] == RANDOM_RANGES
    with pytest.raises(UsageError, match="fp16 ONNX file"):
        plan(model, "11.1.0", precision=Precision.FP16)
    with pytest.raises(UsageError, match="QuantizeLinear"):
        plan(model, "11.1.0", precision=Precision.INT8)


def test_a_file_that_is_of_another_precision_already(tmp_path):
    half = numpy_helper.from_array(np.ones((1, 4), np.float16), "w")
    shape = [1, 4]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"], "add")], "g", values[:1], values[1:], [half])
    path = tmp_path / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(path))
    numbers = numbers_of(path)
    assert numbers.precision is Precision.FP16
    assert check_precision("half.onnx", numbers, Precision.FP16, known_version("11.0")) == []
    for version in ("8.6.1", "11.0"):
        with pytest.raises(UsageError, match=r"half\.onnx"):
            check_precision("half.onnx", numbers, Precision.FP32, known_version(version))


def test_a_newer_opset_than_the_version_reads_is_said(model):
    assert "documented to read up to 13" in plan(model, "8.2.1").notes[0]  # the chain is of opset 18
    assert "up to 17" in plan(model, "8.6.1").notes[0]
    assert plan(model, "10.13.0").notes == ()
    log = "&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec\n[E] [TRT] ModelImporter.cpp: no importer\n"
    assert "8.2.1 is known to read up to opset 13" in str(failure_of(1, log, building=True))


def test_the_inventory_and_the_tool_have_to_agree(model):
    paths = DevicePaths(model="/m.onnx", engines="/e", session="/s")
    tool = Trtexec("trtexec", "8.2.1", "GPU")
    assert commands(job_of(model), tool, paths, "8.2").run
    with pytest.raises(UsageError, match=r"is 8\.2\.1 and the inventory says .*'8\.6'"):
        commands(job_of(model), tool, paths, "8.6")


def test_an_engine_is_named_after_all_that_shapes_it():
    base = BuildFlags(known_version("8.6.1"), Precision.FP32, DEFAULTS)
    others = [
        BuildFlags(known_version("8.6.2"), Precision.FP32, DEFAULTS),
        BuildFlags(known_version("8.6.1"), Precision.FP16, DEFAULTS),
        BuildFlags(known_version("8.6.1"), Precision.FP32, {**DEFAULTS, "workspace_mib": "256"}),
        BuildFlags(known_version("8.6.1"), Precision.FP32, {**DEFAULTS, "tf32": "on"}),
    ]
    keys = {engine_key("a" * 64, "Titan", flags) for flags in (base, *others)}
    keys |= {engine_key("b" * 64, "Titan", base), engine_key("a" * 64, "Nano", base)}
    assert len(keys) == 7
    graph = BuildFlags(known_version("8.6.1"), Precision.FP32, {**DEFAULTS, "cuda_graph": "on"})
    assert engine_key("a" * 64, "Titan", graph) in keys  # how it is run does not change it


@pytest.mark.parametrize("version", VERSIONS)
def test_figures_of_a_run(model, version):
    figures = session_figures(texts(version, model), job_of(model))
    assert len(figures.samples_ns) == TIMED
    assert len(figures.warmup_ns) == (WARM_UP if version.startswith("8.2") else 0)
    assert all(1_400_000 < sample < 1_600_000 for sample in figures.samples_ns)
    assert figures.versions == {"tensorrt": version}
    assert figures.load_ms == pytest.approx(21.3)
    assert figures.actual["statistic"] == "GPU compute time"
    assert figures.actual["cuda_graph"] == "Disabled"
    assert "unstable" in figures.notes[0]


def test_a_run_that_was_not_as_asked_gives_no_figures(model):
    told = texts("10.13.0", model)
    with pytest.raises(SessionFailed, match="cuda_graph off and says Enabled"):
        session_figures({**told, "run_log": trtexec_files.log("10.13.0", graph="Enabled")}, job_of(model))
    with pytest.raises(SessionFailed, match="did not finish"):
        session_figures({**told, "run_log": told["run_log"].replace("&&&& PASSED", "")}, job_of(model))
    with pytest.raises(UnknownLayout, match="16 iterations and the log counts 4 \\+ 99"):
        log = told["run_log"].replace(f"has {TIMED} queries", "has 99 queries")
        session_figures({**told, "run_log": log}, job_of(model))
    with pytest.raises(UnknownLayout, match="does not count"):
        log = told["run_log"].replace("Timing trace", "Something")
        session_figures({**told, "run_log": log}, job_of(model))
    with pytest.raises(SessionFailed, match="sent no times"):
        session_figures({"run_log": told["run_log"]}, job_of(model))


@pytest.mark.parametrize("version", VERSIONS)
def test_layers_are_joined_to_modules(model, version):
    profile = op_profile(texts(version, model), job_of(model, "profile"))
    assert profile.runtime == "tensorrt"
    assert profile.runs == PROFILED
    assert profile.attributed_share == pytest.approx(1)
    assert {op.module for op in profile.ops} == {f"block{index}" for index in range(4)}
    assert profile.ops[0].kind == "layout" and profile.ops[0].module == "block0"
    assert profile.ops[1].source_nodes == ("/block0/Conv", "/block0/Relu")
    assert sum(op.latency_us for op in profile.ops) == pytest.approx(profile.unprofiled_us)
    assert profile.residual_share == pytest.approx(0.01, abs=0.02)
    assert any("run of their own" in note for note in profile.notes)


def test_profile_and_layers_of_two_engines_are_refused(model):
    told = texts("8.2.1", model)
    told["layers"] = told["layers"].replace("/block2/Conv + /block2/Relu", "other")
    with pytest.raises(UnknownLayout, match=r"profile.json\[4\].*block2"):
        op_profile(told, job_of(model, "profile"))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Conv_0", ("Conv_0",)),
        ("Conv_0 + Relu_1", ("Conv_0", "Relu_1")),
        ("Conv_0 || Conv_1", ("Conv_0", "Conv_1")),
        ("PWN(Sigmoid_1)", ("Sigmoid_1",)),
        ("PWN(PWN(Sigmoid_1), Mul_2)", ("Sigmoid_1", "Mul_2")),
        ("Conv_0 + PWN(PWN(a, b), c)", ("Conv_0", "a", "b", "c")),
        ("{ForeignNode[a...b]}", ("a", "b")),
        ("Reformatting CopyNode for Input Tensor 0 to Conv_0 + Relu_1", ("Conv_0", "Relu_1")),
        ("Reformatting CopyNode for Network Input image", ("image",)),
        ("PWN(", ("PWN(",)),
    ],
)
def test_names_within_a_layer_name(name, found):
    assert names_in(name) == found


def test_a_layer_across_modules_counts_for_what_they_share_and_a_nameless_one_for_its_neighbours():
    def node(name, op_type, module):
        return Node(name, op_type, module, (), (f"{name}_out",))

    a, b, c = node("a", "Conv", "net.s1"), node("b", "Relu", "net.s2"), node("c", "Conv", "net.s2")
    assert main_module([a, b]) == "net.s1"
    assert main_module([a, c]) == "net"
    assert main_module([]) is None
    index = ModuleIndex.from_nodes([a, b, c])
    layers = [
        EngineLayer("x", "kgen", onnx_nodes=("a",)),
        EngineLayer("__myl_made_up", "kgen"),
        EngineLayer("y", "kgen", onnx_nodes=("node_of_c_out",)),
    ]
    joined = join_layers(layers, index)
    assert [item.module for item in joined] == ["net.s1", "net", "net.s2"]
    assert [item.guessed for item in joined] == [False, True, False]


@pytest.mark.parametrize(
    ("returncode", "log", "building", "kind"),
    [
        (-9, "", True, FailureKind.OUT_OF_MEMORY),
        (1, "[E] Error Code 2: OutOfMemory (no further information)", True, FailureKind.OUT_OF_MEMORY),
        (1, "[E] [TRT] ModelImporter.cpp:726: While parsing node 7 [Foo]", True, FailureKind.BAD_ARTIFACT),
        (1, "[E] [TRT] 1: Serialization (Serialization assertion failed)", False, FailureKind.BAD_ARTIFACT),
        (1, "[E] Unknown option: --fp8", False, FailureKind.TOOL_ERROR),
        (139, "", False, FailureKind.TOOL_ERROR),
    ],
)
def test_failures_are_classified(returncode, log, building, kind):
    failure = failure_of(returncode, log, building=building)
    assert failure.kind is kind
    assert log[4:20].strip() in str(failure)


def run_step(step, version, folder):
    """What the agent does with a step, in short."""
    if step.get("skip_if") and Path(step["skip_if"]).is_file():
        return {"skipped": True}
    env = {"TRTEXEC_VERSION": version, "PATH": "/usr/bin:/bin"}
    argv = [sys.executable, *step["argv"]]
    done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    for made, place in step.get("keep", []):
        Path(made).replace(place)
    files = {kind: Path(path).read_text(encoding="utf-8") for kind, path in step.get("returns", {}).items()}
    return {"returncode": done.returncode, "log": done.stdout, "files": files}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_commands_run_and_the_engine_is_built_once(model, version, tmp_path):
    for name in ("engines", "s"):
        (tmp_path / name).mkdir()
    (tmp_path / "a; rm -rf x.onnx").write_bytes(model.read_bytes())
    planned = plan(model, version, str(tmp_path), str(STAND_IN), task="profile")
    outcomes = [run_step(step, version, tmp_path) for step in planned.steps()]
    assert outcomes[0]["returncode"] == 0, outcomes[0]["log"]
    found = texts_of(outcomes)
    assert len(session_figures(found, job_of(model)).samples_ns) == TIMED
    assert op_profile(found, job_of(model, "profile")).attributed_share == pytest.approx(1)
    assert run_step(planned.steps()[0], version, tmp_path) == {"skipped": True}


def test_a_flag_the_version_does_not_know_ends_the_stand_in(model, tmp_path):
    planned = plan(model, "10.13.0", str(tmp_path), str(STAND_IN))
    outcome = run_step({"argv": planned.run, "returns": {}}, "8.2.1", tmp_path)
    with pytest.raises(SessionFailed, match="Unknown option: --infStreams"):
        texts_of([{"skipped": True}, outcome])
