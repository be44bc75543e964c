import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inas_deploy import saliency
from inas_deploy.saliency import (
    load_photo,
    map_input_size,
    resize_bilinear,
    saliency_side_by_side,
    to_input,
)
from targets.errors import KitError, UsageError
from targets.records import TensorSpec
from tests.inas_deploy.sample_run import SIZE, open_model, tiny_model


def red_component(tensor):
    """A real if simple map: redness of each pixel of the normalised input, undone to 0..1."""
    return (tensor[:, :1] * saliency.STD[0] + saliency.MEAN[0]).clip(0, 1)


def photo_file(folder: Path, name: str = "photo.png", size=(60, 40), **save) -> Path:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2, 0] = 255
    Image.fromarray(pixels).save(folder / name, **save)
    return folder / name


def one_line(error: pytest.ExceptionInfo[KitError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_panels_are_photo_map_overlay_at_the_photos_size(tmp_path):
    out = tmp_path / "out.png"
    result = saliency_side_by_side(photo_file(tmp_path), red_component, (32, 32), out)
    panels = np.asarray(Image.open(out))
    assert panels.shape == (40, 3 * 60 + 2 * 8, 3)
    assert (panels[20, 5] == [255, 0, 0]).all(), "left panel: the photo"
    assert panels[20, 68 + 5].tolist() == [255, 255, 255], "middle panel: the map, high on the red half"
    assert panels[20, 68 + 55].tolist() == [0, 0, 0]
    overlay_on, overlay_off = panels[20, 136 + 5].astype(int), panels[20, 136 + 55].astype(int)
    assert overlay_on[0] - overlay_on[2] > 80, "right panel: tinted where salient"
    assert np.ptp(overlay_off) <= 1, "right panel: grey where not"
    assert result.photo_size == (40, 60)
    assert result.input_size == (32, 32)
    assert result.salient_share == pytest.approx(0.5, abs=0.05)
    assert not result.sigmoid_applied
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".png"] == [], "no temporary file stays"


def test_a_real_onnx_model_maps_a_photo_of_odd_size(tmp_path):
    session = open_model(tiny_model())
    source = photo_file(tmp_path, "odd.jpg", size=(123, 77))
    result = saliency_side_by_side(
        source, lambda tensor: session.run(None, {"image": tensor})[0], (SIZE, SIZE), tmp_path / "out.png"
    )
    direct = session.run(None, {"image": to_input(load_photo(source), (SIZE, SIZE))})[0]
    assert result.map_mean == pytest.approx(float(direct.mean()), abs=1e-6)
    assert result.map_min < result.map_max


def test_logits_get_a_sigmoid_and_the_result_says_so(tmp_path):
    source = photo_file(tmp_path)
    result = saliency_side_by_side(source, lambda t: (red_component(t) - 0.5) * 8, (16, 16), tmp_path / "o.png")
    assert result.sigmoid_applied
    assert result.map_max == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-3)
    assert "sigmoid" in result.sentence


def test_exif_orientation_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # camera turned: the stored left half is the upper half
    upright = load_photo(photo_file(tmp_path, "turned.jpg", exif=exif, quality=95))
    assert upright.shape == (60, 40, 3)
    assert upright[5, 20, 0] > 200
    assert upright[55, 20, 0] < 50


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK", "I;16", "1", "F"])
def test_every_pixel_format_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode in {"CMYK", "F"} else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((8, 9), 40000, np.uint16)).save(path)
        expected = 40000 / 257
    else:
        Image.new("RGB", (9, 8), "white").convert(mode).save(path)
        expected = 255
    photo = load_photo(path)
    assert photo.shape == (8, 9, 3)
    assert photo.dtype == np.uint8
    assert abs(float(photo.mean()) - expected) < 2


def test_transparent_parts_lie_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (load_photo(tmp_path / "clear.png") == 255).all()


