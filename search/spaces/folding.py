"""Batch norm in eval mode as two numbers a channel, to be folded into a convolution."""

from __future__ import annotations

from search.torch_or_stub import nn, torch


def norm_terms(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Gain and shift of a batch norm in eval mode, per channel, float64."""
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return gain, norm.bias.detach().double() - norm.running_mean.double() * gain
