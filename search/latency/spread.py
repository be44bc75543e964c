"""Architectures spread evenly over a space's range of latency: uniform draws crowd in its middle."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from search.latency.model import Floats
from search.spaces.arch import Arch
from search.spaces.space import Space
from targets.errors import UsageError

_DRAWN = 12
"""Architectures drawn for each that is taken."""


def spread_archs(
    space: Space[Any],
    latency_ms: Callable[[Sequence[Arch]], Floats],
    count: int,
    rng: random.Random,
    *,
    taken: Collection[str] = (),
    allowed: Callable[[Arch], bool] = lambda arch: True,
) -> list[Arch]:
    """Draw architectures whose latencies fill equal groups between the fastest and the slowest that are found.

    Random draws are mixed with the space's ends in all proportions, and the ends are among them; each group takes the
    one nearest to a latency drawn within it. A group that nothing falls into takes the nearest there is.

    Args:
        space: The space.
        latency_ms: Predicted latencies of allowed architectures, any unit, (N,).
        count: How many.
        rng: The generator; equal ones give equal architectures.
        taken: Hashes of architectures that are not to be drawn.
        allowed: Which architectures may be drawn.

    Returns:
        ``count`` different architectures from low to high targets; fewer where so many are not found.
    """
    ends: list[Arch] = [space.smallest(), space.biggest()]
    drawn = (mixed(space, space.sample(rng), ends[number % 2], rng.random(), rng) for number in range(_DRAWN * count))
    different = {arch.sha256(): arch for arch in (*ends, *drawn) if arch is not None}
    free = [arch for key, arch in different.items() if key not in taken and allowed(arch)]
    if not free:
        return []
    left_ms = latency_ms(free)
    low, high = left_ms.min(), left_ms.max()
    found: list[Arch] = []
    for group in range(min(count, len(free))):
        target = low + (high - low) * (group + rng.random()) / count
        nearest = int(np.argmin(np.abs(left_ms - target)))
        found.append(free[nearest])
        free = free[:nearest] + free[nearest + 1 :]
        left_ms = np.delete(left_ms, nearest)
    return found


def mixed(space: Space[Any], first: Arch, second: Arch, share: float, rng: random.Random) -> Arch | None:
    """An architecture whose choices come from two others.

    Choices that stand at the same place of equally long lists come from the same one, as the layers' widths and
    kernels of a stage must.

    Args:
        space: Of both.
        first: Gives most where ``share`` is small.
        second: Gives most where it is large.
        share: Probability of each choice to come from ``second``.
        rng: Decides.

    Returns:
        The architecture, or ``None`` where the choices do not go together.
    """
    plain = _mixed(first.model_dump(mode="json"), second.model_dump(mode="json"), share, rng)
    try:
        arch: Arch = space.arch_class.checked(plain)
        space.validate(arch)
    except UsageError:
        return None
    return arch


def _mixed(first: dict[str, Any], second: dict[str, Any], share: float, rng: random.Random) -> dict[str, Any]:
    masks: dict[int, list[bool]] = {}

    def one(mine: Any, its: Any, take: bool) -> Any:
        if isinstance(mine, dict) and isinstance(its, dict) and mine.keys() == its.keys():
            return _mixed(mine, its, share, rng)
        return its if take else mine

    found: dict[str, Any] = {}
    for name, mine in first.items():
        its = second[name]
        if isinstance(mine, list) and isinstance(its, list) and len(mine) == len(its):
            mask = masks.setdefault(len(mine), [rng.random() < share for _ in mine])
            found[name] = [one(a, b, take) for a, b, take in zip(mine, its, mask, strict=True)]
        else:
            found[name] = one(mine, its, rng.random() < share)
    return found
