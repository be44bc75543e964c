"""Layers of weight-sharing networks: made with their biggest widths, able to run their leading channels alone.

``activate`` says what the next ``forward`` uses; ``fused`` gives the plain layer that computes the same in eval mode.
A subnet is made of the same layers with all channels in use.
"""

from __future__ import annotations

from collections import OrderedDict

from search.torch_or_stub import functional, nn, torch


class SlicedConv2d(nn.Conv2d):
    """An ungrouped convolution that can run its leading channels alone.

    Args:
        width_in: Most input channels.
        width_out: Most output channels.
        kernel: Odd kernel size; padding is "same".
        stride: Stride.
        bias: Whether there is a bias.

    Attributes:
        active: Input and output channels in use.
    """

    def __init__(self, width_in: int, width_out: int, kernel: int = 1, stride: int = 1, bias: bool = False) -> None:
        super().__init__(width_in, width_out, kernel, stride, kernel // 2, bias=bias)
        self.active = (width_in, width_out)

    def activate(self, width_in: int, width_out: int) -> None:
        """Use the leading channels."""
        self.active = (width_in, width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, active inputs, H, W) to (N, active outputs, H / stride, W / stride)."""
        if self.active == (self.in_channels, self.out_channels):
            return super().forward(x)
        weight, bias = self.parts()
        return functional.conv2d(x, weight, bias, self.stride, self.padding)

    def parts(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias in use, as views."""
        inputs, outputs = self.active
        return self.weight[:outputs, :inputs], None if self.bias is None else self.bias[:outputs]

    def fused(self) -> nn.Conv2d:
        """The part in use as a plain convolution."""
        return plain_conv(*self.parts(), stride=self.stride[0])


class SlicedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm whose leading channels can run alone; they share weights and running statistics with the rest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, H, W) with the first C channels' statistics; in train mode only those are updated."""
        if x.shape[1] == self.num_features:
            return super().forward(x)
        momentum = self.momentum
        assert self.num_batches_tracked is not None
        if self.training:
            self.num_batches_tracked.add_(1)
        if momentum is None:  # plain average over batches, as when statistics are recalibrated
            momentum = 1 / max(1, int(self.num_batches_tracked)) if self.training else 0.0
        mean, variance, gain, shift = self.parts(x.shape[1])
        return functional.batch_norm(x, mean, variance, gain, shift, self.training, momentum, self.eps)

    def parts(self, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Running mean, running variance, weight and bias of the first channels, as views."""
        assert self.running_mean is not None and self.running_var is not None
        return self.running_mean[:width], self.running_var[:width], self.weight[:width], self.bias[:width]

    def folded(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight and bias of the convolution that also does this norm, in eval mode."""
        mean, variance, gain, shift = self.parts(weight.shape[0])
        return torch.nn.utils.fuse_conv_bn_weights(weight, bias, mean, variance, self.eps, gain, shift)


def plain_conv(weight: torch.Tensor, bias: torch.Tensor | None, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A "same"-padded convolution with copies of these weights.

    Args:
        weight: (outputs, inputs / groups, k, k) with odd k.
        bias: (outputs), or ``None``.
        stride: Stride.
        groups: Groups.
    """
    outputs, inputs, kernel, _ = weight.shape
    # Made on the meta device, so that no initial weights are drawn.
    conv = nn.Conv2d(inputs * groups, outputs, kernel, stride, kernel // 2, 1, groups, bias is not None, device="meta")
    conv.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and, where asked for, SiLU.

    Args:
        width_in: Most input channels.
        width_out: Most output channels.
        kernel: Odd kernel size.
        stride: Stride.
        act: Whether SiLU follows.
    """

    def __init__(self, width_in: int, width_out: int, kernel: int = 1, stride: int = 1, *, act: bool) -> None:
        super().__init__()
        self.conv = SlicedConv2d(width_in, width_out, kernel, stride)
        self.norm = SlicedBatchNorm2d(width_out)
        self.act = nn.SiLU() if act else None

    def activate(self, width_in: int, width_out: int) -> None:
        """Use the leading channels."""
        self.conv.activate(width_in, width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, active inputs, H, W) to (N, active outputs, H / stride, W / stride)."""
        y: torch.Tensor = self.norm(self.conv(x))
        return y if self.act is None else self.act(y)

    def fused(self) -> nn.Module:
        """One biased convolution, with its SiLU after it where there is one."""
        conv = plain_conv(*self.norm.folded(*self.conv.parts()), stride=self.conv.stride[0])
        return conv if self.act is None else nn.Sequential(OrderedDict(conv=conv, act=self.act))
