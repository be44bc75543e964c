"""Pairs of blocks of which the second has more channels and, as far as the table knows, is no faster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.latency.fields import Form

Floats = NDArray[np.float64]
_FALLING = 0.1
"""Share of measured pairs that fall from which on a form counts as not monotone."""
_LEAST_PAIRS = 300
_STEPS = (1, 2, 4, 8, 16)


def measured_pairs(
    form: Form, fields: Floats, latency_us: Floats, noise: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp], float]:
    """Pairs of rows that differ in widths only, all of them at least as wide in the second.

    Args:
        form: The form.
        fields: (N, C).
        latency_us: (N,).
        noise: Relative standard deviation of a latency.
        rng: Draws the partners.

    Returns:
        Narrow rows and wide rows, without pairs that were measured to fall by more than noise, and the share of pairs
        that were.
    """
    wide = np.array(form.is_width)
    _, group = np.unique(fields[:, ~wide], axis=0, return_inverse=True)
    order = np.lexsort((rng.random(len(fields)), group.ravel()))
    lesser, greater = [], []
    for shift in range(1, 9):
        first, second = order[:-shift], order[shift:]
        same = group.ravel()[first] == group.ravel()[second]
        difference = (fields[second] - fields[first])[:, wide]
        up = same & (difference >= 0).all(axis=1) & (difference > 0).any(axis=1)
        down = same & (difference <= 0).all(axis=1) & (difference < 0).any(axis=1)
        lesser += [first[up], second[down]]
        greater += [second[up], first[down]]
    narrow, broad = np.concatenate(lesser), np.concatenate(greater)
    falls = latency_us[broad] < latency_us[narrow] * (1 - 2 * noise)
    return narrow[~falls], broad[~falls], float(falls.mean()) if len(falls) else 0.0


def widening_pairs(
    form: Form, fields: Floats, latency_us: Floats, noise: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Fields of narrow and of wide blocks, (P, C) each: measured pairs, and blocks near measured ones that are widened.

    The latter only where the table is monotone.
    """
    narrow, broad, falling = measured_pairs(form, fields, latency_us, noise, rng)
    lesser, greater = [fields[narrow]], [fields[broad]]
    if falling < _FALLING:
        for at, yes in enumerate(form.is_width):
            low, high = fields[:, at].min(), fields[:, at].max()
            if yes and low < high:
                less = fields[rng.integers(len(fields), size=max(_LEAST_PAIRS, len(fields)))]
                moved = less[:, at] * rng.uniform(0.9, 1.1, len(less))
                less[:, at] = np.clip(np.round(moved), low, high - 1)
                more = less.copy()
                steps = np.maximum(
                    rng.choice(_STEPS, len(less)), np.round(less[:, at] * rng.uniform(0, 0.1, len(less)))
                )
                more[:, at] = np.minimum(less[:, at] + steps, high)
                lesser.append(less)
                greater.append(more)
    return np.concatenate(lesser), np.concatenate(greater)
