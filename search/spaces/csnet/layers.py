"""CSNet's layers for torch, each in two forms that share one implementation.

The *training form* has batch norm and stores some weights at a hundredth of their value (the authors' "x100", for
faster convergence). The *folded form* has plain convolutions with biases and gives the same output.

Feature maps travel as lists, finest scale first, ``None`` where a scale has no channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.spaces.csnet.blocks import DILATIONS
from search.spaces.folding import norm_terms
from search.torch_or_stub import nn, torch

WEIGHT_FACTOR = 100.0
"""Depthwise, dilated and one-scale convolutions compute with 100 times the weight they store."""


class ScaledConv2d(nn.Conv2d):
    """Convolution that computes with ``WEIGHT_FACTOR`` times its stored weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, Cin, H, W) to (N, Cout, H, W)."""
        out: torch.Tensor = self._conv_forward(x, self.weight * WEIGHT_FACTOR, self.bias)
        return out


def make_conv(
    width_in: int,
    width_out: int,
    kernel: int,
    *,
    folded: bool,
    scaled: bool,
    bias: bool = True,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A "same"-padded convolution in training form (no bias) or folded form.

    Args:
        width_in: Input channels.
        width_out: Output channels.
        kernel: Odd kernel size.
        folded: Whether to make the folded form.
        scaled: Whether the training form stores a hundredth of the weight.
        bias: Whether the folded form has a bias.
        stride: Stride.
        dilation: Dilation.
        groups: Groups.
    """
    kind = ScaledConv2d if scaled and not folded else nn.Conv2d
    padding = kernel // 2 * dilation
    return kind(width_in, width_out, kernel, stride, padding, dilation=dilation, groups=groups, bias=folded and bias)


def fold_conv(source: nn.Module, target: nn.Module, name: str, gain: torch.Tensor, shift: torch.Tensor) -> None:
    """Write ``gain * source.name(x) + shift`` into the plain convolution ``target.name``.

    Args:
        source: Layer in training form.
        target: The same layer in folded form; its convolution takes the shift where it has a bias.
        name: Name of the convolution in both.
        gain: Factor per output channel, float64.
        shift: Offset per output channel, float64.
    """
    trained = source.get_submodule(name)
    factor = WEIGHT_FACTOR if isinstance(trained, ScaledConv2d) else 1.0
    plain = dict(target.get_submodule(name).named_parameters())
    with torch.no_grad():
        plain["weight"].copy_(trained.get_parameter("weight").double() * factor * gain[:, None, None, None])
        if "bias" in plain:
            plain["bias"].copy_(shift)


def add_finish(layer: nn.Module, widths: Sequence[int], folded: bool) -> None:
    """Give a layer ``norm<scale>`` (training form only) and ``act<scale>`` for each scale that has channels."""
    for scale, width in enumerate(widths):
        if width and not folded:
            layer.add_module(f"norm{scale}", nn.BatchNorm2d(width))
        if width:
            layer.add_module(f"act{scale}", nn.PReLU(width))


def finish(layer: nn.Module, scale: int, y: torch.Tensor) -> torch.Tensor:
    """Batch norm, where the form has it, and PReLU of one scale."""
    out: torch.Tensor = layer.get_submodule(f"act{scale}")(
        layer.get_submodule(f"norm{scale}")(y) if hasattr(layer, f"norm{scale}") else y
    )
    return out


def fold_finish(source: nn.Module, target: nn.Module) -> None:
    """Copy the PReLU slopes of a training form to its folded form."""
    for name, child in source.named_children():
        if name.startswith("act"):
            target.get_submodule(name).load_state_dict(child.state_dict())


def _add_rescale(layer: nn.Module, i: int, j: int) -> None:
    """The step that takes input scale i to output scale j, where they differ."""
    if j > i:
        layer.add_module(f"pool{i}to{j}", nn.MaxPool2d(2 ** (j - i)))
    if i > j:
        layer.add_module(f"resize{i}to{j}", nn.Upsample(scale_factor=2 ** (i - j), mode="bilinear"))


def _pair(layer: nn.Module, i: int, j: int, x: torch.Tensor | None) -> torch.Tensor:
    """One input scale's share of one output scale."""
    if j > i:
        x = layer.get_submodule(f"pool{i}to{j}")(x)
    y: torch.Tensor = layer.get_submodule(f"conv{i}to{j}")(x)
    if i > j:
        y = layer.get_submodule(f"resize{i}to{j}")(y)
    return y


