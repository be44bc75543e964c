"""Handcrafted networks that the papers compare their speed with, rebuilt from published facts (no torch here).

They come with the source checkout and not with the wheel. Their weights are drawn from a seed: for latency only. A new
rival is one file and one line in ``RIVALS``; on the command line it is ``--model rival:<name>``.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from search.spaces.arch import check_pixels
from search.spaces.space import check_multiple
from targets.errors import UsageError
from targets.extras import require

if TYPE_CHECKING:
    from torch import nn

OUTPUT_NAME = "saliency"


class Rival(NamedTuple):
    """One network.

    Attributes:
        module: File beside this one.
        function: Makes the network as released, in training form, with its final map in 0 to 1 as only output.
        multiple: Height and width of the input must be multiples of this.
    """

    module: str
    function: str
    multiple: int = 1


RIVALS: dict[str, Rival] = {
    "csf-res2net50": Rival("csf", "csf_res2net50"),
    "csf-resnet50": Rival("csf", "csf_resnet50"),
    "u2net": Rival("u2net", "u2net"),
    "u2net-small": Rival("u2net", "u2net_small"),
}


def find_rival(name: str) -> Rival:
    """The entry of a name such as ``u2net-small``.

    Raises:
        UsageError: If there is none; close names are listed.
    """
    if name in RIVALS:
        return RIVALS[name]
    close = difflib.get_close_matches(name, RIVALS, n=3, cutoff=0.4) or list(RIVALS)
    raise UsageError(f"there is no rival {name[:80]!r}", f"Did you mean {', '.join(f'rival:{one}' for one in close)}?")


def check_size(name: str, input_size: tuple[int, int]) -> None:
    """Refuse an input size a rival cannot take.

    Args:
        name: Name in ``RIVALS``.
        input_size: Height and width in pixels.

    Raises:
        UsageError: If there is no such rival, or saying the multiple or the largest input.
    """
    check_multiple(input_size, find_rival(name).multiple, f"rival:{name}")
    check_pixels(input_size)


def build_rival(name: str, *, seed: int = 0) -> nn.Module:
    """The network as released, in training form with torch's own initial weights.

    Args:
        name: Name in ``RIVALS``.
        seed: Seed of the weights; torch's global generator is left as it was.

    Raises:
        UsageError: If there is no such rival.
        MissingExtra: If torch is not installed.
    """
    rival = find_rival(name)
    torch = require("torch", "torch")
    module = importlib.import_module(f"{__name__}.{rival.module}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = getattr(module, rival.function)()
    return network


def deployed_rival(name: str, input_size: tuple[int, int], *, seed: int = 0) -> nn.Module:
    """The network with seeded weights and batch norm folded into the convolutions, as any exporter's user has it.

    Args:
        name: Name in ``RIVALS``.
        input_size: Height and width in pixels.
        seed: Seed of the weights.

    Returns:
        A module in eval mode that maps (1, 3, H, W) to (1, 1, H, W).

    Raises:
        UsageError: If there is no such rival or it cannot take the size.
        MissingExtra: If torch is not installed.
    """
    check_size(name, input_size)
    from search.reparameterize import reparameterize
    from search.seeded import STATISTICS_SIDE, seed_weights

    network = build_rival(name, seed=seed)
    seed_weights(network, min(STATISTICS_SIDE, *input_size), seed)
    return reparameterize(network)


def export_rival(
    name: str,
    path: Path,
    *,
    input_size: tuple[int, int],
    format: Literal["onnx", "tflite"],
    opset: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a rival as an ONNX or TFLite file; static shapes, batch 1, numbers checked against torch.

    Args:
        name: Name in ``RIVALS``.
        path: File to write.
        input_size: Height and width in pixels.
        format: Format of the file.
        opset: Operator set of an ONNX file, instead of the kit's own.
        seed: Seed of the weights and of the compared input.

    Returns:
        The path written.

    Raises:
        UsageError: If there is no such rival or it cannot take the size.
        MissingExtra: If an exporter is not installed.
        InvalidModel: If the file does not give torch's numbers.
    """
    from search import export_torch
    from search.onnx_exporters import OPSET

    module, shape = deployed_rival(name, input_size, seed=seed), (1, 3, *input_size)
    if format == "tflite":
        return export_torch.export_tflite(module, path, shape, seed=seed)
    return export_torch.export_onnx(module, path, shape, opset=opset or OPSET, output_name=OUTPUT_NAME, seed=seed)
