"""BlockSpecs of the deployed iNAS network: batch norm folded, SMSU fused, one prediction (no torch).

Parameters: every convolution has a bias where a batch norm was folded into it or where it had one (squeeze-excite);
the shortcut's and the prediction's have none. MACs: convolutions only, k * k * Cin / groups * Cout * Hout * Wout.
Makers are cached, because one space makes the same few thousand blocks again and again.
"""

from __future__ import annotations

from functools import lru_cache

from search.spaces.block import BlockSpec, Shape, conv_size

_CACHED = 1 << 16


def squeeze_width(hidden: int) -> int:
    """Channels between the two 1x1 convolutions of squeeze-excite: a quarter of the hidden width, at least 1."""
    return max(1, hidden // 4)


@lru_cache(_CACHED)
def stem_block(width: int, height: int, breadth: int) -> BlockSpec:
    """The first convolution, 3x3 with stride 2, and SiLU.

    Args:
        width: Output channels.
        height: Height of the image in pixels.
        breadth: Width of the image in pixels.
    """
    out = (width, conv_size(height, 2), conv_size(breadth, 2))
    weights = 27 * width
    settings = (("kernel", 3), ("stride", 2))
    return BlockSpec(
        "stem", "inas.stem", ((3, height, breadth),), (out,), settings, weights + width, _macs(weights, out)
    )


@lru_cache(_CACHED)
def mbconv_block(name: str, source: Shape, width: int, kernel: int, stride: int, expand: int) -> BlockSpec:
    """1x1 expansion, depthwise convolution, squeeze-excite, 1x1 projection; a shortcut beside them.

    The shortcut is 2x2 average pooling where the stride is 2, then a 1x1 convolution where the widths differ
    (setting ``shortcut`` = 1).

    Args:
        name: Module path.
        source: Input shape.
        width: Output channels.
        kernel: Largest active kernel of the SMSU.
        stride: Of the depthwise convolution.
        expand: Hidden width over input width.
    """
    hidden, squeezed = source[0] * expand, squeeze_width(source[0] * expand)
    out = (width, conv_size(source[1], stride), conv_size(source[2], stride))
    shortcut = source[0] * width * (source[0] != width)
    entry, depthwise, gate, project = source[0] * hidden, kernel**2 * hidden, 2 * hidden * squeezed, hidden * width
    params = entry + hidden + depthwise + hidden + gate + squeezed + hidden + project + width + shortcut
    macs = _macs(entry, source) + _macs(depthwise + project + shortcut, out) + gate
    settings = (("hidden", hidden), ("kernel", kernel), ("shortcut", int(shortcut > 0)), ("stride", stride))
    return BlockSpec(name, "inas.mbconv", (source,), (out,), settings, params, macs)


@lru_cache(_CACHED)
def branch_block(part: str, level: int, other: int, source: Shape, target: Shape) -> BlockSpec:
    """What brings another level to the size and width of a level: a 1x1 convolution and a resize.

    From a finer level: max-pooling, then the convolution. From a coarser one: the convolution (in the decoder with
    SiLU), then bilinear enlargement. Either way it convolves at the coarser of the two sizes.

    Args:
        part: ``transport`` or ``decoder``.
        level: The level that reads.
        other: The level that is read.
        source: Shape of the level that is read.
        target: Shape of the level that reads.
    """
    weights = source[0] * target[0]
    macs = _macs(weights, source if other > level else target)
    name, kind = f"{part}.{level}.from{other}", f"inas.{part}_branch"
    return BlockSpec(name, kind, (source,), (target,), (), weights + target[0], macs)


@lru_cache(_CACHED)
def fuse_block(part: str, level: int, inputs: int, kernel: int, shape: Shape) -> BlockSpec:
    """Mean of a level's inputs, then depthwise and 1x1 convolutions: two pairs in transport, one in the decoder.

    Args:
        part: ``transport`` (residual around the two pairs) or ``decoder`` (no residual).
        level: The level.
        inputs: Number of inputs, the level's own included.
        kernel: Largest active kernel of the SMSUs.
        shape: Shape of every input and of the output.
    """
    pairs = 2 if part == "transport" else 1
    weights = pairs * (kernel**2 * shape[0] + shape[0] ** 2)
    name, kind = f"{part}.{level}.fuse", f"inas.{part}_fuse"
    params, macs = weights + 2 * pairs * shape[0], _macs(weights, shape)
    return BlockSpec(name, kind, (shape,) * inputs, (shape,), (("kernel", kernel),), params, macs)


@lru_cache(_CACHED)
def head_block(source: Shape, classes: int) -> BlockSpec:
    """The prediction: 1x1 convolution, sigmoid where there is one class, bilinear enlargement to the image's size.

    Args:
        source: Shape of the finest decoded level, at half the image's size.
        classes: Output maps.
    """
    out = (classes, 2 * source[1], 2 * source[2])
    weights = source[0] * classes
    return BlockSpec("head", "inas.head", (source,), (out,), (), weights, _macs(weights, source))


def _macs(weights: int, shape: Shape) -> int:
    """MACs of convolutions with that many weights and this output size."""
    return weights * shape[1] * shape[2]
