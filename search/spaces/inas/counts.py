"""Parameters and MACs of iNAS networks in the convention of the published tables, from data.

``python -m search.spaces.inas.counts`` prints them beside those of the deployed form, at 224x224.

The published figures (4.36 M parameters and 0.365 GMac for the smallest network, 19.94 M and 1.329 GMac for the
biggest) are of the authors' stand-alone network, which their counter sees like this:

* Parameters: SMSU branches fused into one biased convolution, but each branch's k^2 x k^2 matrix still there; a 1x1
  shortcut convolution in every block, used or not; every other batch norm apart from its convolution (2 a channel);
  the head of level 0 only.
* MACs: convolutions with 1 per output element for a bias, batch norm 2 per element, SiLU, ReLU and hard-sigmoid 1 per
  element, pooling 1 per input element. Sums, products, the mean inside squeeze-excite, the sigmoid and bilinear
  resizing are not seen.
"""

from __future__ import annotations

import sys
from math import prod

from search.spaces.block import BlockSpec, Shape, total
from search.spaces.inas.arch import FACTORS, INASArch
from search.spaces.inas.blocks import squeeze_width


def original_counts(arch: INASArch, input_size: tuple[int, int] = (224, 224)) -> tuple[int, int]:
    """Parameters and MACs in the convention of the published tables.

    Args:
        arch: The architecture.
        input_size: Height and width in pixels.

    Raises:
        UsageError: If the network cannot take the input size.
    """
    blocks = arch.blocks(input_size)
    params, macs = total(blocks)
    for block in blocks:
        more_params, more_macs = _unstripped(block)
        params += more_params
        macs += more_macs
    layers = [kernels for stage in arch.kernels for kernels in stage]
    for kernels in (*layers, *arch.transport_kernels, *arch.transport_kernels, *arch.decoder_kernels):
        params += sum(kernel**4 for kernel in kernels)
    return params, macs


def _unstripped(block: BlockSpec) -> tuple[int, int]:
    """What the convention counts beyond a deployed block's own figures, the matrices apart.

    A convolution's folded batch norm has one value a channel, the batch norm itself two.
    """
    source, out = block.inputs[0], block.outputs[0]
    width, size = out[0], prod(out)
    match block.kind:
        case "inas.stem":
            return width, 3 * size
        case "inas.mbconv":
            return _unstripped_mbconv(source, out, dict(block.settings))
        case "inas.transport_branch":
            pooled = prod(source) if source[1] > out[1] else 0
            return width, 2 * min(size, width * source[1] * source[2]) + pooled
        case "inas.decoder_branch":
            return width, 3 * width * source[1] * source[2]
        case "inas.transport_fuse":
            return 2 * width, 8 * size
        case "inas.decoder_fuse":
            return width, 4 * size
    return 0, 0  # the head


def _unstripped_mbconv(source: Shape, out: Shape, settings: dict[str, int]) -> tuple[int, int]:
    hidden, plane = settings["hidden"], out[1] * out[2]
    unused = 0 if settings["shortcut"] else source[0] * out[0]
    pooled = prod(source) if settings["stride"] == 2 else 0
    gate = 2 * (squeeze_width(hidden) + hidden)
    macs = 3 * hidden * source[1] * source[2] + 2 * hidden * plane + gate + 2 * out[0] * plane + pooled
    return hidden + out[0] + unused, macs


def table(input_size: tuple[int, int] = (224, 224)) -> str:
    """Smallest and biggest network and supernet of each space, published convention beside deployed form.

    Args:
        input_size: Height and width in pixels.

    Raises:
        MissingExtra: If torch, which the supernets are built with, is not installed.
    """
    from search.spaces.inas.network import build_supernet
    from search.spaces.inas.space import INASSpace
    from search.torch_or_stub import torch

    titles = ("network", "params, published", "MACs, published", "params, deployed", "MACs, deployed")
    lines = [f"{titles[0]:<20}" + "".join(f"{title:>19}" for title in titles[1:])]
    for name in FACTORS:
        space = INASSpace(name)
        for end, arch in (("smallest", space.smallest()), ("biggest", space.biggest())):
            figures = (*original_counts(arch, input_size), *space.cost(arch, input_size))
            lines.append(f"{name + ':' + end:<20}" + "".join(f"{figure:>19,}" for figure in figures))
        with torch.device("meta"):
            params = sum(weights.numel() for weights in build_supernet(space).parameters())
        lines.append(f"{name + ' supernet':<20}{params:>19,}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"at 224x224\n{table()}\n")
