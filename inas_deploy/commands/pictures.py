"""``--image``: run each variant on a photograph and draw what it sees."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from inas_deploy.saliency import (
    FloatArray,
    Infer,
    SaliencyResult,
    load_photo,
    map_input_size,
    saliency_side_by_side,
)
from targets.errors import UsageError
from targets.files import check_writable
from targets.inventory import LOCAL
from targets.opening import Target
from targets.records import Variant
from targets.session import run_inference


def check_pictures(image: Path, out: Path | None, variants: Sequence[Variant]) -> list[Path]:
    """Where the pictures will go; refuses what cannot work before anything is measured.

    Args:
        image: The photograph.
        out: Place of the PNG; with several variants, its stem gets the variant's name.
        variants: What will see it.

    Raises:
        UsageError: If the photograph cannot be read, a model takes no image, or a place cannot be written.
    """
    load_photo(image)
    for variant in variants:
        if variant.device != LOCAL.name:
            raise UsageError(f"--image is not run on device {variant.device!r}", "Add --target local, or leave it out.")
        map_input_size(variant.artifact.inputs, variant.artifact.layout)
    base = out or Path(f"{image.stem}-saliency.png")
    places: list[Path] = []
    for variant in variants:
        place = base if len(variants) == 1 else _named(base, variant)
        if place in places:  # two files of one name in different folders
            place = place.with_name(f"{place.stem}-{variant.key[:8]}{place.suffix}")
        check_writable(place)
        places.append(place)
    return places


def draw_pictures(
    image: Path, places: Sequence[Path], variants: Sequence[Variant], targets: Mapping[str, Target]
) -> list[SaliencyResult]:
    """Write one side-by-side PNG a variant: photograph, map, overlay.

    Args:
        image: The photograph.
        places: From :func:`check_pictures`.
        variants: What sees it, each in a fresh process on its device.
        targets: By device name.
    """
    results = []
    todo = list(zip(variants, places, strict=True))
    console = Console(stderr=True)
    for variant, place in track(todo, "drawing", console=console, transient=True, disable=not console.is_terminal):
        size = map_input_size(variant.artifact.inputs, variant.artifact.layout)
        results.append(saliency_side_by_side(image, _infer(variant, targets[variant.device]), size, place))
    return results


def _infer(variant: Variant, target: Target) -> Infer:
    channels_last = variant.artifact.layout == "NHWC"

    def infer(tensor: FloatArray) -> NDArray[Any]:
        given = np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)) if channels_last else tensor
        output = run_inference(target.transport, variant.artifact, variant.settings, given)
        return output.transpose(0, 3, 1, 2) if channels_last and output.ndim == 4 else output

    return infer


def _named(base: Path, variant: Variant) -> Path:
    model = variant.model.removesuffix(".onnx").removesuffix(".tflite")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join((model, variant.settings.runtime, variant.device)))
    return base.with_name(f"{base.stem}-{name}{base.suffix or '.png'}")
