"""Mask groups of an RTSeg network: which channels agree, where they are masked, and how to change their number.

One group a convolution, but one trunk a stage: the output of the block that enters it, every block's output and skip
path, and the context embedding's sum. A depthwise convolution follows what it reads. The gates and the sums of the
bilateral aggregation are one group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.spaces.groups import ChannelPlan, LayerChannels, MaskGroup, Place, changed_widths, width_at
from search.spaces.rtseg.arch import Attention, Inverted, RTSegArch
from search.spaces.rtseg.structure import Layer, auxiliary_parts, parts

_STEM: dict[str, Place] = {f"stem.{name}": ("stem", name) for name in ("conv", "squeeze", "left", "fuse")}
_TAIL: dict[str, Place] = {"bga.sum": ("bga",), "bga.out": ("bga_out",), "head.conv": ("head",)}
FLOOR = {"rtseg": 8, "rtseg-small": 8, "rtseg-tiny": 2}
"""Least width of a group in each space (8: the reference code of the same authors keeps as many)."""


def floor_of(space_id: str, full: int) -> int:
    """Least width of a group that has ``full`` channels in the supernet: the space's floor, or half of few channels."""
    return min(FLOOR[space_id], max(1, full // 2))


def places(arch: RTSegArch) -> dict[str, Place]:
    """Where the width of each mask group stands in an architecture, in execution order."""
    found: dict[str, Place] = {
        f"detail.{stage}.{index}": ("detail", stage, index)
        for stage, widths in enumerate(arch.detail)
        for index in range(len(widths))
    }
    found.update(_STEM)
    for index, stage in enumerate(arch.stages):
        name, here = f"stages.{index}", ("stages", index)
        found[f"{name}.down.lead"] = (*here, "down", "lead")
        if stage.down.path == "lir":
            found[f"{name}.down.expand"] = (*here, "down", "expand")
        found[f"{name}.trunk"] = (*here, "trunk")
        for number, block in enumerate(stage.blocks):
            inner: tuple[str, ...] = ()
            if isinstance(block, Inverted):
                inner = ("lead", "expand") if block.path == "lir" else ("lead",)
            elif isinstance(block, Attention):
                inner = ("hidden",)
            for field in inner:
                found[f"{name}.blocks.{number}.{block.path}.{field}"] = (*here, "blocks", number, field)
    found.update(_TAIL)
    return found


def group_widths(arch: RTSegArch) -> dict[str, int]:
    """Channels of each mask group."""
    return {name: width_at(arch, place) for name, place in places(arch).items()}


def supernet_widths(biggest: RTSegArch, attention: Sequence[Attention]) -> dict[str, int]:
    """Channels of each mask group of a supernet, where an attention block stands beside each block."""
    widths = group_widths(biggest)
    for index, stage in enumerate(biggest.stages):
        for number in range(len(stage.blocks)):
            widths[f"stages.{index}.blocks.{number}.mhsa.hidden"] = attention[index].hidden
    return widths


def with_group_widths(arch: RTSegArch, widths: Mapping[str, int]) -> RTSegArch:
    """The architecture with other widths by mask group; a ``ge`` block's expansion follows its lead.

    Raises:
        UsageError: If a group is unknown or a width is not possible.
    """
    values = changed_widths(arch, places(arch), widths)
    for stage in values["stages"]:
        for block in (stage["down"], *stage["blocks"]):
            if block["path"] == "ge":
                block["expand"] = 6 * block["lead"]
    return RTSegArch.checked(values)


def plan_of(arch: RTSegArch, full: Mapping[str, int], attention: Sequence[Attention] = ()) -> ChannelPlan:
    """Mask groups and layers of the training form, auxiliary heads included.

    Args:
        arch: The architecture.
        full: Channels of each group in the supernet, which the floors come from; a group it lacks counts as full.
        attention: For the plan of a supernet: the attention block of each stage; ``arch`` is then the biggest.
    """
    widths = supernet_widths(arch, attention) if attention else group_widths(arch)
    masked: dict[str, list[str]] = {name: [] for name in widths}
    layers: dict[str, LayerChannels] = {}
    for part in (*parts(arch, attention), *auxiliary_parts(arch)):
        for layer in part.layers:
            unit = layer.form == "unit"
            channels = LayerChannels(layer.inputs, layer.outputs, layer.repeat, layer.input_repeat)
            layers[f"{layer.path}.conv" if unit else layer.path] = channels
            if unit:
                layers[f"{layer.path}.norm"] = LayerChannels((), layer.outputs, layer.repeat)
            for group in _masked_groups(layer):
                masked[group].append(f"{layer.path}.norm" if unit else layer.path)
        if part.masked:
            masked[part.masked].append(f"{part.name}.act")
    groups = {
        name: MaskGroup(name, width, min(width, floor_of(arch.space, full.get(name, width))), tuple(masked[name]))
        for name, width in widths.items()
    }
    return ChannelPlan(groups, layers)


def _masked_groups(layer: Layer) -> list[str]:
    """Groups whose mask belongs on the layer: a unit's on its norm, because an activation keeps zeros."""
    return [group for group in layer.outputs if isinstance(group, str)] if layer.masked else []
