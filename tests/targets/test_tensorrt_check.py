"""The check without a GPU: real TensorRT-RTX parses and builds in a process of its own."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from benchmarks.chain import write_chain
from inas_deploy.commands.check import check
from targets.errors import InvalidModel, MissingExtra, UsageError
from targets.extras import installed
from targets.records import Artifact, Precision, RunSettings
from targets.runtimes.registry import get_runtime
from targets.tensorrt import check as checking
from targets.tensorrt.build import BuildRequest, build_engine
from targets.tensorrt.check import capability_of, check_model
from targets.transports.local import LocalTransport

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason="tensorrt-rtx is not installed")


def write(path, nodes, weights=(), domain=()):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 32, 32]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(weights))
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(name, 1) for name in domain)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


@pytest.fixture
def chain(tmp_path):
    path = tmp_path / "chain.onnx"
    write_chain(path, 2)
    return path


@pytest.fixture
def antialias(tmp_path):
    sizes = numpy_helper.from_array(np.array([1, 3, 32, 32]), "sizes")
    resize = helper.make_node("Resize", ["a", "", "", "sizes"], ["y"], "/up/Resize", mode="linear", antialias=1)
    return write(tmp_path / "antialias.onnx", [helper.make_node("Relu", ["x"], ["a"], "/up/Relu"), resize], [sizes])


@pytest.fixture
def product(tmp_path):
    weight = numpy_helper.from_array(np.ones((32, 32), np.float32), "w")
    return write(tmp_path / "product.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"], "/fc/MatMul")], [weight])


@needs_rtx
def test_a_model_that_builds(chain):
    result = check_model(chain, compute_capability="8.6")
    assert (result.parses, result.builds, result.problem, result.failing) == (True, True, "", ())
    assert (result.compute_capability, result.precision, result.nodes) == ("sm86", Precision.FP32, 4)
    assert result.versions["tensorrt-rtx"]
    assert result.peak_rss_mb > 50


@needs_rtx
def test_a_node_that_does_not_parse_is_named_with_its_module(antialias):
    result = check_model(antialias)
    assert (result.parses, result.builds, result.problem) == (False, False, "parse")
    (node,) = result.failing
    assert (node.name, node.op_type, node.module) == ("/up/Resize", "Resize", "up")
    assert "ntialias" in node.reason


@needs_rtx
def test_parsing_is_no_proof_and_the_builder_names_its_node_too(product):
    assert check_model(product).builds
    result = check_model(product, compute_capability="sm75")  # has no kernel for fp32 products
    assert (result.parses, result.builds, result.problem) == (True, False, "build")
    assert [(node.name, node.op_type, node.module) for node in result.failing] == [("/fc/MatMul", "MatMul", "fc")]


@needs_rtx
def test_too_little_memory_and_too_little_time_are_told_apart(chain):
    little = check_model(chain, memory_mib=100)
    assert (little.builds, little.problem) == (False, "memory")
    assert "at most 100 MiB" in little.message
    late = check_model(chain, timeout_s=0.05)
    assert (late.builds, late.problem) == (False, "timeout")


def test_a_crash_of_native_code_is_an_answer(chain, monkeypatch):
    class Crashing(LocalTransport):
        def run(self, argv, **given):
            Path(argv[-1]).write_text("build")  # how far it came
            return super().run(
                [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"], **given
            )

    monkeypatch.setattr(checking, "installed", lambda module: True)
    monkeypatch.setattr(checking, "LocalTransport", Crashing)
    result = check_model(chain)
    assert (result.parses, result.builds, result.problem) == (True, False, "crash")
    assert result.message.startswith("building ended its process with SIGSEGV")
    assert result.peak_rss_mb is None


@needs_rtx
def test_what_cannot_be_asked_is_refused(chain, tmp_path):
    with pytest.raises(UsageError, match=r"does not build for SM61.*SM86"):
        check_model(chain, compute_capability="6.1")
    with pytest.raises(UsageError, match="fp16 ONNX file"):
        check_model(chain, precision=Precision.FP16)
    with pytest.raises(InvalidModel):
        check_model(tmp_path / "none.onnx")


def test_without_the_extra_the_line_names_it(chain, monkeypatch):
    monkeypatch.setattr(checking, "installed", lambda module: False)
    with pytest.raises(MissingExtra, match=r"inas-deploy\[tensorrt\]"):
        check_model(chain)


@pytest.mark.parametrize(("text", "name"), [("sm86", "SM86"), ("SM120", "SM120"), ("8.9", "SM89"), ("12.0", "SM120")])
def test_compute_capabilities(text, name):
    assert capability_of(text) == name


@pytest.mark.parametrize("text", ["", "8", "86x", "ampere", "sm"])
def test_what_is_no_compute_capability(text):
    with pytest.raises(UsageError):
        capability_of(text)


@needs_rtx
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorRT-RTX takes the cache and needs none
def test_the_timing_cache_is_kept_between_builds(chain):
    import tensorrt_rtx

    request = BuildRequest(chain, compute_capability="SM86", timing_cache=b"")
    first = build_engine(tensorrt_rtx, request)
    assert first.plan
    assert first.timing_cache
    again = build_engine(tensorrt_rtx, BuildRequest(chain, compute_capability="SM86", timing_cache=first.timing_cache))
    assert again.plan


@needs_rtx
def test_the_command_tells_of_every_model_and_exits_with_1(chain, antialias):
    app = typer.Typer()
    app.command()(check)
    done = CliRunner().invoke(app, ["--model", str(chain), "--model", str(antialias), "--json"])
    assert done.exit_code == 1, done.output
    good, bad = json.loads(done.stdout)
    assert (good["name"], good["builds"], bad["builds"]) == (str(chain), True, False)
    assert bad["failing"][0]["name"] == "/up/Resize"
    done = CliRunner().invoke(app, ["--model", str(chain)])
    assert done.exit_code == 0
    assert "1 of 1 models build" in done.stdout


def test_the_runtime_says_where_it_runs(chain):
    runtime = get_runtime("tensorrt")
    assert runtime.formats == ("onnx",)
    artifact = Artifact(path=str(chain), format="onnx", sha256="0" * 64, source_sha256="0" * 64, inputs=())
    with pytest.raises(UsageError, match="trtexec on the device"):
        runtime.load(artifact, RunSettings(runtime="tensorrt"))
