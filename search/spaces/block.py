"""The unit of latency prediction: one module of the deployed network, with its shapes (no torch)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Shape = tuple[int, int, int]
"""Channels, height, width of one feature map."""
Settings = tuple[tuple[str, int], ...]


class BlockSpec(NamedTuple):
    """One block.

    Attributes:
        name: Module path in the reparameterized network, for example ``stage3.0``; per-op profiles join to it.
        kind: What it is, ``<space>.<block>``, for example ``inas.mbconv``. Together with the shapes and the settings
            it says everything that is needed to build the block alone.
        inputs: Shape of each input.
        outputs: Shape of each output.
        settings: Sorted integer settings by name: kernel, stride, hidden, groups, ... .
        params: Parameters in the deployed form.
        macs: Multiply-accumulates of convolutions, linear layers and matrix products at these shapes.
    """

    name: str
    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    settings: Settings
    params: int
    macs: int

    @property
    def key(self) -> tuple[str, tuple[Shape, ...], tuple[Shape, ...], Settings]:
        """What latency can depend on; blocks with one key are measured once."""
        return self.kind, self.inputs, self.outputs, self.settings


def total(blocks: Iterable[BlockSpec]) -> tuple[int, int]:
    """Parameters and MACs of the blocks together."""
    params = macs = 0
    for block in blocks:
        params += block.params
        macs += block.macs
    return params, macs


def conv_size(size: int, stride: int) -> int:
    """Length of a "same"-padded odd-kernel convolution's output: the ceiling of ``size / stride``."""
    return -(-size // stride)
