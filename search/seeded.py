"""Repeatable weights that nobody had to train, for any network here: for latency and parity only.

Weights keep what their network drew, made calm, and batch norm gets the statistics of generated images and noise, so
that activations have the range of a trained network's (no denormals, no saturation). What the network gives means
nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.spaces.csnet.layers import WEIGHT_FACTOR, ScaledConv2d
from search.torch_or_stub import nn, torch
from targets.errors import UsageError

STATISTICS_SIDE = 128
"""Height and width that statistics are taken at where a network allows it: more would cost time and change little."""
MAX_SEED = 2**32 - 1
_BATCH = 8
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_RANDOM_SHARE = 0.5
_LEAST_VARIANCE = 1e-4
"""A channel that hardly moved on the images would multiply rounding by hundreds once it does."""


def check_seed(seed: int) -> None:
    """Refuse a seed that a generator would not take.

    Raises:
        UsageError: Unless it is from 0 to ``MAX_SEED``.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"the seed {seed} is out of range", f"Give one from 0 to {MAX_SEED}.")


def seed_weights(network: nn.Module, side: int, seed: int = 0, *, images: int = 16) -> None:
    """Give a network seeded weights and realistic statistics, in place.

    Args:
        network: Network in training form that maps (N, 3, H, W); built with a seed, where its weights are to be
            repeatable. It is left in eval mode.
        side: Height and width that the statistics are taken at, one that the network can take.
        seed: Seed of what is drawn here. Equal seeds give equal weights but for rounding.
        images: Images that the statistics are taken from.

    Raises:
        MissingExtra: If torch is not installed.
    """
    generator = np.random.default_rng(seed)
    content = generated_images(images, side, generator)
    content[::2] = generator.standard_normal(content[::2].shape)  # what a latency measurement feeds
    with torch.no_grad():
        _draw(network, generator)
        network.eval()
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # average over all batches
            norm.train()
        for start in range(0, images, _BATCH):
            network(torch.from_numpy(content[start : start + _BATCH]))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.running_var.clamp_(min=_LEAST_VARIANCE)  # type: ignore[union-attr]
    network.eval()


def _draw(network: nn.Module, generator: np.random.Generator) -> None:
    modules = list(network.modules())
    for module, after in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.BatchNorm2d):
            low, high = (0.1, 0.3) if not module.weight.any() else (0.5, 1.5)  # zero: the end of a residual branch
            module.weight.copy_(torch.from_numpy(generator.uniform(low, high, module.num_features)))
            module.bias.copy_(torch.from_numpy(generator.normal(0, 0.2, module.num_features)))
        elif isinstance(module, nn.PReLU):
            module.weight.copy_(torch.from_numpy(generator.uniform(-0.1, 0.6, module.num_parameters)))
        elif isinstance(module, nn.Conv2d):
            if module.bias is None or isinstance(after, nn.BatchNorm2d):
                _lean_to_identity(module)
        elif isinstance(module, nn.ParameterDict):  # matrices that start as the identity
            for matrix in module.values():
                matrix.add_(torch.from_numpy(generator.normal(0, 0.02, tuple(matrix.shape))))


def _lean_to_identity(conv: nn.Conv2d) -> None:
    """Let each output channel mostly carry one input channel on.

    Forty purely random layers would amplify rounding until no two runtimes agree; trained ones do not.
    """
    factor = WEIGHT_FACTOR if isinstance(conv, ScaledConv2d) else 1.0
    outputs, inputs, height, width = conv.weight.shape
    if conv.weight.numel() > 1:
        conv.weight.mul_(_RANDOM_SHARE / factor / conv.weight.std() / (inputs * height * width) ** 0.5)
    for channel in range(outputs):
        conv.weight[channel, channel % inputs, height // 2, width // 2] += 1 / factor


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
