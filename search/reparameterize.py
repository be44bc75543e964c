"""From the training form of a network to the form that is shipped: the same numbers from fewer, plainer layers."""

from __future__ import annotations

import copy

from search.torch_or_stub import nn


def reparameterize(network: nn.Module) -> nn.Module:
    """Fuse every part that says how, then drop what only training needs.

    A part says how by a method ``fused()``, which returns a plain module that gives the same output in eval mode
    (an SMSU becomes one depthwise convolution, a convolution with its batch norm one biased convolution). A network
    says what only training needs by a method ``strip()``, called after its parts were fused (auxiliary heads).

    Args:
        network: A network in training form; it is left as it is.

    Returns:
        The deployed form, in eval mode and without gradients.
    """
    fused = _fused(copy.deepcopy(network).eval())
    return fused.eval().requires_grad_(False)


def _fused(module: nn.Module) -> nn.Module:
    if callable(how := getattr(module, "fused", None)):
        plain: nn.Module = how()
        return plain
    for name, child in list(module.named_children()):
        setattr(module, name, _fused(child))
    if callable(strip := getattr(module, "strip", None)):
        strip()
    return module
