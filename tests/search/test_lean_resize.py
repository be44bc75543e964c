import pytest

from targets.errors import InvalidModel
from targets.tflite_files import inspect_tflite

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("litert_torch", reason="litert-torch is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from search import lean_resize  # noqa: E402
from search.export_torch import export_tflite  # noqa: E402

BILINEAR = torch.ops.aten.upsample_bilinear2d.vec


class Resizes(nn.Module):
    """Resizes by whole factors and, last, by a fraction."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return functional.interpolate(x, (20, 40), mode="bilinear", align_corners=False)


def table():
    from litert_torch.fx_infra import decomp

    return {op: how for op, how in decomp.pre_lower_decomp().items() if op.namespace == "aten"}


def test_files_are_the_same_to_the_byte(tmp_path, monkeypatch):
    before = table()
    lean = export_tflite(Resizes().eval(), tmp_path / "lean.tflite", (1, 3, 6, 8))
    assert table() == before
    monkeypatch.setattr(lean_resize, "_KNOWN_VERSIONS", set())
    plain = export_tflite(Resizes().eval(), tmp_path / "plain.tflite", (1, 3, 6, 8))
    assert lean.read_bytes() == plain.read_bytes()
    kinds = [op.op_type for op in inspect_tflite(lean).ops]
    assert kinds.count("RESIZE_BILINEAR") == 2
    assert kinds.count("RESIZE_NEAREST_NEIGHBOR") == 1


def test_a_resize_that_is_not_understood_is_refused(tmp_path, monkeypatch):
    from litert_torch._convert.fx_passes import build_aten_composite_pass

    monkeypatch.delitem(build_aten_composite_pass._composite_builders, BILINEAR)
    with pytest.raises(InvalidModel, match="differs from torch"):
        export_tflite(nn.Upsample(scale_factor=2.0, mode="bilinear"), tmp_path / "wrong.tflite", (1, 3, 6, 8))
    assert list(tmp_path.iterdir()) == []


def test_what_is_traced_has_the_shape_and_the_table_is_restored_after_an_error():
    before = table()
    image = torch.arange(12.0).reshape(1, 2, 2, 3)
    with pytest.raises(ZeroDivisionError), lean_resize.lean_resize():
        inside = table()
        repeated = inside[BILINEAR](image, None, False, [2.0, 3.0])
        assert torch.equal(repeated, image.repeat_interleave(2, 2).repeat_interleave(3, 3))
        fraction = inside[BILINEAR](image, [3, 5], True, None)
        assert torch.allclose(fraction, functional.interpolate(image, (3, 5), mode="bilinear", align_corners=True))
        raise ZeroDivisionError
    assert {op for op in inside if inside[op] is not before.get(op)} == {
        BILINEAR,
        torch.ops.aten.upsample_nearest2d.vec,
    }
    assert table() == before
