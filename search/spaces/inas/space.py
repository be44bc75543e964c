"""The iNAS search spaces: what may be chosen, drawn and counted; the networks are made in ``network`` (torch)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, ClassVar

from search.spaces.inas.arch import (
    DECODER,
    KERNELS,
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
from search.spaces.space import Space

if TYPE_CHECKING:
    from torch import nn

    from search.spaces.coding import Coding

_HEAD_KERNELS = kernel_subsets(KERNELS)


class INASSpace(Space[INASArch]):
    """iNAS (ICCV 2021) at a width factor: per-layer widths and kernel subsets, depths, transport, decoder.

    ``sample`` draws every choice on its own and uniformly: the stem's width; each stage's depth; each layer's width
    and its kernel set among all non-empty subsets; each level's connections and kernel set among all it may have. So
    the largest kernel is 9, 7, 5 or 3 with probability 8/15, 4/15, 2/15, 1/15, and a depth is as likely as another
    although more architectures have the greater one.
    """

    title: ClassVar[str] = "iNAS: MBConv backbone with multi-scale units, transport and decoder"
    arch_class: ClassVar[type[INASArch]] = INASArch
    multiple: ClassVar[int] = MULTIPLE

    @property
    def output_name(self) -> str:
        """``saliency``, or ``logits`` where there are more classes than one."""
        return "saliency" if self.classes == 1 else "logits"

    def smallest(self) -> INASArch:
        """Least depths and widths, kernel 3 only, only the connections that must be."""
        return self._extreme(0)

    def biggest(self) -> INASArch:
        """Greatest depths and widths, all kernels, all connections.

        Uneven widths in a stage put convolutions on its shortcuts, so that a few architectures have a little more
        parameters.
        """
        return self._extreme(-1)

    def sample(self, rng: random.Random) -> INASArch:
        """Draw one architecture, every choice uniform and on its own; see the class."""
        choice = rng.choice
        depths = [choice(stage.depths) for stage in STAGES]
        return self._arch(
            stem=choice(self._widths(STEM_WIDTHS)),
            widths=tuple(
                tuple(choice(self._widths(stage.widths)) for _ in range(depth))
                for stage, depth in zip(STAGES, depths, strict=True)
            ),
            kernels=tuple(
                tuple(choice(kernel_subsets(stage.kernels).subsets) for _ in range(depth))
                for stage, depth in zip(STAGES, depths, strict=True)
            ),
            transport=tuple(choice(level.subsets) for level in TRANSPORT),
            transport_kernels=tuple(choice(_HEAD_KERNELS.subsets) for _ in range(LEVELS)),
            decoder=tuple(choice(level.subsets) for level in DECODER),
            decoder_kernels=tuple(choice(_HEAD_KERNELS.subsets) for _ in range(LEVELS)),
        )

    def neighbours(self, arch: INASArch) -> Iterator[INASArch]:
        """Every architecture that differs in one choice.

        One width has another value; one kernel set or one level's connections has one member more or fewer; one stage
        is without its last layer, or has a copy of it more.
        """
        for width in self._widths(STEM_WIDTHS):
            if width != arch.stem:
                yield arch.model_copy(update={"stem": width})
        for stage, choices in enumerate(STAGES):
            widths, kernels = arch.widths[stage], arch.kernels[stage]
            for layer, subset in enumerate(kernels):
                for width in self._widths(choices.widths):
                    if width != widths[layer]:
                        yield _with(arch, "widths", stage, _put(widths, layer, width))
                for other in _one_away(subset, kernel_subsets(choices.kernels)):
                    yield _with(arch, "kernels", stage, _put(kernels, layer, other))
            if len(widths) - 1 in choices.depths:
                yield _with(_with(arch, "widths", stage, widths[:-1]), "kernels", stage, kernels[:-1])
            if len(widths) + 1 in choices.depths:
                longer = _with(arch, "widths", stage, (*widths, widths[-1]))
                yield _with(longer, "kernels", stage, (*kernels, kernels[-1]))
        for level in range(LEVELS):
            for field, found in (
                ("transport", TRANSPORT[level]),
                ("transport_kernels", _HEAD_KERNELS),
                ("decoder", DECODER[level]),
                ("decoder_kernels", _HEAD_KERNELS),
            ):
                for other in _one_away(getattr(arch, field)[level], found):
                    yield _with(arch, field, level, other)

    def count(self) -> int:
        """Number of architectures in the space, exactly: about 8.78e61."""
        return _count(largest_kernel_only=False)

    def count_latency_distinct(self) -> int:
        """Number of architectures whose deployed forms differ: only the largest kernel of a set counts."""
        return _count(largest_kernel_only=True)

    def validate(self, arch: INASArch) -> None:
        """Refuse an architecture that the space does not hold.

        Raises:
            UsageError: Naming the field by its path.
        """
        super().validate(arch)
        INASArch.checked(arch.model_dump())

    def coding(self, input_size: tuple[int, int]) -> Coding[INASArch]:
        """Rows of integers; see ``Space.coding``."""
        from search.spaces.inas.coding import inas_coding

        return inas_coding(self.id, self.classes, input_size)

    def build_supernet(self, *, seed: int = 0) -> nn.Module:
        """The weight-sharing network; see ``Space.build_supernet``."""
        from search.spaces.inas.network import build_supernet

        return build_supernet(self, seed)

    def build_subnet(self, arch: INASArch, *, seed: int = 0) -> nn.Module:
        """One architecture's network; see ``Space.build_subnet``."""
        from search.spaces.inas.network import build_subnet

        return build_subnet(arch, seed)

    def slice_from(self, supernet: nn.Module, arch: INASArch) -> nn.Module:
        """The subnet with the supernet's weights; see ``Space.slice_from``."""
        from search.spaces.inas.network import slice_supernet

        return slice_supernet(supernet, arch)

    def _widths(self, widths: tuple[int, ...]) -> tuple[int, ...]:
        return scaled(widths, self.id)

    def _extreme(self, end: int) -> INASArch:
        """The first (0) or the last (-1) of every list of choices."""
        depths = [stage.depths[end] for stage in STAGES]
        return self._arch(
            stem=self._widths(STEM_WIDTHS)[end],
            widths=tuple((self._widths(s.widths)[end],) * depth for s, depth in zip(STAGES, depths, strict=True)),
            kernels=tuple(
                (kernel_subsets(s.kernels).subsets[end],) * depth for s, depth in zip(STAGES, depths, strict=True)
            ),
            transport=tuple(level.subsets[end] for level in TRANSPORT),
            transport_kernels=(_HEAD_KERNELS.subsets[end],) * LEVELS,
            decoder=tuple(level.subsets[end] for level in DECODER),
            decoder_kernels=(_HEAD_KERNELS.subsets[end],) * LEVELS,
        )

    def _arch(self, **fields: object) -> INASArch:
        return INASArch.checked({"schema_version": 1, "space": self.id, "classes": self.classes, **fields})


def _put(values: tuple[object, ...], index: int, value: object) -> tuple[object, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _with(arch: INASArch, field: str, index: int, value: object) -> INASArch:
    return arch.model_copy(update={field: _put(getattr(arch, field), index, value)})


def _one_away(subset: tuple[int, ...], choices: SubsetChoices) -> Iterator[tuple[int, ...]]:
    """The allowed subsets with one member more or fewer."""
    return (other for other in choices.subsets if len(set(other) ^ set(subset)) == 1)


def _count(*, largest_kernel_only: bool) -> int:
    def kernel_sets(kernels: tuple[int, ...]) -> int:
        return len(kernels) if largest_kernel_only else len(kernel_subsets(kernels).subsets)

    backbone = prod(sum((len(s.widths) * kernel_sets(s.kernels)) ** depth for depth in s.depths) for s in STAGES)
    head = prod(len(level.subsets) * kernel_sets(KERNELS) for level in (*TRANSPORT, *DECODER))
    total: int = len(STEM_WIDTHS) * backbone * head
    return total
