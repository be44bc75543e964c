"""CSNet as a torch network: training form, folded form, and the step from one to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.mask_slicing import copy_kept
from search.masks import attach_masks, prefix_masks
from search.spaces.csnet.arch import DEPTHS, BlockPlan, CSNetArch
from search.spaces.csnet.channels import channel_plan, widths
from search.spaces.csnet.layers import Depthwise, Dilated, GOctConv
from search.torch_or_stub import nn, torch
from targets.extras import require

if TYPE_CHECKING:
    from search.spaces.csnet.space import CSNetSpace


class ILBlock(nn.Module):
    """gOctConv, then two depthwise layers; no residual connection (paper, section 3.2)."""

    def __init__(self, plan: BlockPlan, folded: bool = False) -> None:
        super().__init__()
        self.conv: Any = GOctConv(plan.inputs, plan.outputs, plan.kernel, plan.stride, folded)
        self.dw1: Any = Depthwise(plan.outputs, folded)
        self.dw2: Any = Depthwise(plan.outputs, folded)

    def forward(self, maps: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Map one list of scales to another."""
        out: list[torch.Tensor | None] = self.dw2(self.dw1(self.conv(maps)))
        return out

    def fold_from(self, source: ILBlock) -> None:
        """Take over a training form."""
        for name in ("conv", "dw1", "dw2"):
            getattr(self, name).fold_from(getattr(source, name))


class CSFHead(nn.Module):
    """Fuse the last maps of stages 2, 3 and 4 into one map at half the input size (paper, section 3.3)."""

    def __init__(self, arch: CSNetArch, folded: bool = False) -> None:
        super().__init__()
        self.reduce: Any = GOctConv(arch.csf_inputs, arch.csf_mid, 1, 1, folded)
        self.dilated: Any = Dilated(arch.csf_mid, arch.dilated, folded)
        self.fuse: Any = GOctConv(arch.csf_dilated, (arch.csf_out,), 1, 1, folded)

    def forward(self, maps: list[torch.Tensor | None]) -> torch.Tensor:
        """Map three scales to (N, csf_out, H/2, W/2)."""
        out: torch.Tensor = self.fuse(self.dilated(self.reduce(maps)))[0]
        return out

    def fold_from(self, source: CSFHead) -> None:
        """Take over a training form."""
        for name in ("reduce", "dilated", "fuse"):
            getattr(self, name).fold_from(getattr(source, name))


class CSNet(nn.Module):
    """Saliency network; the training form returns logits, the folded form the sigmoid map."""

    def __init__(self, arch: CSNetArch, folded: bool = False) -> None:
        super().__init__()
        self.arch = arch
        self.folded = folded
        stages: dict[str, list[nn.Module]] = {stage: [] for stage in DEPTHS}
        for plan in arch.plans():
            block = ILBlock(plan, folded)
            if plan.name == "stem":
                self.stem = block
            else:
                stages[plan.name.split(".")[0]].append(block)
        # Called as a whole: exporters note only the containers that are called.
        self.stage1 = nn.Sequential(*stages["stage1"])
        self.stage2 = nn.Sequential(*stages["stage2"])
        self.stage3 = nn.Sequential(*stages["stage3"])
        self.stage4 = nn.Sequential(*stages["stage4"])
        self.csf: Any = CSFHead(arch, folded)
        self.head = nn.Conv2d(arch.csf_out, 1, 1)
        self.resize = nn.Upsample(scale_factor=2, mode="bilinear")
        self.sigmoid = nn.Sigmoid() if folded else nn.Identity()

    def forward(self, image: torch.Tensor, all_heads: bool = False) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map a normalised RGB image (N, 3, H, W) to (N, 1, H, W); H and W are multiples of 16.

        Args:
            image: The image.
            all_heads: Whether to return a tuple; there are no auxiliary outputs.
        """
        maps = self.stem([image])
        sides = []
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            maps = stage(maps)
            sides.append(maps[0])
        out: torch.Tensor = self.sigmoid(self.resize(self.head(self.csf(sides[1:]))))
        return (out,) if all_heads else out

    def fused(self) -> nn.Module:
        """The folded form, see ``fold_csnet``; the network itself where it is folded already."""
        return self if self.folded else fold_csnet(self)

    def fold_from(self, source: Any) -> None:
        """Take over a training form."""
        pairs = zip(_blocks(self), _blocks(source), strict=True)
        for mine, theirs in pairs:
            mine.fold_from(theirs)
        self.head.load_state_dict(source.head.state_dict())


class CSNetSupernet(CSNet):
    """The widest CSNet of a space, of which ``forward`` runs a narrower one by masks over the leading channels.

    Args:
        space: The space.

    Attributes:
        arch: The architecture that ``forward`` runs.
        masks: Channel masks by mask group.
    """

    def __init__(self, space: CSNetSpace) -> None:
        super().__init__(space.biggest())
        self.space = space
        self.masks = attach_masks(self, channel_plan(self.arch))

    def activate(self, arch: CSNetArch) -> None:
        """Choose what ``forward`` runs.

        Raises:
            UsageError: If the space does not hold the architecture.
        """
        self.space.validate(arch)
        self.masks.set_prefix(widths(arch))
        self.arch = arch

    def sliced(self, arch: CSNetArch) -> nn.Module:
        """The subnet with copies of the leading channels, in the mode and dtype of the supernet.

        Raises:
            UsageError: If the space does not hold the architecture.
        """
        self.space.validate(arch)
        subnet = build_csnet(arch, seed=0)
        first = next(self.parameters())
        subnet.to(device=first.device, dtype=first.dtype)
        plan = self.masks.plan
        copy_kept(self, subnet, plan, prefix_masks(plan, widths(arch)))
        return subnet.train(self.training)

    def active_subnet(self) -> nn.Module:
        """The subnet that ``forward`` runs, without masks."""
        return self.sliced(self.arch)


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
    if seed is None:
        return CSNet(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CSNet(arch)


def build_supernet(space: CSNetSpace, *, seed: int) -> CSNetSupernet:
    """A CSNet of which narrower ones can be run, ready to train.

    Args:
        space: The space, whose biggest architecture is the widest one.
        seed: Seed of the initial weights; torch's global generator stays as it was.

    Raises:
        MissingExtra: If torch is not installed.
    """
    require("torch", "torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CSNetSupernet(space)


def fold_csnet(network: nn.Module) -> nn.Module:
    """Fold batch norm and the x100 factor into plain convolutions and put a sigmoid at the end.

    Args:
        network: What ``build_csnet`` made; it is left as it is.

    Returns:
        The folded form in eval mode. It maps a normalised image (N, 3, H, W) to a saliency map (N, 1, H, W) in 0 to 1
        that equals the sigmoid of the training form's logits in eval mode, but for rounding.
    """
    source: Any = network
    first = next(network.parameters())
    with torch.random.fork_rng(devices=[]):
        folded: Any = CSNet(source.arch, True)
    folded.to(device=first.device, dtype=first.dtype)
    folded.fold_from(source)
    return folded.eval().requires_grad_(False)  # type: ignore[no-any-return]
