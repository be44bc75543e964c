"""Which whole networks to measure so that every block of a space is seen: greedy cover, then where it matters most.

A block measured inside a network costs what it costs there, with layout changes and dispatch. So blocks are covered by
networks, *carriers*: each is chosen so that it holds the blocks with the fewest observations.

In ``inas`` 324 carriers or more are needed for all 2,476 blocks, because the place ``stages.6.1`` alone can hold 324.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.latency.carriers_drawn import drawn_carriers
from search.latency.table import BlockKey
from search.spaces.coding import Codes, Coding, Slot
from search.spaces.space import Space

Weight = Callable[[BlockKey], float]
"""How much one more observation of a block is worth, at least 0; 1 where nothing is known."""

_SWEEPS = 2
_TRIED = 24
"""Ways of filling one slot that are tried at once."""
_SEEN_ONCE = 0.01
"""What a block seen once is worth beside one that never was: 40 of them do not make up for one."""
_SKEW = 6.0
"""Genes of a start are a uniform number to a power from 1 / this to this."""
_STEADY = 0.3
"""Share of the carriers whose depths and connections stay as they were drawn."""


def next_carriers(
    space: Space[Any],
    input_size: tuple[int, int],
    *,
    seen: Counter[BlockKey],
    weight: Weight | None = None,
    count: int,
    rng: random.Random,
) -> list[Any]:
    """The architectures to measure next.

    In a coded space a carrier starts as a random network, small, middling or big, and slots are then refilled while
    that gains: blocks never seen come first, then those seen least. Some carriers keep the depths and the
    connections they start with, so that not all are large. In other spaces see ``carriers_drawn``.

    Args:
        space: The space.
        input_size: Height and width in pixels.
        seen: How often each block was observed; not changed.
        weight: What multiplies a block's worth, such as the width of its predicted interval; all 1 where ``None``.
        count: How many architectures.
        rng: Same state, same architectures.

    Raises:
        UsageError: If the space's networks cannot take the input size.
    """
    coding = space.coding(input_size)
    if coding is None:
        return drawn_carriers(space, input_size, seen=seen, weight=weight, count=count, rng=rng)
    weights = np.array([1.0 if weight is None else weight(block.key) for block in coding.blocks])
    times = np.array([seen[block.key] for block in coding.blocks], dtype=np.int64)
    draw = np.random.default_rng(rng.getrandbits(64))
    rows = []
    for _ in range(count):
        values = weights * np.where(times == 0, 1.0, _SEEN_ONCE / np.maximum(times, 1) ** 2)
        row = _Climb(coding, values, draw).carrier()
        ids = coding.block_ids(row[None])[0]
        times += np.bincount(ids[ids >= 0], minlength=len(times))
        rows.append(row)
    return [coding.decode(row) for row in rows]


class _Climb:
    """Raises the worth of one row, slot by slot.

    Args:
        coding: Of the space.
        values: What it is worth to have each block, (B,).
        draw: Generator.
    """

    def __init__(self, coding: Coding[Any], values: NDArray[np.float64], draw: np.random.Generator) -> None:
        self._coding, self._draw = coding, draw
        self._values = np.append(values, 0.0)  # the last one is that of -1

    def carrier(self) -> Codes:
        """One good row, (genes,)."""
        skew = np.exp(self._draw.uniform(-1, 1) * np.log(_SKEW))  # above 1: small values of all genes
        sizes = self._coding.sizes
        row = np.floor(sizes * self._draw.random(len(sizes)) ** skew).astype(np.int16)
        fixed = self._coding.structure if self._draw.random() < _STEADY else frozenset()
        worth = self._worth(row[None])[0]
        for _ in range(_SWEEPS):
            before = worth
            for index in self._draw.permutation(len(self._coding.slots)):
                row, worth = self._refilled(row, worth, self._coding.slots[index], fixed)
            if worth == before:
                break
        best: Codes = self._coding.canonical(row[None])[0]
        return best

    def _refilled(self, row: Codes, worth: float, slot: Slot, fixed: frozenset[str]) -> tuple[Codes, float]:
        """The row with the slot's most valuable block, where that is worth more; what it is worth."""
        columns = self._coding.columns(row[None])
        values = self._values[slot.table]
        best = values.max()
        if best <= self._values[slot.table.ravel()[slot.entries(columns)[0]]]:
            return row, worth
        allowed = values > 0
        for axis, column in enumerate(slot.columns):
            if column in fixed:
                own = np.arange(slot.table.shape[axis]) == columns[column][0]
                allowed &= own.reshape([-1 if other == axis else 1 for other in range(allowed.ndim)])
        entries = np.flatnonzero(allowed)
        order = np.lexsort((self._draw.random(len(entries)), -values.ravel()[entries]))
        tried = np.repeat(row[None], min(len(entries), _TRIED), axis=0)
        for other, entry in zip(tried, entries[order], strict=False):
            for column, value in zip(slot.columns, np.unravel_index(entry, slot.table.shape), strict=True):
                self._coding.set_column(other, column, int(value))
        found = self._worth(tried)
        if not len(found) or found.max() <= worth:
            return row, worth
        return tried[found.argmax()], float(found.max())

    def _worth(self, rows: Codes) -> NDArray[np.float64]:
        """What each row's blocks are worth, every block counted once."""
        ids = np.sort(self._coding.block_ids(rows), axis=1)
        again = np.zeros(ids.shape, dtype=bool)
        again[:, 1:] = ids[:, 1:] == ids[:, :-1]
        found: NDArray[np.float64] = np.where(again, 0.0, self._values[ids]).sum(axis=1)
        return found
