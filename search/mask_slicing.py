"""From kept channels to a smaller network with the same output: every tensor sliced by the channel plan."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from search.spaces.arch import Arch
from search.spaces.groups import ChannelPlan
from search.spaces.space import Space
from search.torch_or_stub import nn, torch
from targets.errors import UsageError


def slice_masked(space: Space[Any], network: nn.Module, keep: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network without the channels that masks drop.

    Args:
        space: The network's space.
        network: A subnet in training form, with or without masks on it; its ``arch`` says what it is.
        keep: Bool per channel, shape (width,), by mask group, as ``search.masks.binarise`` gives; groups that are not
            named stay whole.

    Returns:
        The subnet of the smaller architecture with copies of the kept weights, in the mode and dtype of the network.
        Its output equals that of the masked network but for rounding.

    Raises:
        UsageError: If a group is unknown, the space does not have the smaller architecture, or the network has weights
            that the channel plan does not cover.
    """
    full: Any = network
    arch: Arch = full.arch
    plan = space.channel_plan(arch)
    counts = {name: int(mask.sum()) for name, mask in keep.items()}
    subnet = space.build_subnet(space.with_widths(arch, counts))
    first = next(network.parameters())
    subnet.to(device=first.device, dtype=first.dtype)
    copy_kept(network, subnet, plan, keep)
    return subnet.train(network.training)


def copy_kept(source: nn.Module, target: nn.Module, plan: ChannelPlan, keep: Mapping[str, torch.Tensor]) -> None:
    """Copy the kept part of every tensor into a smaller network with the same module names.

    Args:
        source: The wider network.
        target: The smaller one.
        plan: Channel plan of the wider network.
        keep: Bool per channel by mask group; groups that are not named stay whole.

    Raises:
        UsageError: If a layer with weights is not in the plan, or the two networks do not fit the plan.
    """
    _check_covered(source, plan)
    filled = set()
    for path, layer in plan.layers.items():
        rows = _kept(plan, layer.outputs, layer.repeat, keep)
        columns = _kept(plan, layer.inputs, layer.input_repeat, keep) if layer.inputs else None
        if not rows.any() or (columns is not None and not columns.any()):
            continue  # the layer vanishes
        wide: Any = source.get_submodule(path)
        try:
            narrow = target.get_submodule(path)
        except AttributeError as error:
            raise _unfit(path, "is missing in the smaller network") from error
        for name, tensor in _tensors(narrow):
            _copy(f"{path}.{name}", getattr(wide, name), tensor, rows, columns)
        filled.add(path)
    for path, module in target.named_modules():
        if path not in filled and _tensors(module):
            raise _unfit(path, "of the smaller network was not given any weights")


def _copy(
    name: str, wide: torch.Tensor, narrow: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor | None
) -> None:
    with torch.no_grad():
        kept = wide.detach()
        for axis, mask in enumerate((rows, columns)[: kept.ndim]):
            if mask is None:
                continue
            if len(mask) != kept.shape[axis]:
                raise _unfit(name, f"has {kept.shape[axis]} channels along axis {axis}, the plan {len(mask)}")
            kept = kept.index_select(axis, mask.nonzero()[:, 0].to(kept.device))
        if kept.shape != narrow.shape:
            raise _unfit(name, f"has shape {tuple(narrow.shape)}, and {tuple(kept.shape)} channels are kept")
        narrow.copy_(kept)


def _kept(plan: ChannelPlan, parts: Sequence[str | int], repeat: int, keep: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which channels of concatenated groups are kept, bool."""
    return torch.cat([_mask(plan, part, keep) for part in parts]).repeat_interleave(repeat)


def _mask(plan: ChannelPlan, part: str | int, keep: Mapping[str, torch.Tensor]) -> torch.Tensor:
    width = part if isinstance(part, int) else plan.groups[part].width
    if isinstance(part, str) and part in keep:
        return keep[part].to("cpu", torch.bool)
    return torch.ones(width, dtype=torch.bool)


def _check_covered(network: nn.Module, plan: ChannelPlan) -> None:
    for path, module in network.named_modules():
        if path not in plan.layers and _tensors(module):
            raise _unfit(path, f"({type(module).__name__}) has weights and is not in the channel plan")


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """A module's own parameters and buffers."""
    own = itertools.chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    return [(name, tensor) for name, tensor in own]


def _unfit(path: str, what: str) -> UsageError:
    return UsageError(f"cannot slice the network: {path} {what}", "Name the layer and its groups in channel_plan.")
