"""Which channels must agree, as data: mask groups, and per layer the groups at its input and output (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.spaces.arch import Arch
from targets.errors import UsageError

Place = tuple[str | int, ...]
"""Fields and indices from an architecture to one width."""


@dataclass(frozen=True)
class MaskGroup:
    """Channels that are kept or dropped together because layers share them.

    Attributes:
        name: Stable name, for example ``stage3.trunk``.
        width: Channels in this architecture.
        floor: Least number of channels that stay.
        masked: Paths of the modules whose output is multiplied with the group's mask. Each must be the last module
            before the channels are used, so that a masked channel is exactly zero wherever it is read. The output's
            channels are those of the module's entry in ``ChannelPlan.layers``; without one, those of the groups that
            name the module, one after the other in the plan's order.
        family: Groups of one family may not all vanish; alone in its family where empty.
        norms: Paths of the batch norms whose scale says what a channel is worth; every norm that has the group among
            its outputs where empty.
    """

    name: str
    width: int
    floor: int
    masked: tuple[str, ...]
    family: str = ""
    norms: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerChannels:
    """Groups at one layer with weights (convolution, norm, PReLU, linear).

    Attributes:
        inputs: Groups concatenated along the input channels, in order; an ``int`` is that many fixed channels. Empty
            for a layer that works channel by channel (depthwise, norm, PReLU).
        outputs: Likewise for the output channels.
        repeat: Output channels per group channel (a grouped convolution with ``repeat`` outputs a channel), else 1.
        input_repeat: Input channels per group channel (patches of tokens, channel by channel), else 1.
    """

    inputs: tuple[str | int, ...]
    outputs: tuple[str | int, ...]
    repeat: int = 1
    input_repeat: int = 1


@dataclass(frozen=True)
class ChannelPlan:
    """All mask groups of one architecture and the layers they touch.

    Attributes:
        groups: Groups by name.
        layers: Every layer with weights, by module path in the training form.
    """

    groups: Mapping[str, MaskGroup] = field(default_factory=dict)
    layers: Mapping[str, LayerChannels] = field(default_factory=dict)


def width_at(arch: Arch, place: Place) -> int:
    """The width at a place."""
    value: Any = arch
    for step in place:
        value = value[step] if isinstance(step, int) else getattr(value, step)
    width: int = value
    return width


def spelled(place: Place) -> str:
    """A place as a person writes it: ``stages[0].trunk``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


def changed_widths(arch: Arch, places: Mapping[str, Place], widths: Mapping[str, int]) -> dict[str, Any]:
    """An architecture's data with other widths, not yet validated.

    Args:
        arch: Gives all other values.
        places: Where the width of each mask group stands.
        widths: New widths by mask group.

    Raises:
        UsageError: If a group is unknown.
    """
    values: dict[str, Any] = arch.model_dump(mode="json")  # lists, which can be changed
    for name, width in widths.items():
        if name not in places:
            raise UsageError(f"there is no mask group {name[:80]!r}", f"Known: {', '.join(places)}.")
        *path, last = places[name]
        holder: Any = values
        for step in path:
            holder = holder[step]
        holder[last] = width
    return values
