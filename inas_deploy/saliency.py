"""A photo, the map a model makes of it, and both together: whether a model that is fast still sees.

Input is normalised with the ImageNet mean and standard deviation and resized bilinearly without
anti-aliasing, as the networks here are trained and scored.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from targets.errors import UsageError
from targets.files import write_atomic
from targets.records import Frozen, TensorSpec

FloatArray = NDArray[np.float32]
Infer = Callable[[FloatArray], NDArray[Any]]

# Channel statistics of ImageNet in RGB order, for values 0 to 1.
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)

MAX_FILE_BYTES = 100_000_000
MAX_PIXELS = 50_000_000
MAX_INPUT_SIDE = 8192
MAX_PANEL_SIDE = 1024
# Formats that hold pixels only: others that Pillow opens start interpreters or other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_GAP = 8
_OVERLAY = np.array([255.0, 64.0, 0.0], dtype=np.float32)
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class SaliencyResult(Frozen):
    """What came of one photo.

    Attributes:
        image: The photo's file.
        output: The PNG with photo, map and overlay side by side.
        photo_size: Height and width of the photo after its EXIF orientation is applied.
        input_size: Height and width the model was given.
        map_min: Smallest value of the map, 0 to 1, at the model's resolution.
        map_max: Largest value of it.
        map_mean: Mean of it.
        salient_share: Share of the map above 0.5.
        sigmoid_applied: Whether the model gave logits (values outside 0 to 1) and a sigmoid was applied here.
    """

    image: str
    output: str
    photo_size: tuple[int, int]
    input_size: tuple[int, int]
    map_min: float
    map_max: float
    map_mean: float
    salient_share: float
    sigmoid_applied: bool

    @property
    def sentence(self) -> str:
        """The result in one line."""
        logits = "; the model gives logits, a sigmoid was applied" if self.sigmoid_applied else ""
        flat = "; the map is nearly constant" if self.map_max - self.map_min < 0.05 else ""
        return (
            f"{self.output}: {self.salient_share:.1%} of the map above 0.5, "
            f"values {self.map_min:.3f} to {self.map_max:.3f}{logits}{flat}"
        )


def saliency_side_by_side(
    image_path: Path, infer: Infer, input_size: tuple[int, int], out_path: Path
) -> SaliencyResult:
    """Run a photo through a model and write photo, map and overlay as one PNG.

    Args:
        image_path: JPEG, PNG, WebP, BMP or TIFF file; at most ``MAX_PIXELS`` pixels.
        infer: Takes float32 ``[1, 3, H, W]``, gives the map ``[1, 1, H', W']``, probabilities or logits.
        input_size: ``(H, W)`` of the model's input, pixels.
        out_path: PNG to make or replace; panels are at most ``MAX_PANEL_SIDE`` pixels on their longer side.

    Raises:
        UsageError: If the photo cannot be read, the model's output is no map, or the PNG cannot be written.
    """
    photo = load_photo(image_path)
    raw = np.asarray(infer(to_input(photo, input_size)))
    saliency, sigmoid_applied = _as_map(raw)
    shown = _shrunk(photo)
    fitted = np.clip(resize_bilinear(saliency[:, :, None], (shown.shape[0], shown.shape[1]))[:, :, 0], 0.0, 1.0)
    write_atomic(out_path, _png(_panels(shown, fitted)))
    return SaliencyResult(
        image=str(image_path),
        output=str(out_path),
        photo_size=(photo.shape[0], photo.shape[1]),
        input_size=input_size,
        map_min=float(saliency.min()),
        map_max=float(saliency.max()),
        map_mean=float(saliency.mean()),
        salient_share=float(np.mean(saliency > 0.5)),
        sigmoid_applied=sigmoid_applied,
    )


def map_input_size(inputs: Sequence[TensorSpec], layout: str) -> tuple[int, int]:
    """Height and width of an image model's only input.

    Args:
        inputs: The artifact's inputs.
        layout: ``NCHW`` or ``NHWC``.

    Returns:
        ``(H, W)`` in pixels.

    Raises:
        UsageError: If the model does not take one float RGB image.
    """
    found = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in inputs) or "none"
    wanted = "1x3xHxW" if layout == "NCHW" else "1xHxWx3"
    refusal = UsageError(
        f"--image needs a model with one {wanted} float32 input, this one has: {found}",
        "Leave --image away, or name a model that turns an image into a map.",
    )
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype != "float32":
        raise refusal
    batch, *rest = inputs[0].shape
    channels, height, width = rest if layout == "NCHW" else (rest[2], rest[0], rest[1])
    if batch != 1 or channels != 3 or not (0 < height <= MAX_INPUT_SIDE and 0 < width <= MAX_INPUT_SIDE):
        raise refusal
    return height, width


def load_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo upright and in RGB.

    Args:
        path: Untrusted file.

    Returns:
        uint8 ``[H, W, 3]``; transparent parts on white.

    Raises:
        UsageError: If the file is absent, too large, truncated or no image.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UsageError(f"image {path} has {size:,} bytes, more than {MAX_FILE_BYTES:,}", "Give a smaller one.")
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, and of sizes between its two limits; ours is stricter than both.
            warnings.simplefilter("ignore")
            return _decoded(path)
    except _DECODING_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "damaged, or no image"
        raise UsageError(f"image {path} cannot be read ({reason})", f"Give a {', '.join(FORMATS)} file.") from error


def to_input(photo: NDArray[np.uint8], size: tuple[int, int]) -> FloatArray:
    """Resize and normalise a photo: uint8 ``[H, W, 3]`` to float32 ``[1, 3, *size]``."""
    resized = resize_bilinear(photo, size) / np.float32(255.0)
    return np.ascontiguousarray(((resized - MEAN) / STD).transpose(2, 0, 1)[None], dtype=np.float32)


def resize_bilinear(array: NDArray[np.float32] | NDArray[np.uint8], size: tuple[int, int]) -> FloatArray:
    """Resize ``[H, W, C]`` bilinearly with half-pixel centres and no anti-aliasing.

    The same sampling as ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``
    and ONNX ``Resize`` with ``half_pixel``.
    """
    rows, row_weights = _taps(array.shape[0], size[0])
    columns, column_weights = _taps(array.shape[1], size[1])
    weights = row_weights[:, None, None]
    tall = array[rows[0]] * (1 - weights) + array[rows[1]] * weights
    weights = column_weights[None, :, None]
    return np.asarray(tall[:, columns[0]] * (1 - weights) + tall[:, columns[1]] * weights, dtype=np.float32)


def _taps(source: int, target: int) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], FloatArray]:
    places = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    low = np.floor(places).astype(np.intp)
    return (low, np.minimum(low + 1, source - 1)), (places - low).astype(np.float32)


def _decoded(path: Path) -> NDArray[np.uint8]:
    with Image.open(path, formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise UsageError(
                f"image {path} has {width} x {height} pixels, more than {MAX_PIXELS:,}", "Give a smaller one."
            )
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode in {"I", "I;16", "I;16B", "I;16L", "F"}:
            # Pillow clips these at 255; 16-bit files keep their tones only when scaled.
            values = np.nan_to_num(np.asarray(image, dtype=np.float64))
            scale = 257.0 if image.mode.startswith("I;16") or values.max() > 255 else 1.0
            image = Image.fromarray((values / scale).clip(0, 255).astype(np.uint8))
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return np.asarray(image.convert("RGB"))


def _as_map(raw: NDArray[Any]) -> tuple[FloatArray, bool]:
    """Check that an output is one map and bring it to 0..1; tells whether a sigmoid was needed."""
    if raw.ndim != 4 or raw.shape[:2] != (1, 1) or 0 in raw.shape:
        raise UsageError(
            f"--image needs a model whose output is one map 1x1xHxW, this one gives {list(raw.shape)}",
            "Leave --image away; maps of several classes are not drawn.",
        )
    values = raw[0, 0].astype(np.float32)
    if not np.isfinite(values).all():
        raise UsageError("the model's map holds NaN or infinity", "Check the weights and the precision it runs in.")
    tolerance = 1e-3
    if values.min() >= -tolerance and values.max() <= 1 + tolerance:
        return np.clip(values, 0.0, 1.0), False
    return (1.0 / (1.0 + np.exp(-np.clip(values, -60.0, 60.0)))).astype(np.float32), True


def _shrunk(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = photo.shape[:2]
    scale = MAX_PANEL_SIDE / max(height, width)
    if scale >= 1:
        return photo
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def _panels(photo: NDArray[np.uint8], saliency: FloatArray) -> NDArray[np.uint8]:
    height = photo.shape[0]
    grey = np.repeat((saliency * 255).round().astype(np.uint8)[:, :, None], 3, axis=2)
    # The photo is greyed where it is not salient, so that the tint is seen on any colour.
    luminance = photo.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    weight = 0.55 * saliency[:, :, None]
    overlay = (0.75 * luminance[:, :, None] + 30.0) * (1 - weight) + _OVERLAY * weight
    gap = np.full((height, _GAP, 3), 255, dtype=np.uint8)
    return np.hstack([photo, gap, grey, gap, overlay.clip(0, 255).round().astype(np.uint8)])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()
