"""The RTSeg space: every width of every mask group, and skip / convolution / attention for each block after the first.

The supernet is the width family's member of base 80 with a detail branch that starts with the base width, the LIR form
in all blocks, and attention beside each of the five blocks of stages 3 to 5. The paper does not say how its attention
is set. Ours, so that parameters and MACs of the supernet are the published ones:

* patches of 1 pixel: the finest stage has 1/8 of the input size, and larger patches only move MACs into the layers;
* query and key with half the trunk's channels, value with all of them: the two products over the finest stage's 8192
  tokens are 8.1 of the 10.75 GMac of all attention at 512x1024, and more channels would exceed the published figure;
* an MLP of ratio 1, because each LIR block beside it already expands six times;
* heads: the largest power of two that is at most trunk / 40 (2, 4, 8), at least 1, so that they share out all channels;
* no positional embedding (input sizes stay free; the convolutions between know positions), linear layers with bias but
  query, key and value without, layer norm over channels with scale and shift.

LIR alone is 22.53 M parameters and 125.70 GMac at 512x1024, attention adds 1.70 M and 10.75 GMac: together 24.23 M
(published: 24.43 M) and 136.45 GMac (published: 136.0). ``counts.supernet_cost`` computes it.

Heads, query, key and value of a subnet are the supernet's; the trunk and the MLP's hidden width are searched.
``rtseg-small`` has base 32, BiSeNetV2's; ``rtseg-tiny`` base 8, for a laptop.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from search.spaces.groups import ChannelPlan, spelled, width_at
from search.spaces.rtseg.arch import MULTIPLE, Attention, Block, Inverted, RTSegArch, Skip
from search.spaces.rtseg.groups import (
    floor_of,
    group_widths,
    places,
    plan_of,
    supernet_widths,
    with_group_widths,
)
from search.spaces.rtseg.points import COMMON, family, named
from search.spaces.space import Space
from targets.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

BASES = {"rtseg": 80, "rtseg-small": 32, "rtseg-tiny": 8}
"""Base width of each space's supernet."""
STEPS = {"rtseg": 8, "rtseg-small": 4, "rtseg-tiny": 2}
"""Half of the widths drawn are multiples of this, which devices like; the other half are any."""
PATHS: tuple[Literal["skip", "lir", "mhsa"], ...] = ("skip", "lir", "mhsa")
"""What a block after a stage's first can be."""


