"""Figures measured at different speeds of a machine, told at one: what a reference network took beside each says how.

A machine that others share runs a process by several percent slower or faster than the one before. Where a reference
network took turns with each network in its very process, the quotient of the two hardly changes, so all figures are
told as they would be at the speed at which the reference takes what it usually takes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from search.latency.observations import Observation
from search.spaces.arch import Arch
from search.spaces.registry import arch_from_parsed
from search.spaces.space import Space
from targets.records import Frozen


class Reference(Frozen):
    """The network that took turns with every other, and what it took.

    Attributes:
        arch: Its architecture, as ``Arch.to_json`` writes it.
        latency_ms: What it usually takes: the speed of the machine that all figures are told at.
    """

    arch: dict[str, Any]
    latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @cached_property
    def architecture(self) -> Arch:
        """The architecture itself.

        Raises:
            UsageError: If it is none that this version of the kit knows.
        """
        return arch_from_parsed(self.arch)


def reference_arch(space: Space[Any], seed: int) -> Arch:
    """The network that takes turns with all others of a run.

    Args:
        space: Of the run.
        seed: Of the run.
    """
    arch: Arch = space.sample(random.Random(seed))
    return arch


def usual_reference_us(observations: Sequence[Observation]) -> float | None:
    """What the reference usually took, microseconds: the median over observations; ``None`` where none was there."""
    found = [one.reference_us for one in observations if one.reference_us is not None]
    return float(np.median(found)) if found else None


def at_one_speed(observations: Sequence[Observation], reference_us: float | None = None) -> tuple[Observation, ...]:
    """Observations as they would be at one speed of the machine; those without a reference stay as they are.

    Args:
        observations: Of one run, or of several that had the same reference network.
        reference_us: What the reference takes at that speed; by default what it usually took.
    """
    usual_us = reference_us or usual_reference_us(observations)
    return tuple(
        one if one.reference_us is None or usual_us is None else _scaled(one, usual_us / one.reference_us, usual_us)
        for one in observations
    )


def _scaled(one: Observation, factor: float, reference_us: float) -> Observation:
    return one.model_copy(
        update={
            "total_us": one.total_us * factor,
            "blocks_us": {name: value * factor for name, value in one.blocks_us.items()},
            "unattributed_us": one.unattributed_us * factor,
            "straddling_us": one.straddling_us * factor,
            "reference_us": reference_us,
        }
    )
