"""Weights of a subnet out of a supernet: leading channels, centres of kernels."""

from __future__ import annotations

from search.torch_or_stub import nn, torch
from targets.errors import UsageError


def copy_leading(supernet: nn.Module, subnet: nn.Module) -> nn.Module:
    """Fill a subnet with the supernet's weights and buffers of the same names.

    Args:
        supernet: Where the values come from.
        subnet: A network whose tensors are no larger than the supernet's in any dimension.

    Returns:
        ``subnet``, in the supernet's element type, with copies: channels are the leading ones, kernels the centres.

    Raises:
        UsageError: If the supernet lacks a tensor of the subnet, or has a smaller one.
    """
    source = supernet.state_dict()
    for name, tensor in subnet.state_dict().items():
        if name not in source or not _fits(tensor.shape, source[name].shape):
            raise not_a_supernet(supernet, f"{name} of shape {tuple(tensor.shape)} is not in it")
    subnet.to(next(supernet.parameters()).dtype)
    with torch.no_grad():
        for name, tensor in subnet.state_dict().items():
            tensor.copy_(leading(source[name], tensor.shape))
    return subnet


def leading(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The first entries along the first two dimensions and the middle ones along the others, as a view."""
    for axis, size in enumerate(shape):
        start = (tensor.shape[axis] - size) // 2 if axis >= 2 else 0
        tensor = tensor.narrow(axis, start, size)
    return tensor


def not_a_supernet(network: nn.Module, why: str) -> UsageError:
    """The error for a network that a space cannot slice.

    Args:
        network: The network.
        why: What is wrong with it.
    """
    what = f"cannot slice from this network ({type(network).__name__}): {why}"
    return UsageError(what, "Give what build_supernet of the architecture's own space made.")


def _fits(narrow: torch.Size, wide: torch.Size) -> bool:
    return len(narrow) == len(wide) and all(a <= b for a, b in zip(narrow, wide, strict=True))
