"""An iNAS network as plain data: widths, depths, kernel subsets and connections (no torch)."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from search.spaces.arch import Arch, Classes, Width
from search.spaces.block import BlockSpec

KERNELS = (3, 5, 7, 9)
LEVELS = 5
FACTORS = {"inas": 1.0, "inas-small": 0.5, "inas-tiny": 0.25}
"""Width factor of each space; everything else is the same."""
MULTIPLE = 32


class StageChoices(NamedTuple):
    """What may be chosen in one stage of MBConv blocks.

    Attributes:
        widths: Output widths at factor 1, chosen per layer.
        depths: Numbers of layers.
        kernels: Kernel sizes of which each layer has a non-empty subset.
        expand: Hidden width over input width.
        stride: Stride of the first layer.
        level: Level of the head that reads the last layer, or ``None``.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expand: int
    stride: int
    level: int | None


STEM_WIDTHS = (32, 36, 40)
STAGES = (
    StageChoices((16, 20, 24), (1, 2), (3,), 1, 1, 0),
    StageChoices((24, 28, 32), (2, 3), (3,), 6, 2, 1),
    StageChoices((40, 44, 48), (2, 3), KERNELS, 6, 2, 2),
    StageChoices((80, 84, 88), (2, 3, 4), KERNELS, 6, 2, None),
    StageChoices(tuple(range(112, 129, 4)), (2, 3, 4, 5, 6), KERNELS, 6, 1, 3),
    StageChoices(tuple(range(192, 217, 4)), (2, 3, 4, 5, 6), KERNELS, 6, 2, None),
    StageChoices(tuple(range(320, 353, 4)), (1, 2), KERNELS, 6, 1, 4),
)
"""The published space (reference implementation's configuration); stage ``n`` of the paper is ``STAGES[n - 1]``."""

Subset = Annotated[tuple[Annotated[int, Field(strict=True)], ...], Field(min_length=1, max_length=5)]
"""Kernel sizes or levels, ascending, each once."""


class INASArch(Arch):
    """One iNAS network.

    Attributes:
        schema_version: Version of this layout.
        space: Space id, which fixes the width factor.
        classes: Output maps: 1 for saliency, else classes.
        stem: Output width of the first convolution.
        widths: Per stage, the output width of each layer; the length is the stage's depth.
        kernels: Per stage and layer, the kernel sizes of its SMSU.
        transport: Per level 0 (finest) to 4, the backbone levels it reads; its own is always among them.
        transport_kernels: Per level, the kernel sizes of its two SMSUs.
        decoder: Per level, the levels (its own and deeper) it reads; its own and the next are always among them.
        decoder_kernels: Per level, the kernel sizes of its SMSU.
    """

    schema_version: Literal[1] = 1
    space: Literal["inas", "inas-small", "inas-tiny"] = "inas"
    classes: Classes = 1
    stem: Width
    widths: Annotated[tuple[tuple[Width, ...], ...], Field(min_length=7, max_length=7)]
    kernels: Annotated[tuple[tuple[Subset, ...], ...], Field(min_length=7, max_length=7)]
    transport: Annotated[tuple[Subset, ...], Field(min_length=LEVELS, max_length=LEVELS)]
    transport_kernels: Annotated[tuple[Subset, ...], Field(min_length=LEVELS, max_length=LEVELS)]
    decoder: Annotated[tuple[Subset, ...], Field(min_length=LEVELS, max_length=LEVELS)]
    decoder_kernels: Annotated[tuple[Subset, ...], Field(min_length=LEVELS, max_length=LEVELS)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise NotImplementedError

    def blocks(self, input_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
        """The deployed blocks; see ``Arch.blocks``."""
        raise NotImplementedError