def test_input_is_imagenet_normalised_in_rgb_order(tmp_path):
    photo = np.zeros((4, 4, 3), np.uint8)
    photo[:, :, 0] = 255
    tensor = to_input(photo, (4, 4))
    assert tensor.dtype == np.float32
    assert tensor.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(tensor[0, :, 0, 0], [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


@pytest.mark.parametrize(
    ("source", "target"), [((7, 5), (14, 3)), ((64, 48), (17, 31)), ((1, 9), (4, 4)), ((6, 6), (6, 6))]
)
def test_resize_equals_torch(source, target):
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare the resize with")
    array = np.random.default_rng(0).random((*source, 2), dtype=np.float32)
    batch = torch.from_numpy(array.transpose(2, 0, 1)[None].copy())
    wanted = torch.nn.functional.interpolate(batch, size=target, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize_bilinear(array, target).transpose(2, 0, 1), wanted[0].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged, or no image"),
        (b"hello, not an image", "damaged, or no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no image"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        load_photo(path)
    assert said in one_line(error)
    assert str(path) in one_line(error)


def test_absent_and_unreadable_paths_are_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        load_photo(tmp_path / "absent.png")
    with pytest.raises(UsageError, match="cannot be read"):
        load_photo(tmp_path)


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(UsageError) as error:
        load_photo(path)
    assert "cannot be read" in one_line(error) or "20000 x 20000" in one_line(error)


def test_too_many_pixels_are_refused_with_the_limit(tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (9000, 6000)).save(path)
    with pytest.raises(UsageError, match="9000 x 6000 pixels, more than 50,000,000"):
        load_photo(path)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF"]), st.data())
def test_a_damaged_photo_is_read_or_refused_and_nothing_else(tmp_path_factory, kind, data):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(stream, kind)
    content = bytearray(stream.getvalue()[: data.draw(st.integers(1, len(stream.getvalue())))])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x"
    path.write_bytes(content)
    try:
        photo = load_photo(path)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert photo.ndim == 3
        assert photo.shape[2] == 3


@pytest.mark.parametrize("shape", [(1, 21, 8, 8), (1, 1000), (2, 1, 8, 8), (1, 8, 8, 1), (1, 1, 0, 8)])
def test_outputs_that_are_no_map_are_refused(tmp_path, shape):
    out = tmp_path / "out.png"
    with pytest.raises(UsageError) as error:
        saliency_side_by_side(photo_file(tmp_path), lambda _: np.zeros(shape, np.float32), (8, 8), out)
    assert str(list(shape)) in one_line(error)
    assert not out.exists()


def test_nan_maps_are_refused(tmp_path):
    with pytest.raises(UsageError, match="NaN"):
        saliency_side_by_side(
            photo_file(tmp_path), lambda _: np.full((1, 1, 4, 4), np.nan), (8, 8), tmp_path / "out.png"
        )


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        saliency_side_by_side(photo_file(tmp_path), red_component, (8, 8), tmp_path / "no" / "out.png")


def spec(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="image", shape=shape, dtype=dtype)


def test_input_size_is_read_in_both_layouts():
    assert map_input_size([spec(1, 3, 224, 320)], "NCHW") == (224, 320)
    assert map_input_size([spec(1, 224, 320, 3)], "NHWC") == (224, 320)


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [spec(1, 1, 8, 8)],
        [spec(2, 3, 8, 8)],
        [spec(1, 3, 8)],
        [spec(1, 3, 0, 8)],
        [spec(1, 3, 8, 8)] * 2,
        [spec(1, 3, 8, 8, dtype="uint8")],
    ],
)
def test_models_without_one_image_input_are_refused(inputs):
    with pytest.raises(UsageError) as error:
        map_input_size(inputs, "NCHW")
    assert "1x3xHxW" in one_line(error)


def test_a_photo_of_the_data_set(tmp_path):
    root = Path(os.environ.get("INAS_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
    photo = root / "ECSSD" / "images" / "0001.jpg"
    if not photo.exists():
        pytest.skip(f"no data set under {root}: set INAS_DATA")
    result = saliency_side_by_side(photo, red_component, (224, 224), tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as out, Image.open(photo) as original:
        assert out.size == (3 * original.width + 16, original.height)
    assert 0 <= result.map_min < result.map_max <= 1
