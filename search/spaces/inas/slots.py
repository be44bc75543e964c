"""The slots of an iNAS network and the blocks that each can hold, see ``search.spaces.coding``.

Which block stands in a slot depends on the widths before and after it, the largest kernel and the connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from search.spaces.block import BlockSpec, Shape, conv_size
from search.spaces.coding import Numbering, Slot
from search.spaces.inas.arch import DECODER, KERNELS, LEVELS, STAGES, TRANSPORT, SubsetChoices, kernel_subsets
from search.spaces.inas.blocks import branch_block, fuse_block, head_block, mbconv_block, stem_block

PARTS = (("transport", TRANSPORT), ("decoder", DECODER))
"""The parts of the head and the connections that each level of them may have."""
SETS = kernel_subsets(KERNELS)
"""Kernel sets in the order of their gene; those of a stage that has kernel 3 alone come first."""


class InasSlots:
    """Makes the slots of one space at one input size.

    Args:
        stems: Widths that the stem can have.
        widths: Widths that each stage's layers can have.
        classes: Output maps.
        input_size: Height and width in pixels.
        numbering: Takes the blocks.
    """

    """Makes the slots of one space at one input size."""

    def __init__(
        self,
        stems: tuple[int, ...],
        widths: list[tuple[int, ...]],
        classes: int,
        input_size: tuple[int, int],
        numbering: Numbering,
    ) -> None:
        self._stems, self._widths, self._classes, self._input_size = stems, widths, classes, input_size
        self._numbering = numbering
        self._levels: list[tuple[str, list[Shape]]] = []  # column and shapes of each level

    def all(self) -> tuple[Slot, ...]:
        """Every slot in execution order."""
        stem = [stem_block(width, *self._input_size) for width in self._stems]
        slots = [self._slot("stem", ("stem",), stem, (len(stem),))]
        sources = [block.outputs[0] for block in stem]
        for stage in range(len(STAGES)):
            made, sources = self._stage(stage, sources)
            slots += made
        for part, connections in PARTS:
            order = range(LEVELS) if part == "transport" else reversed(range(LEVELS))
            for level in order:
                slots += self._level(part, level, connections[level])
        column, shapes = self._levels[0]
        heads = [head_block(shape, self._classes) for shape in shapes]
        return (*slots, self._slot("head", (column,), heads, (len(heads),)))

    def _stage(self, stage: int, sources: list[Shape]) -> tuple[list[Slot], list[Shape]]:
        """Slots of a stage's layers, and the shapes it can give."""
        choices, widths, column, slots = STAGES[stage], self._widths[stage], f"out.{stage - 1}", []
        sets = kernel_subsets(choices.kernels).subsets
        for layer in range(choices.depths[-1]):
            name, stride = f"stages.{stage}.{layer}", choices.stride if layer == 0 else 1
            blocks: list[BlockSpec | None] = [
                mbconv_block(name, source, width, kernels[-1], stride, choices.expand)
                for source, width, kernels in product(sources, widths, sets)
            ]
            columns: tuple[str, ...] = (column, f"width.{stage}.{layer}", f"kernels.{stage}.{layer}")
            shape: tuple[int, ...] = (len(sources), len(widths), len(sets))
            if layer >= choices.depths[0]:  # present in some depths only
                present = [depth > layer for depth in choices.depths]
                blocks = [block if there else None for there in present for block in blocks]
                columns, shape = (f"depth.{stage}", *columns), (len(present), *shape)
            slots.append(self._slot(name, columns, blocks, shape))
            if layer == 0:
                after = conv_size(sources[0][1], stride), conv_size(sources[0][2], stride)
                sources = [(width, *after) for width in widths]
            column = f"width.{stage}.{layer}"
        if choices.level is not None:
            self._levels.append((f"out.{stage}", sources))
        return slots, sources

    def _level(self, part: str, level: int, connections: SubsetChoices) -> list[Slot]:
        """Slots of one transport or decoder level: its branches, then its fusion."""
        reads, kernels = f"reads.{part}.{level}", f"kernels.{part}.{level}"
        column, shapes = self._levels[level]
        slots = []
        for other in connections.members:
            if other == level:
                continue
            source, sources = self._levels[other]
            blocks = [
                branch_block(part, level, other, theirs, shape) if other in subset else None
                for subset, theirs, shape in product(connections.subsets, sources, shapes)
            ]
            size = (len(connections.subsets), len(sources), len(shapes))
            slots.append(self._slot(f"{part}.{level}.from{other}", (reads, source, column), blocks, size))
        fuses = [
            fuse_block(part, level, len(subset), chosen[-1], shape)
            for subset, chosen, shape in product(connections.subsets, SETS.subsets, shapes)
        ]
        size = (len(connections.subsets), len(SETS.subsets), len(shapes))
        return [*slots, self._slot(f"{part}.{level}.fuse", (reads, kernels, column), fuses, size)]

    def _slot(
        self, name: str, columns: tuple[str, ...], blocks: Sequence[BlockSpec | None], shape: tuple[int, ...]
    ) -> Slot:
        return Slot(name, columns, self._numbering.ids_of(blocks, shape))
