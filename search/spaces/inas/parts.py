"""iNAS's blocks for torch: MBConv, and transport and decoder levels; one implementation for supernet and subnet."""

from __future__ import annotations

from collections.abc import Sequence

from search.spaces.inas.layers import SMSU, SqueezeExcite, mean_of
from search.spaces.sliced import ConvNorm, SlicedConv2d
from search.torch_or_stub import nn, torch


class MBConv(nn.Module):
    """Inverted residual with SMSU and squeeze-excite; always with a shortcut.

    The shortcut is 2x2 average pooling where the stride is 2, and a 1x1 convolution without norm where widths differ.

    Args:
        width_in: Most input channels.
        width_out: Most output channels.
        kernels: Kernel sizes of the SMSU.
        expand: Hidden width over input width.
        stride: Stride.
        supernet: Whether input and output widths will differ at times though the most they can be are equal.
    """

    def __init__(
        self, width_in: int, width_out: int, kernels: Sequence[int], expand: int, stride: int, *, supernet: bool
    ) -> None:
        super().__init__()
        self.ratio = expand
        self.resized = width_in != width_out
        hidden = width_in * expand
        self.expand = ConvNorm(width_in, hidden, act=True)
        self.depthwise = SMSU(hidden, kernels, stride)
        self.act = nn.SiLU()
        self.excite = SqueezeExcite(hidden)
        self.project = ConvNorm(hidden, width_out, act=False)
        nn.init.zeros_(self.project.norm.weight)
        self.pool = nn.AvgPool2d(2) if stride == 2 else None
        self.shortcut = SlicedConv2d(width_in, width_out) if supernet or self.resized else None

    def activate(self, width_in: int, width_out: int, kernels: Sequence[int]) -> None:
        """Use the leading channels and these kernel sizes."""
        hidden = width_in * self.ratio
        self.resized = width_in != width_out
        self.expand.activate(width_in, hidden)
        self.depthwise.activate(hidden, kernels)
        self.excite.activate(hidden)
        self.project.activate(hidden, width_out)
        if self.shortcut is not None:
            self.shortcut.activate(width_in, width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: torch.Tensor = self.project(self.excite(self.act(self.depthwise(self.expand(x)))))
        if self.pool is not None:
            x = self.pool(x)
        if self.shortcut is not None and self.resized:
            x = self.shortcut(x)
        return y + x

    def strip(self) -> None:
        """Drop a shortcut convolution that is not used."""
        if not self.resized:
            self.shortcut = None


class Stage(nn.Sequential):
    """MBConv layers of which the first ``depth`` run."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.depth = len(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the first layers one after another."""
        for index, layer in enumerate(self):
            if index < self.depth:
                x = layer(x)
        return x

    def strip(self) -> None:
        """Drop the layers that do not run."""
        del self[self.depth :]


class Branch(nn.Module):
    """A connection between two levels: 1x1 convolution, and bilinear resize after it or max pooling before it.

    Args:
        width_in: Most channels of the level it reads.
        width_out: Most channels of the level it feeds.
        down: Level it reads minus level it feeds.
        act: Whether SiLU follows the convolution's norm.
    """

    def __init__(self, width_in: int, width_out: int, down: int, *, act: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2**-down) if down < 0 else None
        self.conv = ConvNorm(width_in, width_out, act=act)
        self.resize = _upsample(2**down) if down > 0 else None

    def activate(self, width_in: int, width_out: int) -> None:
        """Use the leading channels."""
        self.conv.activate(width_in, width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map one level's (N, inputs, H, W) to (N, outputs, H', W') of the other."""
        if self.pool is not None:
            x = self.pool(x)
        x = self.conv(x)
        return x if self.resize is None else self.resize(x)


class TransportFuse(nn.Module):
    """Mean of a level's inputs, then two pairs of SMSU and 1x1 convolution with a residual.

    Args:
        width: Most channels.
        kernels: Kernel sizes of both SMSUs.
    """

    def __init__(self, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.depthwise1 = SMSU(width, kernels)
        self.conv1 = ConvNorm(width, width, act=True)
        self.depthwise2 = SMSU(width, kernels)
        self.conv2 = ConvNorm(width, width, act=False)
        self.act = nn.SiLU()

    def activate(self, width: int, kernels: Sequence[int]) -> None:
        """Use the leading channels and these kernel sizes."""
        for depthwise, conv in ((self.depthwise1, self.conv1), (self.depthwise2, self.conv2)):
            depthwise.activate(width, kernels)
            conv.activate(width, width)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map inputs (N, width, H, W) to one output of that shape."""
        x = mean_of(maps)
        y = self.conv2(self.depthwise2(self.conv1(self.depthwise1(x))))
        out: torch.Tensor = self.act(y + x)
        return out


class DecoderFuse(nn.Module):
    """Mean of a level's inputs, then SMSU and 1x1 convolution.

    Args:
        width: Most channels.
        kernels: Kernel sizes of the SMSU.
    """

    def __init__(self, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.depthwise = SMSU(width, kernels)
        self.conv = ConvNorm(width, width, act=True)

    def activate(self, width: int, kernels: Sequence[int]) -> None:
        """Use the leading channels and these kernel sizes."""
        self.depthwise.activate(width, kernels)
        self.conv.activate(width, width)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map inputs (N, width, H, W) to one output of that shape."""
        out: torch.Tensor = self.conv(self.depthwise(mean_of(maps)))
        return out


class Level(nn.Module):
    """One level of transport or decoder: a branch from every other level it reads, then a fusion.

    Args:
        level: Its number.
        connections: Levels it can read, its own among them.
        widths: Most channels of every level.
        fuse: Its fusion.
        act: Whether the branches end in SiLU.
    """

    def __init__(
        self,
        level: int,
        connections: Sequence[int],
        widths: Sequence[int],
        fuse: TransportFuse | DecoderFuse,
        *,
        act: bool,
    ) -> None:
        super().__init__()
        self.level = level
        self.connections = tuple(connections)
        for other in connections:
            if other != level:
                self.add_module(f"from{other}", Branch(widths[other], widths[level], other - level, act=act))
        self.fuse = fuse

    def activate(self, connections: Sequence[int], widths: Sequence[int], kernels: Sequence[int]) -> None:
        """Use these connections, the leading channels of each level and these kernel sizes."""
        self.connections = tuple(connections)
        for other in connections:
            if other != self.level:
                branch = self.get_submodule(f"from{other}")
                assert isinstance(branch, Branch)
                branch.activate(widths[other], widths[self.level])
        self.fuse.activate(widths[self.level], kernels)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map all levels' maps to this level's next one."""
        found = [
            maps[other] if other == self.level else self.get_submodule(f"from{other}")(maps[other])
            for other in self.connections
        ]
        out: torch.Tensor = self.fuse(found)
        return out

    def strip(self) -> None:
        """Drop the branches that are not used."""
        kept = {f"from{other}" for other in self.connections}
        for name in [name for name, _ in self.named_children() if name.startswith("from")]:
            if name not in kept:
                delattr(self, name)


class Prediction(nn.Module):
    """A level's map to an output of the input image's size.

    Args:
        width: Most channels of the level.
        classes: Output maps; one map is passed through a sigmoid before it is resized.
        level: The level.
    """

    def __init__(self, width: int, classes: int, level: int) -> None:
        super().__init__()
        self.conv = SlicedConv2d(width, classes)
        self.act = nn.Sigmoid() if classes == 1 else None
        self.resize = _upsample(2 ** (level + 1))

    def activate(self, width: int) -> None:
        """Use the leading channels."""
        self.conv.activate(width, self.conv.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, width, H, W) of the level to (N, classes, H', W') of the image."""
        x = self.conv(x)
        out: torch.Tensor = self.resize(x if self.act is None else self.act(x))
        return out


def _upsample(factor: int) -> nn.Upsample:
    return nn.Upsample(scale_factor=float(factor), mode="bilinear", align_corners=True)