class RTSegSpace(Space[RTSegArch]):
    """RTSeg (Li et al., AAAI 2023); see the module."""

    title: ClassVar[str] = "RTSeg: BiSeNetV2 with searched widths and convolution, attention or nothing in each block"
    arch_class: ClassVar[type[RTSegArch]] = RTSegArch
    multiple: ClassVar[int] = MULTIPLE
    default_classes: ClassVar[int] = 19

    def __init__(self, id: str, classes: int | None = None) -> None:
        super().__init__(id, classes)
        self._asked = classes
        self._biggest = family(BASES[id], self.classes, space=id)
        self._full = supernet_widths(self._biggest, self.attentions())

    @property
    def output_name(self) -> str:
        """``logits``, with one class too."""
        return "logits"

    def biggest(self) -> RTSegArch:
        """All widths full, every block a convolution block; attention instead costs more MACs on large images."""
        return self._biggest

    def smallest(self) -> RTSegArch:
        """All widths at their floor, every block skipped."""
        arch = self._with_blocks(lambda _: Skip())
        return self.with_widths(arch, {name: self._range(name)[0] for name in places(arch)})

    def sample(self, rng: random.Random) -> RTSegArch:
        """Draw a path for each block, each as likely, then each width; see ``STEPS``."""
        arch = self._with_blocks(lambda stage: self._block(rng.choice(PATHS), stage))
        return self.with_widths(arch, {name: self._draw(rng, name) for name in places(arch)})

    def neighbours(self, arch: RTSegArch) -> Iterator[RTSegArch]:
        """Every architecture that differs in one width, by one of ``STEPS`` (or less, to reach a bound), or one path.

        A block that takes another path has its full widths.
        """
        for name, width in group_widths(arch).items():
            low, high = self._range(name)
            step = STEPS[self.id]
            for other in sorted({max(low, width - step), min(high, width + step)} - {width}):
                yield self.with_widths(arch, {name: other})
        for stage, number in self._mixed():
            for path in PATHS:
                if path != arch.stages[stage].blocks[number].path:
                    yield _with_block(arch, stage, number, self._block(path, stage))

    def count(self) -> int:
        """Architectures in the space: a product over shared widths, times a sum over paths for each block."""
        found = math.prod(self._choices(name) for name in self._full if ".blocks." not in name)
        for stage, number in self._mixed():
            prefix = f"stages.{stage}.blocks.{number}."
            own = [name.removeprefix(prefix) for name in self._full if name.startswith(prefix)]
            found *= sum(
                math.prod(self._choices(prefix + name) for name in own if name.startswith(f"{path}.")) for path in PATHS
            )
        return found

    def validate(self, arch: RTSegArch) -> None:
        """Refuse an architecture that the space does not hold.

        ``resize`` is free: it says which input sizes the network takes, and changes no weight.

        Raises:
            UsageError: Naming the field by its path.
        """
        super().validate(arch)
        for index, (stage, full) in enumerate(zip(arch.stages, self._biggest.stages, strict=True)):
            if stage.down.path != "lir":
                raise self._refusal(f"stages[{index}].down.path", "must be lir")
            if len(stage.blocks) != len(full.blocks):
                raise self._refusal(f"stages[{index}].blocks", f"must be {len(full.blocks)}")
            for number, block in enumerate(stage.blocks):
                self._check_block(block, index, f"stages[{index}].blocks[{number}]")
        for name, place in places(arch).items():
            low, high = self._range(name)
            if not low <= (width := width_at(arch, place)) <= high:
                raise self._refusal(spelled(place), f"{width} is not from {low} to {high}")

    def attention(self, trunk: int) -> Attention:
        """The supernet's attention block for a stage.

        Args:
            trunk: The stage's full width.
        """
        heads = 2 ** max(0, math.floor(math.log2(trunk / 40)))
        return Attention(heads=heads, key=trunk // 2, value=trunk, hidden=trunk)

    def attentions(self) -> tuple[Attention, Attention, Attention]:
        """The supernet's attention block of each stage."""
        first, second, third = self._biggest.stages
        return self.attention(first.trunk), self.attention(second.trunk), self.attention(third.trunk)

    def channel_plan(self, arch: RTSegArch) -> ChannelPlan:
        """Mask groups of a subnet's training form."""
        return plan_of(arch, self._full)

    def supernet_plan(self) -> ChannelPlan:
        """Mask groups of the supernet, with both paths of each block; names are those of ``channel_plan``."""
        return plan_of(self._biggest, self._full, self.attentions())

    def with_widths(self, arch: RTSegArch, widths: Mapping[str, int]) -> RTSegArch:
        """The architecture with other widths by mask group; a ``ge`` block's expansion follows its lead.

        Raises:
            UsageError: If a group is unknown or a width is not possible.
        """
        return with_group_widths(arch, widths)

    def points(self) -> Mapping[str, RTSegArch]:
        """BiSeNetV2 and some of the width family, in the space ``rtseg`` only."""
        return {name: arch for name in COMMON if (arch := self.point(name)) is not None}

    def point(self, name: str) -> RTSegArch | None:
        """``bisenetv2``, ``bisenetv2-lir``, ``rtseg-lir-<ch>``, ``rtseg-lir-<ch>-full``, each also with ``-c<n>``.

        Raises:
            UsageError: If the numbers in the name make no network, or its classes are not those the space was asked
                for.
        """
        return named(name, self._asked) if self.id == "rtseg" else None

    def build_supernet(self, *, seed: int = 0) -> nn.Module:
        """The weight-sharing network with all three paths of each block."""
        from search.spaces.rtseg.network import build_supernet  # needs torch

        return build_supernet(self, seed)

    def build_subnet(self, arch: RTSegArch, *, seed: int = 0) -> nn.Module:
        """One architecture's network in training form, with four auxiliary heads."""
        from search.spaces.rtseg.network import build_subnet  # needs torch

        return build_subnet(arch, seed)

    def slice_from(self, supernet: nn.Module, arch: RTSegArch) -> nn.Module:
        """The subnet with the supernet's weights: leading channels of every group, chosen paths.

        Raises:
            UsageError: If the network is no RTSeg supernet, or the space does not hold the architecture.
        """
        from search.spaces.rtseg.network import RTSegSupernet, slice_supernet  # needs torch
        from search.spaces.slicing import not_a_supernet

        if not isinstance(supernet, RTSegSupernet):
            raise not_a_supernet(supernet, "it is no RTSeg supernet")
        return slice_supernet(supernet, arch)

    def _mixed(self) -> list[tuple[int, int]]:
        """Stage and number of each block that has paths to choose from."""
        return [
            (index, number) for index, stage in enumerate(self._biggest.stages) for number in range(len(stage.blocks))
        ]

    def _block(self, path: str, stage: int) -> Block:
        """A block of a stage with its full widths."""
        if path == "skip":
            return Skip()
        return self._biggest.stages[stage].blocks[0] if path == "lir" else self.attentions()[stage]

    def _with_blocks(self, choose: Callable[[int], Block]) -> RTSegArch:
        """The biggest architecture with a chosen block (by stage) in every place."""
        arch = self._biggest
        for stage, number in self._mixed():
            arch = _with_block(arch, stage, number, choose(stage))
        return arch

    def _range(self, group: str) -> tuple[int, int]:
        full = self._full[group]
        return floor_of(self.id, full), full

    def _choices(self, group: str) -> int:
        low, high = self._range(group)
        return high - low + 1

    def _draw(self, rng: random.Random, group: str) -> int:
        low, high = self._range(group)
        step = STEPS[self.id]
        even = range(-(-low // step) * step, high + 1, step)
        return rng.choice(even) if even and rng.random() < 0.5 else rng.randint(low, high)

    def _check_block(self, block: Block, stage: int, place: str) -> None:
        if isinstance(block, Inverted) and block.path != "lir":
            raise self._refusal(f"{place}.path", f"must be one of {', '.join(PATHS)}")
        if isinstance(block, Attention):
            wanted = self.attentions()[stage]
            for name in ("heads", "key", "value", "patch"):
                if (value := getattr(block, name)) != getattr(wanted, name):
                    raise self._refusal(f"{place}.{name}", f"{value} must be {getattr(wanted, name)}")

    def _refusal(self, place: str, what: str) -> UsageError:
        return UsageError(f"the space {self.id} does not hold this architecture: {place}: {what}", "Change that field.")


def _with_block(arch: RTSegArch, stage: int, number: int, block: Block) -> RTSegArch:
    old = arch.stages[stage]
    blocks = (*old.blocks[:number], block, *old.blocks[number + 1 :])
    stages = (*arch.stages[:stage], old.model_copy(update={"blocks": blocks}), *arch.stages[stage + 1 :])
    return arch.model_copy(update={"stages": stages})
