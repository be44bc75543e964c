"""Blocks of a folded CSNet, with shapes, parameters and MACs (no torch).

A scale without channels is left out of a block's shapes; what it computes depends only on how the others' sizes relate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.spaces.block import BlockSpec, Settings, Shape

if TYPE_CHECKING:
    from search.spaces.csnet.arch import BlockPlan, CSNetArch

DILATIONS = (1, 2, 4, 8, 16)
"""Dilation of each branch of the CSF head, in the order of ``CSNetArch.dilated``."""


def block_specs(arch: CSNetArch, input_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
    """The folded network's blocks in execution order.

    Args:
        arch: The architecture.
        input_size: Height and width, multiples of 16.

    Returns:
        ``csnet.ilblock`` a block, then ``csnet.reduce``, ``csnet.dilated``, ``csnet.fuse`` and ``csnet.head`` (with the
        last resize and the sigmoid).
    """
    half = input_size[0] // 2, input_size[1] // 2
    entering, reduced = _shapes(arch.csf_inputs, half), _shapes(arch.csf_mid, half)
    dilated, out = _shapes(arch.csf_dilated, half), _shapes((arch.csf_out,), half)
    settings = _settings(kernel=1, pooled=0, stride=1)
    head = arch.csf_out + 1, arch.csf_out * half[0] * half[1]
    return (
        *(_ilblock(plan, input_size) for plan in arch.plans()),
        _spec("csf.reduce", "reduce", entering, reduced, settings, _mixing(entering, reduced, 1)),
        _dilated(arch, reduced, dilated),
        _spec("csf.fuse", "fuse", dilated, out, settings, _mixing(dilated, out, 1)),
        _spec("head", "head", out, [(1, *input_size)], (), head),
    )


def _ilblock(plan: BlockPlan, input_size: tuple[int, int]) -> BlockSpec:
    size = input_size[0] // plan.divisor, input_size[1] // plan.divisor
    after = size[0] // plan.stride, size[1] // plan.stride
    inputs, outputs = _shapes(plan.inputs, size), _shapes(plan.outputs, after)
    params, macs = _mixing(_shapes(plan.inputs, after), outputs, plan.kernel)
    for width, height, length in outputs:  # two depthwise layers: weights, bias and slope a channel
        params += 2 * (9 + 1 + 1) * width
        macs += 2 * 9 * width * height * length
    plain = len(plan.inputs) == len(plan.outputs) == 1
    settings = _settings(kernel=plan.kernel, pooled=int(plan.stride == 2 and not plain), stride=plan.stride)
    return _spec(plan.name, "ilblock", inputs, outputs, settings, (params, macs))


def _dilated(arch: CSNetArch, inputs: list[Shape], outputs: list[Shape]) -> BlockSpec:
    params = macs = 0
    branches: dict[str, int] = {}
    used = [row for mid, row in zip(arch.csf_mid, arch.dilated, strict=True) if mid]
    for index, ((mid, height, length), row) in enumerate(zip(inputs, used, strict=True)):
        params += (9 * mid + 1 + 1) * sum(row)
        macs += 9 * mid * sum(row) * height * length
        for dilation, width in zip(DILATIONS, row, strict=True):
            if width:
                branches[f"input{index}_dilation{dilation}"] = width
    return _spec("csf.dilated", "dilated", inputs, outputs, _settings(**branches), (params, macs))


def _mixing(inputs: Sequence[Shape], outputs: Sequence[Shape], kernel: int) -> tuple[int, int]:
    """Parameters and MACs of a gOctConv; each pair of scales is convolved at the coarser of the two."""
    params = macs = 0
    for width, height, length in outputs:
        params += 2 * width  # bias and slope
        for width_in, height_in, length_in in inputs:
            weights = kernel**2 * width_in * width
            params += weights
            macs += weights * min(height * length, height_in * length_in)
    return params, macs


def _shapes(widths: Sequence[int], size: tuple[int, int]) -> list[Shape]:
    """Shapes of the scales that have channels; ``size`` is the finest's."""
    return [(width, size[0] >> scale, size[1] >> scale) for scale, width in enumerate(widths) if width]


def _settings(**values: int) -> Settings:
    return tuple(sorted(values.items()))


def _spec(
    name: str,
    kind: str,
    inputs: Sequence[Shape],
    outputs: Sequence[Shape],
    settings: Settings,
    cost: tuple[int, int],
) -> BlockSpec:
    return BlockSpec(name, f"csnet.{kind}", tuple(inputs), tuple(outputs), settings, *cost)
