"""ONNX files nobody vouches for: what is wrong is said in one line that names the thing and the way out."""

import os
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from targets import onnx_check, onnx_graph
from targets.errors import InvalidModel, UsageError
from targets.onnx_files import freeze_shapes, inspect_onnx, parse_shape_option

STATIC = (1, 3, 8, 8)


def _model(nodes=None, shape=STATIC, *, opset=20, ir=10, imports=(), inputs=(), outputs=(), functions=()):
    nodes = nodes or [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["y"], name="relu1"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [*inputs] or [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [*outputs] or [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", opset), *imports]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=functions)


def _saved(tmp_path, model):
    path = tmp_path / "net.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def _refusal(path, shapes=None):
    with pytest.raises(InvalidModel) as caught:
        inspect_onnx(path, shapes)
    text = str(caught.value)
    assert "\n" not in text and text.isprintable() and str(path) in text
    assert caught.value.exit_code == 2
    return text


def _external(location, model=None, **entries):
    model = model or _model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return model


def test_a_good_file_is_described(tmp_path):
    info = inspect_onnx(_saved(tmp_path, _model()))
    assert [(i.name, i.shape, i.dtype) for i in info.inputs] == [("x", STATIC, "float32")]
    assert [(o.name, o.shape, o.dtype) for o in info.outputs] == [("y", (1, 4, 8, 8), "float32")]
    assert (info.opset, info.ir_version, info.node_count, info.frozen) == (20, 10, 2, False)
    assert dict(info.op_types) == {"Conv": 1, "Relu": 1}
    assert len(info.sha256) == 64 and info.external == () and info.dynamic_outputs == ()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty. Export or copy"),
        (b"hello\nworld\n", "is a text file, not an ONNX file (it begins with 'hello'). Check the path."),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a Git LFS pointer, not the model. Fetch the model",
        ),
        (b"PK\x03\x04rest", "is a ZIP archive"),
        (b"\x1c\0\0\0TFL3\0\0", "is a TFLite model, not an ONNX file. Name it .tflite"),
        (_model().SerializeToString()[:-20], "cannot be parsed as ONNX: it is cut short or damaged"),
        (bytes(range(256)), "cannot be parsed as ONNX"),
        (b"\x08\x0a", "is not an ONNX model: it holds no graph"),
        (onnx.ModelProto(ir_version=10, graph=onnx.GraphProto(name="g")).SerializeToString(), "graph without nodes"),
    ],
)
def test_files_that_are_no_model(tmp_path, content, text):
    assert text in _refusal(_saved(tmp_path, content))


def test_paths_that_are_no_file(tmp_path):
    assert "does not exist. Check the path." in _refusal(tmp_path / "no.onnx")
    assert "is a folder. Name the .onnx file in it." in _refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "is not a regular file" in _refusal(tmp_path / "pipe.onnx")


def test_a_file_without_an_opset(tmp_path):
    model = _model()
    del model.opset_import[:]
    assert "does not say which ONNX opset it uses" in _refusal(_saved(tmp_path, model))


def test_versions_beyond_the_installed_runtime_name_the_newest_that_works(tmp_path):
    version = onnxruntime.__version__
    text = _refusal(_saved(tmp_path, _model(opset=99)))
    newest = int(re.search(rf"has opset 99, which onnxruntime {version} .*Export it with opset (\d+) ", text)[1])
    assert inspect_onnx(_saved(tmp_path, _model(opset=newest))).opset == newest
    text = _refusal(_saved(tmp_path, _model(ir=99)))
    newest = int(re.search(rf"has IR version 99, which onnxruntime {version} .*with IR version (\d+) ", text)[1])
    assert inspect_onnx(_saved(tmp_path, _model(ir=newest))).ir_version == newest


