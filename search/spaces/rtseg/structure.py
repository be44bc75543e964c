"""Every layer of an RTSeg network with the channels it reads and writes: what counts and mask plans are made from.

Channels are named by mask group, so that one description gives the parameters, the MACs and the channels that must
agree. Sizes are named by level: ``n`` is the input size halved (rounding up) ``n`` times, ``GLOBAL`` is one position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from search.spaces.block import Settings
from search.spaces.rtseg.arch import AUXILIARY_WIDTH, Attention, Down, Inverted, RTSegArch

GLOBAL = 6
"""Level of a map that was averaged to one position."""
Channels = tuple[str | int, ...]
"""Mask groups by name and fixed numbers of channels, concatenated."""


class Layer(NamedTuple):
    """One layer with weights.

    Attributes:
        path: Module path in the training form.
        form: ``unit``: convolution without bias + batch norm, children ``conv`` and ``norm``. ``plain``: convolution
            or linear layer. ``batch_norm``, ``channel_norm`` (over channels): the norm alone.
        inputs: Channels read; empty where each output channel reads one channel of its own group.
        outputs: Channels written.
        level: Level of the output.
        kernel: Side of the kernel.
        repeat: Output channels per group channel.
        input_repeat: Input channels per group channel.
        bias: Whether a ``plain`` layer has one.
        masked: Whether the mask of the output's group belongs on this layer's output.
    """

    path: str
    form: Literal["unit", "plain", "batch_norm", "channel_norm"]
    inputs: Channels
    outputs: Channels
    level: int
    kernel: int = 1
    repeat: int = 1
    input_repeat: int = 1
    bias: bool = False
    masked: bool = True


class Part(NamedTuple):
    """One block: a module that is measured as a whole, or an auxiliary head.

    Attributes:
        name: Module path.
        kind: What it is, for example ``lir``.
        inputs: Channels and level of each input.
        output: Channels and level of the output.
        settings: Settings of its ``BlockSpec``.
        layers: Its layers.
        products: Channels of query and value: MACs per pair of tokens; 0 without attention.
        masked: Group whose mask belongs on the whole block's output; empty where the layers' own masks do.
    """

    name: str
    kind: str
    inputs: tuple[tuple[str | int, int], ...]
    output: tuple[str | int, int]
    settings: Settings
    layers: tuple[Layer, ...]
    products: int = 0
    masked: str = ""


def parts(arch: RTSegArch, attention: Sequence[Attention] = ()) -> Iterator[Part]:
    """The blocks of a network in execution order, without auxiliary heads.

    Args:
        arch: The architecture. Blocks that are skipped have no part.
        attention: For a supernet: the attention block of each stage, which stands beside each block of ``arch``;
            module names then end in ``.lir`` or ``.mhsa``.
    """
    yield from _detail(arch)
    yield _stem(arch)
    entry = "stem.fuse"
    for index, stage in enumerate(arch.stages):
        name, trunk, level = f"stages.{index}", f"stages.{index}.trunk", 3 + index
        yield _down(f"{name}.down", stage.down, entry, trunk, level)
        for number, block in enumerate(stage.blocks):
            path = f"{name}.blocks.{number}"
            if isinstance(block, Inverted):
                yield _inverted(f"{path}.lir" if attention else path, path, block, trunk, level)
            if attention:
                yield _attention(f"{path}.mhsa", path, attention[index], trunk, level)
            elif isinstance(block, Attention):
                yield _attention(path, path, block, trunk, level)
        entry = trunk
    yield _context(entry)
    yield _bga(arch, entry)
    yield _head(arch)


def auxiliary_parts(arch: RTSegArch) -> Iterator[Part]:
    """The heads that only training has: after the stem and after each stage's blocks."""
    width = AUXILIARY_WIDTH
    for index, group in enumerate(("stem.fuse", *(f"stages.{stage}.trunk" for stage in range(3)))):
        name, level, factor = f"auxiliary.{index}", 2 + index, 2 ** (2 + index)
        layers = (
            Layer(f"{name}.conv", "unit", (group,), (width,), level, 3),
            Layer(f"{name}.expand", "unit", (width,), (factor**2,), level - 1, 3),
            Layer(f"{name}.classify", "plain", (factor**2,), (arch.classes,), level - 1, bias=True),
        )
        yield Part(name, "auxiliary", ((group, level),), (arch.classes, 0), (), layers)


def _detail(arch: RTSegArch) -> Iterator[Part]:
    entry: str | int = 3
    for stage, widths in enumerate(arch.detail):
        for index in range(len(widths)):
            name, stride = f"detail.{stage}.{index}", 1 if index else 2
            layer = Layer(name, "unit", (entry,), (name,), stage + 1, 3)
            source = (entry, stage if stride == 2 else stage + 1)
            yield Part(name, "conv", (source,), (name, stage + 1), (("kernel", 3), ("stride", stride)), (layer,))
            entry = name


def _stem(arch: RTSegArch) -> Part:
    stem = arch.stem
    layers = (
        Layer("stem.conv", "unit", (3,), ("stem.conv",), 1, 3),
        Layer("stem.squeeze", "unit", ("stem.conv",), ("stem.squeeze",), 1),
        Layer("stem.left", "unit", ("stem.squeeze",), ("stem.left",), 2, 3),
        Layer("stem.fuse", "unit", ("stem.left", "stem.conv"), ("stem.fuse",), 2, 3),
    )
    settings = (("conv", stem.conv), ("left", stem.left), ("squeeze", stem.squeeze))
    return Part("stem", "stem", ((3, 0),), ("stem.fuse", 2), settings, layers)


