"""Architectures as rows of small integers, and their blocks by table lookup: for whole populations at once (no torch).

A *gene* is one choice, a small integer. A *slot* is the place of one block in the network, its module path; which
block stands there is decided by a few genes, or by columns derived from them such as the width of a stage's last
layer. So each slot has a dense table from its columns' values to a block, made once for a space and an input size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from search.spaces.arch import Arch
from search.spaces.block import BlockSpec

A = TypeVar("A", bound=Arch)
Codes = NDArray[np.int16]
"""(N, genes): an architecture a row."""
Ids = NDArray[np.int32]
"""Indices of blocks; -1 where there is none."""
Columns = Mapping[str, NDArray[np.int16]]
"""Genes and derived columns by name, each (N,)."""

CHUNK = 16_384
"""Rows worked on at a time: their columns stay in the processor's cache."""


@dataclass(frozen=True)
class Slot:
    """The place of one block.

    Attributes:
        name: Module path, as in ``BlockSpec.name``.
        columns: Names of the columns that decide the block.
        table: Block index by the columns' values, one axis a column; -1 where there is no block. Fewer than 2^15
            entries, so that 16 bits count them.
    """

    name: str
    columns: tuple[str, ...]
    table: Ids

    def __post_init__(self) -> None:
        """Check the table's size."""
        assert self.table.size < 2**15, self.name

    def entries(self, columns: Columns) -> NDArray[np.int16]:
        """Where each row's block stands in the flattened table, (N,)."""
        first, *others = self.columns
        found = columns[first]
        for name, size in zip(others, self.table.shape[1:], strict=True):
            found = found * np.int16(size) + columns[name]
        return found


class Numbering:
    """Gives distinct blocks their indices in the order in which they come."""

    def __init__(self) -> None:
        self.blocks: list[BlockSpec] = []
        self._known: dict[object, int] = {}

    def id_of(self, block: BlockSpec) -> int:
        """The block's index; blocks with one key share it."""
        found = self._known.setdefault(block.key, len(self.blocks))
        if found == len(self.blocks):
            self.blocks.append(block)
        return found

    def ids_of(self, blocks: Iterable[BlockSpec | None], shape: tuple[int, ...]) -> Ids:
        """Indices of blocks as a table of that shape; -1 for ``None``."""
        ids = [-1 if block is None else self.id_of(block) for block in blocks]
        return np.array(ids, dtype=np.int32).reshape(shape)


class Coding(ABC, Generic[A]):
    """How a finite space's architectures are written as rows of integers.

    A space that has one gives it by ``Space.coding``. Genes that an architecture does not use, such as the widths of
    layers beyond its depth, are 0 in what ``encode`` and ``sample`` give.

    Attributes:
        genes: Name of each gene.
        sizes: Number of values of each gene, (genes,); any value of one gene goes with any of the others.
        slots: Places of blocks in execution order.
        structure: Those genes that say which slots have a block.
        blocks: Every distinct block (by key) that the space can have at the input size; ids are indices into it.
    """

    genes: tuple[str, ...]
    sizes: NDArray[np.int64]
    slots: tuple[Slot, ...]
    structure: frozenset[str]
    blocks: tuple[BlockSpec, ...]

    @abstractmethod
    def encode(self, archs: Sequence[A]) -> Codes:
        """Architectures as rows.

        Raises:
            UsageError: If one of them is not of the space.
        """

    @abstractmethod
    def decode(self, row: NDArray[Any]) -> A:
        """The architecture of one row, validated."""

    @abstractmethod
    def canonical(self, codes: Codes) -> Codes:
        """The same architectures with 0 in every gene that is not used."""

    @abstractmethod
    def columns(self, codes: Codes) -> Columns:
        """Genes and derived columns of a few rows."""

    @abstractmethod
    def set_column(self, row: Codes, column: str, value: int) -> None:
        """Change genes of one row, (genes,), so that a column has a value.

        A column that is no gene is set by the gene that it is derived from, with the row's other genes as they are.
        """

    def sample(self, count: int, rng: np.random.Generator) -> Codes:
        """Draw architectures with the distribution of ``Space.sample``, which is uniform in every gene."""
        return self.canonical(rng.integers(0, self.sizes, (count, len(self.genes)), dtype=np.int16))

    def chunks(self, codes: Codes) -> Iterator[tuple[slice, Columns]]:
        """The columns of all rows, ``CHUNK`` rows at a time."""
        for start in range(0, len(codes), CHUNK):
            rows = slice(start, min(start + CHUNK, len(codes)))
            yield rows, self.columns(codes[rows])

    def block_ids(self, codes: Codes) -> Ids:
        """Index of the block in each slot, (N, slots)."""
        found = np.empty((len(codes), len(self.slots)), dtype=np.int32)
        tables = [slot.table.ravel() for slot in self.slots]
        for rows, columns in self.chunks(codes):
            for index, (slot, table) in enumerate(zip(self.slots, tables, strict=True)):
                found[rows, index] = table[slot.entries(columns)]
        return found
