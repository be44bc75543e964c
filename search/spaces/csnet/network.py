"""CSNet as a torch network: training form, folded form, and the step from one to the other."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from search.spaces.csnet.arch import DEPTHS, BlockPlan, CSNetArch
from search.spaces.csnet.layers import depthwise_class, dilated_class, goctconv_class
from targets.extras import require

if TYPE_CHECKING:
    import torch
    from torch import nn


@functools.cache
def ilblock_class() -> type[nn.Module]:
    """The in-layer multi-scale block class, ``ILBlock(plan, folded)``.

    Raises:
        MissingExtra: If torch is not installed.
    """
    require("torch", "torch")
    from torch import nn

    class ILBlock(nn.Module):
        """gOctConv, then two depthwise layers; no residual connection (paper, section 3.2)."""

        def __init__(self, plan: BlockPlan, folded: bool = False) -> None:
            super().__init__()
            self.conv: Any = goctconv_class()(plan.inputs, plan.outputs, plan.kernel, plan.stride, folded)
            self.dw1: Any = depthwise_class()(plan.outputs, folded)
            self.dw2: Any = depthwise_class()(plan.outputs, folded)

        def forward(self, maps: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
            """Map one list of scales to another."""
            out: list[torch.Tensor | None] = self.dw2(self.dw1(self.conv(maps)))
            return out

        def fold_from(self, source: ILBlock) -> None:
            """Take over a training form."""
            for name in ("conv", "dw1", "dw2"):
                getattr(self, name).fold_from(getattr(source, name))

    ILBlock.__qualname__ = "ILBlock"
    return ILBlock


@functools.cache
def csf_class() -> type[nn.Module]:
    """The cross-stage fusion head class, ``CSFHead(arch, folded)``.

    Raises:
        MissingExtra: If torch is not installed.
    """
    require("torch", "torch")
    from torch import nn

    class CSFHead(nn.Module):
        """Fuse the last maps of stages 2, 3 and 4 into one map at half the input size (paper, section 3.3)."""

        def __init__(self, arch: CSNetArch, folded: bool = False) -> None:
            super().__init__()
            self.reduce: Any = goctconv_class()(arch.csf_inputs, arch.csf_mid, 1, 1, folded)
            self.dilated: Any = dilated_class()(arch.csf_mid, arch.dilated, folded)
            self.fuse: Any = goctconv_class()(arch.csf_dilated, (arch.csf_out,), 1, 1, folded)

        def forward(self, maps: list[torch.Tensor | None]) -> torch.Tensor:
            """Map three scales to (N, csf_out, H/2, W/2)."""
            out: torch.Tensor = self.fuse(self.dilated(self.reduce(maps)))[0]
            return out

        def fold_from(self, source: CSFHead) -> None:
            """Take over a training form."""
            for name in ("reduce", "dilated", "fuse"):
                getattr(self, name).fold_from(getattr(source, name))

    CSFHead.__qualname__ = "CSFHead"
    return CSFHead


@functools.cache
def csnet_class() -> type[nn.Module]:
    """The network class, ``CSNet(arch, folded)``.

    Raises:
        MissingExtra: If torch is not installed.
    """
    require("torch", "torch")
    from torch import nn

    class CSNet(nn.Module):
        """Saliency network; the training form returns logits, the folded form the sigmoid map."""

        def __init__(self, arch: CSNetArch, folded: bool = False) -> None:
            super().__init__()
            self.arch = arch
            self.folded = folded
            stages: dict[str, list[nn.Module]] = {stage: [] for stage in DEPTHS}
            for plan in arch.blocks():
                block = ilblock_class()(plan, folded)
                if plan.name == "stem":
                    self.stem = block
                else:
                    stages[plan.name.split(".")[0]].append(block)
            # Called as a whole: exporters note only the containers that are called.
            self.stage1 = nn.Sequential(*stages["stage1"])
            self.stage2 = nn.Sequential(*stages["stage2"])
            self.stage3 = nn.Sequential(*stages["stage3"])
            self.stage4 = nn.Sequential(*stages["stage4"])
            self.csf: Any = csf_class()(arch, folded)
            self.head = nn.Conv2d(arch.csf_out, 1, 1)
            self.resize = nn.Upsample(scale_factor=2, mode="bilinear")
            self.sigmoid = nn.Sigmoid() if folded else nn.Identity()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            """Map a normalised RGB image (N, 3, H, W) to (N, 1, H, W); H and W are multiples of 16."""
            maps = self.stem([image])
            sides = []
            for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
                maps = stage(maps)
                sides.append(maps[0])
            out: torch.Tensor = self.sigmoid(self.resize(self.head(self.csf(sides[1:]))))
            return out

        def fold_from(self, source: Any) -> None:
            """Take over a training form."""
            pairs = zip(_blocks(self), _blocks(source), strict=True)
            for mine, theirs in pairs:
                mine.fold_from(theirs)
            self.head.load_state_dict(source.head.state_dict())

    CSNet.__qualname__ = "CSNet"
    return CSNet


def _blocks(network: Any) -> list[Any]:
    stages = (network.stage1, network.stage2, network.stage3, network.stage4)
    return [network.stem, *(block for stage in stages for block in stage), network.csf]


def build_csnet(arch: CSNetArch, *, seed: int | None = None) -> nn.Module:
    """A CSNet in training form, ready to train.

    Args:
        arch: The architecture.
        seed: Makes the initial weights repeatable, leaving torch's global generator as it was; ``None`` draws
            them from the global generator.

    Returns:
        A module that maps (N, 3, H, W) to logits (N, 1, H, W), in train mode.

    Raises:
        MissingExtra: If torch is not installed.
    """
    require("torch", "torch")
    import torch

    if seed is None:
        return csnet_class()(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return csnet_class()(arch)


def fold_csnet(network: nn.Module) -> nn.Module:
    """Fold batch norm and the x100 factor into plain convolutions and put a sigmoid at the end.

    Args:
        network: What ``build_csnet`` made; it is left as it is.

    Returns:
        The folded form in eval mode. It maps a normalised image (N, 3, H, W) to a saliency map (N, 1, H, W) in 0 to 1
        that equals the sigmoid of the training form's logits in eval mode, but for rounding.
    """
    source: Any = network
    folded: Any = csnet_class()(source.arch, True)
    folded.to(next(network.parameters()).dtype)
    folded.fold_from(source)
    return folded.eval().requires_grad_(False)  # type: ignore[no-any-return]
