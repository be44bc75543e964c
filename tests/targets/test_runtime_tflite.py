"""The TFLite runtime on real files, with the real interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from targets.errors import InvalidModel, UsageError
from targets.records import Precision, RunSettings
from targets.runtimes.base import seeded_inputs
from targets.runtimes.native_output import captured_stderr
from targets.runtimes.tflite import TFLiteRuntime, delegated_ops
from targets.tflite_files import inspect_tflite, tflite_artifact

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

FIXTURES = Path(__file__).parent / "fixtures" / "tflite"
TINY = FIXTURES / "tiny.tflite"
TWO = FIXTURES / "two.tflite"


def settings(threads=1, precision=Precision.FP32, **options) -> RunSettings:
    return RunSettings(runtime="tflite", threads=threads, precision=precision, options=options)


def load(path=TINY, **kwargs):
    return TFLiteRuntime().load(tflite_artifact(path), settings(**kwargs))


def test_both_kernel_sets_compute_the_same():
    outputs = []
    for delegate in ("xnnpack", "none"):
        model = load(delegate=delegate)
        model.run()
        outputs.append(model.outputs()[0])
    assert outputs[0].std() > 0
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


def test_what_runs_is_told():
    assert load(threads=2).actual == {
        "threads_set": "2",
        "precision": "fp32",
        "delegate": "xnnpack",
        "delegated_ops": "19 of 20 in 2 partitions",
        "builtin_ops": "PADV2",
    }
    assert load(delegate="none").actual["delegated_ops"] == "0 of 20 in 0 partitions"
    assert TFLiteRuntime().versions().keys() == {"ai-edge-litert"}


def test_partitions_are_split_by_the_operator_that_stays():
    model = load()
    pad = next(op.index for op in model.file.ops if op.op_type == "PADV2")
    everything = range(len(model.file.ops))
    assert delegated_ops(model.interpreter, model.file) == [tuple(everything[:pad]), tuple(everything[pad + 1 :])]


def test_inputs_are_seeded_and_can_be_replaced():
    first, second = load(), load()
    for model in (first, second):
        model.run()
    np.testing.assert_array_equal(first.outputs()[0], second.outputs()[0])
    spec = inspect_tflite(TINY).inputs[0]
    second.feed({spec.name: np.zeros(spec.shape, np.float32)})
    second.run()
    assert not np.allclose(first.outputs()[0], second.outputs()[0])


def test_two_inputs_are_matched_by_name():
    model = load(TWO)
    file = inspect_tflite(TWO)
    tensors = seeded_inputs(tflite_artifact(TWO), seed=3)
    model.feed(dict(reversed(tensors.items())))
    model.run()
    total = model.outputs()[1]
    np.testing.assert_allclose(total, 2 * tensors[file.inputs[0].name].sum(axis=1), rtol=1e-5)


def test_outputs_are_copies():
    model = load()
    model.run()
    kept = model.outputs()[0]
    before = kept.copy()
    spec = inspect_tflite(TINY).inputs[0]
    model.feed({spec.name: np.ones(spec.shape, np.float32)})
    model.run()
    np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"x": np.zeros((1, 16, 16, 3), np.float32)}, "no input 'x'"),
        ({"serving_default_args_0": np.zeros((1, 3, 16, 16), np.float32)}, r"\[1, 3, 16, 16\]"),
        ({"serving_default_args_0": np.zeros((1, 16, 16, 3), np.float64)}, "float64"),
    ],
)
def test_wrong_inputs_are_refused(tensors, words):
    with pytest.raises(UsageError, match=words):
        load().feed(tensors)


def test_settings_that_cannot_be_kept_are_refused():
    with pytest.raises(UsageError, match="fp16"):
        load(precision=Precision.FP16)
    with pytest.raises(UsageError, match="delegate"):
        load(delegate="gpu")
    with pytest.raises(UsageError, match="xnnpack_flags"):
        load(xnnpack_flags="1")


@pytest.mark.parametrize(("name", "words"), [("Sharpen", "custom operator 'Sharpen'"), ("FlexErf", "'FlexErf'")])
def test_an_unknown_custom_operator_is_named(tmp_path, name, words):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers", reason="flatbuffers is not installed")
    model = schema.ModelT.InitFromPackedBuf(TINY.read_bytes(), 0)
    code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name.encode()
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "custom.tflite"
    path.write_bytes(builder.Output())
    assert inspect_tflite(path).custom_ops == (name,)
    with pytest.raises(InvalidModel, match=words):
        load(path)


def test_a_text_file_is_refused_before_any_native_code(tmp_path):
    path = tmp_path / "text.tflite"
    path.write_text("not a model, but long enough to be looked at")
    artifact = tflite_artifact(TINY).model_copy(update={"path": str(path)})
    with pytest.raises(InvalidModel, match="TFL3"):
        TFLiteRuntime().load(artifact, settings())


def test_native_notes_reach_neither_stream():
    program = (
        "import sys\n"
        "from targets.records import RunSettings\n"
        "from targets.runtimes.tflite import TFLiteRuntime\n"
        "from targets.tflite_files import tflite_artifact\n"
        "artifact = tflite_artifact(sys.argv[1])\n"
        "settings = RunSettings(runtime='tflite')\n"
        "TFLiteRuntime().load(artifact, settings).run()\n"
        "TFLiteRuntime().profile(artifact, settings, seconds=0.1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(TINY)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_captured_lines_are_there_and_the_stream_comes_back(capfd):
    import os

    with captured_stderr() as printed:
        os.write(2, b"INFO: one\nERROR: two\nINFO: three\n")
        assert printed.lines() == ["INFO: one", "ERROR: two", "INFO: three"]
        assert printed.error_line() == "ERROR: two"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
