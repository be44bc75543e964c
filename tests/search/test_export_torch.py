import collections
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from targets.errors import InvalidModel, UsageError
from targets.jobs import Job
from targets.profiles.join import ModuleIndex
from targets.records import RunSettings
from targets.tflite_files import inspect_tflite

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from search import export_torch  # noqa: E402
from search.lean_prelu import lean_prelu  # noqa: E402
from search.onnx_exporters import NEWEST_OPSET, OLDEST_OPSET  # noqa: E402
from search.reparameterize import reparameterize  # noqa: E402
from search.seeded import seed_weights  # noqa: E402
from search.spaces import export  # noqa: E402
from search.spaces.registry import arch_from_json, find_arch, find_space, space_of  # noqa: E402

PLACES = [str(path).encode() for path in (Path(__file__).resolve().parents[2], Path.home(), tempfile.gettempdir())]
TRACES = (*PLACES, b".py", b"site-packages", b"stack_trace", b"fx_node")
MODULES = {"stem.0", "stem.1", "blocks.0.0", "blocks.0.1", "blocks.0.2", "blocks.1", "blocks.1.reduce",
           "blocks.1.expand", "blocks.2", "blocks.2.norm", "blocks.2.qkv", "blocks.2.out", "pool", "average",
           "head"}  # fmt: skip


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        gate = self.expand(functional.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * functional.hardsigmoid(gate)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24, bias=False), nn.Linear(8, 8)

    def forward(self, x):
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        parts = self.qkv(self.norm(tokens)).reshape(n, h * w, 3, 2, 4).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        mixed = (query @ key.transpose(-1, -2) / 2).softmax(-1) @ value
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(n, h * w, c))
        return tokens.transpose(1, 2).reshape(n, c, h, w)


