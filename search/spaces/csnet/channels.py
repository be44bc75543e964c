"""Mask groups of a CSNet: which channels its layers share, and where the architecture says their number (no torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.spaces.csnet.arch import CSNetArch
from search.spaces.csnet.blocks import DILATIONS
from search.spaces.groups import ChannelPlan, LayerChannels, MaskGroup, Place, changed_widths, width_at

Groups = tuple[str | int, ...]


def places(arch: CSNetArch) -> dict[str, Place]:
    """Where the width of each mask group stands, for example ``stage2.0.1`` (the low scale) at ``stage2[0][1]``.

    The order is that of execution. Branches without channels are included.
    """
    found: dict[str, Place] = {}
    for plan in arch.plans():
        stage, _, index = plan.name.partition(".")
        place: Place = (stage, int(index)) if index else (stage,)
        found.update({f"{plan.name}.{scale}": (*place, scale) for scale in range(len(plan.outputs))})
    found.update({f"csf.reduce.{scale}": ("csf_mid", scale) for scale in range(3)})
    for scale in range(3):
        found.update({_branch(scale, dilation): ("dilated", scale, i) for i, dilation in enumerate(DILATIONS)})
    found["csf.fuse"] = ("csf_out",)
    return found


def widths(arch: CSNetArch) -> dict[str, int]:
    """Channels of each mask group, 0 for a branch that is missing."""
    return {name: width_at(arch, place) for name, place in places(arch).items()}


def with_widths(arch: CSNetArch, changed: Mapping[str, int]) -> CSNetArch:
    """The architecture with other widths.

    Args:
        arch: Gives the layers, and the widths of the groups that are not named.
        changed: Channels by mask group; 0 takes a branch away.

    Raises:
        UsageError: If a group is unknown or the widths make no CSNet.
    """
    return CSNetArch.checked(changed_widths(arch, places(arch), changed))


def channel_plan(arch: CSNetArch) -> ChannelPlan:
    """Mask groups: per block and scale one that the gOctConv and both depthwise layers share; four kinds in the head.

    Every scale keeps a channel; a dilation may vanish, but not all of one scale. What a channel is worth says the norm
    after the mixing layer, as in the authors' pruning.
    """
    builder = _Builder({name: width for name, width in widths(arch).items() if width})
    inputs: list[Groups] = [(3,)]
    last: dict[str, Groups] = {}
    for plan in arch.plans():
        outputs = [builder.present(f"{plan.name}.{scale}") for scale in range(len(plan.outputs))]
        builder.mixing(f"{plan.name}.conv", inputs, outputs)
        for layer in ("dw1", "dw2"):
            for scale, own in enumerate(outputs):
                builder.channelwise(f"{plan.name}.{layer}", scale, own, ("conv", "norm", "act"))
        for scale, own in enumerate(outputs):
            builder.group(own, f"{plan.name}.dw2.act{scale}", f"{plan.name}.conv.norm{scale}")
        inputs = outputs
        last[plan.name.partition(".")[0]] = outputs[0]
    reduced = [builder.present(f"csf.reduce.{scale}") for scale in range(3)]
    builder.mixing("csf.reduce", [last["stage2"], last["stage3"], last["stage4"]], reduced)
    branches = []
    for scale, own in enumerate(reduced):
        builder.group(own, f"csf.reduce.act{scale}", f"csf.reduce.norm{scale}")
        branches.append(_dilated(builder, scale, own))
    builder.mixing("csf.fuse", branches, [("csf.fuse",)])
    builder.group(("csf.fuse",), "csf.fuse.act0", "csf.fuse.norm0")
    builder.layers["head"] = LayerChannels(("csf.fuse",), (1,))
    return ChannelPlan(builder.groups, builder.layers)


def _dilated(builder: _Builder, scale: int, inputs: Groups) -> Groups:
    """The dilated convolutions of one scale; their groups in the order in which they are concatenated."""
    path = "csf.dilated"
    found: Groups = ()
    for dilation in DILATIONS:
        own = builder.present(_branch(scale, dilation))
        if own:
            builder.layers[f"{path}.conv{scale}x{dilation}"] = LayerChannels(inputs, own)
        builder.group(own, f"{path}.act{scale}", f"{path}.norm{scale}", floor=0, family=f"{path}.{scale}")
        found += own
    builder.channelwise(path, scale, found, ("norm", "act"))
    return found


class _Builder:
    """Collects groups and layers; a missing branch is an empty tuple of groups and leaves no trace."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        self.widths = widths
        self.groups: dict[str, MaskGroup] = {}
        self.layers: dict[str, LayerChannels] = {}

    def present(self, name: str) -> Groups:
        return (name,) if name in self.widths else ()

    def group(self, names: Groups, masked: str, norm: str, floor: int = 1, family: str = "") -> None:
        for name in map(str, names):
            self.groups[name] = MaskGroup(name, self.widths[name], floor, (masked,), family, (norm,))

    def mixing(self, path: str, inputs: Sequence[Groups], outputs: Sequence[Groups]) -> None:
        """A gOctConv: a convolution a pair of scales, norm and PReLU a scale."""
        for j, own in enumerate(outputs):
            for i, theirs in enumerate(inputs):
                if own and theirs:
                    self.layers[f"{path}.conv{i}to{j}"] = LayerChannels(theirs, own)
            self.channelwise(path, j, own, ("norm", "act"))

    def channelwise(self, path: str, scale: int, own: Groups, kinds: tuple[str, ...]) -> None:
        for kind in kinds:
            if own:
                self.layers[f"{path}.{kind}{scale}"] = LayerChannels((), own)


def _branch(scale: int, dilation: int) -> str:
    return f"csf.dilated.{scale}x{dilation}"
