"""iNAS networks in which nothing is trivially zero, one or the identity."""

import random

import torch
from torch import nn

from search.spaces.inas.layers import SMSU
from search.spaces.inas.parts import MBConv
from search.spaces.registry import find_space

SPREAD = ("inas",) * 4 + ("inas-small",) * 12 + ("inas-tiny",) * 34


def randomise(network, seed=0):
    """Random norms and kernel matrices, in float64; the residual branches are damped so that rounding does not grow."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like):
        return torch.randn(like.shape, generator=generator)

    def uniform(like, low, high):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(uniform(module.weight, 0.5, 1.5))
                module.bias.copy_(noise(module.bias) * 0.2)
                module.running_mean.copy_(noise(module.running_mean) * 0.2)
                module.running_var.copy_(uniform(module.running_var, 0.5, 2))
            elif isinstance(module, nn.Conv2d):
                module.weight.mul_(2.5)  # so that the image is still seen at the output
            elif isinstance(module, SMSU):
                for matrix in module.matrices.values():
                    matrix.add_(noise(matrix) * 0.1)
        for module in network.modules():
            if isinstance(module, MBConv):
                module.project.norm.weight.copy_(uniform(module.project.norm.weight, 0.05, 0.3))
    return network.double().eval()


def draws(name, count, classes=1, seed=7):
    rng = random.Random(seed)
    space = find_space(name, classes)
    return [space.sample(rng) for _ in range(count)]


def image(size=64, batch=1, seed=0):
    return torch.randn(batch, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
