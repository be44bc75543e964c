import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inas_deploy
from inas_deploy import model_cache
from inas_deploy.models import artifact_for, resolve_model, shipped_model
from inas_deploy.networks import ArchNetwork, RivalNetwork, find_network
from search.spaces.csnet.arch import CSNetArch
from search.spaces.registry import find_arch
from targets.errors import KitError, UsageError
from targets.onnx_files import inspect_onnx

ROOT = Path(__file__).resolve().parents[2]


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
    assert source.network == ArchNetwork(CSNetArch.fixed(1))
    artifact = artifact_for(source, ("onnx",))
    assert artifact.source_sha256 == CSNetArch.fixed(1).sha256()
    assert artifact.format == "onnx"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_another_network_is_exported_once_and_then_found_without_torch(tmp_path):
    name, shapes = "csnet-x0.5-s1-0", {"image": (1, 3, 32, 48)}
    first = resolve_model(name, shapes=shapes, cache_dir=tmp_path)
    stamp = first.path.stat().st_mtime_ns
    assert artifact_for(first, ("onnx",)).inputs[0].shape == (1, 3, 32, 48)
    code = (
        "import sys; from pathlib import Path\n"
        "from inas_deploy.models import resolve_model\n"
        f"print(resolve_model({name!r}, shapes={shapes!r}, cache_dir=Path(sys.argv[1])).path, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [str(first.path), "False"], done.stderr
    assert first.path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["inas:smallest", "csnet-x1"])
def test_a_device_with_an_older_runtime_gets_an_older_opset(name, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    shapes = {"image": (1, 3, 64, 64)}
    old, new = (resolve_model(name, shapes=shapes, cache_dir=tmp_path, opset=opset) for opset in (13, None))
    assert [inspect_onnx(source.path).opset for source in (old, new)] == [13, 20]
    assert old.path != new.path


def test_a_damaged_export_is_made_again(tmp_path, monkeypatch):
    calls = fake_export(monkeypatch)
    first = resolve_model("csnet-x2", cache_dir=tmp_path)
    first.path.write_bytes(b"damaged")
    repaired = resolve_model("csnet-x2", cache_dir=tmp_path)
    assert (repaired.path, len(calls)) == (first.path, 2)
    assert artifact_for(repaired, ("onnx",)).inputs[0].shape == (1, 3, 224, 224)


def fake_export(monkeypatch):
    """Exporting replaced by a copy of a tiny file; the calls are listed."""
    calls = []

    def export(network, path, size, format, opset):
        calls.append((network.file_stem, size, format))
        write_onnx(path, [1, 3, *size])

    for kind in (ArchNetwork, RivalNetwork):
        monkeypatch.setattr(kind, "export", export)
    return calls


@pytest.mark.parametrize("name", ["inas:smallest", "rtseg-c11:random-3", "BiSeNetV2", "csnet-x2", "rival:u2net-small"])
def test_every_kind_of_name_is_exported_at_the_size_asked_for(name, tmp_path, monkeypatch):
    calls = fake_export(monkeypatch)
    source = resolve_model(name, cache_dir=tmp_path)
    assert source.name == name.lower()
    assert source.note == "untrained weights: for latency only"
    artifact = artifact_for(source, ("onnx",))
    assert artifact.inputs[0].shape == (1, 3, 224, 224)
    assert artifact.source_sha256 == source.network.sha256
    wide = resolve_model(name, shapes={"image": (1, 3, 64, 96)}, cache_dir=tmp_path)
    assert artifact_for(wide, ("onnx",)).inputs[0].shape == (1, 3, 64, 96)
    again = resolve_model(name, cache_dir=tmp_path)
    assert (again.path, len(calls)) == (source.path, 2)
    with pytest.raises(UsageError, match="cannot take an input of 225x0"):
        resolve_model(name, shapes={"image": (1, 3, 225, 0)}, cache_dir=tmp_path)


def test_an_architecture_in_a_json_file_is_a_network(tmp_path, monkeypatch):
    calls = fake_export(monkeypatch)
    file = tmp_path / "mine.json"
    file.write_text(find_arch("inas:random-1").to_json())
    source = resolve_model(str(file), cache_dir=tmp_path / "cache")
    assert source.name == "mine.json"
    assert source.network.arch == find_arch("inas:random-1")
    named = resolve_model("inas:random-1", cache_dir=tmp_path / "cache")
    assert (named.path, len(calls)) == (source.path, 1)
    assert named.path.name.startswith(f"inas-{source.network.sha256[:12]}-224x224-")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "the architecture is no JSON"),
        ("[1]", "names no space"),
        ('{"space": "nowhere"}', "there is no search space 'nowhere'"),
        ('{"space": "inas"}', "schema_version: Field required"),
        (None, "cannot read"),
    ],
)
def test_a_bad_architecture_file_is_one_line_with_its_name(text, says, tmp_path):
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve_model(str(file))
    assert says in str(caught.value)
    assert "mine.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_too_large_for_an_architecture_is_not_read(tmp_path):
    file = tmp_path / "mine.json"
    with file.open("wb") as handle:
        handle.truncate(10**12)  # takes no space; reading it would
    with pytest.raises(UsageError, match="has more than 1,000,000 bytes"):
        find_network(str(file))
    fits = find_arch("inas:smallest").to_json()
    file.write_text(fits + " " * (1_000_000 - len(fits)))
    assert find_network(str(file))[1].arch == find_arch("inas:smallest")


