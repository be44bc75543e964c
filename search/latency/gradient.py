"""Latency of an architecture as a function of its widths that torch can differentiate: what a width search minimises.

Fields of blocks (channels of inputs and outputs, widths inside) are sums of the widths of mask groups. Which sums, is
found by asking the space: each group is changed in turn and the blocks are looked at. So any space with mask groups has
a gradient, and there is no second description that could be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.latency.block_predictor import BlockPredictor
from search.latency.fields import form_key
from search.spaces.arch import Arch
from search.spaces.block import BlockSpec
from search.spaces.registry import space_of
from search.spaces.space import Space
from search.torch_or_stub import torch
from targets.errors import UsageError

Floats = NDArray[np.float64]
FormKey = tuple[str, int, int]


@dataclass(frozen=True)
class Structure:
    """Blocks of one architecture with free widths: ``fields = start + factors @ (widths - origin)``.

    Attributes:
        groups: Mask groups, in the order of the factors.
        origin: Widths of the architecture, (groups,).
        keys: Form of each set of blocks.
        names: Names of the blocks, by form.
        start: Fields at the origin, by form, (blocks, C).
        factors: Change of the fields by each width, by form, (blocks, C, groups).
    """

    groups: tuple[str, ...]
    origin: Floats
    keys: tuple[FormKey, ...]
    names: tuple[tuple[str, ...], ...]
    start: tuple[Floats, ...]
    factors: tuple[Floats, ...]


class DifferentiableLatency:
    """Predicted latency of an architecture whose widths are tensors.

    The trend through a device's stairs is taken, so that the gradient says where latency goes and not how a step of a
    single channel falls; blocks are summed without calibration to whole networks, which a caller applies.

    Args:
        predictor: Predicts the blocks.
        arch: The architecture; its paths are fixed, its widths are where the function was looked at.
        input_size: Height and width in pixels.

    Attributes:
        structure: How the blocks' fields follow from the widths.

    Raises:
        UsageError: If the space has no mask groups, a block is refused, or fields are no sums of widths.
    """

    def __init__(self, predictor: BlockPredictor, arch: Arch, input_size: tuple[int, int]) -> None:
        self._predictor = predictor
        space = space_of(arch)
        blocks = space.blocks(arch, input_size)
        predictor.predict_blocks(blocks)  # refuses what it cannot know
        self.structure = structure_of(space, arch, input_size, predictor)

    def __call__(self, widths: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum of the blocks' latencies, milliseconds.

        Args:
            widths: Channels of each mask group (0-dimensional; a sum over a mask); groups left out keep their width.

        Returns:
            0-dimensional, double precision.

        Raises:
            UsageError: If a group is unknown.
        """
        return torch.stack([latency.sum() for latency in self._latencies(widths)]).sum() / 1e3

    def by_block(self, widths: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Latency of each block by its name, milliseconds, 0-dimensional; see :meth:`__call__`."""
        return {
            name: latency / 1e3
            for names, latencies in zip(self.structure.names, self._latencies(widths), strict=True)
            for name, latency in zip(names, latencies, strict=True)
        }

    def _latencies(self, widths: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Latencies by form, microseconds, each (blocks,)."""
        found = self.structure
        unknown = [name for name in widths if name not in found.groups]
        if unknown:
            raise UsageError(f"there is no mask group {unknown[0][:80]!r}", f"Known: {', '.join(found.groups)}.")
        zero = torch.zeros((), dtype=torch.float64)
        change = torch.stack(
            [
                widths[name].double() - origin if name in widths else zero
                for name, origin in zip(found.groups, found.origin.tolist(), strict=True)
            ]
        )
        latencies = []
        for key, start, factors in zip(found.keys, found.start, found.factors, strict=True):
            fields = (torch.as_tensor(start) + torch.as_tensor(factors) @ change).clamp(min=0)
            logs = self._predictor.log_us(key, fields, smooth=True)
            latencies.append(logs.mean(dim=0).exp())
        return latencies


def latency_and_gradient(
    predictor: BlockPredictor, arch: Arch, input_size: tuple[int, int]
) -> tuple[float, dict[str, float]]:
    """Predicted latency of an architecture, and what one channel more of each mask group costs.

    Args:
        predictor: Predicts the blocks.
        arch: The architecture.
        input_size: Height and width in pixels.

    Returns:
        Milliseconds, and milliseconds per channel by mask group.

    Raises:
        UsageError: See :class:`DifferentiableLatency`.
    """
    latency = DifferentiableLatency(predictor, arch, input_size)
    found = latency.structure
    widths = {
        name: torch.tensor(origin, dtype=torch.float64, requires_grad=True)
        for name, origin in zip(found.groups, found.origin.tolist(), strict=True)
    }
    value = latency(widths)
    value.backward()  # type: ignore[no-untyped-call]
    return value.item(), {name: 0.0 if w.grad is None else w.grad.item() for name, w in widths.items()}


def structure_of(
    space: Space[Any], arch: Arch, input_size: tuple[int, int], predictor: BlockPredictor, *, seed: int = 0
) -> Structure:
    """Find how the fields of an architecture's blocks follow from the widths of its mask groups.

    Args:
        space: Holds the architecture.
        arch: The architecture.
        input_size: Height and width in pixels.
        predictor: Knows the fields of each form.
        seed: Draws the widths at which the sums are checked.

    Raises:
        UsageError: If the space has no mask groups, or the fields are no sums of widths.
    """
    plan = space.channel_plan(arch)
    if not plan.groups:
        raise UsageError(f"the space {space.id} has no mask groups, so latency has no gradient", "Take one that has.")
    names = tuple(plan.groups)
    origin = np.array([plan.groups[name].width for name in names], dtype=np.float64)
    blocks = space.blocks(arch, input_size)
    start = _fields(blocks, predictor)
    columns = []
    for name in names:
        width = plan.groups[name].width
        other = width - 1 if width > max(1, plan.groups[name].floor) else width + 1
        changed = _fields(space.blocks(space.with_widths(arch, {name: other}), input_size), predictor)
        _check_alike(start, changed, name)
        columns.append({key: (changed[key] - start[key]) / (other - width) for key in start})
    factors = {key: np.stack([column[key] for column in columns], axis=-1) for key in start}
    rng = np.random.default_rng(seed)
    drawn = {name: int(rng.integers(max(1, group.floor), group.width + 1)) for name, group in plan.groups.items()}
    change = np.array([drawn[name] for name in names]) - origin
    there = _fields(space.blocks(space.with_widths(arch, drawn), input_size), predictor)
    _check_alike(start, there, "at random")
    for key in start:
        if not np.allclose(there[key], start[key] + factors[key] @ change):
            raise UsageError(f"channels of {key[0]} are no sums of the widths of mask groups", "Report this space.")
    listed: dict[FormKey, list[str]] = {}
    for block in blocks:
        listed.setdefault(form_key(block), []).append(block.name)
    keys = tuple(start)
    return Structure(
        names,
        origin,
        keys,
        tuple(tuple(listed[key]) for key in keys),
        tuple(start[key] for key in keys),
        tuple(factors[key] for key in keys),
    )


def _fields(blocks: Sequence[BlockSpec], predictor: BlockPredictor) -> dict[FormKey, Floats]:
    """Fields of blocks by form."""
    found: dict[FormKey, list[tuple[int, ...]]] = {}
    for block in blocks:
        if why := "" if form_key(block) in predictor.forms else predictor.refusal(block):
            raise UsageError(f"the latency predictor cannot know {block.name}: {why}", "Measure blocks like it.")
        found.setdefault(form_key(block), []).append(predictor.forms[form_key(block)].form.fields(block))
    return {key: np.array(rows, dtype=np.float64) for key, rows in found.items()}


def _check_alike(one: Mapping[FormKey, Floats], other: Mapping[FormKey, Floats], where: str) -> None:
    if {key: fields.shape for key, fields in one.items()} != {key: fields.shape for key, fields in other.items()}:
        raise UsageError(f"changing the width {where} changes which blocks there are", "Give wider architectures.")
