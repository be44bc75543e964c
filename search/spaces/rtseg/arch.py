"""An RTSeg network as plain data: widths of every mask group, and the path of every block (no torch).

BiSeNetV2 and its LIR-only family are points of the same form.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from search.spaces.arch import Arch, Classes, Width
from search.spaces.block import BlockSpec
from search.spaces.space import check_multiple
from targets.errors import UsageError
from targets.records import Frozen

MULTIPLE = 32
"""What height and width are multiples of, where resizing is by fixed factors."""
AUXILIARY_WIDTH = 128
"""Channels inside the auxiliary heads, which only training has."""


class Skip(Frozen):
    """A block left out."""

    path: Literal["skip"] = "skip"


class Inverted(Frozen):
    """A stride-1 inverted residual: 3x3 convolution to ``lead``, expansion to ``expand``, 1x1 back; then the sum.

    Attributes:
        path: ``lir``: expansion by 1x1 + depthwise 3x3 (RTSeg). ``ge``: by one grouped 3x3 (BiSeNetV2), which takes
            ``expand`` = 6 ``lead``.
        lead: Width after the leading 3x3.
        expand: Width of the expansion.
    """

    path: Literal["lir", "ge"]
    lead: Width
    expand: Width


class Attention(Frozen):
    """Multi-head self-attention with pre-norm, then an MLP with pre-norm, each with its residual (paper, eq. 1-2).

    Attributes:
        path: ``mhsa``.
        heads: Heads.
        key: Channels of query and of key, all heads together.
        value: Channels of value, all heads together.
        hidden: Hidden channels of the MLP.
        patch: Side of the square patches that become one token.
    """

    path: Literal["mhsa"] = "mhsa"
    heads: Annotated[int, Field(ge=1, le=64, strict=True)]
    key: Width
    value: Width
    hidden: Width
    patch: Annotated[int, Field(ge=1, le=16, strict=True)] = 1


Block = Annotated[Skip | Inverted | Attention, Field(discriminator="path")]


class Down(Frozen):
    """A stride-2 block: 3x3 to ``lead``, expansion, two 3x3 (the first strided), 1x1 to the trunk; shortcut beside it.

    Attributes:
        path: ``lir`` or ``ge``, as in ``Inverted``.
        lead: Width after the leading 3x3.
        expand: Width of the expansion.
    """

    path: Literal["lir", "ge"]
    lead: Width
    expand: Width


class Stage(Frozen):
    """One resolution of the semantic branch.

    Attributes:
        trunk: Width that all its blocks share.
        down: The block that enters it.
        blocks: The blocks after it.
    """

    trunk: Width
    down: Down
    blocks: Annotated[tuple[Block, ...], Field(max_length=16)]


class Stem(Frozen):
    """The semantic branch's first layers, to a quarter of the input size.

    Attributes:
        conv: Width of the first 3x3, stride 2; the pooling path keeps it.
        squeeze: Width of the 1x1 on the other path.
        left: Width of that path's 3x3, stride 2.
        fuse: Width of the 3x3 over both.
    """

    conv: Width
    squeeze: Width
    left: Width
    fuse: Width


class RTSegArch(Arch):
    """One RTSeg network.

    Attributes:
        schema_version: Version of this layout.
        space: Space id.
        classes: Output classes.
        detail: Widths of the detail branch's 2 + 3 + 3 convolutions, each stage's first with stride 2.
        stem: The stem.
        stages: Three stages, at 1/8, 1/16 and 1/32.
        bga: Width at which the branches are joined.
        bga_out: Width of the convolution after that.
        head: Width of the head's 3x3 convolution.
        resize: ``scale``: fixed factors, input sizes are multiples of 32. ``detail``: to the detail branch's size, any
            input size of at least 32.
    """

    schema_version: Literal[1] = 1
    space: Literal["rtseg", "rtseg-small", "rtseg-tiny"] = "rtseg"
    classes: Classes = 19
    detail: tuple[tuple[Width, Width], tuple[Width, Width, Width], tuple[Width, Width, Width]]
    stem: Stem
    stages: tuple[Stage, Stage, Stage]
    bga: Width
    bga_out: Width
    head: Width
    resize: Literal["scale", "detail"] = "scale"

    @model_validator(mode="after")
    def _check(self) -> Self:
        for stage, place in zip(self.stages, ("stages[0]", "stages[1]", "stages[2]"), strict=True):
            _check_grouped(stage.down, f"{place}.down")
            for index, block in enumerate(stage.blocks):
                if isinstance(block, Inverted):
                    _check_grouped(block, f"{place}.blocks[{index}]")
                elif isinstance(block, Attention):
                    self._check_attention(block, f"{place}.blocks[{index}]")
        return self

    def _check_attention(self, block: Attention, place: str) -> None:
        for name, width in (("key", block.key), ("value", block.value)):
            if width % block.heads:
                raise ValueError(f"{place}.{name}: {width} channels cannot be shared out to {block.heads} heads")
        if block.patch > 1 and self.resize == "detail":
            raise ValueError(f"{place}.patch: must be 1 where resize is detail, because sizes need not divide")

    def check_input_size(self, input_size: tuple[int, int]) -> None:
        """Refuse an input size the network cannot take.

        Args:
            input_size: Height and width in pixels.

        Raises:
            UsageError: Saying the multiple that is needed, or the least size where ``resize`` is ``detail``.
        """
        if self.resize == "scale":
            patches = [
                8 * 2**index * block.patch
                for index, stage in enumerate(self.stages)
                for block in stage.blocks
                if isinstance(block, Attention)
            ]
            multiple = math.lcm(MULTIPLE, *patches)
            check_multiple(
                input_size, multiple, "this RTSeg network", '"resize": "detail" (bisenetv2-any) takes any size.'
            )
        elif min(input_size) < MULTIPLE:
            raise UsageError(
                f"this RTSeg network cannot take an input of {input_size[0]}x{input_size[1]} (height x width)",
                f"Both must be at least {MULTIPLE}.",
            )

    def blocks(self, input_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
        """The deployed blocks; see ``Arch.blocks``."""
        from search.spaces.rtseg.blocks import block_specs  # it reads the classes of this module

        return block_specs(self, input_size)


def _check_grouped(block: Inverted | Down, place: str) -> None:
    if block.path == "ge" and block.expand != 6 * block.lead:
        raise ValueError(f"{place}.expand: must be 6 x lead = {6 * block.lead} in a ge block, not {block.expand}")
