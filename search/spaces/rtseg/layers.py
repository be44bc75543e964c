"""RTSeg's convolution blocks and heads for torch (Yu et al. 2021 for BiSeNetV2's, Li et al. 2023 for the LIR block).

Every block here serves supernet and subnet. All feature maps are (N, C, H, W); a stride of 2 gives the ceiling of half
the size.
"""

from __future__ import annotations

from collections import OrderedDict

from search.spaces.folding import norm_terms
from search.spaces.rtseg import arch as data
from search.torch_or_stub import functional, nn, torch


class ConvNormAct(nn.Module):
    """A "same"-padded convolution without bias, batch norm, and ReLU where wanted.

    Args:
        width_in: Input channels.
        width_out: Output channels.
        kernel: Odd kernel size.
        stride: Stride.
        groups: Groups.
        act: Whether a ReLU follows.
        residual: Whether a sum follows: the scale of the batch norm then starts at zero (BiSeNetV2's training).
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        act: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width_out)
        self.act = nn.ReLU() if act else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight)
        if residual:
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, Cin, H, W) to (N, Cout, H', W')."""
        out: torch.Tensor = self.act(self.norm(self.conv(x)))
        return out

    def fused(self) -> nn.Sequential:
        """One biased convolution ``conv``, then ``act``; the same output in eval mode."""
        gain, shift = norm_terms(self.norm)
        return conv_and_act(self.conv, self.conv.weight.detach().double() * gain[:, None, None, None], shift, self.act)


