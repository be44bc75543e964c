"""CSF on Res2Net-50 and ResNet-50: CSNet's fusion head on a big backbone (Gao et al., 2020, arXiv:2003.05643)."""

from __future__ import annotations

from typing import Any

from benchmarks.rivals.backbones.res2net import Res2Net50
from benchmarks.rivals.backbones.resnet import WIDTHS, ResNet50
from benchmarks.rivals.layers import resized
from search.torch_or_stub import nn, torch

MIDDLE = (128, 256, 512, 512)
"""Channels of the head at 1/4, 1/8, 1/16 and 1/32."""
DILATIONS = (1, 2, 4, 8, 16)
GROUPS = 32


class CrossScale(nn.Module):
    """1x1 convolution from every scale to every scale, group norm and PReLU (gOctConv).

    A map that becomes finer is convolved first and resized then; one that becomes coarser the other way round.

    Args:
        inputs: Channels by scale, finest first.
        outputs: Channels by scale; fewer scales than at the input are the finest ones.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.convs: Any = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(source, target, 1, bias=False) for source in inputs) for target in outputs
        )
        self.finish = nn.ModuleList(_finish(target) for target in outputs)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map one list of scales to another."""
        out = []
        for target, (convs, finish) in enumerate(zip(self.convs, self.finish, strict=True)):
            like = maps[target]
            parts = [
                resized(conv(x), like) if source >= target else conv(resized(x, like))
                for source, (conv, x) in enumerate(zip(convs, maps, strict=True))
            ]
            out.append(finish(sum(parts[1:], parts[0])))
        return out


class MultiScale(nn.Module):
    """Parallel 3x3 convolutions of five dilations that share the width, group norm and PReLU.

    Args:
        width: Channels in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        share = width // len(DILATIONS)
        widths = [share] * (len(DILATIONS) - 1) + [width - share * (len(DILATIONS) - 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(width, part, 3, padding=dilation, dilation=dilation, bias=False)
            for part, dilation in zip(widths, DILATIONS, strict=True)
        )
        self.finish = _finish(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, width, H, W) to the same shape."""
        out: torch.Tensor = self.finish(torch.cat([conv(x) for conv in self.convs], 1))
        return out


class CSF(nn.Module):
    """Backbone, fusion across scales, multi-scale convolutions, fusion to 1/4 and the saliency map.

    Args:
        backbone: Gives the maps at 1/4, 1/8, 1/16 and 1/32.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.fuse = CrossScale(WIDTHS, MIDDLE)
        self.multiscale = nn.ModuleList(MultiScale(width) for width in MIDDLE)
        self.join = CrossScale(MIDDLE, (sum(MIDDLE),))
        self.head = nn.Conv2d(sum(MIDDLE), 1, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map an image (N, 3, H, W) of any size from 32 to the saliency map (N, 1, H, W) in 0 to 1."""
        maps = [block(x) for block, x in zip(self.multiscale, self.fuse(self.backbone(image)), strict=True)]
        out: torch.Tensor = self.sigmoid(resized(self.head(self.join(maps)[0]), image))
        return out


def csf_res2net50() -> nn.Module:
    """On Res2Net-50 v1b 26w 4s, 36.5 M parameters."""
    return CSF(Res2Net50())


def csf_resnet50() -> nn.Module:
    """On ResNet-50, 36.4 M parameters."""
    return CSF(ResNet50())


def _finish(width: int) -> nn.Module:
    return nn.Sequential(nn.GroupNorm(GROUPS, width), nn.PReLU(width))
