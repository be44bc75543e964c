"""Channel masks on a network that is left as it is, and which channels they keep.

A mask multiplies the channels of one mask group wherever they become visible (``MaskGroup.masked``), so that a dropped
channel is exactly zero in every place that reads it. ``search.mask_slicing`` turns kept channels into a smaller
network with the same output.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from search.spaces.groups import ChannelPlan, MaskGroup
from search.torch_or_stub import nn, torch
from targets.errors import UsageError


class ChannelMasks(Mapping[str, "torch.Tensor"]):
    """The masks on one network, by group; ``attach_masks`` makes it.

    ``masks[name]`` is a tensor of shape (width,); setting it takes effect at the next forward. It may be any float or
    bool type and may require gradients.
    """

    def __init__(self, network: nn.Module, plan: ChannelPlan) -> None:
        self.plan = plan
        self._masks = {name: torch.ones(group.width) for name, group in plan.groups.items()}
        self._named: dict[str, list[str]] = {}
        for name, group in plan.groups.items():
            for path in group.masked:
                self._named.setdefault(path, []).append(name)
        self._norms: dict[str, Any] = {}
        for path in plan.layers:
            module = network.get_submodule(path)
            if hasattr(module, "keep"):
                self._norms[path] = module
        # Partials of a bound method: a deep copy of the network gets masks of its own.
        self._handles = [
            network.get_submodule(path).register_forward_hook(functools.partial(self._apply, path))
            for path in self._named
        ]
        self._keep_norms(self._norms)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._masks[name]

    def __setitem__(self, name: str, mask: torch.Tensor) -> None:
        group = _group(self.plan, name)
        if tuple(mask.shape) != (group.width,):
            raise UsageError(
                f"the mask of {name} has shape {tuple(mask.shape)}", f"Give one value a channel: ({group.width},)."
            )
        self._masks[name] = mask
        self._keep_norms(path for path in self._norms if name in self.plan.layers[path].outputs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def set_all(self, masks: Mapping[str, torch.Tensor]) -> None:
        """Set several masks.

        Args:
            masks: Tensors of shape (width,) by group; other groups stay as they are.

        Raises:
            UsageError: If a group is unknown or a shape is wrong.
        """
        for name, mask in masks.items():
            self[name] = mask

    def set_prefix(self, counts: Mapping[str, int]) -> None:
        """Keep the leading channels of some groups.

        Args:
            counts: How many, by group; other groups stay as they are.

        Raises:
            UsageError: If a group is unknown or has not so many channels.
        """
        self.set_all(prefix_masks(self.plan, counts))

    def remove(self) -> None:
        """Take the masks off the network; this object is of no use afterwards."""
        for handle in self._handles:
            handle.remove()
        for module in self._norms.values():
            module.keep = None
        self._handles.clear()
        self._norms.clear()

    def _keep_norms(self, paths: Any) -> None:
        for path in paths:
            self._norms[path].keep = self._mask_of(path)

    def _mask_of(self, path: str) -> torch.Tensor:
        """The mask over all output channels of one module."""
        layer = self.plan.layers.get(path)
        parts = self._named[path] if layer is None else layer.outputs
        masks = [torch.ones(part) if isinstance(part, int) else self._masks[part] for part in parts]
        device = next((self._masks[part].device for part in parts if isinstance(part, str)), None)
        joined = masks[0] if len(masks) == 1 else torch.cat([mask.to(device) for mask in masks])
        return joined if layer is None or layer.repeat == 1 else joined.repeat_interleave(layer.repeat)

    def _apply(self, path: str, module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        """Forward hook: the output with its channels masked, for (N, C, H, W) and for tokens (..., C)."""
        mask = self._mask_of(path).to(output)
        return output * (mask[:, None, None] if output.ndim == 4 else mask)


def attach_masks(network: nn.Module, plan: ChannelPlan) -> ChannelMasks:
    """Hook masks of ones onto a network.

    Args:
        network: A network in training form, in train or eval mode; its weights and modules stay as they are. Layers in
            ``plan.layers`` with an attribute ``keep`` (norms whose statistics run over channels) get the mask there.
        plan: The network's mask groups.

    Returns:
        The masks; ``remove()`` takes them off.
    """
    return ChannelMasks(network, plan)


def prefix_masks(plan: ChannelPlan, counts: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Masks that keep leading channels.

    Args:
        plan: The mask groups.
        counts: How many channels to keep, by group.

    Returns:
        Bool tensors of shape (width,) for the groups in ``counts``.

    Raises:
        UsageError: If a group is unknown or has not so many channels.
    """
    masks = {}
    for name, kept in counts.items():
        width = _group(plan, name).width
        if not 0 <= kept <= width:
            raise UsageError(f"{name} cannot keep {kept} channels", f"It has {width}.")
        masks[name] = torch.arange(width) < kept
    return masks


