import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inas_deploy import models
from inas_deploy.models import artifact_for, resolve_model, shipped_model
from search.spaces.csnet.arch import CSNetArch
from targets.errors import KitError, UsageError


def file_hash(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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


def write_external(folder, value, shape):
    """A model whose weights lie beside it: the graph's bytes do not depend on them."""
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.full(3, value, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return folder / "m.onnx"


def test_the_hash_covers_weights_beside_the_file(tmp_path):
    files = [write_external(tmp_path / name, value, [1, 3]) for name, value in (("a", 1), ("b", 2), ("c", 1))]
    assert file_hash(files[0]) == file_hash(files[1])  # the graphs are equal
    one, other, same = (artifact_for(resolve_model(str(file)), ("onnx",)) for file in files)
    assert one.sha256 != other.sha256
    assert one.sha256 == same.sha256 == one.source_sha256
    assert len(one.sha256) == 64
    plain = write_onnx(tmp_path / "p.onnx", [1, 3])
    assert artifact_for(resolve_model(str(plain)), ("onnx",)).sha256 == file_hash(plain)


def test_a_copy_with_fixed_shapes_names_its_original(tmp_path):
    def fixed(file):
        return artifact_for(resolve_model(str(file), shapes={"x": (2, 3)}, cache_dir=tmp_path / "cache"), ("onnx",))

    plain = write_onnx(tmp_path / "p.onnx", ["n", 3])
    copy = fixed(plain)
    assert copy.source_sha256 == file_hash(plain) != copy.sha256 == file_hash(copy.path)
    assert copy.converter == "onnx shapes fixed"
    one, other = (fixed(write_external(tmp_path / name, value, ["n", 3])) for name, value in (("a", 1), ("b", 2)))
    assert one.source_sha256 != other.source_sha256
    assert one.sha256 != other.sha256


def test_a_folder_with_a_networks_name_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("csnet-x1", "elsewhere"):
        (tmp_path / name).mkdir()
    assert resolve_model("csnet-x1").path == shipped_model()
    with pytest.raises(UsageError, match="cannot tell what elsewhere is"):
        resolve_model("elsewhere")


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
        ("csnet-x1", {"image": (2, 3, 224, 224)}, "image=2x3x224x224. Give image=1x3xHxW."),
        ("csnet-x1", {"other": (1, 3, 224, 224)}, "other=1x3x224x224. Give image=1x3xHxW."),
        ("csnet-x1", {"": (3, 224)}, "the shape 3x224. Give image=1x3xHxW."),
        ("a" * 300, None, "no network named"),
        ("a" * 300 + ".onnx", None, "there is no file"),
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
