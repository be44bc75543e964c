import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from benchmarks.rivals import RIVALS, build_rival, check_size, export_rival, find_rival  # noqa: E402
from benchmarks.rivals.layers import PaddedMaxPool  # noqa: E402
from search.reparameterize import reparameterize  # noqa: E402
from targets.errors import UsageError  # noqa: E402

SIZES = (224, 320, 352)
# Parameters, and MACs (convolutions only) at SIZES, of the networks as released.
COUNTS = {
    "u2net": (44_009_869, (28_713_140_736, 58_598_246_400, 70_903_878_144)),
    "u2net-small": (1_131_181, (9_680_483_904, 19_756_089_600, 23_904_868_416)),
    "csf-res2net50": (36_528_489, (7_775_875_072, 15_869_132_800, 19_201_650_688)),
    "csf-resnet50": (36_367_169, (7_370_252_288, 15_041_331_200, 18_200_010_752)),
}
U2NET_STAGES = {
    "u2net": (
        (206_016, 305_856, 1_108_992, 3_986_688, 10_034_688, 10_034_688),
        (139_200, 323_904, 1_181_952, 4_280_064, 12_393_984),
    ),
    "u2net-small": ((67_200, 95_328, 88_320, 81_312, 81_312, 81_312), (139_200, 132_192, 125_184, 118_176, 118_176)),
}


def params(module):
    return sum(parameter.numel() for parameter in module.parameters())


def macs(network, height, width):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, height, width))
    return counter.get_total_flops() // 2


def on_meta(name):
    with torch.device("meta"):
        return build_rival(name).eval()


def with_statistics(name, dtype):
    """A network whose batch norms change something and whose every bias and slope is its own."""
    torch.manual_seed(0)
    network = build_rival(name).to(dtype).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


@pytest.mark.parametrize("name", RIVALS)
def test_counts_are_the_published_ones_to_the_digit(name):
    network = on_meta(name)
    total, at_sizes = COUNTS[name]
    assert params(network) == total
    assert tuple(macs(network, size, size) for size in SIZES) == at_sizes


@pytest.mark.parametrize("name", U2NET_STAGES)
def test_every_stage_of_u2net_has_its_parameters(name):
    network = on_meta(name)
    encoder, decoder = U2NET_STAGES[name]
    assert tuple(map(params, network.encoder)) == encoder
    assert tuple(map(params, network.decoder)) == decoder


def test_every_part_of_csf_has_its_parameters():
    network = on_meta("csf-res2net50")
    assert {name: params(part) for name, part in network.named_children() if name != "sigmoid"} == {
        "backbone": 23_669_352,
        "fuse": 5_410_944,
        "multiscale": 5_460_096,
        "join": 1_986_688,
        "head": 1_409,
    }
    assert [params(block) for block in network.multiscale] == [147_840, 590_592, 2_360_832, 2_360_832]
    assert params(on_meta("csf-resnet50").backbone) == 23_508_032


def test_macs_at_the_papers_larger_input():
    assert round(macs(on_meta("csf-res2net50"), 300, 400) / 1e9, 3) == 19.007
    assert round(macs(on_meta("csf-resnet50"), 300, 400) / 1e9, 3) == 18.037


@pytest.mark.parametrize("name", sorted(set(RIVALS) - {"u2net"}))  # the small one is the same code
def test_deployed_form_gives_the_same_map_without_batch_norm(name):
    network = with_statistics(name, torch.float64)
    deployed = reparameterize(network)
    image = torch.randn(1, 3, 47, 64, dtype=torch.float64)  # a side that no pool divides
    with torch.no_grad():
        expected, found = network(image), deployed(image)
    assert found.shape == (1, 1, 47, 64)
    assert 0 <= float(found.min()) < float(found.max()) <= 1
    assert float((found - expected).abs().max()) <= 1e-12
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in deployed.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("size", [8, 9])
def test_the_max_pool_is_the_padded_one_after_a_relu(size):
    x = torch.randn(1, 4, size, size + 3).relu()
    assert torch.equal(PaddedMaxPool()(x), torch.nn.MaxPool2d(3, 2, 1)(x))


def test_exported_file_has_no_batch_norm_and_the_rivals_modules(tmp_path):
    import onnx

    path = export_rival("u2net-small", tmp_path / "x.onnx", input_size=(32, 32), format="onnx")
    model = onnx.load(path)
    assert {node.op_type for node in model.graph.node} >= {"Conv", "Relu", "MaxPool", "Concat", "Resize", "Sigmoid"}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "saliency"]
    assert b"encoder.0.entry" in path.read_bytes()


def test_unknown_names_and_sizes_are_one_line():
    for call in (find_rival, build_rival, lambda name: check_size(name, (224, 224))):
        with pytest.raises(UsageError, match=r"there is no rival 'u2net-smal'\. Did you mean rival:u2net-small"):
            call("u2net-smal")
    check_size("u2net", (47, 64))
    with pytest.raises(UsageError, match="cannot take an input of 0x64"):
        check_size("u2net", (0, 64))


def test_the_list_of_rivals_needs_no_torch():
    code = "import sys, benchmarks.rivals; print('torch' in sys.modules, len(benchmarks.rivals.RIVALS))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", str(len(RIVALS))], done.stderr
