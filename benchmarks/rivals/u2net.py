"""U2-Net, full and small: nested U-structures for salient object detection (Qin et al., 2020, arXiv:2005.09007)."""

from __future__ import annotations

from benchmarks.rivals.layers import ConvNormAct, resized
from search.torch_or_stub import functional, nn, torch

LEVELS = (7, 6, 5, 4, None, None)
"""Levels of the blocks of stages 1 to 6, encoder and decoder alike; ``None`` is the block without pools."""
FULL = ((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512))
"""Inner and output width of the full network's encoder stages 1 to 6."""
FULL_DECODER = ((16, 64), (32, 64), (64, 128), (128, 256), (256, 512))
"""Likewise of its decoder stages 1 to 5."""
SMALL = ((16, 64),) * 6


class ResidualU(nn.Module):
    """A U-structure inside one stage, added to the stage's first map (paper, section 3.1, "RSU").

    Args:
        levels: ``levels - 1`` maps with a pool between each two, and the bottom below them. ``None`` keeps the
            resolution and widens the view by dilation instead ("RSU-4F").
        inputs: Input channels.
        inner: Channels inside.
        outputs: Output channels.
    """

    def __init__(self, levels: int | None, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.pooled = levels is not None
        dilations = (1, 2, 4) if levels is None else (1,) * (levels - 1)
        self.entry = _unit(inputs, outputs)
        self.encoder = nn.ModuleList(
            _unit(outputs if level == 0 else inner, inner, dilation) for level, dilation in enumerate(dilations)
        )
        self.bottom = _unit(inner, inner, 8 if levels is None else 2)
        decoder = [
            _unit(2 * inner, outputs if level == 0 else inner, dilation) for level, dilation in enumerate(dilations)
        ]
        # Seeded weights damp a branch that starts at zero; undamped, 112 layers would amplify rounding.
        nn.init.zeros_(decoder[0].norm.weight)
        self.decoder = nn.ModuleList(decoder)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        entry = self.entry(x)
        x, maps = entry, []
        for level, unit in enumerate(self.encoder):
            x = unit(_halved(x) if level and self.pooled else x)
            maps.append(x)
        x = self.bottom(x)
        for level in reversed(range(len(maps))):
            x = self.decoder[level](torch.cat((resized(x, maps[level]), maps[level]), 1))
        out: torch.Tensor = x + entry
        return out


class U2Net(nn.Module):
    """The whole network: a U of U-structures, six side maps fused into one.

    Args:
        encoder: Inner and output width of stages 1 to 6.
        decoder: Inner and output width of stages 1 to 5.
    """

    def __init__(self, encoder: tuple[tuple[int, int], ...], decoder: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        widths = [3, *(outputs for _, outputs in encoder)]
        self.encoder = nn.ModuleList(
            ResidualU(levels, inputs, *stage) for levels, inputs, stage in zip(LEVELS, widths, encoder, strict=False)
        )
        deeper = [*(outputs for _, outputs in decoder[1:]), widths[-1]]
        self.decoder = nn.ModuleList(
            ResidualU(levels, below + beside, *stage)
            for levels, below, beside, stage in zip(LEVELS, deeper, widths[1:], decoder, strict=False)
        )
        sides = [*(outputs for _, outputs in decoder), widths[-1]]
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for width in sides)
        self.fuse = nn.Conv2d(len(sides), 1, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map an image (N, 3, H, W) of any size from 32 to the fused saliency map (N, 1, H, W) in 0 to 1."""
        x, maps = image, []
        for level, stage in enumerate(self.encoder):
            x = stage(_halved(x) if level else x)
            maps.append(x)
        found = [x]
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](torch.cat((resized(x, maps[level]), maps[level]), 1))
            found.insert(0, x)
        sides = [resized(side(x), image) for side, x in zip(self.sides, found, strict=True)]
        out: torch.Tensor = self.sigmoid(self.fuse(torch.cat(sides, 1)))
        return out


def u2net() -> nn.Module:
    """The full network, 44.0 M parameters."""
    return U2Net(FULL, FULL_DECODER)


def u2net_small() -> nn.Module:
    """The small network (released as "u2netp"), 1.13 M parameters."""
    return U2Net(SMALL, SMALL[:5])


def _unit(inputs: int, outputs: int, dilation: int = 1) -> ConvNormAct:
    return ConvNormAct(inputs, outputs, dilation=dilation, bias=True)


def _halved(x: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(x, 2, 2, ceil_mode=True)