def test_operations_nobody_knows(tmp_path):
    node = helper.make_node("Foo", ["x"], ["y"], name="f1")
    text = _refusal(_saved(tmp_path, _model([node])))
    assert "node 'f1' is op 'Foo', which domain 'ai.onnx' does not have in opset 20. Check the exporter." in text
    node = helper.make_node("Gelu", ["x"], ["y"], name="g1")
    text = _refusal(_saved(tmp_path, _model([node], opset=17)))
    assert "does not have in opset 17. It came later: export with opset 20 or newer." in text
    node = helper.make_node("Foo", ["x"], ["y"], domain="my.domain")
    text = _refusal(_saved(tmp_path, _model([node], imports=[helper.make_opsetid("my.domain", 1)])))
    assert "the unnamed 'Foo' node is op 'Foo' of the custom domain 'my.domain', unknown to every runtime." in text
    node = helper.make_node("NoSuch", ["x"], ["y"], name="m1", domain="com.microsoft")
    text = _refusal(_saved(tmp_path, _model([node], imports=[helper.make_opsetid("com.microsoft", 1)])))
    assert "node 'm1'" in text and "'com.microsoft'" in text
    node = helper.make_node("Scaler", ["x"], ["y"], name="s1", domain="ai.onnx.ml")
    assert "node 's1' uses domain 'ai.onnx.ml', which the model does not import" in _refusal(
        _saved(tmp_path, _model([node]))
    )


def test_names_cannot_write_to_the_terminal(tmp_path):
    node = helper.make_node("Foo\x1b[31m\n", ["x"], ["y"], name="a\x1b]0;t\x07\nb" + "c" * 500)
    text = _refusal(_saved(tmp_path, _model([node])))
    assert "\\x1b" in text and len(text) < 600


def test_an_operation_of_the_runtime_itself_is_let_through(tmp_path):
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    imports = [helper.make_opsetid("com.microsoft", 1)]
    info = inspect_onnx(_saved(tmp_path, _model([node], imports=imports)))
    assert dict(info.op_types) == {"com.microsoft.Gelu": 1}
    assert info.dynamic_outputs == ("y",)
    declared = [helper.make_tensor_value_info("y", TensorProto.FLOAT, STATIC)]
    info = inspect_onnx(_saved(tmp_path, _model([node], imports=imports, outputs=declared)))
    assert info.outputs[0].shape == STATIC


def _branching(inner="Relu"):
    branch = [helper.make_node(inner, ["x"], ["b"], name="inner")]
    out = [helper.make_tensor_value_info("b", TensorProto.FLOAT, STATIC)]
    graphs = {f"{name}_branch": helper.make_graph(branch, name, [], out) for name in ("then", "else")}
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, STATIC)
    return _model([helper.make_node("If", ["c"], ["y"], name="if1", **graphs)], inputs=[image, condition])


def test_subgraphs_are_walked(tmp_path):
    info = inspect_onnx(_saved(tmp_path, _branching()))
    assert dict(info.op_types) == {"If": 1, "Relu": 2} and info.node_count == 3
    assert "node 'inner' is op 'Foo'" in _refusal(_saved(tmp_path, _branching("Foo")))


def test_functions_are_walked(tmp_path):
    def made(op):
        body = [helper.make_node(op, ["a"], ["b"], name="n1")]
        function = helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
        node = helper.make_node("Twice", ["x"], ["y"], domain="own")
        return _model([node], imports=[helper.make_opsetid("own", 1)], functions=[function])

    info = inspect_onnx(_saved(tmp_path, made("Relu")))
    assert dict(info.op_types) == {"own.Twice": 1, "Relu": 1} and info.outputs[0].shape == STATIC
    assert "node 'n1' of function 'Twice' is op 'Foo'" in _refusal(_saved(tmp_path, made("Foo")))


