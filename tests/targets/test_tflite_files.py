"""Reading .tflite files that nobody vouches for."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import InvalidModel
from targets.records import TensorSpec
from targets.tflite_files import TfliteFile, inspect_tflite, tflite_artifact
from targets.tflite_schema import BUILTIN_OPERATORS

FIXTURES = Path(__file__).parent / "fixtures" / "tflite"
TINY = FIXTURES / "tiny.tflite"
TWO = FIXTURES / "two.tflite"


def test_inputs_and_outputs_are_told():
    file = inspect_tflite(TINY)
    assert file.inputs == (TensorSpec(name="serving_default_args_0", shape=(1, 16, 16, 3)),)
    assert [spec.shape for spec in file.outputs] == [(1, 16, 16, 1)]
    assert file.signature_inputs == {"args_0": file.input_tensors[0]}
    assert file.custom_ops == () and file.subgraphs == 1


def test_two_inputs_and_outputs_keep_their_order():
    file = inspect_tflite(TWO)
    assert [spec.shape for spec in file.inputs] == [(2, 4), (2, 5)]
    assert [spec.shape for spec in file.outputs] == [(2, 3), (2,)]


def test_the_operators_are_those_the_interpreter_loads():
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    kind = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    for path in (TINY, TWO):
        native = interpreter.Interpreter(model_path=str(path), experimental_op_resolver_type=kind)
        file = inspect_tflite(path)
        told = [(op["op_name"], [int(i) for i in op["inputs"]]) for op in native._get_ops_details()]
        assert [(op.op_type, list(op.inputs)) for op in file.ops] == told
        assert [spec.name for spec in file.inputs] == [entry["name"] for entry in native.get_input_details()]


def test_the_names_of_operators_and_options_are_those_of_the_schema():
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed")
    codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    assert codes == dict(enumerate(BUILTIN_OPERATORS))
    model = schema.ModelT.InitFromPackedBuf(TINY.read_bytes(), 0)
    fused = [getattr(op.builtinOptions, "fusedActivationFunction", 0) for op in model.subgraphs[0].operators]
    assert [op.activation == "RELU" for op in inspect_tflite(TINY).ops] == [code == 1 for code in fused]
    assert any(fused)


def test_the_artifact_tells_the_layout_at_the_boundary():
    artifact = tflite_artifact(TINY, converter="tool 1")
    assert (artifact.layout, artifact.format, artifact.converter) == ("NHWC", "tflite", "tool 1")
    assert artifact.source_sha256 == artifact.sha256 == inspect_tflite(TINY).sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "only 0 bytes"),
        (b"TFL3", "only 4 bytes"),
        (b"hello, this is a text file and no model\n" * 20, "not 'TFL3'"),
        (b"\x08\x00\x00\x00TFL3", "damaged"),
        (b"\xff\xff\xff\xffTFL3" + b"\0" * 100, "damaged"),
        (b"\x08\x00\x00\x00TFL3" + b"\0" * 100, "damaged|version 0"),
        (b"\x08\x00\x00\x00TFL3" + b"\xff" * 4000, "damaged"),
    ],
)
def test_other_content_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match=words) as caught:
        inspect_tflite(path)
    assert "\n" not in str(caught.value) and "bad.tflite" in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InvalidModel, match="cannot be read: No such file"):
        inspect_tflite(tmp_path / "absent.tflite")
    with pytest.raises(InvalidModel, match="not a file"):
        inspect_tflite(tmp_path)


@given(st.integers(0, TINY.stat().st_size - 64))
def test_a_truncated_file_is_refused(tmp_path_factory, length):
    path = tmp_path_factory.getbasetemp() / "truncated.tflite"
    path.write_bytes(TINY.read_bytes()[:length])
    with pytest.raises(InvalidModel):
        inspect_tflite(path)


@given(st.sampled_from([TINY, TWO]), st.lists(st.tuples(st.integers(8, 10**6), st.integers(0, 255)), max_size=40))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path_factory, source, changes):
    data = bytearray(source.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.tflite"
    path.write_bytes(data)
    try:
        file = inspect_tflite(path)
    except InvalidModel as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(file, TfliteFile)


def test_a_dynamic_input_is_refused(tmp_path):
    fixed, dynamic = struct.pack("<5i", 4, 1, 16, 16, 3), struct.pack("<5i", 4, 1, -1, 16, 3)
    data = TINY.read_bytes()
    assert data.count(fixed) >= 1
    path = tmp_path / "dynamic.tflite"
    path.write_bytes(data.replace(fixed, dynamic))
    with pytest.raises(InvalidModel, match=r"dynamic shape \[1, -1, 16, 3\]"):
        inspect_tflite(path)


def test_overlapping_lists_cost_no_more_than_the_file(tmp_path):
    """Ten thousand operators that share one long input list: 100 million numbers in a file of 80 kB."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed")
    flatbuffers = pytest.importorskip("flatbuffers", reason="flatbuffers is not installed")
    count = 10_000
    builder = flatbuffers.Builder(0)

    def vector(start, offsets):
        start(builder, len(offsets))
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    shared = builder.CreateNumpyVector(np.full(count, -1, np.int32))
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, shared)
    operator = schema.OperatorEnd(builder)
    operators = vector(schema.SubGraphStartOperatorsVector, [operator] * count)
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, operators)
    graphs = vector(schema.ModelStartSubgraphsVector, [schema.SubGraphEnd(builder)])
    schema.OperatorCodeStart(builder)
    codes = vector(schema.ModelStartOperatorCodesVector, [schema.OperatorCodeEnd(builder)])
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    path = tmp_path / "overlap.tflite"
    path.write_bytes(builder.Output())
    begin = time.perf_counter()
    with pytest.raises(InvalidModel, match="its lists overlap"):
        inspect_tflite(path)
    assert time.perf_counter() - begin < 5
