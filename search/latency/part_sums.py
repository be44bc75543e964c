"""Summed block latencies of many architectures, by part of the network; populations without a loop per architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from search.latency.conditions import Conditions
from search.latency.model import Floats
from search.latency.population import Population, population_of
from search.latency.table import BlockKey
from search.spaces.block import BlockSpec
from search.spaces.registry import find_space
from targets.errors import UsageError, printable


class PartSums:
    """Adds up what the blocks of architectures take; each block's latency is asked for once and kept.

    Args:
        conditions: Space, classes and input size of the architectures.
        latency_us_of: Latency of blocks, microseconds, in their order; refuses those it does not know.
    """

    def __init__(self, conditions: Conditions, latency_us_of: Callable[[Sequence[BlockSpec]], Sequence[float]]) -> None:
        self.conditions = conditions
        self._latency_us_of = latency_us_of
        self._known: dict[BlockKey, float] = {}
        self._last: tuple[tuple[BlockSpec, ...], Floats] | None = None

    def population(self, archs: Sequence[Any] | Population) -> Population:
        """Architectures as a population of the conditions' space and size.

        Raises:
            UsageError: If one of them is of another space, class count or input size.
        """
        wanted = self.conditions
        if isinstance(archs, Population):
            space, size = archs.space, tuple(archs.input_size)
            if (space.id, space.classes, size) != (wanted.space, wanted.classes, wanted.input_size):
                raise self._foreign(f"{space.id} with {space.classes} classes at {size[0]}x{size[1]}")
            return archs
        for arch in archs:
            if arch.space != wanted.space or getattr(arch, "classes", wanted.classes) != wanted.classes:
                raise self._foreign(f"{arch.space} with {getattr(arch, 'classes', 1)} classes")
        return population_of(find_space(wanted.space, wanted.classes), wanted.input_size, archs)

    def by_part(self, archs: Sequence[Any] | Population) -> dict[str, Floats]:
        """Milliseconds by part of the network, each (N,).

        Raises:
            UsageError: As :meth:`population`, or if a block is not known.
        """
        population = self.population(archs)
        sums = population.sum_by_part(self._latency_us(population))
        return {part: np.asarray(values, np.float64) / 1e3 for part, values in sums.items()}

    def total_ms(self, archs: Sequence[Any] | Population) -> Floats:
        """Milliseconds of all blocks together, (N,); raises as :meth:`by_part`."""
        population = self.population(archs)
        return np.asarray(population.sum_blocks(self._latency_us(population)), np.float64) / 1e3

    def matrix(self, archs: Sequence[Any] | Population, parts: Sequence[str]) -> Floats:
        """Milliseconds, (N, parts), in the order of the given parts; raises as :meth:`by_part`."""
        found = self.by_part(archs)
        strange = [part for part, values in found.items() if part not in parts and values.any()]
        if strange:
            raise UsageError(
                f"the networks have a part {printable(strange[0])!r}, unknown to the calibration",
                f"It was for {', '.join(parts)}.",
            )
        none = np.zeros(len(archs))
        return np.stack([found.get(part, none) for part in parts], 1)

    def _latency_us(self, population: Population) -> Floats:
        blocks = population.blocks
        if self._last is None or self._last[0] is not blocks:
            self._last = blocks, np.array([self._known.get(block.key, np.nan) for block in blocks])
        values = self._last[1]
        if np.isnan(values).any():
            missing = np.flatnonzero(np.isnan(values) & population.used())
            if len(missing):
                values[missing] = self._latency_us_of([blocks[index] for index in missing])
                self._known.update((blocks[index].key, float(values[index])) for index in missing)
        return values

    def _foreign(self, what: str) -> UsageError:
        wanted = self.conditions
        return UsageError(
            f"the model is for {wanted.space} with {wanted.classes} classes at "
            f"{wanted.input_size[0]}x{wanted.input_size[1]}, not for {printable(what)}",
            "Profile that space too, or take architectures of this one.",
        )