@pytest.mark.parametrize("holder", ["tensor", "sparse tensor", "graph"])
def test_data_in_the_defaults_of_functions_is_walked(tmp_path, holder):
    outside = _external("/etc/hostname").graph.initializer[0]
    sparse = onnx.SparseTensorProto(values=outside)
    graph = helper.make_graph([], "g", [], [], [outside])
    if holder == "graph":
        default = onnx.AttributeProto(name="v", type=onnx.AttributeProto.GRAPH, g=graph)
    elif holder == "tensor":
        default = onnx.AttributeProto(name="v", type=onnx.AttributeProto.TENSOR, t=outside)
    else:
        default = onnx.AttributeProto(name="v", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("own", "Once", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    function.attribute_proto.append(default)
    node = helper.make_node("Once", ["x"], ["y"], domain="own")
    path = _saved(tmp_path, _model([node], imports=[helper.make_opsetid("own", 1)], functions=[function]))
    assert "tensor 'w' wants data from outside the model's folder: '/etc/hostname'" in _refusal(path)


def test_nodes_in_the_defaults_of_functions_are_walked(tmp_path):
    graph = helper.make_graph([helper.make_node("Foo", ["a"], ["b"], name="n1")], "g", [], [])
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("own", "Once", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    function.attribute_proto.append(onnx.AttributeProto(name="v", type=onnx.AttributeProto.GRAPH, g=graph))
    node = helper.make_node("Once", ["x"], ["y"], domain="own")
    path = _saved(tmp_path, _model([node], imports=[helper.make_opsetid("own", 1)], functions=[function]))
    assert "node 'n1' of function 'Once' is op 'Foo'" in _refusal(path)


def test_too_many_nodes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "MAX_NODES", 1)
    assert "has more than 1 nodes" in _refusal(_saved(tmp_path, _model()))


@pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "/etc/hostname", "C:\\w.bin", "..\\w.bin"])
def test_data_outside_the_folder_is_never_read(tmp_path, location):
    (tmp_path / "w.bin").write_bytes(b"\0" * 432)
    folder = tmp_path / "m"
    folder.mkdir()
    text = _refusal(_saved(folder, _external(location)))
    assert "tensor 'w' wants data from outside the model's folder" in text and "Save the model again" in text


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 432)
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "w.bin").symlink_to(tmp_path / "secret")
    (folder / "sub").symlink_to(tmp_path)
    assert "'w.bin' is a link that leads out of it" in _refusal(_saved(folder, _external("w.bin")))
    assert "'sub/secret' is a link that leads out of it" in _refusal(_saved(folder, _external("sub/secret")))
    (folder / "loop").symlink_to("loop")
    assert "needs the external data file 'loop'" in _refusal(_saved(folder, _external("loop")))


def test_data_that_is_missing_or_short(tmp_path):
    text = _refusal(_saved(tmp_path, _external("w.bin")))
    assert f"needs the external data file 'w.bin', which cannot be found. Put it beside the model: {tmp_path}." in text
    (tmp_path / "w.bin").write_bytes(b"\0" * 432)
    assert "wants bytes 4 to 436 of 'w.bin', which has 432" in _refusal(
        _saved(tmp_path, _external("w.bin", offset=4, length=432))
    )
    assert "has 400 bytes of external data, its shape needs 432" in _refusal(
        _saved(tmp_path, _external("w.bin", length=400))
    )
    assert "has offset '-1' for its external data, not a number" in _refusal(
        _saved(tmp_path, _external("w.bin", offset=-1))
    )
    assert "has no usable file name" in _refusal(_saved(tmp_path, _external("")))
    (tmp_path / "d").mkdir()
    assert "'d', which is not a file" in _refusal(_saved(tmp_path, _external("d")))
    assert "cannot be found" in _refusal(_saved(tmp_path, _external("*/_ORT_MEM_ADDR_/*", offset=4096, length=432)))


def test_data_in_the_folder_is_listed_and_embedded_by_a_static_copy(tmp_path):
    (tmp_path / "sub").mkdir()
    weights = np.arange(108, dtype=np.float32)
    (tmp_path / "sub" / "w.bin").write_bytes(b"\0" * 16 + weights.tobytes())
    path = _saved(tmp_path, _external("sub/w.bin", _model(shape=("N", 3, 8, 8)), offset=16, length=432))
    info = inspect_onnx(path, {"x": STATIC})
    assert [(e.location, e.size_bytes) for e in info.external] == [("sub/w.bin", 448)]
    freeze_shapes(path, {"x": STATIC}, tmp_path / "copy.onnx")
    copy = onnx.load(tmp_path / "copy.onnx")
    assert np.array_equal(numpy_helper.to_array(copy.graph.initializer[0]).ravel(), weights)
    assert inspect_onnx(tmp_path / "copy.onnx").external == ()


