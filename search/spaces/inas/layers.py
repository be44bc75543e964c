"""iNAS's layers for torch, one implementation for supernet and subnet.

Every layer is made with its biggest widths and can run a part of them: ``activate`` sets which leading channels and
which kernels the next ``forward`` uses. ``fused`` gives the plain layer that computes the same in eval mode.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.spaces.inas.blocks import squeeze_width
from search.spaces.sliced import SlicedBatchNorm2d, SlicedConv2d, plain_conv
from search.torch_or_stub import functional, nn, torch


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