class GOctConv(nn.Module):
    """Generalised octave convolution, then batch norm and PReLU per output scale (paper, section 3.1).

    Every input scale feeds every output scale: a coarser one by max pooling before the convolution, a finer one
    by bilinear resize after it. A stride is average pooling first. One scale on both sides: a plain convolution.
    """

    def __init__(
        self, inputs: Sequence[int], outputs: Sequence[int], kernel: int, stride: int = 1, folded: bool = False
    ) -> None:
        super().__init__()
        self.pairs = [(i, j) for j, b in enumerate(outputs) if b for i, a in enumerate(inputs) if a]
        self.scales = len(outputs)
        plain = len(inputs) == len(outputs) == 1
        self.pool = nn.AvgPool2d(2) if stride == 2 and not plain else None
        bound = 1 / math.sqrt(sum(inputs) * kernel**2)  # kaiming_uniform_(a=sqrt(5)) over the undivided weight
        for i, j in self.pairs:
            how = {"folded": folded, "scaled": plain, "bias": self.carrier(j) == i}
            conv = make_conv(inputs[i], outputs[j], kernel, stride=stride if plain else 1, **how)
            nn.init.uniform_(conv.weight, -bound, bound)
            self.add_module(f"conv{i}to{j}", conv)
            _add_rescale(self, i, j)
        add_finish(self, outputs, folded)

    def carrier(self, scale: int) -> int:
        """Input scale whose convolution carries the folded bias of an output scale."""
        feeding = [i for i, j in self.pairs if j == scale]
        return scale if scale in feeding else feeding[0]

    def forward(self, maps: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Map one list of scales to another."""
        if self.pool is not None:
            maps = [None if x is None else self.pool(x) for x in maps]
        sums: list[torch.Tensor | None] = [None] * self.scales
        for i, j in self.pairs:
            y = _pair(self, i, j, maps[i])
            total = sums[j]
            sums[j] = y if total is None else total + y
        return [None if y is None else finish(self, j, y) for j, y in enumerate(sums)]

    def fold_from(self, source: GOctConv) -> None:
        """Take over a training form."""
        for i, j in self.pairs:
            fold_conv(source, self, f"conv{i}to{j}", *norm_terms(source.get_submodule(f"norm{j}")))
        fold_finish(source, self)


class Depthwise(nn.Module):
    """Depthwise 3x3 convolution, batch norm and PReLU at every scale apart."""

    def __init__(self, widths: Sequence[int], folded: bool = False) -> None:
        super().__init__()
        self.used = [scale for scale, width in enumerate(widths) if width]
        for scale in self.used:
            width = widths[scale]
            self.add_module(f"conv{scale}", make_conv(width, width, 3, folded=folded, scaled=True, groups=width))
        add_finish(self, widths, folded)

    def forward(self, maps: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Map scales one to one, shapes unchanged."""
        return [
            None if x is None else finish(self, scale, self.get_submodule(f"conv{scale}")(x))
            for scale, x in enumerate(maps)
        ]

    def fold_from(self, source: Depthwise) -> None:
        """Take over a training form."""
        for scale in self.used:
            fold_conv(source, self, f"conv{scale}", *norm_terms(source.get_submodule(f"norm{scale}")))
        fold_finish(source, self)


class Dilated(nn.Module):
    """Parallel 3x3 convolutions with dilation 1, 2, 4, 8, 16 at every scale, concatenated (CSF head)."""

    def __init__(self, inputs: Sequence[int], branches: Sequence[Sequence[int]], folded: bool = False) -> None:
        super().__init__()
        self.branches = [
            {f"conv{scale}x{dilation}": width for dilation, width in zip(DILATIONS, widths, strict=True) if width}
            for scale, widths in enumerate(branches)
        ]
        for scale, used in enumerate(self.branches):
            for name, width in used.items():
                dilation = int(name.split("x")[1])
                conv = make_conv(inputs[scale], width, 3, folded=folded, scaled=True, dilation=dilation)
                self.add_module(name, conv)
        add_finish(self, [sum(widths) for widths in branches], folded)

    def forward(self, maps: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Map scales one to one; a scale without branches gives ``None``."""
        return [self._one(scale, x) for scale, x in enumerate(maps)]

    def _one(self, scale: int, x: torch.Tensor | None) -> torch.Tensor | None:
        if x is None or not self.branches[scale]:
            return None
        found = [self.get_submodule(name)(x) for name in self.branches[scale]]
        return finish(self, scale, found[0] if len(found) == 1 else torch.cat(found, 1))

    def fold_from(self, source: Dilated) -> None:
        """Take over a training form."""
        for scale, used in enumerate(self.branches):
            if not used:
                continue
            gain, shift = norm_terms(source.get_submodule(f"norm{scale}"))
            first = 0
            for name, width in used.items():
                own = slice(first, first + width)
                fold_conv(source, self, name, gain[own], shift[own])
                first += width
        fold_finish(source, self)
