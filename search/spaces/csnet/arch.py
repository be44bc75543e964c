"""A CSNet as plain data: channel lists that are validated, hashed and written as JSON (no torch)."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from search.spaces.arch import Arch, Width
from search.spaces.block import BlockSpec
from search.spaces.csnet.blocks import block_specs
from search.spaces.space import check_multiple
from targets.errors import UsageError

BASE_WIDTH = 20
"""Channels of CSNet-x1's first stage."""
STRIDE = 16
"""Height and width of the input must be multiples of this."""
DEPTHS = {"stage1": 3, "stage2": 4, "stage3": 6, "stage4": 4}
"""Blocks per stage; the stem block, counted apart here, is the first of the paper's four in stage 1."""

Channels = Annotated[int, Field(ge=0, le=8192, strict=True)]
Widths = Annotated[tuple[Channels, ...], Field(min_length=1, max_length=2)]
Branches = Annotated[tuple[Channels, ...], Field(min_length=5, max_length=5)]


class BlockPlan(NamedTuple):
    """One ILBlock with its shapes.

    Attributes:
        name: Module path, for example ``stage2.0``.
        inputs: Channels per input scale, finest first.
        outputs: Channels per output scale, finest first.
        kernel: Kernel size of the gOctConv (the depthwise layers are always 3x3).
        stride: 1 or 2.
        divisor: Input size over the size of the block's finest input.
        field: Where the architecture says the outputs, for example ``stage2[0]``.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: int
    stride: int
    divisor: int
    field: str


class CSNetArch(Arch):
    """One CSNet: channels of every layer.

    A width list is ``(high, low)`` for two scales or ``(single,)`` for one. A 0 in a list of two, in ``csf_mid`` or
    in ``dilated`` means that the branch is missing, which pruning can bring about.

    Attributes:
        schema_version: Version of this layout.
        space: Search space id.
        stem: Output of the first block.
        stage1: Outputs of the three further blocks at full resolution.
        stage2: Outputs of four blocks; the last has one scale, as in stages 3 and 4.
        stage3: Outputs of six blocks.
        stage4: Outputs of four blocks.
        csf_mid: Channels per scale (1/2, 1/4, 1/8) after the head's first 1x1 gOctConv.
        dilated: Per scale, output channels of the 3x3 convolutions with dilation 1, 2, 4, 8, 16.
        csf_out: Channels of the head's last gOctConv, at scale 1/2.
    """

    schema_version: Literal[1] = 1
    space: Literal["csnet"] = "csnet"
    stem: Widths
    stage1: Annotated[tuple[Widths, ...], Field(min_length=3, max_length=3)]
    stage2: Annotated[tuple[Widths, ...], Field(min_length=4, max_length=4)]
    stage3: Annotated[tuple[Widths, ...], Field(min_length=6, max_length=6)]
    stage4: Annotated[tuple[Widths, ...], Field(min_length=4, max_length=4)]
    csf_mid: tuple[Channels, Channels, Channels]
    dilated: Annotated[tuple[Branches, ...], Field(min_length=3, max_length=3)]
    csf_out: Width

    @model_validator(mode="after")
    def _check(self) -> Self:
        for plan in self.plans():
            if not any(plan.outputs):
                raise ValueError(f"{plan.field}: has no channels left")
        for stage in ("stage2", "stage3", "stage4"):
            last = len(getattr(self, stage)) - 1
            if len(getattr(self, stage)[last]) != 1:
                raise ValueError(f"{stage}[{last}]: the last block of a stage must have one scale")
        if not any(self.csf_mid):
            raise ValueError("csf_mid: has no channels left")
        if not any(map(any, self.dilated)):
            raise ValueError("dilated: has no channels left")
        for scale, (mid, branches) in enumerate(zip(self.csf_mid, self.dilated, strict=True)):
            if mid == 0 and any(branches):
                raise ValueError(f"dilated[{scale}]: has channels, but csf_mid[{scale}] is 0")
        return self

    @classmethod
    def fixed(cls, k: float = 1.0, split: tuple[float, float] = (1, 1)) -> CSNetArch:
        """The hand-made CSNet-xk of the paper (its tables 4 and 6).

        Args:
            k: Width factor; the base width is ``round(20 * k)``.
            split: Share of the channels at high and at low resolution; ``(1, 0)`` is a one-scale network.

        Returns:
            The architecture. Each scale's share is rounded on its own, ties to even, as the authors do.

        Raises:
            UsageError: If ``k`` or ``split`` leaves a layer without channels, or is not a positive number.
        """
        if not 0 < k <= 100:
            raise UsageError(f"CSNet width factor {k} is out of range", "Give a factor above 0 and up to 100.")
        high, low = split
        if not (0 <= high < float("inf") and 0 <= low < float("inf")) or high + low == 0:
            raise UsageError(f"CSNet split {high}/{low} is not a ratio", "Give two shares such as 1/1, 3/1 or 1/0.")
        base = round(BASE_WIDTH * k)
        shares = (1.0,) if low == 0 else (high / (high + low), low / (high + low))

        def both(width: int) -> tuple[int, ...]:
            return tuple(round(width * share) for share in shares)

        mid = (2 * base // 3, 4 * base // 3, 4 * base // 3)
        values = {
            "stem": both(base),
            "stage1": (both(base),) * 3,
            "stage2": (*(both(2 * base),) * 3, (2 * base,)),
            "stage3": (*(both(4 * base),) * 5, (4 * base,)),
            "stage4": (*(both(4 * base),) * 3, (4 * base,)),
            "csf_mid": mid,
            "dilated": tuple((m // 5, m // 5, m // 5, m // 5, m - 4 * (m // 5)) for m in mid),
            "csf_out": sum(mid),
        }
        return cls.checked(values, f"CSNet with k={k:g}, split {high:g}/{low:g}")

    def blocks(self, input_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
        """The folded network's blocks; see ``Arch.blocks``."""
        check_input_size(input_size)
        return block_specs(self, input_size)

    def plans(self) -> tuple[BlockPlan, ...]:
        """The ILBlocks in execution order."""
        plans = [BlockPlan("stem", (3,), self.stem, 3, 1, 1, "stem")]
        inputs, divisor = self.stem, 1
        for stage in DEPTHS:
            for index, outputs in enumerate(getattr(self, stage)):
                stride = 2 if index == 0 and stage != "stage1" else 1
                kernel = 3 if stride == 2 else 1
                name, field = f"{stage}.{index}", f"{stage}[{index}]"
                plans.append(BlockPlan(name, inputs, outputs, kernel, stride, divisor, field))
                inputs, divisor = outputs, divisor * stride
        return tuple(plans)

    @property
    def csf_inputs(self) -> tuple[int, int, int]:
        """Channels that enter the head at scales 1/2, 1/4 and 1/8."""
        return self.stage2[-1][0], self.stage3[-1][0], self.stage4[-1][0]

    @property
    def csf_dilated(self) -> tuple[int, int, int]:
        """Channels per scale after the dilated convolutions."""
        first, second, third = (sum(branches) for branches in self.dilated)
        return first, second, third


def check_input_size(input_size: tuple[int, int]) -> None:
    """Refuse an input size CSNet cannot take.

    Args:
        input_size: Height and width in pixels.

    Raises:
        UsageError: Unless both are positive multiples of 16.
    """
    check_multiple(input_size, STRIDE, "CSNet")
