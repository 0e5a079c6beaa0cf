"""Self-attention over the places of an image (Zhang et al. 2019, arXiv:1805.08318, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """x + γ o, o the mean of values at all places, weighted by how well a place's query meets
    their keys; γ is 0 at first. Keys and values are pooled by two (where there is room).

    Args:
        maps: C of x, (B, C, H, W), at least 8; queries and keys have C/8 maps, values C/2.

    >>> layer, x = SelfAttention(16), torch.randn(2, 16, 4, 4)
    >>> bool((layer(x) == x).all()), layer.weights(x).shape
    (True, torch.Size([2, 16, 4]))
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        few, half = max(maps // 8, 1), max(maps // 2, 1)
        self.query = nn.Conv2d(maps, few, 1, bias=False)
        self.key = nn.Conv2d(maps, few, 1, bias=False)
        self.value = nn.Conv2d(maps, half, 1, bias=False)
        self.out = nn.Conv2d(half, maps, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def weights(self, x: Tensor) -> Tensor:
        """(B, places, pooled places), each row a distribution."""
        query = self.query(x).flatten(2)  # (B, C/8, places)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        return (query.mT @ key).softmax(2)

    def forward(self, x: Tensor) -> Tensor:
        value = F.max_pool2d(self.value(x), 2).flatten(2)  # (B, C/2, pooled places)
        o = (value @ self.weights(x).mT).unflatten(2, x.shape[2:])
        return x + self.gamma * self.out(o)