def test_embedded_data_of_the_wrong_size(tmp_path):
    model = _model()
    model.graph.initializer[0].raw_data = b"\0" * 400
    assert "tensor 'w' has 400 bytes of data, its shape needs 432" in _refusal(_saved(tmp_path, model))


def test_dynamic_shapes_say_what_to_pass(tmp_path):
    text = _refusal(_saved(tmp_path, _model(shape=("N", 3, "H", None))))
    assert "input 'x' has the dynamic shape Nx3xHx?; latency needs static shapes." in text
    option = re.search(r"--shape (\S+)$", text)[1]
    info = inspect_onnx(tmp_path / "net.onnx", dict([parse_shape_option(option)]))
    assert info.inputs[0].shape == (1, 3, 224, 224) and info.frozen
    assert info.outputs[0].shape == (1, 4, 224, 224)
    assert "input 'x' has no shape at all" in _refusal(_saved(tmp_path, _model(shape=None)))
    info = inspect_onnx(tmp_path / "net.onnx", {"": (1, 3, 16, 16)})
    assert info.outputs[0].shape == (1, 4, 16, 16)


def test_named_dimensions_hold_for_every_input(tmp_path):
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, "S", "S"]) for n in ("x", "z")]
    path = _saved(tmp_path, _model([helper.make_node("Add", ["x", "z"], ["y"])], inputs=inputs))
    assert "(and so have: z)" in _refusal(path) and "--shape z=1x3x224x224" in _refusal(path)
    assert inspect_onnx(path, {"x": STATIC}).inputs[1].shape == STATIC
    assert "sets S to 9, and another place sets it to 8" in _refusal(path, {"x": (1, 3, 8, 9)})
    assert "fits no single input (inputs: x, z). Write NAME=SHAPE." in _refusal(path, {"": STATIC})


def test_shapes_that_do_not_fit(tmp_path):
    path = _saved(tmp_path, _model(shape=("N", 3, "H", "W")))
    text = _refusal(path, {"input": STATIC})
    assert "has no input called 'input'. Inputs: x." in text
    assert "shape 1x3x8 for input 'x' has 3 dimensions, the model says 4 (Nx3xHxW)." in _refusal(path, {"x": (1, 3, 8)})
    text = _refusal(path, {"x": (1, 4, 8, 8)})
    assert "shape 1x4x8x8 for input 'x' contradicts the model, which fixes it as Nx3xHxW. Pass --shape x=" in text
    assert "more than 268435456 elements" in _refusal(path, {"x": (1, 3, 10**5, 10**5)})
    assert "has a size below 1" in _refusal(path, {"x": (1, 3, -8, 8)})


def test_a_size_the_network_cannot_take_is_blamed_on_the_node(tmp_path):
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], name="down", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["a", "k"], ["b"], name="up", strides=[2, 2]),
        helper.make_node("Concat", ["b", "x"], ["y"], name="join", axis=1),
    ]
    model = _model(nodes, shape=(1, 3, "H", "W"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 3, 2, 2), np.float32), "k"))
    path = _saved(tmp_path, model)
    assert inspect_onnx(path, {"x": STATIC}).outputs[0].shape == (1, 6, 8, 8)
    text = _refusal(path, {"x": (1, 3, 9, 9)})
    assert "its operations do not fit together at x=1x3x9x9" in text and "join" in text


