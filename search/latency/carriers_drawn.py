"""Carriers for spaces with too many widths to list: drawn so that blocks lie far from all that was measured.

Widths that devices like and dislike both come up: half of all widths are multiples of 8, a quarter one more or less,
the rest any. Among many draws, from narrow to wide, the one is taken whose blocks are farthest, in
the logarithm of all their numbers, from blocks of the same form that were observed (a maximin design).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.latency.table import BlockKey
from search.spaces.arch import Arch
from search.spaces.groups import MaskGroup
from search.spaces.space import Space

_DRAWS = 24
"""Architectures among which each carrier is chosen."""
_GRID, _ON_GRID, _BESIDE = 8, 0.5, 0.25
_SPREAD = 0.2
"""Standard deviation of one network's widths, as shares of their ranges."""
_FARTHEST = 3.0
"""Distance of a block whose form was never seen: about e^3 = 20 times in one number."""


def drawn_carriers(
    space: Space[Any],
    input_size: tuple[int, int],
    *,
    seen: Counter[BlockKey],
    weight: Callable[[BlockKey], float] | None,
    count: int,
    rng: random.Random,
) -> list[Any]:
    """The architectures to measure next; see the module.

    The space's smallest and biggest architectures come first where their blocks were not seen: between them a
    predictor never has to go beyond what it knows.

    Args:
        space: The space.
        input_size: Height and width in pixels.
        seen: How often each block was observed; not changed.
        weight: What multiplies a block's distance; all 1 where ``None``.
        count: How many architectures.
        rng: Same state, same architectures.

    Raises:
        UsageError: If the space's networks cannot take the input size.
    """
    known = _Known()
    for key in seen:
        known.add(key)
    full = space.channel_plan(space.biggest()).groups
    observed, found = set(seen), list[Any]()
    for arch in (space.biggest(), space.smallest()):
        keys = {spec.key for spec in space.blocks(arch, input_size)}
        if len(found) < count and not keys <= observed:
            found.append(arch)
            observed |= keys
            known.add_all(keys)
    while len(found) < count:
        best, best_keys, best_gain = None, set[BlockKey](), -1.0
        for _ in range(_DRAWS):
            arch = _with_drawn_widths(space, space.sample(rng), full, rng)
            keys = {spec.key for spec in space.blocks(arch, input_size)}
            gain = sum(known.distance(key) * (1.0 if weight is None else weight(key)) for key in sorted(keys))
            if gain > best_gain:
                best, best_keys, best_gain = arch, keys, gain
        found.append(best)
        known.add_all(best_keys)
    return found


def _with_drawn_widths(space: Space[Any], arch: Arch, full: Mapping[str, MaskGroup], rng: random.Random) -> Arch:
    """The architecture with widths on, beside and off a grid of 8, all towards narrow or all towards wide.

    Groups that ``full`` lacks, those of other paths, keep the widths that the space drew.
    """
    share, widths = rng.random(), dict[str, int]()
    for name in space.channel_plan(arch).groups:
        if name not in full:
            continue
        least, most = max(1, full[name].floor), full[name].width
        drawn = round(least + (most - least) * rng.gauss(share, _SPREAD))
        kind = rng.random()
        if kind < _ON_GRID + _BESIDE:
            drawn = round(drawn / _GRID) * _GRID + (0 if kind < _ON_GRID else rng.choice((-1, 1)))
        widths[name] = min(most, max(least, drawn))
    wanted: Arch = space.with_widths(arch, widths)
    return wanted


class _Known:
    """Blocks that were observed, as points: by form, the logarithms of all numbers of their keys."""

    def __init__(self) -> None:
        self._points: dict[object, list[tuple[float, ...]]] = {}
        self._arrays: dict[object, NDArray[np.float64]] = {}

    def add(self, key: BlockKey) -> None:
        form, point = _point(key)
        self._points.setdefault(form, []).append(point)
        self._arrays.pop(form, None)

    def add_all(self, keys: set[BlockKey]) -> None:
        for key in sorted(keys):
            self.add(key)

    def distance(self, key: BlockKey) -> float:
        """Euclidean distance to the nearest block of that form."""
        form, point = _point(key)
        if form not in self._points:
            return _FARTHEST
        if form not in self._arrays:
            self._arrays[form] = np.array(self._points[form])
        return float(np.sqrt(((self._arrays[form] - np.array(point)) ** 2).sum(axis=1).min()))


def _point(key: BlockKey) -> tuple[object, tuple[float, ...]]:
    kind, inputs, outputs, settings = key
    numbers = [*(n for shape in (*inputs, *outputs) for n in shape), *(value for _, value in settings)]
    form = kind, len(inputs), len(outputs), tuple(name for name, _ in settings)
    return form, tuple(log(1 + number) for number in numbers)
