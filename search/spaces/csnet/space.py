"""The search space of CSNet's channel lists."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from search.spaces.csnet.arch import STRIDE, CSNetArch
from search.spaces.csnet.channels import channel_plan, places, widths, with_widths
from search.spaces.groups import ChannelPlan, Place, spelled
from search.spaces.space import Space
from targets.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

_NAME = re.compile(r"csnet-x(?P<k>[0-9]{1,2}(?:\.[0-9]{1,3})?)(?:-s(?P<high>[0-9]{1,2})-(?P<low>[0-9]{1,2}))?")
_NAMED = ("csnet-x1", "csnet-x1.2", "csnet-x1.5", "csnet-x1.8", "csnet-x2", "csnet-x1-s1-0", "csnet-x1-s3-1",
          "csnet-x1-s1-3")  # fmt: skip


class CSNetSpace(Space[CSNetArch]):
    """Every CSNet with two scales a block and at most the channels of CSNet-x2 in each layer.

    The depth is fixed. Every layer keeps a channel at every scale; a dilated convolution of the head may be missing,
    but not all of one scale. Published networks beyond that (one scale only, wider than x2) have names.
    """

    title: ClassVar[str] = "CSNet: channels per layer and scale of an extremely light saliency network"
    arch_class: ClassVar[type[CSNetArch]] = CSNetArch
    multiple: ClassVar[int] = STRIDE
    logits_in_training: ClassVar[bool] = True

    def __init__(self, id: str = "csnet", classes: int | None = None) -> None:
        super().__init__(id, classes)
        if self.classes != 1:
            raise UsageError(f"CSNet has one output map, not {self.classes}", f"Take {id}, or another space.")
        self._biggest = CSNetArch.fixed(2)
        self._places = places(self._biggest)
        self._ranges = {
            name: range(_floor(self._places[name]), most + 1) for name, most in widths(self._biggest).items()
        }

    def smallest(self) -> CSNetArch:
        """One channel in every layer and scale; of the dilated convolutions only those with dilation 1."""
        fewest = {name: choices.start for name, choices in self._ranges.items()}
        first = {name: 1 for name, place in self._places.items() if place[0] == "dilated" and place[-1] == 0}
        return with_widths(self._biggest, {**fewest, **first})

    def biggest(self) -> CSNetArch:
        """CSNet-x2; nothing in the space costs more."""
        return self._biggest

    def sample(self, rng: random.Random) -> CSNetArch:
        """Draw every width on its own, all equally likely."""
        drawn = {name: rng.choice(choices) for name, choices in self._ranges.items()}
        for row in self._rows():
            while not any(drawn[name] for name in row):
                drawn.update((name, rng.choice(self._ranges[name])) for name in row)
        return with_widths(self._biggest, drawn)

    def neighbours(self, arch: CSNetArch) -> Iterator[CSNetArch]:
        """Every architecture that differs in one width, by any amount."""
        own = widths(arch)
        alone = {row[0] for row in ([name for name in row if own[name]] for row in self._rows()) if len(row) == 1}
        for name, choices in self._ranges.items():
            for width in choices:
                if width != own[name] and (width or name not in alone):
                    yield with_widths(arch, {name: width})

    def count(self) -> int:
        """Number of architectures."""
        rows = self._rows()
        in_rows = {name for row in rows for name in row}
        free = math.prod(len(choices) for name, choices in self._ranges.items() if name not in in_rows)
        return free * math.prod(math.prod(len(self._ranges[name]) for name in row) - 1 for row in rows)

    def validate(self, arch: CSNetArch) -> None:
        """Refuse a CSNet with other scales, more channels than CSNet-x2, or none in some layer."""
        super().validate(arch)
        found = places(arch)
        for name in [*self._places, *found]:
            if name not in found or name not in self._places:
                place = spelled((found.get(name) or self._places[name])[:-1])
                raise UsageError(f"the space {self.id} does not hold this CSNet: {place} has other scales", _HINT)
        own = widths(arch)
        for name, choices in self._ranges.items():
            if own[name] not in choices:
                what = f"{spelled(found[name])} is {own[name]}, not {choices.start} to {choices.stop - 1}"
                raise UsageError(f"the space {self.id} does not hold this CSNet: {what}", _HINT)
        for scale, row in enumerate(self._rows()):
            if not any(own[name] for name in row):
                raise UsageError(
                    f"the space {self.id} does not hold this CSNet: dilated[{scale}] has no channels", _HINT
                )

    def build_supernet(self, *, seed: int = 0) -> nn.Module:
        """CSNet-x2 in training form, of which ``activate(arch)`` masks all but the leading channels."""
        from search.spaces.csnet.network import build_supernet

        return build_supernet(self, seed=seed)

    def build_subnet(self, arch: CSNetArch, *, seed: int = 0) -> nn.Module:
        """One CSNet in training form; it gives logits, its folded form the saliency in 0 to 1."""
        from search.spaces.csnet.network import build_csnet

        return build_csnet(arch, seed=seed)

    def slice_from(self, supernet: nn.Module, arch: CSNetArch) -> nn.Module:
        """The subnet with copies of the supernet's leading channels; of every dilation the leading ones."""
        from search.spaces.csnet.network import CSNetSupernet
        from search.spaces.slicing import not_a_supernet

        if not isinstance(supernet, CSNetSupernet):
            raise not_a_supernet(supernet, "it is no CSNet supernet")
        return supernet.sliced(arch)

    def channel_plan(self, arch: CSNetArch) -> ChannelPlan:
        """Mask groups, see ``search.spaces.csnet.channels``."""
        return channel_plan(arch)

    def with_widths(self, arch: CSNetArch, widths: Mapping[str, int]) -> CSNetArch:
        """The architecture with other widths by mask group."""
        return with_widths(arch, widths)

    def points(self) -> Mapping[str, CSNetArch]:
        """The networks of the paper's tables 4 and 6."""
        return {name: arch for name in _NAMED if (arch := self.point(name)) is not None}

    def point(self, name: str) -> CSNetArch | None:
        """The network of a name such as ``csnet-x1.5`` or ``csnet-x1-s3-1`` (3/4 of the channels at high resolution).

        Raises:
            UsageError: If the name has this form, but its numbers make no network.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        split = (1, 1) if match["high"] is None else (int(match["high"]), int(match["low"]))
        return CSNetArch.fixed(float(match["k"]), split)

    def _rows(self) -> list[list[str]]:
        """Groups of the dilated convolutions, by scale."""
        return [[name for name, at in self._places.items() if at[:2] == ("dilated", scale)] for scale in range(3)]


_HINT = "Take channel counts up to those of csnet-x2; csnet:random-1 is an example."


def _floor(place: Place) -> int:
    return 0 if place[0] == "dilated" else 1