def test_inputs_that_cannot_be_fed(tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    text = _refusal(_saved(tmp_path, _model([helper.make_node("Identity", ["x"], ["y"])], inputs=[value])))
    assert "input 'x' has element type string. Usable: bool, float16" in text
    value = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    text = _refusal(_saved(tmp_path, _model([helper.make_node("Identity", ["x"], ["y"])], inputs=[value])))
    assert "input 'x' is not a tensor" in text


def test_the_checkers_refusal_is_one_line(tmp_path):
    text = _refusal(_saved(tmp_path, _model([helper.make_node("Relu", ["nowhere"], ["y"], name="r1")])))
    assert "the ONNX checker refuses it: " in text and "'nowhere'" in text


def test_a_crash_in_the_checker_ends_as_a_line(tmp_path, monkeypatch):
    real = onnx_check.LocalTransport

    class Killed(real):
        def run(self, argv, **options):
            return super().run(["sh", "-c", "kill -SEGV $$"], **options)

    monkeypatch.setattr(onnx_check, "LocalTransport", Killed)
    assert "the ONNX checker crashed on it (SIGSEGV)" in _refusal(_saved(tmp_path, _model()))


def test_what_native_code_prints_does_not_spoil_the_answer(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\nos.write(1, b'before')\natexit.register(os.write, 1, b'after')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert inspect_onnx(_saved(tmp_path, _model())).outputs[0].shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("printed", "says"),
    [("", "printed nothing"), ("\\033[31mno", "printed '\\x1b[31mno' in place"), ("[1]", "of another form")],
)
def test_an_unreadable_answer_of_the_checker_is_a_line(tmp_path, monkeypatch, printed, says):
    real = onnx_check.LocalTransport

    class Chatty(real):
        def run(self, argv, **options):
            return super().run(["sh", "-c", f"printf '{printed}'"], **options)

    monkeypatch.setattr(onnx_check, "LocalTransport", Chatty)
    assert f"the ONNX checker {says}" in _refusal(_saved(tmp_path, _model())).replace("gave an answer ", "")


def test_a_checker_that_does_not_end_is_stopped(tmp_path):
    path = _saved(tmp_path, _model())
    with pytest.raises(InvalidModel, match=r"checking it takes longer than 0\.01 s"):
        onnx_check.checked_outputs(path, (), timeout_s=0.01)


def test_a_static_copy_runs_and_is_static(tmp_path):
    path = _saved(tmp_path, _model(shape=("N", 3, "H", "W")))
    out = tmp_path / "static.onnx"
    freeze_shapes(path, {"": (1, 3, 16, 16)}, out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 16, 16] and session.get_outputs()[0].shape == [1, 4, 16, 16]
    original = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = {"x": np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)}
    assert np.array_equal(session.run(None, image)[0], original.run(None, image)[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "static.onnx"]


def test_a_static_copy_does_not_replace_the_model_or_go_nowhere(tmp_path):
    path = _saved(tmp_path, _model())
    before = path.read_bytes()
    with pytest.raises(InvalidModel, match="would be overwritten"):
        freeze_shapes(path, {}, path)
    with pytest.raises(UsageError, match="cannot write"):
        freeze_shapes(path, {}, tmp_path / "no" / "x.onnx")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input=1x3x224x224", ("input", (1, 3, 224, 224))),
        ("1x3x224x224", ("", (1, 3, 224, 224))),
        ("a=b:0=7", ("a=b:0", (7,))),
        (" x=2X3 ", ("x", (2, 3))),
    ],
)
def test_shape_options_are_read(text, expected):
    assert parse_shape_option(text) == expected


@pytest.mark.parametrize("text", ["", "x", "x=", "x=1x", "1x0", "1,3", "x=-1x3", "x=1.5", "1x99999999999"])
def test_other_shape_options_are_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_shape_option(text)
    assert str(caught.value) == f"--shape {text!r} is not a shape. Write it like --shape input=1x3x224x224."


def test_the_shipped_network_passes():
    shipped = Path(onnx_check.__file__).parents[1] / "inas_deploy" / "data" / "csnet-x1.onnx"
    if not shipped.exists():
        pytest.skip(f"{shipped.name} is not built yet")
    info = inspect_onnx(shipped)
    assert info.inputs[0].shape == (1, 3, 224, 224) and info.outputs[0].shape == (1, 1, 224, 224)
