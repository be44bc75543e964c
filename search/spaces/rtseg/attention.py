"""RTSeg's attention block for torch, from plain matrix products and softmax, so that every exporter takes it."""

from __future__ import annotations

import math

from search.spaces.rtseg import arch as data
from search.torch_or_stub import functional, nn, torch


class ChannelNorm(nn.Module):
    """Layer norm over the channels of tokens, of which some may be masked.

    Args:
        width: Channels.

    Attributes:
        keep: ``None``, or one value a channel, 1 to keep and 0 to drop: mean and variance are those of the kept
            channels, and a dropped channel's output is zero. The input must be zero where it is dropped.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = 1e-5
        self.keep: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., C) to the same shape."""
        if self.keep is None:
            return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        keep = self.keep.to(x)
        count = keep.sum()
        centred = (x - x.sum(-1, keepdim=True) / count) * keep
        variance = centred.square().sum(-1, keepdim=True) / count
        return (centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias) * keep


class Attention(nn.Module):
    """Global multi-head self-attention, then an MLP, each after a norm and with a residual (paper, equations 1 and 2).

    The map is cut into square patches, each one token of all its channels, channel by channel. The MLP has a ReLU:
    phones and Jetsons run it inside the matrix product, and a GELU as four operations beside it. There is no
    positional embedding, so any input size works.

    Args:
        trunk: Input and output channels.
        arch: Heads, widths and patch size. Height and width must be multiples of the patch side.
    """

    def __init__(self, trunk: int, arch: data.Attention) -> None:
        super().__init__()
        self.patch = arch.patch
        self.heads = arch.heads
        self.scale = 1 / math.sqrt(arch.key // arch.heads)
        width = trunk * arch.patch**2
        self.norm1 = ChannelNorm(width)
        self.query = nn.Linear(width, arch.key, bias=False)
        self.key = nn.Linear(width, arch.key, bias=False)
        self.value = nn.Linear(width, arch.value, bias=False)
        self.project = nn.Linear(arch.value, width)
        self.norm2 = ChannelNorm(width)
        self.expand = nn.Linear(width, arch.hidden)
        self.act = nn.ReLU()
        self.reduce = nn.Linear(arch.hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        tokens = self._tokens(x)
        tokens = tokens + self.project(self._attend(self.norm1(tokens)))
        tokens = tokens + self.reduce(self.act(self.expand(self.norm2(tokens))))
        return self._map(tokens, x.shape)

    def _attend(self, tokens: torch.Tensor) -> torch.Tensor:
        """Attention of all tokens to all, (N, T, C) to (N, T, value)."""
        query = self._split(self.query(tokens) * self.scale)
        weights = (query @ self._split(self.key(tokens)).transpose(2, 3)).softmax(-1)
        mixed = (weights @ self._split(self.value(tokens))).transpose(1, 2)
        return mixed.reshape(mixed.shape[0], mixed.shape[1], -1)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, C) to (N, heads, T, C/heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def _tokens(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, T, C * patch * patch)."""
        if self.patch > 1:
            x = functional.pixel_unshuffle(x, self.patch)
        return x.flatten(2).transpose(1, 2)

    def _map(self, tokens: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """What ``_tokens`` did, undone."""
        height, width = shape[2] // self.patch, shape[3] // self.patch
        x = tokens.transpose(1, 2).reshape(shape[0], -1, height, width)
        return functional.pixel_shuffle(x, self.patch) if self.patch > 1 else x
