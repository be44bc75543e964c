"""iNAS's layers for torch, one implementation for supernet and subnet.

Every layer is made with its biggest widths and can run a part of them: ``activate`` sets which leading channels and
which kernels the next ``forward`` uses. ``fused`` gives the plain layer that computes the same in eval mode.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from search.spaces.inas.blocks import squeeze_width
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


class SMSU(nn.Module):
    """The searchable multi-scale unit: the mean of depthwise convolutions with several kernel sizes.

    One stored kernel of the largest size; the branch of size k uses its k x k centre, as a row of k^2 values times a
    learned k^2 x k^2 matrix that starts as the identity, and has a batch norm of its own.

    Args:
        width: Most channels.
        kernels: Kernel sizes, ascending.
        stride: Stride.

    Attributes:
        width: Channels in use.
        kernels: Kernel sizes in use.
    """

    def __init__(self, width: int, kernels: Sequence[int], stride: int = 1) -> None:
        super().__init__()
        self.width = width
        self.kernels = tuple(kernels)
        largest = max(kernels)
        self.conv = nn.Conv2d(width, width, largest, stride, largest // 2, groups=width, bias=False)
        self.matrices = nn.ParameterDict({str(kernel): torch.eye(kernel**2) for kernel in kernels})
        self.norms = nn.ModuleDict({str(kernel): SlicedBatchNorm2d(width) for kernel in kernels})

    def activate(self, width: int, kernels: Sequence[int]) -> None:
        """Use the leading channels and these kernel sizes."""
        self.width = width
        self.kernels = tuple(kernels)

    def kernel(self, size: int) -> torch.Tensor:
        """Weight (width, 1, size, size) of one branch."""
        edge = (self.conv.kernel_size[0] - size) // 2
        centre = self.conv.weight[: self.width, :, edge : edge + size, edge : edge + size]
        rows: torch.Tensor = centre.reshape(self.width, size**2) @ self.matrices[str(size)]
        return rows.reshape(self.width, 1, size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, width, H, W) to (N, width, H / stride, W / stride), rounded up."""
        branches = []
        for size in self.kernels:
            y = functional.conv2d(x, self.kernel(size), None, self.conv.stride, size // 2, groups=self.width)
            branches.append(self.norms[str(size)](y))
        return mean_of(branches)

    def fused(self) -> nn.Conv2d:
        """One biased depthwise convolution of the largest kernel size in use."""
        largest, share = max(self.kernels), 1 / len(self.kernels)
        weight = self.conv.weight.new_zeros(self.width, 1, largest, largest)
        bias = self.conv.weight.new_zeros(self.width)
        with torch.no_grad():
            for size in self.kernels:
                norm = self.norms[str(size)]
                assert isinstance(norm, SlicedBatchNorm2d)
                branch_weight, branch_bias = norm.folded(self.kernel(size))
                weight += functional.pad(branch_weight, [(largest - size) // 2] * 4) * share
                bias += branch_bias * share
        return plain_conv(weight, bias, stride=self.conv.stride[0], groups=self.width)


class SqueezeExcite(nn.Module):
    """Channel attention from the global mean, through a quarter of the channels.

    Args:
        width: Most channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = SlicedConv2d(width, squeeze_width(width), bias=True)
        self.act = nn.ReLU()
        self.expand = SlicedConv2d(squeeze_width(width), width, bias=True)
        self.gate = nn.Hardsigmoid()

    def activate(self, width: int) -> None:
        """Use the leading channels."""
        self.reduce.activate(width, squeeze_width(width))
        self.expand.activate(squeeze_width(width), width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale the channels of (N, width, H, W)."""
        scale: torch.Tensor = self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * scale


def mean_of(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of maps of one shape."""
    total = maps[0]
    for other in maps[1:]:
        total = total + other
    return total if len(maps) == 1 else total / len(maps)
