"""A sum of products of a block's fields with non-negative factors: what a device would need if work were all.

Terms are elements, multiply-accumulates and the like: channels x channels x area x kernel^2, found per form by
non-negative least squares on the relative error. Non-negative factors make it grow with every number of channels and
keep it sane beyond the range that was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from search.latency.fields import COUNT, Form
from search.torch_or_stub import torch
from targets.extras import require

Floats = NDArray[np.float64]
Powers = NDArray[np.int64]
"""Terms as exponents of the fields, (terms, C)."""

_RIDGE = 3e-3
_MOST_PAIRED = 8
_ROUNDS = 3
_FAR = 2.0


def products(fields: torch.Tensor, powers: Powers) -> torch.Tensor:
    """Terms of blocks, differentiable: (N, C) and (T, C) to (N, T)."""
    found = torch.ones(len(fields), len(powers), dtype=torch.float64)
    exponents = torch.as_tensor(powers)
    for column in range(exponents.shape[1]):
        for power in range(1, int(powers[:, column].max(initial=0)) + 1):
            found = torch.where(exponents[:, column] >= power, found * fields[:, column : column + 1], found)
    return found


def candidate_terms(form: Form, fields: Floats) -> Powers:
    """Terms that may matter for a form; of terms that differ by a factor on all rows only the first is kept.

    Args:
        form: The form.
        fields: Fields of the training rows, (N, C).
    """
    found = [np.zeros(len(form.columns), dtype=np.int64), *_terms(form, fields)]
    values = products(torch.as_tensor(fields), np.array(found)).numpy()
    norms = values / np.maximum(np.abs(values).max(axis=0), 1e-12)
    kept: dict[bytes, int] = {}
    for at in range(len(found)):
        if values[:, at].max() > 0:
            kept.setdefault(np.round(norms[:, at], 9).tobytes(), at)
    return np.array([found[at] for at in kept.values()])


def fit_factors(terms: Floats, latency_us: Floats, weights: Floats) -> Floats:
    """Non-negative factors of terms, least squares on the relative error with a little pull to zero.

    Rows far off count less in a second and third round (Huber's weights), so that a few bad measurements do no harm.

    Args:
        terms: (N, T).
        latency_us: (N,).
        weights: Of the rows, (N,).

    Returns:
        (T,), microseconds per unit of each term.
    """
    nnls = require("scipy.optimize", "predictor").nnls
    relative = terms / latency_us[:, None]
    factors: Floats = np.zeros(terms.shape[1])
    trust = np.ones(len(terms))
    for _ in range(_ROUNDS):
        roots = np.sqrt(weights * trust / (weights * trust).sum())
        matrix = relative * roots[:, None]
        scale = np.sqrt((matrix**2).sum(axis=0))
        ridge = _RIDGE * np.eye(terms.shape[1])
        answer, _ = nnls(np.vstack([matrix / scale, ridge]), np.append(roots, np.zeros(len(ridge))), maxiter=10_000)
        factors = answer / scale
        error = np.abs(relative @ factors - 1)
        trust = 1 / np.maximum(1, error / max(1e-3, _FAR * float(np.median(error))))
    return factors


def _terms(form: Form, fields: Floats) -> Iterator[Powers]:
    """Widths and pairs of widths, x each area, x kernel^2, number of inputs or a flag; tokens^2 of attention."""
    columns = form.columns
    one = np.eye(len(columns), dtype=np.int64)
    widths = [one[at] for at, yes in enumerate(form.is_width) if yes]
    areas = [one[3 * slot + 1] + one[3 * slot + 2] for slot in range(form.slots)]
    extras = [np.zeros(len(columns), dtype=np.int64)]
    for name in form.settings:
        at = columns.index(f"set.{name}")
        if name == "kernel":
            extras.append(2 * one[at])
        elif name == COUNT or set(fields[:, at].tolist()) == {0.0, 1.0}:
            extras.append(one[at])
    pairs = list(combinations_with_replacement(range(len(widths)), 2))
    if len(widths) > _MOST_PAIRED:
        pairs = [(a, b) for a, b in pairs if a < form.inputs <= b < form.slots or b >= form.slots > a]
    heads = [widths[a] + widths[b] for a, b in pairs]
    for extra in extras:
        for area in areas:
            yield area + extra
            for term in (*widths, *heads):
                yield area + extra + term
    for term in (*widths, *heads):  # what is done once for all pixels: squeeze-excite, a global average
        yield term
    if "heads" in form.settings:
        for area in areas:
            for term in widths:
                yield 2 * area + term
