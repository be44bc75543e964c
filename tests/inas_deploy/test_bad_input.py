"""Whatever is wrong is said in one line, with exit code 2 (3 for a device), and nothing is left behind."""

import sqlite3
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.chain import write_chain
from inas_deploy.cli import main
from targets.store import ResultStore


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_chain(tmp_path / "good.onnx", 2)
    return tmp_path


def complaint(capsys, folder, *words, code=2):
    """Run a command that must fail; gives its one line and checks that nothing was written."""
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("error: ")
    assert stop.value.code == code, lines[0]
    assert printed.out == ""
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    return lines[0]


def network(path, *, op="Relu", domain="", shape=(1, 3, 8, 8), external=None):
    """A one-node model; ``external`` puts a weight's data where it says."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    nodes, weights = [helper.make_node(op, ["x"], ["y"], "the_node", domain=domain)], []
    if external is not None:
        weight = numpy_helper.from_array(np.ones((3, 8, 8), np.float32), "w")
        onnx.external_data_helper.set_external_data(weight, external, offset=0, length=768)
        weight.ClearField("raw_data")
        nodes, weights = [helper.make_node("Add", ["x", "w"], ["y"], "the_node")], [weight]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def test_no_file(capsys, folder):
    assert "nowhere.onnx" in complaint(capsys, folder, "bench", "--model", "nowhere.onnx")


def test_unknown_model_name_lists_what_is_near(capsys, folder):
    assert "csnet-x1" in complaint(capsys, folder, "bench", "--model", "csnet-y1")


def test_text_file(capsys, folder):
    (folder / "text.onnx").write_text("hello, I am not a model\n" * 10)
    assert "text.onnx" in complaint(capsys, folder, "bench", "--model", "text.onnx")


def test_truncated(capsys, folder):
    whole = (folder / "good.onnx").read_bytes()
    (folder / "half.onnx").write_bytes(whole[: len(whole) // 2])
    assert "half.onnx" in complaint(capsys, folder, "bench", "--model", "half.onnx")


def test_external_data_missing(capsys, folder):
    network(folder / "net.onnx", external="weights.bin")
    assert "weights.bin" in complaint(capsys, folder, "bench", "--model", "net.onnx")


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/hostname"])
def test_external_data_outside_its_folder(capsys, folder, place):
    (folder / "in").mkdir()
    (folder / "secret.bin").write_bytes(b"\0" * 768)
    network(folder / "in" / "net.onnx", external=place)
    assert "outside" in complaint(capsys, folder, "bench", "--model", "in/net.onnx")


def test_dynamic_shape(capsys, folder):
    network(folder / "net.onnx", shape=("batch", 3, "h", "w"))
    assert "--shape x=" in complaint(capsys, folder, "bench", "--model", "net.onnx")


def test_wrong_shape_option(capsys, folder):
    network(folder / "net.onnx", shape=("batch", 3, "h", "w"))
    assert "'y'" in complaint(capsys, folder, "bench", "--model", "net.onnx", "--shape", "y=1x3x8x8")
    assert "abc" in complaint(capsys, folder, "bench", "--model", "net.onnx", "--shape", "x=abc")


def test_unknown_op(capsys, folder):
    network(folder / "net.onnx", op="Frobnicate")
    assert "Frobnicate" in complaint(capsys, folder, "bench", "--model", "net.onnx")


def test_unknown_domain(capsys, folder):
    network(folder / "net.onnx", domain="acme.ops")
    assert "acme.ops" in complaint(capsys, folder, "bench", "--model", "net.onnx")


def test_unknown_target_runtime_precision(capsys, folder):
    assert "phone" in complaint(capsys, folder, "bench", "--target", "phone")
    assert "onnxruntime" in complaint(capsys, folder, "bench", "--runtime", "onnx-runtime")
    assert "fp32" in complaint(capsys, folder, "bench", "--precision", "fp33")
    assert "fp16" in complaint(capsys, folder, "bench", "--model", "good.onnx", "--precision", "fp16")
    assert "fp32" in complaint(capsys, folder, "compare", "good.onnx", "good.onnx@onnxruntime:fp33")


def test_extra_not_installed(capsys, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    line = complaint(capsys, folder, "bench", "--model", "good.onnx", "--runtime", "openvino")
    assert "pip install 'inas-deploy[openvino]'" in line


def test_report_extra_not_installed_is_said_before_measuring(capsys, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "inas-deploy[report]" in complaint(capsys, folder, "bench", "--model", "good.onnx", "--report", "out.html")


def test_other_onnx_on_tflite(capsys, folder):
    assert ".tflite" in complaint(capsys, folder, "bench", "--model", "good.onnx", "--runtime", "tflite")


def test_unreadable_image(capsys, folder):
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    assert "photo.jpg" in complaint(capsys, folder, "bench", "--image", "photo.jpg")
    assert "nophoto.jpg" in complaint(capsys, folder, "bench", "--image", "nophoto.jpg")
    assert "--image" in complaint(capsys, folder, "bench", "--image-out", "x.png")


def test_image_on_a_model_that_takes_none(capsys, folder):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    assert "1x3xHxW" in complaint(capsys, folder, "bench", "--model", "good.onnx", "--image", "photo.png")


def test_store_of_a_newer_schema(capsys, folder):
    ResultStore(folder / "s.sqlite")
    with sqlite3.connect(folder / "s.sqlite") as raw:
        raw.execute("UPDATE kit_schema SET version = 99")
    line = complaint(capsys, folder, "bench", "--model", "good.onnx", "--store", "s.sqlite")
    assert "schema 99" in line
    assert "Upgrade" in line


def test_store_that_is_something_else(capsys, folder):
    (folder / "s.sqlite").write_text("just text " * 200)
    assert "s.sqlite" in complaint(capsys, folder, "bench", "--model", "good.onnx", "--store", "s.sqlite")
    assert "s2.sqlite" in complaint(capsys, folder, "report", "--store", "s2.sqlite")


def test_malformed_inventory_names_line_and_key(capsys, folder):
    (folder / "devices.toml").write_text('[devices.box]\ntransport = "local"\nthreds = 4\n')
    line = complaint(capsys, folder, "bench", "--target", "box")
    assert "devices.toml:3" in line
    assert "threds" in line
    (folder / "devices.toml").write_text('[devices.box]\ntransport = "local\n')
    assert "devices.toml:2" in complaint(capsys, folder, "devices")


def test_device_that_is_not_available(capsys, folder):
    (folder / "devices.toml").write_text('[devices.phone]\ntransport = "adb"\nserial = "ABCD"\ntags = ["android"]\n')
    assert "phone" in complaint(capsys, folder, "bench", "--target", "android", code=3)


def test_output_in_a_folder_that_is_not_there(capsys, folder):
    line = complaint(capsys, folder, "bench", "--model", "good.onnx", "--markdown", "no/out.md")
    assert "no/out.md" in line


def test_unknown_option_and_command(capsys, folder):
    assert "--modle" in complaint(capsys, folder, "bench", "--modle", "x")
    assert "bnech" in complaint(capsys, folder, "bnech")
    assert "sessions" in complaint(capsys, folder, "bench", "--sessions", "many")


def test_compare_refuses_unlike(capsys, folder):
    write_chain(folder / "b.onnx", 2)
    network(folder / "net.onnx")
    line = complaint(capsys, folder, "compare", "good.onnx", "net.onnx")
    assert "input shape" in line
    assert "--unlike" in line


def test_outputs_never_replace_what_is_read_or_kept(capsys, folder):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    for words in (
        ("--model", "good.onnx", "--markdown", "good.onnx"),
        ("--model", "good.onnx", "--markdown", "s.md", "--store", "s.md"),
        ("--model", "good.onnx", "--markdown", "x", "--report", "x"),
        ("--image", "photo.png", "--image-out", "photo.png"),
    ):
        assert "written over" in complaint(capsys, folder, "bench", *words)


@pytest.mark.parametrize("option", ["--model", "--store", "--devices", "--report", "--markdown", "--image"])
@pytest.mark.parametrize("end", ["", ".onnx"])
def test_a_name_no_file_can_have(capsys, folder, option, end):
    assert "aaa" in complaint(capsys, folder, "bench", option, "a" * 300 + end)


def test_a_model_that_fails_while_it_runs(capsys, folder):
    """A Gather whose indices lie outside: only running it tells."""
    indices = numpy_helper.from_array(np.array([50], np.int64), "i")
    reads = [helper.make_node("Gather", ["x", "i"], ["y"], "the_node")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (4,))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))]
    model = helper.make_model(
        helper.make_graph(reads, "g", inputs, outputs, [indices]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    (folder / "gather.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--model", "gather.onnx"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert "gather.onnx" in line
    with ResultStore(folder / "inas_results.sqlite") as store:
        assert store.runs() == []  # a refused request leaves no run that could never be finished


def test_list_as_json(capsys, folder):
    with ResultStore(folder / "s.sqlite"):
        pass
    with pytest.raises(SystemExit) as stop:
        main(["report", "--store", "s.sqlite", "--list", "--json"])
    assert not stop.value.code
    assert capsys.readouterr().out == "[]\n"
