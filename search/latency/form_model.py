"""What a block predictor knows about one form of block: what it has seen, and the baseline of each member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.latency.baseline import Powers, candidate_terms, fit_factors, products
from search.latency.fields import Form
from search.torch_or_stub import torch

Floats = NDArray[np.float64]
TOLERANCE = 0.1
"""How far beyond the least and the most channels seen a block may lie, relative."""
_TINY_US = 1e-3


@dataclass(frozen=True)
class FormModel:
    """One form.

    Attributes:
        form: The form.
        low: Least of each field seen, (C,).
        high: Most of each field seen, (C,).
        sizes: Heights and widths of all inputs and outputs seen, flat, one row each.
        choices: Values seen of each setting that is no number of channels, by column.
        powers: Terms of the baseline, (T, C).
        factors: Factor of each term by each member, (members, T).
    """

    form: Form
    low: Floats
    high: Floats
    sizes: frozenset[tuple[int, ...]]
    choices: dict[int, frozenset[int]]
    powers: Powers
    factors: Floats

    def base(self, fields: torch.Tensor) -> torch.Tensor:
        """The baseline's latency by each member, microseconds: (N, C) to (members, N)."""
        terms = products(fields, self.powers)
        return (torch.as_tensor(self.factors) @ terms.T).clamp(min=_TINY_US)

    def refusal(self, fields: Sequence[int]) -> str:
        """Why a block lies outside of what was seen, ``""`` where it does not."""
        columns = self.form.columns
        size = tuple(value for value, yes in zip(fields, self.form.is_size, strict=True) if yes)
        if size not in self.sizes:
            return f"no {self.form.kind} of these heights and widths was measured"
        for at, seen in self.choices.items():
            if fields[at] not in seen:
                return f"{_said(columns[at])} {fields[at]} is none of {', '.join(map(str, sorted(seen)))}"
        for at, (name, wide) in enumerate(zip(columns, self.form.is_width, strict=True)):
            low, high = self.low[at] * (1 - TOLERANCE), self.high[at] * (1 + TOLERANCE)
            if wide and not low <= fields[at] <= high:
                return f"{_said(name)} {fields[at]} lies outside of {self.low[at]:g} to {self.high[at]:g}"
        return ""

    @classmethod
    def fit(cls, form: Form, fields: Floats, latency_us: Floats, weights: Floats, seen: NDArray[np.bool_]) -> FormModel:
        """Fit the baselines, each to the rows its member may see, or to all where it may see none.

        Args:
            form: The form.
            fields: (N, C).
            latency_us: (N,).
            weights: (N,).
            seen: Whether each member may see each row, (members, N).
        """
        powers = candidate_terms(form, fields)
        terms = products(torch.as_tensor(fields), powers).numpy()
        found = []
        for mine in seen:
            rows = mine if mine.any() else np.ones_like(mine)
            found.append(fit_factors(terms[rows], latency_us[rows], weights[rows]))
        factors = np.stack(found)
        used = np.array((factors > 0).any(axis=0), ndmin=1)
        if not used.any():
            used[0] = True
        sizes = fields[:, np.array(form.is_size)].astype(int)
        return cls(
            form,
            fields.min(axis=0),
            fields.max(axis=0),
            frozenset(map(tuple, sizes.tolist())),
            {at: frozenset(fields[:, at].astype(int).tolist()) for at, choice in enumerate(form.is_choice) if choice},
            np.ascontiguousarray(powers[used]),
            np.ascontiguousarray(factors[:, used]),
        )


def _said(column: str) -> str:
    """A field in words."""
    if column.startswith("set."):
        return column[4:]
    side = "input" if column.startswith("in") else "output"
    number = column.split(".")[0].removeprefix("in").removeprefix("out")
    return f"channels of {side} {number}:"
