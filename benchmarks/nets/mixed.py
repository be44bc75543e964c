"""A network of many kinds of operations, for checking how much of a profile is joined to modules.

Strided and depthwise convolutions, squeeze-excite, attention, pyramid pooling with bins that divide the map, bilinear
resize, PReLU, hard-swish and sigmoid; input (1, 3, 224, 224). The weights are seeded, nothing is trained.

    python -m benchmarks.nets.mixed OUT.onnx      # or OUT.tflite
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from search import export_torch
from targets.extras import require

if TYPE_CHECKING:
    import torch
    from torch import nn

SHAPE = (1, 3, 224, 224)


def squeeze_excite(channels: int) -> nn.Module:
    """Channel gate from the global mean, (N, C, H, W) to the same."""
    require("torch", "torch")
    from torch import nn

    class SqueezeExcite(nn.Module):
        """Scale channels by a gate computed from their means."""

        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.reduce = nn.Conv2d(channels, channels // 4, 1)
            self.act = nn.ReLU()
            self.expand = nn.Conv2d(channels // 4, channels, 1)
            self.gate = nn.Hardsigmoid()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Gate the channels."""
            out: torch.Tensor = x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
            return out

    SqueezeExcite.__qualname__ = "SqueezeExcite"
    return SqueezeExcite()


def inverted_residual(width_in: int, width: int, width_out: int, kernel: int, stride: int) -> nn.Module:
    """Expansion, depthwise convolution, squeeze-excite, projection; with a shortcut where shapes agree."""
    require("torch", "torch")
    from torch import nn

    class InvertedResidual(nn.Module):
        """MobileNetV3-like block."""

        def __init__(self) -> None:
            super().__init__()
            self.expand = nn.Sequential(nn.Conv2d(width_in, width, 1), nn.Hardswish())
            self.depthwise = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width)
            self.act = nn.PReLU(width)
            self.se = squeeze_excite(width)
            self.project = nn.Conv2d(width, width_out, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Map (N, Cin, H, W) to (N, Cout, H/stride, W/stride)."""
            y: torch.Tensor = self.project(self.se(self.act(self.depthwise(self.expand(x)))))
            return x + y if x.shape == y.shape else y

    InvertedResidual.__qualname__ = "InvertedResidual"
    return InvertedResidual()


def attention(channels: int, heads: int) -> nn.Module:
    """Transformer block over all positions of a map, (N, C, H, W) to the same."""
    require("torch", "torch")
    import torch
    from torch import nn

    class Attention(nn.Module):
        """Pre-norm multi-head self-attention and MLP with scaled_dot_product_attention."""

        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
            self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
            self.out = nn.Linear(channels, channels)
            self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Mix positions, then channels."""
            n, c, h, w = x.shape
            tokens = x.flatten(2).transpose(1, 2)
            y = self.norm1(tokens)
            q, k, v = (f(y).reshape(n, h * w, heads, c // heads).transpose(1, 2) for f in (self.q, self.k, self.v))
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            tokens = tokens + self.out(mixed.transpose(1, 2).reshape(n, h * w, c))
            tokens = tokens + self.mlp(self.norm2(tokens))
            out: torch.Tensor = tokens.transpose(1, 2).reshape(n, c, h, w)
            return out

    Attention.__qualname__ = "Attention"
    return Attention()


def merge(width_in: int, width_out: int, factor: int) -> nn.Module:
    """Add a fine map and a coarse one that is resized by ``factor``; then PReLU."""
    require("torch", "torch")
    from torch import nn

    class Merge(nn.Module):
        """Decoder step."""

        def __init__(self) -> None:
            super().__init__()
            self.skip = nn.Conv2d(width_in, width_out, 1)
            self.resize = nn.Upsample(scale_factor=factor, mode="bilinear")
            self.act = nn.PReLU(width_out)

        def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
            """Map (N, Cin, H, W) and (N, Cout, H/factor, W/factor) to (N, Cout, H, W)."""
            out: torch.Tensor = self.act(self.skip(fine) + self.resize(coarse))
            return out

    Merge.__qualname__ = "Merge"
    return Merge()


def pyramid(channels: int, size: int, bins: tuple[int, ...]) -> nn.Module:
    """Pyramid pooling of a square map whose size every bin divides."""
    require("torch", "torch")
    import torch
    from torch import nn

    class Pyramid(nn.Module):
        """Average pools at several scales, resized back and concatenated."""

        def __init__(self) -> None:
            super().__init__()
            part = channels // len(bins)
            self.levels = nn.ModuleList(
                nn.Sequential(
                    nn.AvgPool2d(size // b),
                    nn.Conv2d(channels, part, 1),
                    nn.ReLU(),
                    nn.Upsample(scale_factor=size // b, mode="bilinear"),
                )
                for b in bins
            )
            self.fuse = nn.Conv2d(channels + part * len(bins), channels, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Add context to every position."""
            out: torch.Tensor = self.fuse(torch.cat([x, *(level(x) for level in self.levels)], 1))
            return out

    Pyramid.__qualname__ = "Pyramid"
    return Pyramid()


def build_mixed(seed: int = 0) -> nn.Module:
    """The network in eval mode: (1, 3, 224, 224) to a map (1, 1, 224, 224) in 0 to 1.

    Raises:
        MissingExtra: If torch is not installed.
    """
    require("torch", "torch")
    import torch
    from torch import nn

    class Mixed(nn.Module):
        """Encoder, attention at 1/16, pyramid, decoder with one skip."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.PReLU(32))
            self.stage1 = inverted_residual(32, 128, 48, 3, 2)
            self.stage2 = inverted_residual(48, 192, 64, 5, 2)
            self.stage3 = nn.Sequential(inverted_residual(64, 256, 128, 3, 2), inverted_residual(128, 256, 128, 3, 1))
            self.attention = attention(128, 4)
            self.pyramid = pyramid(128, 14, (1, 2, 7))
            self.lower = nn.Conv2d(128, 64, 3, 1, 1)
            self.merge = merge(48, 64, 4)
            self.head = nn.Conv2d(64, 1, 1)
            self.resize = nn.Upsample(scale_factor=4, mode="bilinear")
            self.sigmoid = nn.Sigmoid()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Map an image to a map of the same size."""
            fine = self.stage1(self.stem(x))
            coarse = self.pyramid(self.attention(self.stage3(self.stage2(fine))))
            y = self.merge(fine, self.lower(coarse))
            out: torch.Tensor = self.sigmoid(self.resize(self.head(y)))
            return out

    Mixed.__qualname__ = "Mixed"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Mixed().eval().requires_grad_(False)


def export_onnx(path: Path | str, seed: int = 0) -> Path:
    """Write the network as ONNX; errors as ``search.export_torch.export_onnx``."""
    return export_torch.export_onnx(build_mixed(seed), path, SHAPE, input_name="image", output_name="map", seed=seed)


def export_tflite(path: Path | str, seed: int = 0) -> Path:
    """Write the network as TFLite; errors as ``search.export_torch.export_tflite``."""
    return export_torch.export_tflite(build_mixed(seed), path, SHAPE, seed=seed)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) == 2 else sys.exit("usage: python -m benchmarks.nets.mixed OUT.onnx")
    print((export_tflite if target.suffix == ".tflite" else export_onnx)(target))