@pytest.mark.parametrize("kind", ["folder", "pipe", "\0"])
def test_what_is_no_file_is_not_read(kind, tmp_path):
    place = tmp_path / "mine.json"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    with pytest.raises(UsageError, match="cannot read"):
        find_network(str(place) if kind != "\0" else "\0.json")


def test_requests_beyond_all_measure_are_refused_before_the_work(tmp_path, monkeypatch):
    calls = fake_export(monkeypatch)
    shapes = {"image": (1, 3, 320_000, 320_000)}
    for name in ("csnet-x1", "inas-tiny:smallest", "rival:u2net-small"):
        with pytest.raises(UsageError, match=r"320000x320000 .* is too large. The most is 67,108,864 pixels"):
            resolve_model(name, shapes=shapes, cache_dir=tmp_path)
    content = json.loads(find_arch("rtseg-lir-32").to_json())
    for stage in content["stages"]:
        stage.update(trunk=8192, blocks=[{"path": "lir", "lead": 8192, "expand": 8192}])
    file = tmp_path / "wide.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"parameters. The most is 500,000,000"):
        resolve_model(str(file), cache_dir=tmp_path)
    assert calls == []


def test_a_changed_recipe_is_exported_anew(tmp_path, monkeypatch):
    calls = fake_export(monkeypatch)
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.setattr(RivalNetwork, "code", (code,))
    first = resolve_model("rival:u2net", cache_dir=tmp_path)
    assert resolve_model("rival:u2net", cache_dir=tmp_path).path == first.path
    (code / "net.py").write_text("changed = True")
    assert resolve_model("rival:u2net", cache_dir=tmp_path).path != first.path
    assert len(calls) == 2


def test_a_rivals_recipe_covers_its_own_files_and_an_architectures_does_not():
    (_, rival), (_, arch) = find_network("rival:u2net"), find_network("inas:smallest")
    assert [folder.name for folder in rival.code] == ["search", "rivals"]
    assert [folder.name for folder in arch.code] == ["search"]
    assert {path.name for path in rival.code[1].rglob("*.py")} >= {"u2net.py", "layers.py"}


def test_rivals_come_with_the_source_checkout_only(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages"
    (installed / "benchmarks").mkdir(parents=True)  # a stranger's package of that name beside the installed kit
    monkeypatch.setattr(inas_deploy, "__file__", str(installed / "inas_deploy" / "__init__.py"))
    with pytest.raises(UsageError, match=r"do not come with the installed kit. Take the source checkout"):
        find_network("rival:u2net")


def test_a_strangers_benchmarks_package_is_never_imported(tmp_path):
    (tmp_path / "benchmarks" / "rivals").mkdir(parents=True)
    for folder in ("benchmarks", "benchmarks/rivals"):
        (tmp_path / folder / "__init__.py").write_text("raise SystemExit('imported')")
    code = (
        "from inas_deploy.models import resolve_model\n"
        "from targets.errors import UsageError\n"
        "try: resolve_model('rival:u2net')\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "benchmarks shadows the kit's own package 'benchmarks'. Start from" in done.stdout, done.stderr


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
        ("inas:smalest", None, "Take inas:smallest"),
        ("ians:smallest", None, "Did you mean"),
        ("rival:", None, "there is no rival"),
        ("rival:u2", None, "Did you mean rival:u2net"),
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
    assert model_cache.cache_folder() == tmp_path / "inas_deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert model_cache.cache_folder().is_absolute()
    assert model_cache.cache_folder().parts[-2:] == (".cache", "inas_deploy")
