"""Both runtimes that load ONNX: the same contract, checked against the reference evaluator of ``onnx``."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from targets.errors import InvalidModel, UsageError
from targets.extras import installed
from targets.records import Precision, RunSettings
from targets.runtimes.base import seeded_inputs
from targets.runtimes.registry import get_runtime
from tests.targets.tiny_models import artifact_of, one_op, save, tiny_model

NAMES = ("onnxruntime", "openvino")


@pytest.fixture(params=NAMES)
def name(request):
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture
def tiny(tmp_path):
    return artifact_of(save(tiny_model(), tmp_path / "tiny.onnx"))


def load(name, artifact, **settings):
    return get_runtime(name).load(artifact, RunSettings(runtime=name, **settings))


def test_outputs_are_those_of_the_reference(name, tiny):
    model = load(name, tiny)
    model.run()
    first = model.outputs()[0]
    feeds = seeded_inputs(tiny)
    np.testing.assert_allclose(first, ReferenceEvaluator(tiny_model()).run(None, feeds)[0], atol=1e-5)
    other = {"x": feeds["x"][..., ::-1].copy()}
    model.feed(other)
    model.run()
    np.testing.assert_allclose(model.outputs()[0], ReferenceEvaluator(tiny_model()).run(None, other)[0], atol=1e-5)
    assert np.abs(first - model.outputs()[0]).max() > 1e-3  # the first copy was not written over


def test_what_runs_is_read_back(name, tiny):
    actual = load(name, tiny, threads=2).actual
    assert (actual["threads"], actual["streams"]) == ("2", "1")
    assert load(name, tiny, threads=1).actual["threads"] == "1"


def test_openvino_tells_the_threads_it_has_not_those_asked_for(tiny):
    if not installed("openvino"):
        pytest.skip("openvino is not installed")
    most = len(os.sched_getaffinity(0))
    assert 1 <= int(load("openvino", tiny, threads=1024).actual["threads"]) <= max(most, os.cpu_count() or most)


def test_onnxruntime_options_reach_the_session(tiny):
    chosen = {"graph_optimization": "basic", "spinning": "off", "denormals_as_zero": "on"}
    actual = load("onnxruntime", tiny, options=chosen).actual
    assert actual["graph_optimization"] == "ORT_ENABLE_BASIC"
    assert (actual["spinning"], actual["denormals_as_zero"]) == ("0", "1")
    assert actual["provider"] == "CPUExecutionProvider"
    assert (actual["inter_op_threads"], actual["execution_mode"]) == ("1", "ORT_SEQUENTIAL")


def test_openvino_computes_in_what_it_was_told(tiny):
    if not installed("openvino"):
        pytest.skip("openvino is not installed")
    actual = load("openvino", tiny, options={"cpu_pinning": "on"}).actual
    assert (actual["precision"], actual["executed_precisions"], actual["cpu_pinning"]) == ("f32", "f32", "True")
    assert load("openvino", tiny).actual["cpu_pinning"] == "False"


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_a_precision_is_run_or_refused_never_replaced(name, tiny, precision):
    try:
        actual = load(name, tiny, precision=precision).actual
    except UsageError as error:
        assert precision.value in str(error) and "fp32" in str(error)
    else:
        assert name == "openvino" and actual["precision"] == {"fp16": "f16", "bf16": "bf16"}[precision.value]


@pytest.mark.parametrize(
    ("options", "told"), [({"nonsense": "1"}, "Known options"), ({"denormals_as_zero": "maybe"}, "off, on")]
)
def test_unknown_options_are_refused(name, tiny, options, told):
    with pytest.raises(UsageError, match=told):
        load(name, tiny, options=options)


@pytest.mark.parametrize(
    ("feed", "told"),
    [
        ({"y": np.zeros((1, 3, 32, 32), np.float32)}, "inputs"),
        ({"x": np.zeros((1, 3, 16, 16), np.float32)}, "16, 16"),
        ({"x": np.zeros((1, 3, 32, 32))}, "float64"),
        ({}, "inputs"),
    ],
)
def test_a_wrong_tensor_is_refused(name, tiny, feed, told):
    with pytest.raises(UsageError, match=told):
        load(name, tiny).feed(feed)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (one_op("Foo"), "bad_node"),
        (one_op("Foo", domain="my.domain"), "my.domain"),
        (one_op("Conv"), "bad_node"),
        (one_op("Relu", shape=("n", 3)), "inputs"),
        (one_op("Relu", shape=(1, 1, 4, 4)), "record says"),
        (b"", "bad.onnx"),
        (b"no model\n" * 20, "bad.onnx"),
        (tiny_model().SerializeToString()[:2000], "bad.onnx"),
    ],
)
def test_a_bad_file_is_one_line(name, tmp_path, model, told, capfd):
    path = tmp_path / "bad.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(InvalidModel) as caught:
        load(name, artifact_of(path, (1, 1, 8, 8)))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_another_format_are_refused(name, tiny, tmp_path):
    with pytest.raises(InvalidModel, match="no such file"):
        load(name, tiny.model_copy(update={"path": str(tmp_path / "gone.onnx")}))
    with pytest.raises(UsageError, match="tflite"):
        load(name, tiny.model_copy(update={"format": "tflite"}))


def test_openvino_names_an_operation_it_has_no_rule_for(tmp_path):
    if not installed("openvino"):
        pytest.skip("openvino is not installed")
    path = save(one_op("Det", shape=(1, 1, 8, 8)), tmp_path / "det.onnx")
    with pytest.raises(InvalidModel, match="Det"):
        load("openvino", artifact_of(path, (1, 1, 8, 8)))


def test_openvino_is_used_without_its_telemetry(tiny, tmp_path):
    if not installed("openvino"):
        pytest.skip("openvino is not installed")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from tests.targets.tiny_models import artifact_of\n"
        "from targets.records import RunSettings; from targets.runtimes.registry import get_runtime\n"
        "get_runtime('openvino').load(artifact_of(Path(sys.argv[1])), RunSettings(runtime='openvino')).run()\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
    )
    environment = {**os.environ, "HOME": str(home), "CI": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, tiny.path], env=environment, check=True)
    assert list(home.iterdir()) == []
