"""Faults that a simulated device has on demand, to test what a caller does about them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from targets.errors import UsageError


class Fault(StrEnum):
    """What can go wrong in one call to the device."""

    DISCONNECT = "disconnect"
    """The connection is lost before the call does anything."""
    LOST_ANSWER = "lost_answer"
    """The call is done and its answer does not arrive."""
    TRUNCATED = "truncated"
    """A file arrives cut off."""
    SLOW_SHELL = "slow_shell"
    """A command takes longer than its deadline."""


@dataclass
class FaultPlan:
    """Which calls of a device fail, by their number or by chance.

    Attributes:
        at: Faults by number of the call, from 0.
        chance: Probability of each fault in every other call.
        seed: Seed of the draw.
    """

    at: Mapping[int, Fault] = field(default_factory=dict)
    chance: Mapping[Fault, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if any(not 0 <= chance <= 1 for chance in self.chance.values()) or sum(self.chance.values()) > 1:
            raise UsageError("the chances of a fault plan are not probabilities", "Give shares that sum to at most 1.")
        self._draw = random.Random(self.seed)
        self._calls = 0

    def next_fault(self) -> Fault | None:
        """The fault of the next call, if it has one."""
        number, drawn = self._calls, self._draw.random()
        self._calls += 1
        if number in self.at:
            return self.at[number]
        for fault, chance in self.chance.items():
            drawn -= chance
            if drawn < 0:
                return fault
        return None
