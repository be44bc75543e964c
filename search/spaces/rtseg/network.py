"""RTSeg as a torch network: one architecture alone, and the supernet whose mixed blocks hold every path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

from search.masks import attach_masks
from search.spaces.rtseg import arch as data
from search.spaces.rtseg.attention import Attention
from search.spaces.rtseg.layers import (
    Aggregation,
    Auxiliary,
    Context,
    ConvNormAct,
    Down,
    Head,
    Inverted,
    Stem,
    upsample,
)
from search.spaces.slicing import leading
from search.torch_or_stub import nn, torch

if TYPE_CHECKING:
    from search.spaces.rtseg.space import RTSegSpace

N = TypeVar("N", bound="nn.Module")


class Mixed(nn.Module):
    """A block of the supernet: nothing, an inverted residual or attention (paper, section "Mixed block").

    Attributes:
        path: Which one ``forward`` takes.
    """

    def __init__(self, lir: Inverted, mhsa: Attention) -> None:
        super().__init__()
        self.lir = lir
        self.mhsa = mhsa
        self.path: Literal["skip", "lir", "mhsa"] = "lir"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        if self.path == "skip":
            return x
        out: torch.Tensor = self.lir(x) if self.path == "lir" else self.mhsa(x)
        return out


class Stage(nn.Module):
    """One resolution of the semantic branch: the block that halves the size, then blocks that keep it."""

    def __init__(self, width_in: int, arch: data.Stage, make: Callable[[int, data.Block], nn.Module]) -> None:
        super().__init__()
        self.down = Down(width_in, arch.trunk, arch.down)
        self.blocks = nn.Sequential(*(make(arch.trunk, block) for block in arch.blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, Cin, H, W) to (N, trunk, H/2, W/2)."""
        out: torch.Tensor = self.blocks(self.down(x))
        return out


class RTSeg(nn.Module):
    """One architecture in training form.

    Args:
        arch: The architecture.
        make: What builds a block after a stage's first one, from the trunk's width and the block's data.

    Attributes:
        arch: The architecture.
    """

    def __init__(self, arch: data.RTSegArch, make: Callable[[int, data.Block], nn.Module] | None = None) -> None:
        super().__init__()
        self.arch = arch
        self.detail = nn.Sequential()
        width = 3
        for widths in arch.detail:
            stage = nn.Sequential()
            for i, width_out in enumerate(widths):
                stage.append(ConvNormAct(width, width_out, 3, 1 if i else 2))
                width = width_out
            self.detail.append(stage)
        self.stem = Stem(arch.stem)
        trunks = [arch.stem.fuse, *(stage.trunk for stage in arch.stages)]
        pairs = zip(trunks, arch.stages, strict=False)
        self.stages = nn.ModuleList(Stage(before, stage, make or make_block) for before, stage in pairs)
        self.context = Context(trunks[-1])
        self.bga = Aggregation(width, trunks[-1], arch.bga, arch.bga_out, arch.resize == "detail")
        self.head = Head(arch.bga_out, arch.head, arch.classes)
        self.auxiliary = nn.ModuleList(Auxiliary(trunk, arch.classes, 4 << i) for i, trunk in enumerate(trunks))

    def forward(self, image: torch.Tensor, all_heads: bool = False) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Logits at the image's size.

        Args:
            image: (N, 3, H, W).
            all_heads: Whether to give the auxiliary heads' logits too: after the stem and after each stage.

        Returns:
            (N, classes, H, W), or a tuple of such.

        Raises:
            UsageError: If the network cannot take the image's size.
        """
        size = (int(image.shape[2]), int(image.shape[3]))
        self.arch.check_input_size(size)
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        joined = self.bga(self.detail(image), self.context(maps[-1]))
        wanted = size if self.arch.resize == "detail" else None
        main = upsample(self.head(joined), 8, wanted)
        if not all_heads:
            return main
        heads = enumerate(zip(self.auxiliary, maps, strict=False))
        return main, *(upsample(head(x), 2 << i, wanted) for i, (head, x) in heads)

    def strip(self) -> None:
        """Drop what only training needs; ``all_heads`` then gives the main output alone."""
        self.auxiliary = nn.ModuleList()


class RTSegSupernet(RTSeg):
    """The widest network of a space with every path in every mixed block.

    Args:
        space: The space.

    Attributes:
        arch: The architecture that ``forward`` runs.
        masks: Channel masks by mask group.
    """

    def __init__(self, space: RTSegSpace) -> None:
        def make(trunk: int, block: data.Block) -> nn.Module:
            assert isinstance(block, data.Inverted)
            return Mixed(Inverted(trunk, block), Attention(trunk, space.attention(trunk)))

        super().__init__(space.biggest(), make)
        self.space = space
        self.masks = attach_masks(self, space.supernet_plan())

    def activate(self, arch: data.RTSegArch) -> None:
        """Let ``forward`` run an architecture: its paths and, of every mask group, its leading channels.

        Raises:
            UsageError: If the architecture is not in the space.
        """
        self.space.validate(arch)
        for stage, wanted in zip(self.stages, arch.stages, strict=True):
            assert isinstance(stage, Stage)
            for mixed, block in zip(stage.blocks, wanted.blocks, strict=True):
                assert isinstance(mixed, Mixed) and block.path != "ge"
                mixed.path = block.path
        groups = self.space.channel_plan(arch).groups
        self.masks.set_prefix({name: group.width for name, group in groups.items()})
        self.bga.by_size = arch.resize == "detail"
        self.arch = arch

    def active_subnet(self) -> RTSeg:
        """The subnet that ``forward`` runs, without masks."""
        return slice_supernet(self, self.arch)


def make_block(trunk: int, block: data.Block) -> nn.Module:
    """A subnet's block; a skipped one is the identity, so that the others keep their places."""
    if isinstance(block, data.Skip):
        return nn.Identity()
    return Attention(trunk, block) if isinstance(block, data.Attention) else Inverted(trunk, block)


