"""Layers that several rivals are made of."""

from __future__ import annotations

from collections import OrderedDict

from search.torch_or_stub import functional, nn, torch


class ConvNormAct(nn.Module):
    """Convolution with "same" padding, batch norm and ReLU.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Kernel size, odd.
        stride: Stride.
        dilation: Dilation.
        bias: Whether the convolution has a bias although batch norm follows.
        act: Whether a ReLU ends the unit.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
        act: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=bias)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride), sizes rounded up."""
        out: torch.Tensor = self.act(self.norm(self.conv(x)))
        return out

    def fused(self) -> nn.Module:
        """One biased convolution, and the ReLU where there is one."""
        conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.norm)
        return conv if isinstance(self.act, nn.Identity) else nn.Sequential(OrderedDict(conv=conv, act=nn.ReLU()))


class PaddedMaxPool(nn.Module):
    """3x3 max pool, stride 2, of values that are never negative.

    The border is zeros put there beforehand: exact after a ReLU, and every runtime takes it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to half the size, rounded up."""
        return functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)


def resized(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``x`` (N, C, h, w) at the height and width of ``like``, bilinear between pixel centres."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
