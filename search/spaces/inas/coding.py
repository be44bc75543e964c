"""iNAS architectures as rows of integers, see ``search.spaces.coding``.

Genes: the stem's width; each stage's depth; width and kernel set of every layer up to the greatest depth; connections
and kernel set of every transport and decoder level. Each is drawn uniformly and on its own, as ``INASSpace.sample``
does. Which block stands in a slot depends on the widths before and after it, the largest kernel and the connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.spaces.coding import Codes, Coding, Columns, Numbering
from search.spaces.inas.arch import (
    LEVELS,
    MULTIPLE,
    STAGES,
    STEM_WIDTHS,
    TRANSPORT,
    INASArch,
    SubsetChoices,
    kernel_subsets,
    scaled,
)
from search.spaces.inas.slots import PARTS, SETS, InasSlots
from search.spaces.space import check_multiple
from targets.errors import UsageError

_SET_IDS = {subset: index for index, subset in enumerate(SETS.subsets)}
_READ_IDS = {subset: index for index, subset in enumerate(dict.fromkeys(s for c in TRANSPORT for s in c.subsets))}
_FIELDS = attrgetter(
    "space", "classes", "stem", "widths", "kernels", "transport", "transport_kernels", "decoder", "decoder_kernels"
)
_AT_ONCE = 1024
"""Architectures encoded together: few enough that what they refer to stays in the cache."""


@lru_cache(32)
def inas_coding(space: str, classes: int, input_size: tuple[int, int]) -> INASCoding:
    """The coding of a space at an input size, made once.

    Raises:
        UsageError: If the networks cannot take the input size.
    """
    return INASCoding(space, classes, input_size)


class INASCoding(Coding[INASArch]):
    """Rows of integers for one iNAS space.

    Args:
        space: Space id.
        classes: Output maps.
        input_size: Height and width in pixels.

    Raises:
        UsageError: If the networks cannot take the input size.
    """

    def __init__(self, space: str, classes: int, input_size: tuple[int, int]) -> None:
        check_multiple(input_size, MULTIPLE, f"the {space} network")
        self.space, self.classes = space, classes
        self._widths = [scaled(stage.widths, space) for stage in STAGES]
        self._stems = scaled(STEM_WIDTHS, space)
        sizes = {"stem": len(STEM_WIDTHS), **{f"depth.{n}": len(stage.depths) for n, stage in enumerate(STAGES)}}
        for stage, choices in enumerate(STAGES):
            sets = len(kernel_subsets(choices.kernels).subsets)
            for layer in range(choices.depths[-1]):
                sizes |= {f"width.{stage}.{layer}": len(choices.widths), f"kernels.{stage}.{layer}": sets}
        for part, connections in PARTS:
            for level in range(LEVELS):
                sizes |= {
                    f"reads.{part}.{level}": len(connections[level].subsets),
                    f"kernels.{part}.{level}": len(SETS.subsets),
                }
        self.genes = tuple(sizes)
        self.sizes = np.array(list(sizes.values()), dtype=np.int64)
        self.structure = frozenset(gene for gene in self.genes if gene.startswith(("depth.", "reads.")))
        self._at = {gene: index for index, gene in enumerate(self.genes)}
        numbering = Numbering()
        self.slots = InasSlots(self._stems, self._widths, classes, input_size, numbering).all()
        self.blocks = tuple(numbering.blocks)

    def encode(self, archs: Sequence[INASArch]) -> Codes:
        """Architectures as rows; see ``Coding.encode``."""
        parts = [self._encode(archs[start : start + _AT_ONCE]) for start in range(0, len(archs), _AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.genes)), dtype=np.int16)

    def decode(self, row: NDArray[Any]) -> INASArch:
        """The architecture of one row, validated."""
        gene = dict(zip(self.genes, map(int, row), strict=True))
        depths = [choices.depths[gene[f"depth.{stage}"]] for stage, choices in enumerate(STAGES)]
        fields: dict[str, object] = {
            "schema_version": 1,
            "space": self.space,
            "classes": self.classes,
            "stem": self._stems[gene["stem"]],
            "widths": tuple(
                tuple(self._widths[stage][gene[f"width.{stage}.{layer}"]] for layer in range(depth))
                for stage, depth in enumerate(depths)
            ),
            "kernels": tuple(
                tuple(SETS.subsets[gene[f"kernels.{stage}.{layer}"]] for layer in range(depth))
                for stage, depth in enumerate(depths)
            ),
        }
        for part, connections in PARTS:
            fields[part] = tuple(connections[level].subsets[gene[f"reads.{part}.{level}"]] for level in range(LEVELS))
            fields[f"{part}_kernels"] = tuple(SETS.subsets[gene[f"kernels.{part}.{level}"]] for level in range(LEVELS))
        return INASArch.checked(fields)

    def canonical(self, codes: Codes) -> Codes:
        """The same architectures with 0 in the genes of layers beyond a stage's depth."""
        found = codes.copy()
        for stage, choices in enumerate(STAGES):
            depth = found[:, self._at[f"depth.{stage}"]]
            for layer in range(choices.depths[0], choices.depths[-1]):
                at = self._at[f"width.{stage}.{layer}"]
                found[:, at : at + 2] *= (depth + choices.depths[0] > layer)[:, None]
        return found

    def columns(self, codes: Codes) -> Columns:
        """The genes, and by stage ``out.<stage>`` (width of the last layer)."""
        found: dict[str, NDArray[np.int16]] = dict(zip(self.genes, codes.T, strict=True))
        found["out.-1"] = found["stem"]
        for stage, choices in enumerate(STAGES):
            least, most = choices.depths[0], choices.depths[-1]
            depth = found[f"depth.{stage}"]
            out = found[f"width.{stage}.{least - 1}"]
            for layer in range(least, most):
                out = np.where(depth > layer - least, found[f"width.{stage}.{layer}"], out)
            found[f"out.{stage}"] = out
        return found

    def set_column(self, row: Codes, column: str, value: int) -> None:
        """Change one gene; for ``out.<stage>`` the width of that stage's last layer."""
        if column == "out.-1":
            column = "stem"
        elif column.startswith("out."):
            stage = column.removeprefix("out.")
            layers = STAGES[int(stage)].depths[int(row[self._at[f"depth.{stage}"]])]
            column = f"width.{stage}.{layers - 1}"
        row[self._at[column]] = value

    def _encode(self, archs: Sequence[INASArch]) -> Codes:
        """A few architectures as rows; only comprehensions and maps touch them one by one."""
        if set(map(type, archs)) != {INASArch}:
            raise UsageError(f"an architecture is none of {self.space}", "Give architectures of one space.")
        spaces, classes, stems, widths, kernels, *head = zip(*map(_FIELDS, archs), strict=True)
        foreign = set(zip(spaces, classes, strict=True)) - {(self.space, self.classes)}
        if foreign:
            space, number = foreign.pop()
            raise UsageError(
                f"an architecture of {space} with classes {number} is none of {self.space} with {self.classes}",
                "Give architectures of one space.",
            )
        if _lengths(widths, kernels) != {len(STAGES)} or _lengths(*head) != {LEVELS}:
            raise _foreign()
        codes = np.zeros((len(archs), len(self.genes)), dtype=np.int16)
        codes[:, 0] = _indices(np.array(stems), self._stems)
        stages = zip(zip(*widths, strict=True), zip(*kernels, strict=True), strict=True)
        for stage, (its_widths, its_kernels) in enumerate(stages):
            self._encode_stage(codes, stage, its_widths, its_kernels)
        for index, (part, connections) in enumerate(PARTS):
            at = self._at[f"reads.{part}.0"]
            reads, sets = head[2 * index : 2 * index + 2]
            codes[:, at + 1 : at + 2 * LEVELS : 2] = _numbers(sets, _SET_IDS).reshape(-1, LEVELS)
            for level, found in enumerate(_numbers(reads, _READ_IDS).reshape(-1, LEVELS).T):
                codes[:, at + 2 * level] = _all_known(_local_numbers(connections[level])[found])
        return codes

    def _encode_stage(self, codes: Codes, stage: int, widths: Sequence[Any], kernels: Sequence[Any]) -> None:
        """Fill in depth, widths and kernel sets of one stage."""
        choices = STAGES[stage]
        depths = np.fromiter(map(len, widths), np.int64, len(widths))
        if not np.array_equal(depths, np.fromiter(map(len, kernels), np.int64, len(kernels))):
            raise _foreign()
        codes[:, self._at[f"depth.{stage}"]] = _indices(depths, choices.depths)
        there = np.arange(choices.depths[-1]) < depths[:, None]
        at = self._at[f"width.{stage}.0"]
        end = at + 2 * choices.depths[-1]
        flat = np.fromiter(chain.from_iterable(widths), np.int64, int(depths.sum()))
        codes[:, at:end:2][there] = _indices(flat, self._widths[stage])
        sets = _numbers(kernels, _SET_IDS)
        allowed = len(kernel_subsets(choices.kernels).subsets)
        codes[:, at + 1 : end : 2][there] = _all_known(np.where(sets < allowed, sets, np.int16(-1)))


