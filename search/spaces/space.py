"""What every search space offers, as data and as torch networks (torch is imported only by the network half)."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from search.spaces.arch import Arch
from search.spaces.block import BlockSpec, total
from search.spaces.groups import ChannelPlan
from targets.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from search.spaces.coding import Coding

A = TypeVar("A", bound=Arch)


class Space(ABC, Generic[A]):
    """A set of architectures and the networks made from them.

    Args:
        id: Which of the class's spaces, for example ``inas-tiny``.
        classes: Output maps; ``None`` for the space's own default.

    Attributes:
        id: As given; equals the architectures' ``space``.
        classes: Output maps of the architectures drawn.
    """

    title: ClassVar[str]
    """One line for people."""
    arch_class: ClassVar[type[Any]]
    """Class of the architectures."""
    multiple: ClassVar[int]
    """Height and width of the input must be multiples of this."""
    default_classes: ClassVar[int] = 1
    logits_in_training: ClassVar[bool] = False
    """Whether the training form's output lacks the sigmoid that the deployed form ends with."""

    def __init__(self, id: str, classes: int | None = None) -> None:
        self.id = id
        self.classes = self.default_classes if classes is None else classes

    @property
    def output_name(self) -> str:
        """Name of the exported graph's output: ``saliency`` (0 to 1) or ``logits``."""
        return "saliency"

    @abstractmethod
    def smallest(self) -> A:
        """The architecture with the least of everything."""

    @abstractmethod
    def biggest(self) -> A:
        """The widest and deepest architecture; another path or uneven widths can cost a little more."""

    @abstractmethod
    def sample(self, rng: random.Random) -> A:
        """Draw one architecture. Every architecture of the space can come up; equal generators draw equal ones."""

    @abstractmethod
    def neighbours(self, arch: A) -> Iterator[A]:
        """Every architecture one step away in one choice; what a choice and a step are, each space says."""

    @abstractmethod
    def count(self) -> int:
        """Number of architectures in the space."""

    def validate(self, arch: A) -> None:
        """Refuse an architecture that the space does not hold.

        Here one of another space or with other classes; a space that its architectures' own checks do not bound adds
        the rest.

        Raises:
            UsageError: Naming the field by its path.
        """
        for field, wanted in {"space": self.id, "classes": self.classes}.items():
            if (found := getattr(arch, field, wanted)) != wanted:
                what = f"{field}: {found!r} is not {wanted!r}"
                raise UsageError(f"the space {self.id} does not hold this architecture: {what}", "Change that field.")

    @abstractmethod
    def build_supernet(self, *, seed: int = 0) -> nn.Module:
        """The weight-sharing network of the whole space, in training form.

        Its ``activate(arch)`` chooses the architecture that ``forward`` runs, at first the biggest, and refuses one
        that the space does not hold (``UsageError``); its ``arch`` is the one chosen.

        Architectures share the running statistics of batch norms, which are no architecture's own, and where channels
        are masked, training moves those of channels that are not in use too: recalibrate them for each architecture
        (a few batches in train mode, without gradients) before its output is judged or it is sliced.
        """

    @abstractmethod
    def build_subnet(self, arch: A, *, seed: int = 0) -> nn.Module:
        """One architecture's stand-alone network in training form (multi-branch, auxiliary heads).

        ``network(image)`` gives the main output (N, classes, H, W); ``network(image, all_heads=True)`` a tuple with
        the auxiliary outputs after it. ``network.arch`` is the architecture. The seed leaves torch's global generator
        as it was.
        """

    @abstractmethod
    def slice_from(self, supernet: nn.Module, arch: A) -> nn.Module:
        """The subnet with the supernet's weights: leading channels, centres of kernels, chosen paths (copies).

        Raises:
            UsageError: If the network is not the supernet of this space, or the space does not hold the architecture.
        """

    def channel_plan(self, arch: A) -> ChannelPlan:
        """Mask groups of an architecture's training form; empty where the space has none."""
        return ChannelPlan()

    def with_widths(self, arch: A, widths: Mapping[str, int]) -> A:
        """The architecture with other widths by mask group.

        Raises:
            UsageError: If a group is unknown or a width is not possible.
        """
        raise UsageError(f"the space {self.id} has no mask groups", "Take one that has.")

    def points(self) -> Mapping[str, A]:
        """Further architectures with names of their own, such as ``bisenetv2``; they need not lie in the space."""
        return {}

    def point(self, name: str) -> A | None:
        """The architecture of a name without a space id, such as ``csnet-x1.5``; ``None`` where there is none."""
        return self.points().get(name)

    def blocks(self, arch: A, input_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
        """The deployed network's blocks; see ``Arch.blocks``."""
        return arch.blocks(input_size)

    def coding(self, input_size: tuple[int, int]) -> Coding[A] | None:
        """How architectures are written as rows of integers, for whole populations; ``None`` where a space has none.

        Args:
            input_size: Height and width in pixels.

        Raises:
            UsageError: If the space's networks cannot take the input size.
        """
        return None

    def cost(self, arch: A, input_size: tuple[int, int]) -> tuple[int, int]:
        """Parameters and MACs of the deployed network."""
        return total(self.blocks(arch, input_size))


def check_multiple(input_size: tuple[int, int], multiple: int, name: str, otherwise: str = "") -> None:
    """Refuse an input size a network cannot take.

    Args:
        input_size: Height and width in pixels.
        multiple: What both must be a multiple of.
        name: How to call the network.
        otherwise: A sentence on what else helps.

    Raises:
        UsageError: Saying the multiple and the next possible size.
    """
    height, width = input_size
    if height < multiple or width < multiple or height % multiple or width % multiple:
        near = tuple(max(multiple, round(size / multiple) * multiple) for size in input_size)
        raise UsageError(
            f"{name} cannot take an input of {height}x{width} (height x width)",
            f"Both must be multiples of {multiple}, for example {near[0]}x{near[1]}. {otherwise}",
        )
