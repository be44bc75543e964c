import collections
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from inas_deploy.models import shipped_model
from targets.errors import UsageError

torch = pytest.importorskip("torch", reason="torch is not installed")

from search.spaces.csnet.arch import CSNetArch  # noqa: E402
from search.spaces.export import export_arch, main  # noqa: E402


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    return onnx.load(export_arch(CSNetArch.fixed(1), tmp_path_factory.mktemp("export") / "csnet-x1.onnx", seed=0))


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
        export_arch(CSNetArch.fixed(1), tmp_path / "x.onnx", input_size=(225, 224))
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_the_file_and_refuses_in_one_line(tmp_path, capsys):
    out = tmp_path / "x.onnx"
    assert main(["--model", "csnet-x1", "--size", "32", "48", "--opset", "13", "--out", str(out)]) == 0
    model = onnx.load(out)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 32, 48]
    assert (model.graph.output[0].name, model.opset_import[0].version) == ("saliency", 13)
    assert "untrained weights" in capsys.readouterr().out
    for arguments, said in (
        (["--out", str(tmp_path / "x.pb")], "format"),
        (["--opset", "10", "--out", str(out)], "opset 10"),
        (["--model", "nonsense", "--out", str(out)], "nonsense"),
    ):
        assert main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and said in lines[0]