def _lengths(*fields: Iterable[Sequence[object]]) -> set[int]:
    return set(map(len, chain.from_iterable(fields)))


def _indices(found: NDArray[np.int64], choices: tuple[int, ...]) -> NDArray[np.int16]:
    """Where each value stands among ascending choices."""
    places = np.full(choices[-1] + 1, -1, dtype=np.int16)
    places[list(choices)] = np.arange(len(choices))
    if found.size and not 0 <= found.min() <= found.max() <= choices[-1]:
        raise _foreign()
    return _all_known(places[found])


def _numbers(subsets: Iterable[Sequence[tuple[int, ...]]], known: Mapping[tuple[int, ...], int]) -> NDArray[np.int16]:
    """The numbers of all subsets in a row."""
    try:
        return np.fromiter(map(known.__getitem__, chain.from_iterable(subsets)), np.int16)
    except KeyError as error:
        raise _foreign() from error


def _local_numbers(choices: SubsetChoices) -> NDArray[np.int16]:
    """From ``_READ_IDS`` to the place among one level's choices."""
    places = np.full(len(_READ_IDS), -1, dtype=np.int16)
    places[[_READ_IDS[subset] for subset in choices.subsets]] = np.arange(len(choices.subsets))
    return places


def _all_known(found: NDArray[np.int16]) -> NDArray[np.int16]:
    if found.size and found.min() < 0:
        raise _foreign()
    return found


def _foreign() -> UsageError:
    return UsageError(
        "an architecture has a choice that its space does not hold", "Make architectures by Arch.checked or from_json."
    )
