"""Resizing in the form that litert-torch converts fastest; the files are the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from targets.extras import require, version_of

if TYPE_CHECKING:
    import torch

_KNOWN_VERSIONS = {"0.10.0"}
"""Versions of litert-torch that were seen to throw away what is inside a marked resize."""


@contextlib.contextmanager
def lean_resize() -> Iterator[None]:
    """While it lasts, litert-torch traces a resize by whole factors as a few operations, not as some thirty.

    litert-torch marks a resize with a name, from which its converter makes the runtime's own operation. What is inside
    the mark is traced three times and then thrown away, and its index arithmetic can cost as much as the rest of a
    network. Inside goes repetition of pixels here, which has the right shape but, for a bilinear resize, other values:
    if a mark were not understood, the file would give wrong numbers and the check of the export would refuse it.

    Holds for the whole process. With a version of litert-torch that is not known, nothing is changed.

    Raises:
        MissingExtra: If litert-torch is not installed.
    """
    require("litert_torch", "tflite-export")
    if version_of("litert-torch") not in _KNOWN_VERSIONS:
        yield
        return
    decomp = require("litert_torch.fx_infra", "tflite-export").decomp
    aten = require("torch", "torch").ops.aten
    operators = (aten.upsample_bilinear2d.vec, aten.upsample_nearest2d.vec)
    before = {op: how for op, how in decomp.pre_lower_decomp().items() if op in operators}
    decomp.update_pre_lower_decomp({op: _repeating(how) for op, how in before.items()})
    try:
        yield
    finally:
        decomp.update_pre_lower_decomp(before)


def _repeating(otherwise: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def resize(image: torch.Tensor, output_size: Sequence[int] | None, *rest: Any, **named: Any) -> torch.Tensor:
        batch, channels, height, width = image.shape
        factors = named.get("scale_factors", rest[-1] if rest else None)
        if output_size is None and factors is not None:
            rows, columns = int(height * factors[0]), int(width * factors[1])
        else:
            rows, columns = output_size or (1, 1)
        if rows % height or columns % width:
            return otherwise(image, output_size, *rest, **named)
        pixels = image[:, :, :, None, :, None]
        pixels = pixels.expand(batch, channels, height, rows // height, width, columns // width)
        return pixels.reshape(batch, channels, rows, columns)

    return resize
