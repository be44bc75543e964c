import importlib.util
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from inas_deploy import models
from inas_deploy.models import artifact_for, resolve_model, shipped_model
from search.spaces.csnet.arch import CSNetArch
from targets.errors import KitError, UsageError


def write_onnx(path, shape):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_shipped_network_needs_base_dependencies_only():
    code = (
        "import sys\n"
        "for name in ('torch', 'onnxscript', 'litert_torch', 'openvino', 'ai_edge_litert'): sys.modules[name] = None\n"
        "from inas_deploy.models import resolve_model, artifact_for\n"
        "source = resolve_model('csnet-x1')\n"
        "artifact = artifact_for(source, ('onnx',))\n"
        "print(source.note, artifact.inputs[0].shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "untrained weights: for latency only (1, 3, 224, 224)" in done.stdout


def test_other_networks_without_torch_name_the_extra(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from inas_deploy.models import resolve_model\n"
        "from targets.errors import MissingExtra\n"
        "try: resolve_model('csnet-x2', cache_dir=Path(sys.argv[1]))\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert "inas-deploy[torch]" in done.stdout, done.stderr


def test_shipped_network():
    source = resolve_model("csnet-x1")
    assert source.path == shipped_model()
    assert source.input_size == (224, 224)
    assert CSNetArch.from_json(source.arch_json) == CSNetArch.fixed(1)
    artifact = artifact_for(source, ("onnx",))
    assert artifact.source_sha256 == CSNetArch.fixed(1).sha256()
    assert artifact.format == "onnx"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_another_network_is_exported_once(tmp_path, monkeypatch):
    shapes = {"image": (1, 3, 32, 48)}
    first = resolve_model("csnet-x0.5-s1-0", shapes=shapes, cache_dir=tmp_path)
    stamp = first.path.stat().st_mtime_ns
    assert artifact_for(first, ("onnx",)).inputs[0].shape == (1, 3, 32, 48)
    again = resolve_model("csnet-x0.5-s1-0", shapes=shapes, cache_dir=tmp_path)
    assert again.path == first.path
    assert again.path.stat().st_mtime_ns == stamp
    first.path.write_bytes(b"damaged")
    repaired = resolve_model("csnet-x0.5-s1-0", shapes=shapes, cache_dir=tmp_path)
    assert artifact_for(repaired, ("onnx",)).inputs[0].shape == (1, 3, 32, 48)


def test_onnx_file_static_and_open(tmp_path):
    static = resolve_model(str(write_onnx(tmp_path / "a.onnx", [1, 3])), cache_dir=tmp_path / "cache")
    assert static.path == tmp_path / "a.onnx"
    assert not (tmp_path / "cache").exists()
    dynamic = write_onnx(tmp_path / "b.onnx", ["n", 3])
    with pytest.raises(KitError):
        resolve_model(str(dynamic), cache_dir=tmp_path / "cache")
    fixed = resolve_model(str(dynamic), shapes={"x": (2, 3)}, cache_dir=tmp_path / "cache")
    assert artifact_for(fixed, ("onnx",)).inputs[0].shape == (2, 3)
    assert fixed.path.parent == tmp_path / "cache"


def test_foreign_onnx_cannot_become_tflite(tmp_path):
    source = resolve_model(str(write_onnx(tmp_path / "a.onnx", [1, 3])))
    with pytest.raises(UsageError, match=r"Pass a \.tflite file"):
        artifact_for(source, ("tflite",))


@pytest.mark.parametrize(
    ("text", "shapes", "says"),
    [
        ("absent.onnx", None, "there is no file"),
        ("absent.tflite", None, "there is no file"),
        ("some/where", None, "cannot tell what"),
        ("csnet-y1", None, "csnet-x1"),
        ("csnet-x1", {"image": (1, 3, 225, 224)}, "multiples of 16"),
        ("csnet-x1", {"image": (2, 3, 224, 224)}, "image:1x3xHxW"),
        ("csnet-x1", {"other": (1, 3, 224, 224)}, "image:1x3xHxW"),
    ],
)
def test_bad_requests_are_one_line(text, shapes, says):
    with pytest.raises(UsageError) as caught:
        resolve_model(text, shapes=shapes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cache_folder_follows_the_xdg_rule(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.cache_folder() == tmp_path / "inas_deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert models.cache_folder().is_absolute()
    assert models.cache_folder().parts[-2:] == (".cache", "inas_deploy")
