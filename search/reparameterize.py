"""From the training form of a network to the form that is shipped: the same numbers from fewer, plainer layers."""

from __future__ import annotations

import copy

from search.torch_or_stub import nn
from targets.errors import UsageError


def reparameterize(network: nn.Module) -> nn.Module:
    """Fuse every part that says how, then drop what only training needs.

    A part says how by a method ``fused()``, which returns a plain module that gives the same output in eval mode
    (an SMSU becomes one depthwise convolution, a convolution with its batch norm one biased convolution). A network
    says what only training needs by a method ``strip()``, called after its parts were fused (auxiliary heads). A
    supernet that runs a subnet by masks has a method ``active_subnet()``, which returns that subnet without them.

    Args:
        network: A network in training form; it is left as it is. Of a supernet, the architecture that is active.

    Returns:
        The deployed form, in eval mode and without gradients. It gives the same output, but for the sigmoid that it
        adds where the network's space has ``logits_in_training`` (CSNet).

    Raises:
        UsageError: If there are forward hooks, such as masks, which fusing would lose.
    """
    fused = _fused(copy.deepcopy(network).eval())
    return fused.eval().requires_grad_(False)


def _fused(module: nn.Module) -> nn.Module:
    if callable(alone := getattr(module, "active_subnet", None)):
        module = alone()
    how = getattr(module, "fused", None)
    for part in module.modules() if callable(how) else (module,):
        if part._forward_hooks or part._forward_pre_hooks:
            raise UsageError(
                f"cannot reparameterize a network with masks or other forward hooks on it ({type(part).__name__})",
                "Slice the masked network first (search.mask_slicing), or remove the hooks.",
            )
    if callable(how):
        plain: nn.Module = how()
        return plain
    for name, child in list(module.named_children()):
        setattr(module, name, _fused(child))
    if callable(strip := getattr(module, "strip", None)):
        strip()
    return module
