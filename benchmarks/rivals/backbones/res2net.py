"""Res2Net-50 v1b 26w 4s: a bottleneck whose 3x3 works on four chained splits (Gao et al., 2019, arXiv:1904.01169)."""

from __future__ import annotations

from benchmarks.rivals.backbones.resnet import stages_of
from benchmarks.rivals.layers import ConvNormAct, PaddedMaxPool
from search.torch_or_stub import functional, nn, torch

SPLITS = 4
SPLIT_SHARE = 26 / 64
"""Width of a split over a quarter of the block's width."""


class Res2Block(nn.Module):
    """1x1 to four splits, 3x3 each on all but the last, 1x1 back, and the shortcut.

    In the first block of a stage the splits stand alone and the last is averaged; in the others every split takes
    in the one before it and the last is passed on.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the 3x3s.
        first: Whether it is the first of its stage.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        self.width = int(outputs // 4 * SPLIT_SHARE)
        self.stride, self.first = stride, first
        self.reduce = ConvNormAct(inputs, SPLITS * self.width, 1)
        self.convs = nn.ModuleList(ConvNormAct(self.width, self.width, 3, stride=stride) for _ in range(SPLITS - 1))
        self.expand = ConvNormAct(SPLITS * self.width, outputs, 1, act=False)
        self.shortcut = ConvNormAct(inputs, outputs, 1, act=False) if first else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride), sizes rounded up."""
        splits = torch.split(self.reduce(x), self.width, 1)
        done: list[torch.Tensor] = []
        for conv, split in zip(self.convs, splits[:-1], strict=True):
            done.append(conv(split if self.first or not done else done[-1] + split))
        last = splits[-1]
        if self.first:  # zeros outside count, so they can be put there beforehand
            last = functional.avg_pool2d(functional.pad(last, (1, 1, 1, 1)), 3, self.stride)
        if self.stride > 1:
            x = functional.avg_pool2d(x, self.stride, self.stride, ceil_mode=True, count_include_pad=False)
        return functional.relu(self.expand(torch.cat((*done, last), 1)) + self.shortcut(x))


class Res2Net50(nn.Module):
    """Stem of three 3x3 convolutions and four stages, without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNormAct(3, 32, stride=2), ConvNormAct(32, 32), ConvNormAct(32, 64))
        self.pool = PaddedMaxPool()
        self.stages = nn.ModuleList(stages_of(Res2Block))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Map an image (N, 3, H, W) to the maps at 1/4, 1/8, 1/16 and 1/32."""
        x, maps = self.pool(self.stem(image)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
