"""The deployed blocks of an RTSeg network: batch norm folded into the convolutions, no auxiliary heads.

Folding gives each convolution that a batch norm follows a bias; the norm before the context embedding's 1x1 goes into
that convolution altogether. Layer norm stays. Settings say what the shapes do not: widths inside the block.
"""

from __future__ import annotations

from collections.abc import Mapping

from search.spaces.block import BlockSpec, Shape, conv_size
from search.spaces.rtseg.arch import RTSegArch
from search.spaces.rtseg.groups import group_widths
from search.spaces.rtseg.structure import GLOBAL, Channels, Layer, Part, parts

Sizes = tuple[tuple[int, int], ...]
"""Height and width of each level, finest first."""


def block_specs(arch: RTSegArch, input_size: tuple[int, int]) -> tuple[BlockSpec, ...]:
    """The blocks in execution order; skipped ones are left out.

    Args:
        arch: The architecture.
        input_size: Height and width in pixels.

    Raises:
        UsageError: If the network cannot take the input size.
    """
    arch.check_input_size(input_size)
    widths, sizes = group_widths(arch), level_sizes(input_size)

    def shape(channels: str | int, level: int) -> Shape:
        return (widths[channels] if isinstance(channels, str) else channels, *sizes[level])

    return tuple(
        BlockSpec(
            part.name,
            f"rtseg.{part.kind}",
            tuple(shape(*source) for source in part.inputs),
            (shape(*part.output),),
            part.settings,
            *part_cost(part, widths, sizes),
        )
        for part in parts(arch)
    )


def level_sizes(input_size: tuple[int, int]) -> Sizes:
    """Height and width of level 0 (the input) to 5, each half the one before rounded up, and of ``GLOBAL``."""
    sizes = [input_size]
    while len(sizes) < GLOBAL:
        sizes.append((conv_size(sizes[-1][0], 2), conv_size(sizes[-1][1], 2)))
    return (*sizes, (1, 1))


def layer_weights(layer: Layer, widths: Mapping[str, int]) -> tuple[int, int]:
    """Weights without biases of a convolution or linear layer (0 for a norm), and output channels."""
    outputs = layer.repeat * _total(layer.outputs, widths)
    if layer.form.endswith("norm"):
        return 0, outputs
    inputs = layer.input_repeat * _total(layer.inputs, widths) if layer.inputs else 1
    return layer.kernel**2 * inputs * outputs, outputs


def part_cost(part: Part, widths: Mapping[str, int], sizes: Sizes) -> tuple[int, int]:
    """Parameters of a block after folding, and MACs of its convolutions, linear layers and matrix products."""
    area = dict(part.settings).get("patch", 1) ** 2
    positions = [height * width // area for height, width in sizes]
    params, macs = 0, part.products * positions[part.output[1]] ** 2
    for layer in part.layers:
        weights, outputs = layer_weights(layer, widths)
        if layer.form == "channel_norm":
            params += 2 * outputs
        else:
            params += weights + outputs * (layer.form == "unit" or layer.bias)
            macs += weights * positions[layer.level]
    return params, macs


def _total(channels: Channels, widths: Mapping[str, int]) -> int:
    return sum([widths[channel] if isinstance(channel, str) else channel for channel in channels])