def binarise(scores: Mapping[str, torch.Tensor], plan: ChannelPlan, threshold: float = 0.5) -> dict[str, torch.Tensor]:
    """Which channels stay: those above a threshold, but never fewer than a group or a family must have.

    Args:
        scores: What each channel is worth, shape (width,), by group; a group without scores stays whole.
        plan: The mask groups.
        threshold: A channel stays if its score is greater (DWBC: 0.5; RTSeg, section "Mask").

    Returns:
        Bool tensors of shape (width,), for every group. A group below its floor keeps that many of its best channels;
        of a family that would vanish, the best channel stays. Equal scores: the leading channel is better.

    Raises:
        UsageError: If a group is unknown, or its scores have a wrong shape or are not numbers.
    """
    for name, score in scores.items():
        width = _group(plan, name).width
        if tuple(score.shape) != (width,) or bool(score.isnan().any()):
            raise UsageError(f"the scores of {name} are not {width} numbers", "Give one number a channel.")
    return _guarded(scores, plan, {name: score > threshold for name, score in scores.items()})


def norm_scores(network: nn.Module, plan: ChannelPlan) -> dict[str, torch.Tensor]:
    """What each channel is worth by the scale of its batch norms.

    Args:
        network: A network in training form.
        plan: Its mask groups.

    Returns:
        ``|gamma|`` of shape (width,), the largest where several norms decide; groups without a norm are left out.
    """
    scores: dict[str, torch.Tensor] = {}
    for path, layer in plan.layers.items():
        module = network.get_submodule(path)
        if not isinstance(module, nn.BatchNorm2d):
            continue
        gammas = module.weight.detach().abs().reshape(-1, layer.repeat).amax(1)
        first = 0
        for part in layer.outputs:
            last = first + (part if isinstance(part, int) else plan.groups[part].width)
            if isinstance(part, str) and path in (plan.groups[part].norms or (path,)):
                own = gammas[first:last]
                scores[part] = torch.maximum(scores[part], own) if part in scores else own
            first = last
    return scores


def norm_threshold(network: nn.Module, plan: ChannelPlan, threshold: float = 1e-20) -> dict[str, torch.Tensor]:
    """Which channels stay by the scale of their batch norms (CSNet, section 3.4; the authors' code for the threshold).

    Args:
        network: A network in training form.
        plan: Its mask groups.
        threshold: A channel goes if ``|gamma|`` is smaller.

    Returns:
        As ``binarise``.
    """
    scores = norm_scores(network, plan)
    return _guarded(scores, plan, {name: score >= threshold for name, score in scores.items()})


def _guarded(
    scores: Mapping[str, torch.Tensor], plan: ChannelPlan, wanted: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The wanted channels, and the best ones where a floor or a family asks for more."""
    keep, families = {}, dict[str, list[str]]()
    for name, group in plan.groups.items():
        keep[name] = wanted.get(name, torch.ones(group.width, dtype=torch.bool))
        if int(keep[name].sum()) < group.floor:
            keep[name] = _best(scores[name], group.floor)
        if group.family and group.width:
            families.setdefault(group.family, []).append(name)
    for members in families.values():
        if not any(bool(keep[name].any()) for name in members):
            strongest = max(members, key=lambda name: float(scores[name].max()))
            keep[strongest] = _best(scores[strongest], 1)
    return keep


def _best(score: torch.Tensor, count: int) -> torch.Tensor:
    keep = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    keep[score.argsort(descending=True, stable=True)[:count]] = True
    return keep


def _group(plan: ChannelPlan, name: str) -> MaskGroup:
    group = plan.groups.get(name)
    if group is None:
        raise UsageError(f"there is no mask group {name!r}", f"Known: {', '.join(plan.groups) or 'none'}.")
    return group
