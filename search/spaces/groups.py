"""Which channels must agree, as data: mask groups, and per layer the groups at its input and output (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
