"""The doctor tries things out; so do these tests."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from inas_deploy import doctor_host, doctor_software, doctor_virtual
from inas_deploy.doctor import Check, diagnose, render
from targets.tflite_files import inspect_tflite
from tests.inas_deploy.running import ROOT

PROBE = Path(doctor_software.__file__).parent / "data" / "probe.tflite"


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("empty"))
    yield diagnose()
    assert not list(Path.cwd().iterdir()), "the doctor left a file behind"
    os.chdir(before)


def _named(checks, name):
    return next(check for check in checks if check.name == name)


def test_every_area_is_covered_and_plain_json(checks):
    assert {check.area for check in checks} == {"installed", "virtual", "host", "now", "files"}
    assert len({check.name for check in checks}) == len(checks)
    again = json.loads(json.dumps([check.model_dump(mode="json") for check in checks]))
    assert [Check.model_validate(item) for item in again] == checks
    assert all(check.detail and "\n" not in check.detail + check.fix for check in checks)


def test_the_base_runtime_really_ran(checks):
    check = _named(checks, "runtime onnxruntime")
    assert check.status == "ok" and "ran a one-node model" in check.detail


@pytest.mark.parametrize(("runtime", "module"), [("openvino", "openvino"), ("tflite", "ai_edge_litert")])
def test_other_runtimes_ran_or_say_how_to_get_them(checks, runtime, module):
    check = _named(checks, f"runtime {runtime}")
    if importlib.util.find_spec(module):
        assert check.status == "ok" and "ran a one-node model" in check.detail
    else:
        assert (check.status, check.fix) == ("missing", f"pip install 'inas-deploy[{runtime}]'")


def test_no_package_that_the_kit_uses_is_called_unused():
    floors = ("targets", "search", "training", "inas_deploy")
    sources = [path for floor in floors for path in (ROOT / floor).rglob("*.py")]
    wanted = {extra for path in sources for extra in re.findall(r'require\("[\w.]+", "([\w-]+)"\)', path.read_text())}
    assert {"ssh", "adb", "lab"} <= wanted
    unused = {package.extra for package in doctor_software._PACKAGES if not package.used}
    assert not wanted & unused
    assert wanted - {"openvino", "tflite"} <= {package.extra for package in doctor_software._PACKAGES}


def test_virtual_devices_that_cannot_be_started_say_what_is_missing(monkeypatch):
    monkeypatch.setattr(doctor_virtual, "_PLACES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    board, phone = doctor_virtual.virtual_checks()
    assert (board.status, phone.status) == ("missing", "missing")
    assert "no sshd" in board.detail and "openssh-server" in board.fix


def test_an_absent_package_says_how_to_get_it():
    package = doctor_software._Package("torch", "no-such-distribution-here", "import nothing")
    check = doctor_software._package(package)
    assert (check.status, check.fix) == ("missing", "pip install 'inas-deploy[torch]'")


def test_a_package_that_does_not_import_is_not_called_fine():
    package = doctor_software._Package("torch", "numpy", "import numpy.no_such_module")
    check = doctor_software._package(package)
    assert check.status == "warn" and "No module named 'numpy.no_such_module'" in check.detail


def test_a_package_that_hangs_is_stopped(monkeypatch):
    monkeypatch.setattr(doctor_software, "IMPORT_TIMEOUT_S", 0.5)
    check = doctor_software._package(doctor_software._Package("torch", "numpy", "import time; time.sleep(60)"))
    assert check.status == "warn" and "deadline of 0.5 s" in check.detail


def test_a_runtime_that_refuses_the_model_is_not_called_fine(monkeypatch, tmp_path):
    real = doctor_software.probe_artifact
    broken = tmp_path / "x.onnx"
    broken.write_bytes(b"no model")
    monkeypatch.setattr(
        doctor_software,
        "probe_artifact",
        lambda name, folder: real(name, folder).model_copy(update={"path": str(broken)}),
    )
    check = doctor_software._runtime("onnxruntime", "", ("onnxruntime",))
    assert check.status == "warn" and check.fix and "one-node model" in check.detail


def test_load_is_seen():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        check = next(c for c in doctor_host.now_checks(0.5) if c.name == "other load")
    finally:
        busy.kill()
        busy.wait()
    assert check.status == "warn" and "Stop other programs" in check.fix


def test_a_bad_inventory_is_shown_with_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.toml").write_text("[devices.a]\nthreds = 1\n")
    found = _file_checks()
    assert found["inventory"].status == "warn"
    assert found["inventory"].detail == "devices.toml:2: devices.a.threds: unknown key"
    assert found["inventory"].fix == "Did you mean 'threads'?"


def test_a_store_that_cannot_be_used_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _file_checks("no/such/folder.sqlite")["result store"].status == "warn"
    (tmp_path / "inas_results.sqlite").write_bytes(b"this is not a database, whatever its name says" * 20)
    check = _file_checks()["result store"]
    assert check.status == "warn" and "inas_results.sqlite" in check.detail


def _file_checks(store="inas_results.sqlite"):
    from inas_deploy import doctor

    return {check.name: check for check in doctor._file_checks(None, store)}


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_say_the_status_in_words(checks, width):
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    render([*checks, Check(area="host", name="x", status="warn", detail="[red]raw[/red]", fix="do [b]")], console)
    text = console.export_text()
    assert "[red]raw[/red]" in text and "-> do [b]" in text
    assert all(check.name in text for check in checks)
    assert max(map(len, text.splitlines())) <= width
    assert f"{len(checks) + 1} checks: " in text


def test_the_probe_is_one_relu():
    file = inspect_tflite(PROBE)
    assert [op.op_type for op in file.ops] == ["RELU"]
    assert PROBE.stat().st_size < 1000


def test_the_probe_is_made_like_this():
    flatbuffers = pytest.importorskip("flatbuffers", reason="flatbuffers is not installed")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed")
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    graph = schema.SubGraphT()
    graph.name, graph.inputs, graph.outputs, graph.tensors = "main", [0], [1], []
    for name in ("x", "y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [1, 2], schema.TensorType.FLOAT32, 0
        graph.tensors.append(tensor)
    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, [0], [1]
    graph.operators = [op]
    model = schema.ModelT()
    model.version, model.description, model.operatorCodes = 3, "probe", [code]
    model.buffers, model.subgraphs = [schema.BufferT()], [graph]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    assert bytes(builder.Output()) == PROBE.read_bytes()
