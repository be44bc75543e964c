"""A CSNet with repeatable weights that nobody had to train: for latency only.

Weights are drawn from a seed and batch norm gets the statistics of generated images and noise, so that activations
have the range of a trained network's (no denormals, no saturation). The map it makes means nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.spaces.csnet.arch import CSNetArch
from search.spaces.csnet.layers import WEIGHT_FACTOR, scaled_conv_class
from search.spaces.csnet.network import build_csnet
from targets.extras import require

if TYPE_CHECKING:
    from torch import nn

UNTRAINED_NOTE = "untrained weights: for latency only"
"""What a reader must know about a network that was made from an architecture alone."""
_SIZE = 128
_IMAGES = 16
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_RANDOM_SHARE = 0.5


def seeded_csnet(arch: CSNetArch, seed: int = 0) -> nn.Module:
    """Make a CSNet with seeded weights and realistic statistics.

    Args:
        arch: The architecture.
        seed: Seed of weights and images. Equal seeds give equal weights but for rounding.

    Returns:
        The network in training form and eval mode.

    Raises:
        MissingExtra: If torch is not installed.
    """
    require("torch", "torch")
    import torch
    from torch import nn

    network: Any = build_csnet(arch, seed=seed)
    generator = np.random.default_rng(seed)
    images = generated_images(_IMAGES, _SIZE, generator)
    images[::2] = generator.standard_normal(images[::2].shape)  # what a latency measurement feeds
    batch = torch.from_numpy(images)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                width = module.num_features
                module.weight.copy_(torch.from_numpy(generator.uniform(0.5, 1.5, width)))
                module.bias.copy_(torch.from_numpy(generator.normal(0, 0.2, width)))
                module.momentum = None  # average over all batches
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(torch.from_numpy(generator.uniform(-0.1, 0.6, module.num_parameters)))
            elif isinstance(module, nn.Conv2d) and module is not network.head:
                _lean_to_identity(module)
        network.train()
        for part in (batch[:8], batch[8:]):
            network(part)
        network.eval()
    return network  # type: ignore[no-any-return]


def _lean_to_identity(conv: Any) -> None:
    """Let each output channel mostly carry one input channel on.

    Forty purely random layers would amplify rounding until no two runtimes agree; trained ones do not.
    """
    factor = WEIGHT_FACTOR if isinstance(conv, scaled_conv_class()) else 1.0
    outputs, inputs, kernel, _ = conv.weight.shape
    conv.weight.mul_(_RANDOM_SHARE / factor / conv.weight.std() / (inputs * kernel**2) ** 0.5)
    for channel in range(outputs):
        conv.weight[channel, channel % inputs, kernel // 2, kernel // 2] += 1 / factor


def generated_images(count: int, size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Shapes with one texture on a ground of another.

    Args:
        count: Number of images.
        size: Height and width.
        generator: Source of everything random.

    Returns:
        Normalised images (count, 3, size, size).
    """
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size
    images = np.empty((count, 3, size, size), dtype=np.float32)
    for index in range(count):
        y, x = generator.uniform(0.3, 0.7, 2)
        half_y, half_x = generator.uniform(0.12, 0.32, 2)
        angle = generator.uniform(0, np.pi)
        u = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        v = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
        power = generator.choice([1.0, 2.0, 6.0])  # diamond, ellipse, rounded box
        mask = (np.abs(u / half_x) ** power + np.abs(v / half_y) ** power) < 1
        ground, figure = _texture(rows, columns, generator), _texture(rows, columns, generator)
        image = np.where(mask[..., None], figure, ground) + generator.normal(0, 0.03, (size, size, 3))
        images[index] = ((np.clip(image, 0, 1) - _MEAN) / _DEVIATION).transpose(2, 0, 1)
    return images


def _texture(
    rows: NDArray[np.float32], columns: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.float32]:
    """A colour with a few waves over it, (H, W, 3)."""
    out = np.broadcast_to(generator.uniform(0.1, 0.9, 3), (*rows.shape, 3)).astype(np.float32)
    for _ in range(3):
        across, down = generator.uniform(-12, 12, 2)
        wave = np.sin(2 * np.pi * (across * columns + down * rows) + generator.uniform(0, 2 * np.pi))
        out = out + (wave[..., None] * generator.normal(0, 0.08, 3)).astype(np.float32)
    return out
