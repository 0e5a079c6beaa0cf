"""Maxout (Goodfellow et al. 2013): a unit whose activation is the largest of several linear
maps.
"""

from __future__ import annotations

from torch import Tensor, nn


class Maxout(nn.Module):
    """(B, inputs) -> (B, units): the largest of ``pieces`` linear maps.

    >>> import torch
    >>> Maxout(6, 4)(torch.zeros(2, 6)).shape
    torch.Size([2, 4])
    """

    def __init__(self, inputs: int, units: int, pieces: int = 5) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)
