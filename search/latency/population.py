"""Many architectures at once: which blocks each has, and sums of figures over them without a loop over architectures.

In a space that can code its architectures (``Space.coding``) a population is an array of small integers, and a sum is
one table lookup a slot. In other spaces the blocks of each architecture are listed once, one by one, and only sums are
vectorised.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from search.spaces.arch import Arch
from search.spaces.block import BlockSpec
from search.spaces.coding import CHUNK, Codes, Coding, Ids, Numbering
from search.spaces.space import Space
from targets.errors import UsageError

Floats = NDArray[np.float64]


class Population(Sequence[Arch]):
    """N architectures of one space, at one input size; a sequence of them that makes each one when it is asked for.

    Attributes:
        space: The space.
        input_size: Height and width in pixels.
        blocks: Distinct blocks; ids are indices into it. All of the space where it is coded, else those that occur.
        slots: Places of blocks, by module path.
    """

    space: Space[Any]
    input_size: tuple[int, int]
    blocks: tuple[BlockSpec, ...]
    slots: tuple[str, ...]

    @overload
    def __getitem__(self, index: int) -> Arch: ...
    @overload
    def __getitem__(self, index: slice) -> Population: ...
    def __getitem__(self, index: int | slice) -> Arch | Population:
        """One architecture, or some of them as a population."""
        return self._some(index) if isinstance(index, slice) else self._one(index)

    @abstractmethod
    def block_ids(self) -> Ids:
        """Index into ``blocks`` for each slot, (N, slots), -1 where an architecture has no block there."""

    @abstractmethod
    def sum_blocks(self, values: NDArray[Any]) -> Floats:
        """Sum a figure over each architecture's blocks.

        Args:
            values: The figure of each of ``blocks``, for example its latency in us: (B,), or (B, M) for M figures. What
                blocks have that no architecture uses does not matter.

        Returns:
            (N,) or (N, M), float64.
        """

    @abstractmethod
    def sum_by_part(self, values: NDArray[Any]) -> dict[str, Floats]:
        """As ``sum_blocks``, for each part of the network: ``stem``, ``stages``, ...; see ``part_of``."""

    def used(self) -> NDArray[np.bool_]:
        """Which of ``blocks`` occur, (B,)."""
        found = np.zeros(len(self.blocks) + 1, dtype=bool)  # the last one is that of -1
        for start in range(0, len(self), CHUNK):
            found[self[start : start + CHUNK].block_ids()] = True
        return found[:-1]

    @abstractmethod
    def _one(self, index: int) -> Arch: ...

    @abstractmethod
    def _some(self, rows: slice) -> Population: ...

    def _checked(self, values: NDArray[Any]) -> Floats:
        """The figures with a last row for -1."""
        found = np.asarray(values, dtype=np.float64)
        if found.shape[:1] != (len(self.blocks),):
            raise UsageError(f"figures of shape {found.shape} are not one for each of {len(self.blocks)} blocks")
        return np.concatenate([found, np.zeros((1, *found.shape[1:]))])


class CodedPopulation(Population):
    """Architectures as rows of integers.

    Args:
        space: The space, which has a coding.
        input_size: Height and width in pixels.
        coding: Its coding at that size.
        codes: (N, genes), as ``Coding.encode`` or ``Coding.sample`` give them.

    Raises:
        UsageError: If a value is none of its gene's.

    Attributes:
        coding: As given.
        codes: As given, with each gene's values side by side in memory.
    """

    def __init__(self, space: Space[Any], input_size: tuple[int, int], coding: Coding[Any], codes: Codes) -> None:
        self.space, self.input_size, self.coding = space, input_size, coding
        if codes.shape[1:] != (len(coding.genes),) or ((codes < 0) | (codes >= coding.sizes.astype(np.int16))).any():
            raise UsageError(f"these rows of integers are no architectures of {space.id}", "Take those of its coding.")
        self.codes = np.asfortranarray(codes)
        self.blocks = coding.blocks
        self.slots = tuple(slot.name for slot in coding.slots)

    def __len__(self) -> int:
        """Number of architectures."""
        return len(self.codes)

    def block_ids(self) -> Ids:
        """See ``Population.block_ids``."""
        return self.coding.block_ids(self.codes)

    def sum_blocks(self, values: NDArray[Any]) -> Floats:
        """See ``Population.sum_blocks``."""
        return self._sums(values, ["" for _ in self.slots])[""]

    def sum_by_part(self, values: NDArray[Any]) -> dict[str, Floats]:
        """See ``Population.sum_by_part``."""
        return self._sums(values, [part_of(name) for name in self.slots])

    def _sums(self, values: NDArray[Any], parts: Sequence[str]) -> dict[str, Floats]:
        padded = self._checked(values)
        tables = [padded[slot.table.ravel()] for slot in self.coding.slots]
        found = {part: np.zeros((len(self), *padded.shape[1:])) for part in parts}
        for rows, columns in self.coding.chunks(self.codes):
            for slot, table, part in zip(self.coding.slots, tables, parts, strict=True):
                found[part][rows] += table.take(slot.entries(columns), axis=0, mode="clip")  # all are inside
        return found

    def _one(self, index: int) -> Arch:
        arch: Arch = self.coding.decode(self.codes[index])
        return arch

    def _some(self, rows: slice) -> CodedPopulation:
        some = copy(self)
        some.codes = self.codes[rows]
        return some


class ListedPopulation(Population):
    """Architectures whose blocks are listed one by one, for spaces without a coding.

    Args:
        space: The space.
        input_size: Height and width in pixels.
        archs: The architectures.

    Raises:
        UsageError: If one of them cannot take the input size.
    """

    def __init__(self, space: Space[Any], input_size: tuple[int, int], archs: Sequence[Any]) -> None:
        self.space, self.input_size, self._archs = space, input_size, tuple(archs)
        numbering, places = Numbering(), dict[str, int]()
        rows, slots, ids = [], [], []
        for row, arch in enumerate(self._archs):
            for spec in space.blocks(arch, input_size):
                rows.append(row)
                slots.append(places.setdefault(spec.name, len(places)))
                ids.append(numbering.id_of(spec))
        self.blocks, self.slots = tuple(numbering.blocks), tuple(places)
        self._ids = np.full((len(self._archs), len(places)), -1, dtype=np.int32)
        self._ids[rows, slots] = ids

    def __len__(self) -> int:
        """Number of architectures."""
        return len(self._archs)

    def __iter__(self) -> Iterator[Arch]:
        """The architectures as they were given."""
        return iter(self._archs)

    def block_ids(self) -> Ids:
        """See ``Population.block_ids``."""
        return self._ids

    def sum_blocks(self, values: NDArray[Any]) -> Floats:
        """See ``Population.sum_blocks``."""
        return self._sum(self._checked(values), range(len(self.slots)))

    def sum_by_part(self, values: NDArray[Any]) -> dict[str, Floats]:
        """See ``Population.sum_by_part``."""
        padded, parts = self._checked(values), dict[str, list[int]]()
        for slot, name in enumerate(self.slots):
            parts.setdefault(part_of(name), []).append(slot)
        return {part: self._sum(padded, slots) for part, slots in parts.items()}

    def _sum(self, padded: Floats, slots: Sequence[int]) -> Floats:
        found = np.zeros((len(self), *padded.shape[1:]))
        for slot in slots:
            found += padded[self._ids[:, slot]]
        return found

    def _one(self, index: int) -> Arch:
        arch: Arch = self._archs[index]
        return arch

    def _some(self, rows: slice) -> ListedPopulation:
        some = copy(self)
        some._archs, some._ids = self._archs[rows], self._ids[rows]
        return some


def population_of(space: Space[Any], input_size: tuple[int, int], archs: Sequence[Any]) -> Population:
    """Architectures as a population; one that is a population of this space and size already is given back.

    Args:
        space: Their space.
        input_size: Height and width in pixels.
        archs: The architectures.

    Raises:
        UsageError: If one of them is not of the space, or cannot take the input size.
    """
    if isinstance(archs, Population):
        if (archs.space.id, archs.space.classes, archs.input_size) != (space.id, space.classes, input_size):
            raise UsageError(
                f"the population is of {archs.space.id} at {archs.input_size}, not {space.id} {input_size}"
            )
        return archs
    coding = space.coding(input_size)
    if coding is not None:
        return CodedPopulation(space, input_size, coding, coding.encode(archs))
    for arch in archs:
        if arch.space != space.id or getattr(arch, "classes", space.classes) != space.classes:
            raise UsageError(
                f"an architecture of {arch.space} is not of the space {space.id}", "Give those of one space."
            )
    return ListedPopulation(space, input_size, archs)


def sample_population(
    space: Space[Any], input_size: tuple[int, int], count: int, rng: np.random.Generator
) -> Population:
    """Draw architectures with the distribution of ``Space.sample``; the same generator draws the same ones.

    Args:
        space: The space.
        input_size: Height and width in pixels.
        count: How many.
        rng: The generator.
    """
    coding = space.coding(input_size)
    if coding is not None:
        return CodedPopulation(space, input_size, coding, coding.sample(count, rng))
    draw = random.Random(int(rng.integers(2**63)))
    return ListedPopulation(space, input_size, [space.sample(draw) for _ in range(count)])


def part_of(name: str) -> str:
    """The part of the network that a module path belongs to: its first step, for example ``stages``."""
    return name.partition(".")[0]