def build_subnet(arch: data.RTSegArch, seed: int = 0) -> RTSeg:
    """One architecture's network in training form.

    Args:
        arch: The architecture.
        seed: Seed of the weights; torch's global generator is left as it was.
    """
    return _seeded(lambda: RTSeg(arch), seed)


def build_supernet(space: RTSegSpace, seed: int = 0) -> RTSegSupernet:
    """The supernet of a space in training form.

    Args:
        space: The space.
        seed: Seed of the weights; torch's global generator is left as it was.
    """
    return _seeded(lambda: RTSegSupernet(space), seed)


def slice_supernet(supernet: RTSegSupernet, arch: data.RTSegArch) -> RTSeg:
    """The subnet with the supernet's weights: chosen paths, leading channels (copies).

    Args:
        supernet: Where the weights come from; left as it is.
        arch: An architecture of its space.

    Returns:
        The subnet, in the supernet's mode and element type.

    Raises:
        UsageError: If the architecture is not in the space.
    """
    supernet.space.validate(arch)
    subnet = build_subnet(arch)
    first = next(supernet.parameters())
    subnet.to(device=first.device, dtype=first.dtype)
    wide = supernet.state_dict()
    for name, narrow in subnet.state_dict().items():
        source = wide[_supernet_name(name, arch)]
        if name == "stem.fuse.conv.weight":
            left, full = arch.stem.left, supernet.stem.left.norm.num_features
            source = torch.cat([source[:, :left], source[:, full:]], 1)
        narrow.copy_(leading(source, narrow.shape))
    return subnet.train(supernet.training)


def _supernet_name(name: str, arch: data.RTSegArch) -> str:
    """Name of a subnet's tensor in the supernet, where a block is one of a ``Mixed``."""
    steps = name.split(".")
    if steps[0] == "stages" and steps[2] == "blocks":
        steps.insert(4, arch.stages[int(steps[1])].blocks[int(steps[3])].path)
    return ".".join(steps)


def _seeded(make: Callable[[], N], seed: int) -> N:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