def conv_and_act(like: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor, act: nn.Module) -> nn.Sequential:
    """A biased convolution ``conv`` with the geometry of another and the given values, then ``act``.

    Args:
        like: Where kernel, stride, groups, device and element type come from.
        weight: Weight, of the shape of the other's, any element type.
        bias: Bias, (Cout,).
        act: What follows; left out where it is the identity.
    """
    kernel, stride = like.kernel_size[0], like.stride[0]
    conv = nn.Conv2d(like.in_channels, like.out_channels, kernel, stride, kernel // 2, groups=like.groups)
    conv.to(like.weight)
    with torch.no_grad():
        conv.weight.copy_(weight)
        if conv.bias is not None:
            conv.bias.copy_(bias)
    layers: list[tuple[str, nn.Module]] = [("conv", conv)]
    if not isinstance(act, nn.Identity):
        layers.append(("act", act))
    return nn.Sequential(OrderedDict(layers))


class Stem(nn.Module):
    """The semantic branch's entry, to a quarter of the size: a strided 3x3, then convolutions beside a max pooling."""

    def __init__(self, arch: data.Stem) -> None:
        super().__init__()
        self.conv = ConvNormAct(3, arch.conv, 3, 2)
        self.squeeze = ConvNormAct(arch.conv, arch.squeeze, 1)
        self.left = ConvNormAct(arch.squeeze, arch.left, 3, 2)
        self.fuse = ConvNormAct(arch.left + arch.conv, arch.fuse, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (N, 3, H, W) to (N, fuse, H/4, W/4)."""
        x = self.conv(image)
        left = self.left(self.squeeze(x))
        # Zeros pad a map that a ReLU made as well as minus infinity does, and every converter takes them.
        pooled = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
        out: torch.Tensor = self.fuse(torch.cat([left, pooled], 1))
        return out


class Inverted(nn.Module):
    """A stride-1 inverted residual: 3x3, expansion, 1x1 back; plus the input; ReLU.

    The expansion is 1x1 and depthwise 3x3 (``lir``: RTSeg, section "Mixed block") or one grouped 3x3 (``ge``:
    BiSeNetV2's gather-and-expansion layer).

    Args:
        trunk: Input and output channels.
        arch: Path and widths.
    """

    def __init__(self, trunk: int, arch: data.Inverted) -> None:
        super().__init__()
        lir = arch.path == "lir"
        self.lead = ConvNormAct(trunk, arch.lead, 3)
        self.expand = ConvNormAct(arch.lead, arch.expand, 1 if lir else 3, groups=1 if lir else arch.lead)
        self.depthwise = ConvNormAct(arch.expand, arch.expand, 3, groups=arch.expand) if lir else nn.Identity()
        self.project = ConvNormAct(arch.expand, trunk, 1, act=False, residual=True)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        out: torch.Tensor = self.act(x + self.project(self.depthwise(self.expand(self.lead(x)))))
        return out


class Shortcut(nn.Module):
    """The way beside a stride-2 block: a strided depthwise 3x3, then 1x1.

    Args:
        width_in: Input channels.
        width_out: Output channels.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(width_in, width_in, 3, 2, groups=width_in, act=False)
        self.project = ConvNormAct(width_in, width_out, 1, act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, Cin, H, W) to (N, Cout, H/2, W/2)."""
        out: torch.Tensor = self.project(self.depthwise(x))
        return out


class Down(nn.Module):
    """A stride-2 inverted residual with a convolution on its shortcut; expansion as in ``Inverted``.

    Args:
        width_in: Input channels.
        trunk: Output channels.
        arch: Path and widths.
    """

    def __init__(self, width_in: int, trunk: int, arch: data.Down) -> None:
        super().__init__()
        lead, wide = arch.lead, arch.expand
        self.lead = ConvNormAct(width_in, lead, 3)
        self.expand: nn.Module
        self.strided: nn.Module
        if arch.path == "lir":
            self.expand = ConvNormAct(lead, wide, 1)
            self.strided = ConvNormAct(wide, wide, 3, 2, groups=wide, act=False)
        else:
            self.expand = ConvNormAct(lead, wide, 3, 2, groups=lead, act=False)
            self.strided = nn.Identity()
        self.depthwise = ConvNormAct(wide, wide, 3, groups=wide)
        self.project = ConvNormAct(wide, trunk, 1, act=False, residual=True)
        self.shortcut = Shortcut(width_in, trunk)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, Cin, H, W) to (N, trunk, H/2, W/2)."""
        main = self.project(self.depthwise(self.strided(self.expand(self.lead(x)))))
        out: torch.Tensor = self.act(self.shortcut(x) + main)
        return out


class Context(nn.Module):
    """Context embedding: the mean over all places, embedded, added to every place; then a 3x3 convolution.

    Args:
        width: Input and output channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = ConvNormAct(width, width, 1)
        self.fuse = ConvNormAct(width, width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        embedded = self.conv(self.norm(x.mean((2, 3), keepdim=True)))
        out: torch.Tensor = self.fuse(x + embedded)
        return out

    def fused(self) -> Context:
        """The same with both batch norms of the embedding, before and after its 1x1, inside the 1x1."""
        before, offset = norm_terms(self.norm)
        after, shift = norm_terms(self.conv.norm)
        weight = self.conv.conv.weight.detach().double() * after[:, None, None, None]
        with torch.device("meta"):  # every part is replaced: no weights are drawn
            plain = Context(self.norm.num_features)
        bias = shift + weight[:, :, 0, 0] @ offset
        plain.add_module("norm", nn.Identity())
        plain.add_module("conv", conv_and_act(self.conv.conv, weight * before[:, None, None], bias, self.conv.act))
        plain.add_module("fuse", self.fuse.fused())
        return plain


class Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch gated by the other's sigmoid at two sizes, summed, 3x3 (BiSeNetV2).

    Public implementations upsample the gate and the sum's coarse half in two ways: bilinear with aligned corners (the
    older) or nearest (the newer). Here it is bilinear with pixel centres at halves, as at the network's output: smooth
    like the older, and, unlike aligned corners, with the same few weights at every place whatever the map's size.
    Weights trained with another upsampling do not give their own output here.

    Args:
        detail: Channels of the detail map.
        semantic: Channels of the semantic map.
        width: Width at which they are joined.
        width_out: Output channels.
        by_size: Whether upsampling is to the detail map's size instead of by 4.
    """

    def __init__(self, detail: int, semantic: int, width: int, width_out: int, by_size: bool) -> None:
        super().__init__()
        self.by_size = by_size
        self.detail_depthwise = ConvNormAct(detail, detail, 3, groups=detail, act=False)
        self.detail_project = nn.Conv2d(detail, width, 1, bias=False)
        self.detail_down = ConvNormAct(detail, width, 3, 2, act=False)
        self.semantic_up = ConvNormAct(semantic, width, 3, act=False)
        self.semantic_depthwise = ConvNormAct(semantic, semantic, 3, groups=semantic, act=False)
        self.semantic_project = nn.Conv2d(semantic, width, 1, bias=False)
        self.fuse = ConvNormAct(width, width_out, 3)
        for conv in (self.detail_project, self.semantic_project):
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, detail: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
        """Map (N, detail, H, W) and (N, semantic, H/4, W/4) to (N, width_out, H, W)."""
        size = (int(detail.shape[2]), int(detail.shape[3])) if self.by_size else None
        gate = upsample(self.semantic_up(semantic), 4, size).sigmoid()
        fine = self.detail_project(self.detail_depthwise(detail)) * gate
        # The zeros around the map count in the mean.
        down = functional.avg_pool2d(functional.pad(self.detail_down(detail), (1, 1, 1, 1)), 3, 2)
        coarse = down * self.semantic_project(self.semantic_depthwise(semantic)).sigmoid()
        out: torch.Tensor = self.fuse(fine + upsample(coarse, 4, size))
        return out


class Head(nn.Module):
    """3x3 convolution, dropout (training only), 1x1 to the classes.

    Args:
        width_in: Input channels.
        middle: Width of the 3x3 convolution.
        classes: Output maps.
    """

    def __init__(self, width_in: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(width_in, middle, 3)
        self.dropout: nn.Module = nn.Dropout(0.1)
        self.classify = nn.Conv2d(middle, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to logits (N, classes, H, W)."""
        out: torch.Tensor = self.classify(self.dropout(self.conv(x)))
        return out

    def strip(self) -> None:
        """Drop what only training needs."""
        self.dropout = nn.Identity()


class Auxiliary(nn.Module):
    """A head that only training has: 3x3, dropout, twice the size, 3x3, 1x1 to the classes.

    Args:
        width_in: Input channels.
        classes: Output maps.
        factor: Input image's size over the map's; a power of two of at least 4.
    """

    def __init__(self, width_in: int, classes: int, factor: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(width_in, data.AUXILIARY_WIDTH, 3)
        self.dropout = nn.Dropout(0.1)
        self.expand = ConvNormAct(data.AUXILIARY_WIDTH, factor**2, 3)
        self.classify = nn.Conv2d(factor**2, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to logits (N, classes, 2H, 2W)."""
        x = functional.interpolate(self.dropout(self.conv(x)), scale_factor=2, mode="nearest")
        out: torch.Tensor = self.classify(self.expand(x))
        return out


def upsample(x: torch.Tensor, factor: int, size: tuple[int, int] | None) -> torch.Tensor:
    """Bilinear resize with pixel centres at halves (``align_corners=False``).

    Args:
        x: Map (N, C, H, W).
        factor: How many times larger it becomes where no size is given.
        size: Height and width wanted, or ``None``.
    """
    scale = float(factor) if size is None else None
    return functional.interpolate(x, size, scale, mode="bilinear", align_corners=False)
