"""Parameters and MACs of the training form, part by part, as BiSeNetV2 and RTSeg are counted in the literature.

``params`` has batch and layer norm (2 a channel) in it, ``conv_params`` only the weights and biases of convolutions and
linear layers (the "3.34 M" of BiSeNetV2). MACs are those of convolutions, linear layers and matrix products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from search.spaces.rtseg.arch import RTSegArch
from search.spaces.rtseg.blocks import layer_weights, level_sizes, part_cost
from search.spaces.rtseg.groups import group_widths, supernet_widths
from search.spaces.rtseg.structure import Layer, Part, auxiliary_parts, parts

if TYPE_CHECKING:
    from search.spaces.rtseg.space import RTSegSpace


class Count(NamedTuple):
    """Counts of one part or of a whole network.

    Attributes:
        params: Learned parameters.
        conv_params: Those of convolutions and linear layers.
        macs: Multiply-accumulates.
    """

    params: int
    conv_params: int
    macs: int


def count(arch: RTSegArch, input_size: tuple[int, int] = (512, 1024)) -> dict[str, Count]:
    """Count a network in training form without its auxiliary heads.

    Args:
        arch: The architecture.
        input_size: Height and width in pixels.

    Returns:
        By part: ``detail.0`` to ``detail.2``, ``stem``, ``stages.0`` to ``stages.2``, ``context``, ``bga``, ``head``;
        and ``total``.

    Raises:
        UsageError: If the network cannot take the input size.
    """
    arch.check_input_size(input_size)
    return _count(parts(arch), group_widths(arch), input_size)


def supernet_count(space: RTSegSpace, input_size: tuple[int, int] = (512, 1024)) -> dict[str, Count]:
    """Count a supernet with all its paths side by side; arguments and result as for ``count``."""
    biggest = space.biggest()
    biggest.check_input_size(input_size)
    attention = space.attentions()
    return _count(parts(biggest, attention), supernet_widths(biggest, attention), input_size)


def supernet_cost(space: RTSegSpace, input_size: tuple[int, int] = (512, 1024)) -> tuple[int, int]:
    """Parameters (convolutions and linear layers) and MACs of a supernet with all its paths (paper: 24.43 M, 136.0 G).

    Raises:
        UsageError: If the network cannot take the input size.
    """
    total = supernet_count(space, input_size)["total"]
    return total.conv_params, total.macs


def auxiliary_params(arch: RTSegArch) -> tuple[int, ...]:
    """Learned parameters of each auxiliary head."""
    widths = group_widths(arch)
    return tuple(sum(_params(layer, widths)[0] for layer in part.layers) for part in auxiliary_parts(arch))


def _count(found: Iterable[Part], widths: Mapping[str, int], input_size: tuple[int, int]) -> dict[str, Count]:
    sizes = level_sizes(input_size)
    counts: dict[str, Count] = {}
    for part in found:
        pairs = [_params(layer, widths) for layer in part.layers]
        own = Count(sum(p for p, _ in pairs), sum(c for _, c in pairs), part_cost(part, widths, sizes)[1])
        name = ".".join(part.name.split(".")[:2])
        for key in (name, "total"):
            counts[key] = Count(*map(sum, zip(own, counts.get(key, (0, 0, 0)), strict=True)))
    return counts


def _params(layer: Layer, widths: Mapping[str, int]) -> tuple[int, int]:
    weights, outputs = layer_weights(layer, widths)
    conv = weights + outputs * layer.bias
    return conv + 2 * outputs * (layer.form != "plain"), conv