def _down(name: str, block: Down, entry: str, trunk: str, level: int) -> Part:
    lead, expand = f"{name}.lead", f"{name}.expand"
    first = Layer(lead, "unit", (entry,), (lead,), level - 1, 3)
    if block.path == "ge":
        grouped = Layer(expand, "unit", (), (lead,), level, 3, repeat=6)
        layers = [first, grouped, grouped._replace(path=f"{name}.depthwise")]
        wide, repeat = lead, 6
    else:
        strided = Layer(f"{name}.strided", "unit", (), (expand,), level, 3)
        layers = [first, Layer(expand, "unit", (lead,), (expand,), level - 1)]
        layers += [strided, strided._replace(path=f"{name}.depthwise")]
        wide, repeat = expand, 1
    layers += [
        Layer(f"{name}.project", "unit", (wide,), (trunk,), level, input_repeat=repeat, masked=False),
        Layer(f"{name}.shortcut.depthwise", "unit", (), (entry,), level, 3),
        Layer(f"{name}.shortcut.project", "unit", (entry,), (trunk,), level, masked=False),
    ]
    settings = (("expand", block.expand), ("grouped", int(block.path == "ge")), ("lead", block.lead))
    return Part(name, "down", ((entry, level - 1),), (trunk, level), settings, tuple(layers), masked=trunk)


def _inverted(name: str, place: str, block: Inverted, trunk: str, level: int) -> Part:
    lead, expand = f"{place}.{block.path}.lead", f"{place}.lir.expand"
    first = Layer(f"{name}.lead", "unit", (trunk,), (lead,), level, 3)
    last = Layer(f"{name}.project", "unit", (expand,), (trunk,), level, masked=False)
    if block.path == "ge":
        middle = [Layer(f"{name}.expand", "unit", (), (lead,), level, 3, repeat=6)]
        last = last._replace(inputs=(lead,), input_repeat=6)
    else:
        middle = [
            Layer(f"{name}.expand", "unit", (lead,), (expand,), level),
            Layer(f"{name}.depthwise", "unit", (), (expand,), level, 3),
        ]
    settings = (("expand", block.expand), ("lead", block.lead))
    shape = (trunk, level)
    return Part(name, block.path, (shape,), shape, settings, (first, *middle, last), masked=trunk)


def _attention(name: str, place: str, block: Attention, trunk: str, level: int) -> Part:
    hidden, area = f"{place}.mhsa.hidden", block.patch**2
    query = Layer(f"{name}.query", "plain", (trunk,), (block.key,), level, input_repeat=area, masked=False)
    norm = Layer(f"{name}.norm1", "channel_norm", (), (trunk,), level, repeat=area, masked=False)
    layers = (
        norm,
        query,
        query._replace(path=f"{name}.key"),
        query._replace(path=f"{name}.value", outputs=(block.value,)),
        Layer(f"{name}.project", "plain", (block.value,), (trunk,), level, repeat=area, bias=True),
        norm._replace(path=f"{name}.norm2"),
        Layer(f"{name}.expand", "plain", (trunk,), (hidden,), level, input_repeat=area, bias=True),
        Layer(f"{name}.reduce", "plain", (hidden,), (trunk,), level, repeat=area, bias=True),
    )
    settings = tuple(sorted(block.model_dump(exclude={"path"}).items()))
    shape = (trunk, level)
    return Part(name, "mhsa", (shape,), shape, settings, layers, products=block.key + block.value)


def _context(trunk: str) -> Part:
    layers = (
        Layer("context.norm", "batch_norm", (), (trunk,), GLOBAL),
        Layer("context.conv", "unit", (trunk,), (trunk,), GLOBAL),
        Layer("context.fuse", "unit", (trunk,), (trunk,), 5, 3),
    )
    return Part("context", "context", ((trunk, 5),), (trunk, 5), (), layers)


def _bga(arch: RTSegArch, trunk: str) -> Part:
    detail, both = "detail.2.2", ("bga.sum",)
    layers = (
        Layer("bga.detail_depthwise", "unit", (), (detail,), 3, 3),
        Layer("bga.detail_project", "plain", (detail,), both, 3),
        Layer("bga.detail_down", "unit", (detail,), both, 4, 3),
        Layer("bga.semantic_up", "unit", (trunk,), both, 5, 3),
        Layer("bga.semantic_depthwise", "unit", (), (trunk,), 5, 3),
        Layer("bga.semantic_project", "plain", (trunk,), both, 5),
        Layer("bga.fuse", "unit", both, ("bga.out",), 3, 3),
    )
    return Part("bga", "bga", ((detail, 3), (trunk, 5)), ("bga.out", 3), (("width", arch.bga),), layers)


def _head(arch: RTSegArch) -> Part:
    layers = (
        Layer("head.conv", "unit", ("bga.out",), ("head.conv",), 3, 3),
        Layer("head.classify", "plain", ("head.conv",), (arch.classes,), 3, bias=True),
    )
    return Part("head", "head", (("bga.out", 3),), (arch.classes, 0), (("width", arch.head),), layers)
