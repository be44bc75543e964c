"""Parameters, convolution MACs and the paper's "MACC" of a CSNet, counted from its data (no torch).

Three figures, because the literature mixes them:

* ``params``: of the training form, batch norm (2 a channel) and PReLU (1) included, as published.
* ``conv_macs``: multiply-accumulates of all convolutions, what ``FlopCounterMode`` counts, halved.
* ``macc``: the counter behind the paper's tables. Per output element: convolution k*k*Cin/groups (+1 with a bias),
  batch norm 4, PReLU 3, bilinear resize inside gOctConv 9 (the last resize is left out), stride pooling 5 per element
  *before* pooling, max pooling (kernel of the convolution)^2 per pooled element. Inside gOctConv the counter cuts the
  channel ranges at ``int(total * cumulated share)``, where the network rounds, so that a floating-point share just
  below its true value moves a boundary by one channel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from search.spaces.csnet.arch import CSNetArch, check_input_size


@dataclass
class Count:
    """Counts of one part or of the whole network.

    Attributes:
        params: Learned parameters of the training form.
        conv_macs: Multiply-accumulates of the convolutions.
        macc_conv: Convolutions as the paper's counter sees them.
        macc_norm: Batch norm.
        macc_prelu: PReLU.
        macc_avg_pool: Stride pooling.
        macc_max_pool: Pooling to a coarser scale.
        macc_resize: Bilinear resize inside gOctConv.
    """

    params: int = 0
    conv_macs: int = 0
    macc_conv: int = 0
    macc_norm: int = 0
    macc_prelu: int = 0
    macc_avg_pool: int = 0
    macc_max_pool: int = 0
    macc_resize: int = 0

    @property
    def macc(self) -> int:
        """The paper's figure: sum of all ``macc_*``."""
        return sum(getattr(self, item.name) for item in fields(self) if item.name.startswith("macc_"))

    def __add__(self, other: Count) -> Count:
        return Count(**{item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)})


@dataclass(frozen=True)
class CSNetCounts:
    """Counts of a network at one input size.

    Attributes:
        input_size: Height and width.
        total: The whole network.
        parts: ``stem``, ``stage1`` ... ``stage4``, ``csf.reduce``, ``csf.dilated``, ``csf.fuse``, ``head``.
    """

    input_size: tuple[int, int]
    total: Count
    parts: dict[str, Count] = field(default_factory=dict)


def count(arch: CSNetArch, input_size: tuple[int, int] = (224, 224)) -> CSNetCounts:
    """Count a CSNet.

    Args:
        arch: The architecture.
        input_size: Height and width, multiples of 16.

    Returns:
        Totals and a breakdown by part.

    Raises:
        UsageError: If the network cannot take the input size.
    """
    check_input_size(input_size)
    pixels = input_size[0] * input_size[1]
    parts: dict[str, Count] = {}
    for block in arch.plans():
        area = pixels // block.divisor**2
        found = _goctconv(block.inputs, block.outputs, block.kernel, block.stride, area)
        for scale, width in enumerate(block.outputs):
            plane = area // block.stride**2 // 4**scale
            depthwise = Count(params=9 * width, conv_macs=9 * width * plane, macc_conv=9 * width * plane)
            layer = depthwise + _norm_prelu(width, plane)
            found = found + layer + layer
        part = block.name.split(".")[0]
        parts[part] = parts.get(part, Count()) + found
    parts["csf.reduce"] = _goctconv(arch.csf_inputs, arch.csf_mid, 1, 1, pixels // 4)
    parts["csf.dilated"] = _dilated(arch, pixels)
    parts["csf.fuse"] = _goctconv(arch.csf_dilated, (arch.csf_out,), 1, 1, pixels // 4)
    parts["head"] = Count(
        params=arch.csf_out + 1, conv_macs=arch.csf_out * pixels // 4, macc_conv=(arch.csf_out + 1) * pixels // 4
    )
    return CSNetCounts(input_size, sum(parts.values(), Count()), parts)


def _norm_prelu(width: int, plane: int) -> Count:
    return Count(params=3 * width, macc_norm=4 * width * plane, macc_prelu=3 * width * plane)


def _dilated(arch: CSNetArch, pixels: int) -> Count:
    found = Count()
    for scale, (mid, width) in enumerate(zip(arch.csf_mid, arch.csf_dilated, strict=True)):
        plane = pixels // 4 // 4**scale
        macs = 9 * mid * width * plane
        found = found + Count(params=9 * mid * width, conv_macs=macs, macc_conv=macs) + _norm_prelu(width, plane)
    return found


def _goctconv(inputs: Sequence[int], outputs: Sequence[int], kernel: int, stride: int, area: int) -> Count:
    """Count one gOctConv with its batch norm and PReLU; ``area`` is the finest input's height times width."""
    after = area // stride**2
    found = Count(params=kernel**2 * sum(inputs) * sum(outputs))
    for scale, width in enumerate(outputs):
        found = found + _norm_prelu(width, after // 4**scale)
    for i, j, width_in, width_out in _pairs(inputs, outputs):
        found.conv_macs += kernel**2 * width_in * width_out * (after // 4 ** max(i, j))
    if len(inputs) == len(outputs) == 1:  # a plain convolution: strided instead of pooled, no ranges to cut
        found.macc_conv = found.conv_macs
        return found
    if stride == 2:
        found.macc_avg_pool = sum(5 * width * (area // 4**scale) for scale, width in enumerate(inputs))
    seen_in, seen_out = _truncated(inputs), _truncated(outputs)
    for i, j, width_in, width_out in _pairs(seen_in, seen_out):
        found.macc_conv += kernel**2 * width_in * width_out * (after // 4 ** max(i, j))
        if j > i:
            found.macc_max_pool += kernel**2 * width_in * (after // 4**j)
        if i > j:
            found.macc_resize += 9 * width_out * (after // 4**j)
    return found


def _pairs(inputs: Sequence[int], outputs: Sequence[int]) -> list[tuple[int, int, int, int]]:
    return [(i, j, a, b) for i, a in enumerate(inputs) for j, b in enumerate(outputs)]


def _truncated(widths: Sequence[int]) -> list[int]:
    """Channel counts as ``int(total * cumulated share)`` cuts them, floating-point error included."""
    total = sum(widths)
    edges, share = [0], 0.0
    for width in widths:
        share += width / total
        edges.append(int(total * share))
    return [high - low for low, high in itertools.pairwise(edges)]
