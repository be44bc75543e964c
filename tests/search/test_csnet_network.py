import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from search.spaces.csnet import weights  # noqa: E402
from search.spaces.csnet.arch import CSNetArch  # noqa: E402
from search.spaces.csnet.network import build_csnet, fold_csnet  # noqa: E402
from search.spaces.csnet.weights import load_checkpoint  # noqa: E402
from search.spaces.export import seeded_subnet  # noqa: E402
from targets.errors import InvalidModel, UsageError  # noqa: E402
from tests.search.csnet_lists import X1_L, X2_L  # noqa: E402

DATA = Path(os.environ.get("INAS_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
WEIGHTS = DATA / "weights" / "csnet"
ODD = CSNetArch(
    stem=(0, 5), stage1=((4, 0), (3, 3), (6,)), stage2=((4, 4), (0, 3), (5,), (6,)),
    stage3=((4, 0), (4, 4), (4, 4), (4, 4), (4, 4), (7,)), stage4=((4,), (4, 4), (4, 4), (8,)),
    csf_mid=(5, 0, 6), dilated=((0,) * 5, (0,) * 5, (1, 0, 2, 0, 1)), csf_out=9,
)  # fmt: skip


@pytest.mark.parametrize("arch", [X2_L, CSNetArch.fixed(0.5, (1, 0)), ODD], ids=["x2-L", "one scale", "holes"])
def test_folded_equals_training_form(arch):
    network = seeded_subnet(arch, (128, 128), seed=3)
    folded = fold_csnet(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network(x)
        assert (folded(x) - logits.sigmoid()).abs().max() < 1e-5
        folded.sigmoid = torch.nn.Identity()  # a saturated sigmoid would hide differences
        assert (folded(x) - logits).abs().max() < 1e-5 * max(1.0, float(logits.abs().max()))
        exact, exact_folded = network.double(), fold_csnet(network.double())
        assert (exact_folded(x.double()) - exact(x.double()).sigmoid()).abs().max() < 1e-12
    assert logits.std() > 1e-3  # an equality of constants would prove nothing


def test_folded_x1_has_154_convolutions():
    folded = fold_csnet(build_csnet(CSNetArch.fixed(1), seed=0))
    assert sum(isinstance(m, torch.nn.Conv2d) for m in folded.modules()) == 154


def test_seed_repeats_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (build_csnet(ODD, seed=1).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(build_csnet(ODD, seed=2).state_dict()["head.weight"], first["head.weight"])


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"the authors' weights are not in {WEIGHTS}")
@pytest.mark.parametrize(("file", "arch"), [("csnet-L-x1", X1_L), ("csnet-L-x2", X2_L)])
def test_authors_checkpoints_give_their_channel_lists(file, arch):
    assert load_checkpoint(WEIGHTS / f"{file}.pth.tar").arch == arch


@pytest.fixture
def state():
    if not WEIGHTS.is_dir():
        pytest.skip(f"the authors' weights are not in {WEIGHTS}")
    return torch.load(WEIGHTS / "csnet-L-x1.pth.tar", weights_only=True, map_location="cpu")["state_dict"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("stage2.1.conv3x3_1.bns.0.running_var"), "missing stage2.1.dw1.norm0.running_var"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda s: s.update({"cls_layer.bias": torch.zeros(2)}), "head.bias has shape (2,), not (1,)"),
        (lambda s: s.update({"stage1.0.conv1x1.conv.weight": torch.zeros(3, 3, 1, 1)}), "not (19, 18, k, k)"),
        (lambda s: s.update({"cls_layer.bias": torch.tensor([float("nan")])}), "head.bias is not finite"),
        (lambda s: s.pop("cls_layer.weight"), "cls_layer.weight"),
        (lambda s: s.update({"cls_layer.weight": "text"}), "is not a named tensor"),
    ],
)
def test_a_wrong_tensor_is_named(state, change, says, tmp_path):
    change(state)
    torch.save({"state_dict": state}, tmp_path / "bad.pth.tar")
    with pytest.raises(InvalidModel) as caught:
        load_checkpoint(tmp_path / "bad.pth.tar")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


SPARSE = torch.eye(1).to_sparse()
NO_STORAGE = torch.zeros(1).expand(2**20, 2**20)


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("extra", SPARSE, "unexpected extra"),
        ("extra", NO_STORAGE, "unexpected extra"),
        ("extra\nx", torch.zeros(1), "unexpected extra\\nx"),
        ("cls_layer.bias", NO_STORAGE, "head.bias has shape (1048576, 1048576), not (1,)"),
        ("cls_layer.bias", torch.zeros(1).to_sparse(), "head.bias is sparse (sparse_coo), not dense"),
        ("cls_layer.bias", torch.zeros(1, device="meta"), "head.bias holds no values (device meta)"),
        ("cls_layer.bias", torch.zeros(1, dtype=torch.complex64), "head.bias has elements of type complex64"),
        ("cls_layer.bias", torch.zeros(1, dtype=torch.int32), "head.bias has elements of type int32, not one of float"),
        ("cls_layer.bias", torch.quantize_per_tensor(torch.zeros(1), 1, 0, torch.qint8), "elements of type qint8"),
        ("cls_layer.bias", torch.full((1,), 1e300, dtype=torch.float64), "head.bias is not finite"),
        ("stage1.0.conv1x1.conv.weight", torch.zeros(19, 18, 1, 1).to_sparse(), "conv.weight is sparse"),
        ("stage1.0.conv1x1.conv.weight", torch.zeros(1).expand(19, 18, 1, 1), "needs 1368 bytes for its shape and"),
        ("stage1.0.conv1x1.bns.0.running_mean", torch.zeros(1).expand(9), "norm0.running_mean needs 36 bytes"),
        ("cls_layer.bias", torch.nested.nested_tensor([torch.zeros(1)]), "is not a named tensor"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_tensor_that_is_not_plain_is_refused_in_one_line(name, tensor, says, state, tmp_path):
    state[name] = tensor
    torch.save(state, tmp_path / "bad.pth.tar")
    with pytest.raises(InvalidModel) as caught:
        load_checkpoint(tmp_path / "bad.pth.tar")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_more_is_refused(state, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "MAX_BYTES", 2_000_000)
    torch.save({"state_dict": state, "more": torch.zeros(1_000_000)}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain, zipfile.ZipFile(tmp_path / "bad", "w", 8) as bad:
        for entry in plain.namelist():
            bad.writestr(entry, plain.read(entry))
    assert (tmp_path / "bad").stat().st_size < 2_000_000
    with pytest.raises(InvalidModel, match=r"it unpacks to \d+ bytes, more than 2000000"):
        load_checkpoint(tmp_path / "bad")


def test_huge_claimed_widths_are_refused_without_memory(state, tmp_path):
    state["stage1.0.conv1x1.bns.0.weight"] = torch.zeros(100_000)
    torch.save(state, tmp_path / "bad.pth.tar")
    with pytest.raises(UsageError, match=r"stage1\[0\]\[0\]"):
        load_checkpoint(tmp_path / "bad.pth.tar")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_untrusted_files_execute_nothing(tmp_path):
    victim = tmp_path / "touched"
    (tmp_path / "plain.pth.tar").write_bytes(pickle.dumps({"state_dict": Bomb(victim)}))
    torch.save({"state_dict": Bomb(victim)}, tmp_path / "zip.pth.tar")
    (tmp_path / "empty.pth.tar").write_bytes(b"")
    (tmp_path / "noise.pth.tar").write_bytes(np.random.default_rng(0).bytes(4096))
    torch.save([1, 2], tmp_path / "list.pth.tar")
    for path in sorted(tmp_path.glob("*.tar")):
        with pytest.raises(InvalidModel) as caught:
            load_checkpoint(path)
        assert path.name in str(caught.value)
    with pytest.raises(InvalidModel, match="no such file"):
        load_checkpoint(tmp_path / "absent.pth.tar")
    assert not victim.exists()
