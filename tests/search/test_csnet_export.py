import collections
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from inas_deploy.models import shipped_model
from targets.errors import InvalidModel, UsageError
from targets.tflite_files import inspect_tflite

torch = pytest.importorskip("torch", reason="torch is not installed")

from search import export_torch  # noqa: E402
from search.spaces.csnet.arch import CSNetArch  # noqa: E402
from search.spaces.csnet.export import export_onnx  # noqa: E402


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    return onnx.load(export_onnx(CSNetArch.fixed(1), tmp_path_factory.mktemp("export") / "csnet-x1.onnx", seed=0))


def test_shipped_file_is_what_the_command_makes(regenerated):
    shipped = onnx.load(shipped_model())
    assert shipped_model().stat().st_size < 1_000_000
    assert [n.op_type for n in shipped.graph.node] == [n.op_type for n in regenerated.graph.node]
    assert [list(n.input) for n in shipped.graph.node] == [list(n.input) for n in regenerated.graph.node]
    for ours, theirs in zip(shipped.graph.initializer, regenerated.graph.initializer, strict=True):
        assert ours.name == theirs.name
        a, b = onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(theirs)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # statistics are summed in another order elsewhere


def test_graph_is_deployable(regenerated):
    kinds = collections.Counter(node.op_type for node in regenerated.graph.node)
    assert kinds["Conv"] == 154
    assert kinds["PRelu"] == 106
    assert set(kinds) == {"Conv", "PRelu", "Add", "Resize", "MaxPool", "AveragePool", "Concat", "Sigmoid"}
    assert [i.version for i in regenerated.opset_import if i.domain == ""] == [20]


def test_metadata_names_modules_and_nothing_of_the_machine(regenerated):
    for node in regenerated.graph.node:
        assert [item.key for item in node.metadata_props] == ["pkg.torch.onnx.name_scopes"]
        scopes = json.loads(node.metadata_props[0].value.replace("'", '"'))
        assert len(scopes) >= 3 and scopes[1], node.name
    for content in (regenerated.SerializeToString(), shipped_model().read_bytes()):
        for trace in (b"/home", b"/work", b"/tmp", b".py", b"site-packages", b"stack_trace", b"fx_node"):
            assert trace not in content, trace


def test_weights_are_normal_numbers_and_the_map_is_alive():
    for tensor in onnx.load(shipped_model()).graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tiny = np.abs(values[values != 0])
            assert tiny.size == 0 or tiny.min() > np.finfo(np.float32).tiny
    session = onnxruntime.InferenceSession(shipped_model(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    (found,) = session.run(None, {"image": image})
    assert found.shape == (1, 1, 224, 224)
    assert found.std() > 1e-3
    assert 0.001 < np.median(found) < 0.999


def test_impossible_size_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="multiples of 16"):
        export_onnx(CSNetArch.fixed(1), tmp_path / "x.onnx", input_size=(225, 224))
    assert list(tmp_path.iterdir()) == []


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.act = torch.nn.PReLU(4)
        self.out = torch.nn.Conv2d(4, 2, 1)

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
    layer = torch.nn.Sequential(torch.nn.PReLU(4))
    layer[0].weight.data = torch.tensor(slopes)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        changed = export_torch.lean_prelu(layer)
        assert torch.equal(changed(x), layer(x))
    assert (not isinstance(changed[0], torch.nn.PReLU)) is lean
    assert isinstance(layer[0], torch.nn.PReLU)  # the original is left alone
