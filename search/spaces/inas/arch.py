"""An iNAS network as plain data: widths, depths, kernel subsets and connections (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from search.spaces.arch import Arch, Classes, Width
from search.spaces.block import BlockSpec, Shape
from search.spaces.inas.blocks import branch_block, fuse_block, head_block, mbconv_block, stem_block
from search.spaces.space import check_multiple

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


class SubsetChoices(NamedTuple):
    """The subsets of which one is chosen.

    Attributes:
        members: What a subset may hold, ascending.
        forced: What every subset holds.
        subsets: All allowed subsets, each ascending.
    """

    members: tuple[int, ...]
    forced: tuple[int, ...]
    subsets: tuple[tuple[int, ...], ...]


def subset_choices(members: tuple[int, ...], forced: tuple[int, ...] = ()) -> SubsetChoices:
    """All non-empty subsets of ``members`` that hold ``forced``, the smallest first."""
    sizes = range(1, len(members) + 1)
    subsets = tuple(s for size in sizes for s in combinations(members, size) if set(forced) <= set(s))
    return SubsetChoices(members, forced, subsets)


@lru_cache
def kernel_subsets(kernels: tuple[int, ...]) -> SubsetChoices:
    """The subsets of a unit's kernel sizes."""
    return subset_choices(kernels)


@lru_cache
def scaled(widths: tuple[int, ...], space: str) -> tuple[int, ...]:
    """Width choices of a space, from those at factor 1."""
    return tuple(int(width * FACTORS[space]) for width in widths)


_EVERY_LEVEL = tuple(range(LEVELS))
TRANSPORT = tuple(subset_choices(_EVERY_LEVEL, (level,)) for level in _EVERY_LEVEL)
"""Per level, the backbone levels it may read: any, its own always."""
DECODER = tuple(subset_choices(_EVERY_LEVEL[level:], _EVERY_LEVEL[level : level + 2]) for level in _EVERY_LEVEL)
"""Per level, the levels it may read: deeper ones, its own and the next always."""

_SHARED = {subset: subset for choices in (kernel_subsets(KERNELS), *TRANSPORT, *DECODER) for subset in choices.subsets}


def _shared(subset: tuple[int, ...]) -> tuple[int, ...]:
    """The one tuple of this content: an architecture has some 40, and populations have many architectures."""
    return _SHARED.get(subset, subset)


Subset = Annotated[
    tuple[Annotated[int, Field(strict=True)], ...], Field(min_length=1, max_length=5), AfterValidator(_shared)
]
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
        _check_widths(self)
        for stage, subsets in enumerate(self.kernels):
            path = f"kernels[{stage}]"
            if len(subsets) != len(self.widths[stage]):
                raise ValueError(f"{path}: {len(subsets)} layers, but widths[{stage}] has {len(self.widths[stage])}")
            _check_subsets(path, subsets, [kernel_subsets(STAGES[stage].kernels)] * len(subsets))
        every_kernel = [kernel_subsets(KERNELS)] * LEVELS
        _check_subsets("transport", self.transport, TRANSPORT)
        _check_subsets("transport_kernels", self.transport_kernels, every_kernel)
        _check_subsets("decoder", self.decoder, DECODER)
        _check_subsets("decoder_kernels", self.decoder_kernels, every_kernel)
        return self

    def blocks(self, input_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
        """The deployed blocks; see ``Arch.blocks``."""
        check_multiple(input_size, MULTIPLE, f"the {self.space} network")
        found = [stem_block(self.stem, *input_size)]
        shape = found[0].outputs[0]
        levels: list[Shape] = []
        for stage, (choices, widths) in enumerate(zip(STAGES, self.widths, strict=True)):
            for layer, (width, kernels) in enumerate(zip(widths, self.kernels[stage], strict=True)):
                stride = choices.stride if layer == 0 else 1
                name = f"stages.{stage}.{layer}"
                block = mbconv_block(name, shape, width, kernels[-1], stride, choices.expand)
                shape = block.outputs[0]
                found.append(block)
            if choices.level is not None:
                levels.append(shape)
        for level in range(LEVELS):
            found += _level_blocks("transport", level, self.transport[level], self.transport_kernels[level], levels)
        for level in reversed(range(LEVELS)):
            found += _level_blocks("decoder", level, self.decoder[level], self.decoder_kernels[level], levels)
        return (*found, head_block(levels[0], self.classes))


def _level_blocks(
    part: str, level: int, reads: tuple[int, ...], kernels: tuple[int, ...], levels: list[Shape]
) -> list[BlockSpec]:
    shape = levels[level]
    found = [branch_block(part, level, other, levels[other], shape) for other in reads if other != level]
    found.append(fuse_block(part, level, len(reads), kernels[-1], shape))
    return found


def _check_widths(arch: INASArch) -> None:
    _check_choice("stem", arch.stem, scaled(STEM_WIDTHS, arch.space))
    for stage, (choices, widths) in enumerate(zip(STAGES, arch.widths, strict=True)):
        if len(widths) not in choices.depths:
            raise ValueError(f"widths[{stage}]: {len(widths)} layers is not one of {_listed(choices.depths)}")
        allowed = scaled(choices.widths, arch.space)
        for layer, width in enumerate(widths):
            _check_choice(f"widths[{stage}][{layer}]", width, allowed)


def _check_subsets(path: str, subsets: Sequence[tuple[int, ...]], allowed: Sequence[SubsetChoices]) -> None:
    for index, (subset, choices) in enumerate(zip(subsets, allowed, strict=True)):
        if subset in choices.subsets:
            continue
        where = f"{path}[{index}]"
        for member, value in enumerate(subset):
            _check_choice(f"{where}[{member}]", value, choices.members)
        if not set(choices.forced) <= set(subset):
            raise ValueError(f"{where}: must hold {_listed(choices.forced)}")
        raise ValueError(f"{where}: must be ascending, each value once")


def _check_choice(path: str, value: int, allowed: tuple[int, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{path}: {value} is not one of {_listed(allowed)}")


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
