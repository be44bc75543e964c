"""PReLU in the form that costs a TFLite file least."""

from __future__ import annotations

import copy

from search.torch_or_stub import nn, torch


class PReLU(nn.Module):
    """PReLU whose slopes are all at most 1, as ``max(x, slope * x)``. Converters write the class's name into files.

    Args:
        slopes: Slope of each channel.
    """

    def __init__(self, slopes: torch.Tensor) -> None:
        super().__init__()
        self.slopes = nn.Parameter(slopes.detach().clone().reshape(1, -1, 1, 1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        return torch.maximum(x, x * self.slopes)


def lean_prelu(module: nn.Module) -> nn.Module:
    """A copy whose PReLU layers are two operations, not the four litert-torch makes of them; the same values.

    Args:
        module: Any module; layers with a slope above 1 are kept as they are (``max`` would be wrong for them).
    """
    copied = copy.deepcopy(module)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.PReLU) and bool((child.weight <= 1).all()):
                setattr(parent, name, PReLU(child.weight))
    return copied