class Everything(nn.Module):
    """Each operation the spaces use, at least once."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.PReLU(8))
        depthwise = nn.Sequential(nn.Conv2d(8, 8, 5, 1, 2, groups=8), nn.Hardsigmoid(), nn.Conv2d(8, 8, 1))
        self.blocks = nn.ModuleList([depthwise, SqueezeExcite(), Attention()])
        self.pool, self.average = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, image):
        x = self.stem(image)
        for block in self.blocks:
            x = block(x)
        a = functional.interpolate(self.pool(x), scale_factor=2, mode="bilinear", align_corners=False)
        b = functional.interpolate(self.average(x), size=x.shape[2:], mode="bilinear", align_corners=True)
        y = torch.sigmoid(self.head(torch.cat([a, b], 1)))
        return functional.interpolate(y, size=image.shape[2:], mode="bilinear", align_corners=True)


def everything():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Everything().eval()


@pytest.mark.parametrize("opset", range(OLDEST_OPSET, NEWEST_OPSET + 1))
def test_every_opset_gives_the_numbers_the_modules_and_no_trace(tmp_path, opset):
    network = everything()
    path = export_torch.export_onnx(network, tmp_path / "x.onnx", (1, 3, 32, 48), output_name="map", opset=opset)
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert not [trace for trace in TRACES if trace in content]
    kinds = collections.Counter(node.op_type for node in model.graph.node)
    assert not {"Shape", "Identity", "Constant", "BatchNormalization", "If"} & set(kinds)
    assert (kinds["Conv"], kinds["Resize"], kinds["PRelu"], kinds["HardSigmoid"]) == (6, 3, 1, 2)
    index = ModuleIndex.from_onnx(path)
    assert {node.module for node in index.producers.values()} == {"", *MODULES}
    assert index.alone == 0 and len(index.nodes) == len(model.graph.node)
    image = np.random.default_rng(5).standard_normal((1, 3, 32, 48), dtype=np.float32)
    (found,) = onnxruntime.InferenceSession(path).run(["map"], {"image": image})
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    assert found.shape == (1, 1, 32, 48)
    assert np.abs(found - expected).max() < 1e-5 < found.std()


@pytest.mark.parametrize("opset", [13, 20])
def test_equal_networks_give_equal_bytes(tmp_path, opset):
    one, two = (
        export_torch.export_onnx(everything(), tmp_path / name, (1, 3, 32, 32), opset=opset) for name in ("a", "b")
    )
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("opset", [10, 23, -1])
def test_other_opsets_are_refused_in_one_line(tmp_path, opset):
    with pytest.raises(UsageError, match=rf"opset {opset} cannot be exported.*11 to 22") as caught:
        export_torch.export_onnx(everything(), tmp_path / "x.onnx", (1, 3, 32, 32), opset=opset)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_operation_without_an_equivalent_is_decomposed(tmp_path):
    class InPlace(nn.Module):
        def forward(self, x):
            y = x * 2
            y.add_(1).relu_()
            return torch.addcdiv(y, x, y + 1)

    path = export_torch.export_onnx(InPlace().eval(), tmp_path / "x.onnx", (1, 3, 8, 8))
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 8), dtype=np.float32)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"image": image})
    y = np.maximum(image * 2 + 1, 0)
    np.testing.assert_allclose(found, y + image / (y + 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["inas-tiny:random-2", "rtseg-tiny:random-2"])
@pytest.mark.parametrize("opset", [13, 20])
def test_a_deployed_network_has_no_batch_norm_and_its_blocks_are_its_modules(tmp_path, name, opset):
    arch = find_arch(name)
    network = space_of(arch).build_subnet(arch, seed=0)
    seed_weights(network, 64, 0)
    path = tmp_path / "x.onnx"
    export_torch.export_onnx(reparameterize(network), path, (1, 3, 64, 64), opset=opset)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
    modules = {node.module for node in ModuleIndex.from_onnx(path).producers.values()}
    for block in arch.blocks((64, 64)):
        assert any(f"{module}.".startswith(f"{block.name}.") for module in modules), block.name


def test_a_profile_of_an_older_file_groups_by_module(tmp_path):
    from inas_deploy.models import artifact_for, resolve_model
    from targets.inventory import load_inventory
    from targets.session import run_profile
    from targets.transports.registry import open_transport

    path = export_torch.export_onnx(everything(), tmp_path / "x.onnx", (1, 3, 64, 64), opset=13)
    artifact = artifact_for(resolve_model(str(path)), ("onnx",))
    job = Job(task="profile", artifact=artifact, settings=RunSettings(runtime="onnxruntime"), seconds=0.2)
    with open_transport(load_inventory(None).select("local")[0]) as transport:
        profile = run_profile(transport, job)
    assert {op.module for op in profile.ops if op.module} >= {"stem.0", "blocks.1.reduce", "blocks.2.qkv", "head"}


@pytest.mark.parametrize("name", ["csnet:random-3", "inas-tiny:random-3", "rtseg-tiny:random-3"])
def test_seeded_weights_are_repeatable_alive_and_calm(name):
    arch = find_arch(name)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = []
    for seed in (0, 0, 1):
        network = find_space(str(arch.space)).build_subnet(arch, seed=seed)
        seed_weights(network, 64, seed)
        assert not network.training
        deployed = reparameterize(network)
        for values in deployed.parameters():
            sizes = values[values != 0].abs()
            assert sizes.numel() == 0 or (sizes.min() > torch.finfo(torch.float32).tiny and sizes.max() < 1e3)
        with torch.no_grad():
            outputs.append(deployed(image))
            nudged = deployed(image + 1e-5)
        assert outputs[-1].std() > 1e-4
        assert (nudged - outputs[-1]).abs().max() < 1e-2 * max(1, outputs[-1].abs().max())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def with_attention(stage, patch):
    content = json.loads(find_arch("rtseg-lir-8").to_json())
    block = {"path": "mhsa", "heads": 2, "key": 8, "value": 8, "hidden": 8, "patch": patch}
    content["stages"][stage]["blocks"] = [block]
    return arch_from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("stage", "patch", "size", "side"),
    [(0, 5, (160, 160), 160), (2, 8, (256, 256), 256), (0, 3, (192, 288), 96), (0, 1, (256, 320), 128)],
)
def test_statistics_are_taken_at_a_size_that_the_network_takes(stage, patch, size, side, monkeypatch):
    sides = []
    monkeypatch.setattr(export, "seed_weights", lambda network, *given: sides.append(given[0]))
    export.seeded_subnet(with_attention(stage, patch), size)
    monkeypatch.undo()
    assert sides == [side]
    if side > 128:
        network = export.seeded_subnet(with_attention(stage, patch), size)
        with torch.no_grad():
            assert network(torch.zeros(1, 3, *size)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seed", "-1"], "the seed -1 is out of range. Give one from 0 to 4294967295."),
        (["--seed", str(2**32)], "is out of range"),
        (["--out", "absent/x.onnx"], "cannot write absent/x.onnx: its folder does not exist"),
        (["--out", "folder.onnx"], "folder.onnx is a folder"),
        (["--out", "x.pb"], "cannot tell the format"),
        (["--size", "320000", "320000"], "is too large"),
    ],
)
def test_the_command_refuses_in_one_line_and_builds_nothing(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    monkeypatch.setattr(export, "seed_weights", lambda *_: pytest.fail("a network was built"))
    assert export.main(["--model", "csnet-x0.5-s1-0", "--out", "x.onnx", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


def test_a_seed_out_of_range_is_refused_by_both_exports(tmp_path):
    arch = find_arch("csnet-x0.5-s1-0")
    network = space_of(arch).build_subnet(arch, seed=0)
    for call in (
        lambda: export.export_arch(arch, tmp_path / "x.onnx", input_size=(32, 32), seed=-1),
        lambda: export.export_network(network, arch, tmp_path / "x.onnx", input_size=(32, 32), seed=-1),
    ):
        with pytest.raises(UsageError, match="seed -1"):
            call()


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.PReLU(4)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.out(self.act(self.conv(x)))


def test_a_wrong_export_leaves_no_file(tmp_path, monkeypatch):
    class Drifting(Small):
        def forward(self, x):
            if torch.compiler.is_exporting():
                return super().forward(x)
            return super().forward(x) + 1e-3

    with pytest.raises(InvalidModel, match=r"differs from torch by 0\.001"):
        export_torch.export_onnx(Drifting().eval(), tmp_path / "x.onnx", (1, 3, 16, 16))
    assert list(tmp_path.iterdir()) == []


def test_tflite_is_channels_last_keeps_names_and_prelu_is_two_operations(tmp_path):
    pytest.importorskip("litert_torch", reason="litert-torch is not installed")
    path = export_torch.export_tflite(Small().eval(), tmp_path / "small.tflite", (1, 3, 16, 24))
    file = inspect_tflite(path)
    assert file.inputs[0].shape == (1, 16, 24, 3)
    assert file.outputs[0].shape == (1, 16, 24, 2)
    assert [op.op_type for op in file.ops] == ["CONV_2D", "MUL", "MAXIMUM", "CONV_2D"]
    names = [file.tensors[op.outputs[0]].name for op in file.ops]
    assert "_conv;" in names[0]
    assert "_act;" in names[1]


@pytest.mark.parametrize(("slopes", "lean"), [((-2.0, 0.0, 0.25, 1.0), True), ((0.1, 0.2, 0.3, 1.01), False)])
def test_lean_prelu_gives_the_same_values(slopes, lean):
    layer = nn.Sequential(nn.PReLU(4))
    layer[0].weight.data = torch.tensor(slopes)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        changed = lean_prelu(layer)
        assert torch.equal(changed(x), layer(x))
    assert (not isinstance(changed[0], nn.PReLU)) is lean
    assert isinstance(layer[0], nn.PReLU)  # the original is left alone


class Padded(nn.Module):
    """Explicit padding, from which the older exporter computes sizes as the file runs."""

    def forward(self, image):
        pooled = functional.max_pool2d(functional.pad(image.relu(), (1, 1, 1, 1)), 3, 2)
        return functional.interpolate(pooled, scale_factor=2, mode="bilinear")


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("network", [Padded(), everything()], ids=["padded", "everything"])
def test_all_shapes_are_static(tmp_path, opset, network):
    model = onnx.load(export_torch.export_onnx(network, tmp_path / "x.onnx", (1, 3, 32, 48), opset=opset))
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        assert all(dimension.dim_value > 0 for dimension in value.type.tensor_type.shape.dim), value.name
    assert [dimension.dim_value for dimension in graph.output[0].type.tensor_type.shape.dim][2:] == [32, 48]
