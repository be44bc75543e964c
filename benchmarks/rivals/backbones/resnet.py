"""ResNet-50 in the common form with the stride in the 3x3 convolution (He et al., 2015, arXiv:1512.03385)."""

from __future__ import annotations

from benchmarks.rivals.layers import ConvNormAct, PaddedMaxPool
from search.torch_or_stub import functional, nn, torch

DEPTHS = (3, 4, 6, 3)
WIDTHS = (256, 512, 1024, 2048)
"""Channels of the maps at 1/4, 1/8, 1/16 and 1/32 of the input size."""


class Bottleneck(nn.Module):
    """1x1 to a quarter of the width, 3x3, 1x1 back, and the shortcut.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the 3x3.
        first: Whether it is the first of its stage, whose shortcut is a convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        inner = outputs // 4
        self.reduce = ConvNormAct(inputs, inner, 1)
        self.conv = ConvNormAct(inner, inner, 3, stride=stride)
        self.expand = ConvNormAct(inner, outputs, 1, act=False)
        self.shortcut = ConvNormAct(inputs, outputs, 1, stride=stride, act=False) if first else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return functional.relu(self.expand(self.conv(self.reduce(x))) + self.shortcut(x))


class ResNet50(nn.Module):
    """Stem and four stages, without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 64, 7, stride=2)
        self.pool = PaddedMaxPool()
        self.stages = nn.ModuleList(stages_of(Bottleneck))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Map an image (N, 3, H, W) to the maps at 1/4, 1/8, 1/16 and 1/32."""
        x, maps = self.pool(self.stem(image)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def stages_of(block: type[nn.Module]) -> list[nn.Module]:
    """The four stages of a 50-layer network.

    Args:
        block: Made as ``Bottleneck`` is.
    """
    stages: list[nn.Module] = []
    inputs = 64
    for index, (depth, outputs) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        firsts = [True] + [False] * (depth - 1)
        stages.append(
            nn.Sequential(
                *(block(inputs if first else outputs, outputs, 2 if first and index else 1, first) for first in firsts)
            )
        )
        inputs = outputs
    return stages
