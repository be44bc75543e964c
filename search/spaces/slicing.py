"""Weights of a subnet out of a supernet: leading channels, centres of kernels."""

from __future__ import annotations

from search.torch_or_stub import nn, torch


def copy_leading(supernet: nn.Module, subnet: nn.Module) -> nn.Module:
    """Fill a subnet with the supernet's weights and buffers of the same names.

    Args:
        supernet: Where the values come from.
        subnet: A network whose tensors are no larger than the supernet's in any dimension.

    Returns:
        ``subnet``, in the supernet's element type, with copies: channels are the leading ones, kernels the centres.
    """
    source = supernet.state_dict()
    subnet.to(next(supernet.parameters()).dtype)
    with torch.no_grad():
        for name, tensor in subnet.state_dict().items():
            tensor.copy_(_leading(source[name], tensor.shape))
    return subnet


def _leading(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    for axis, size in enumerate(shape):
        start = (tensor.shape[axis] - size) // 2 if axis >= 2 else 0
        tensor = tensor.narrow(axis, start, size)
    return tensor
