"""Equalised learning rates and pixel norm (Karras et al. 2018, arXiv:1710.10196, sections 4.1 and
4.2): every weight is drawn from one distribution and brought to its scale at run time, so that an
optimiser of normalised steps moves all of them at one speed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RELU = math.sqrt(2)  # He's gain


class EqualisedLinear(nn.Linear):
    """y = x (c W)ᵀ + m b with W ~ N(0, 1/m²), c = m · gain/√fan_in.

    Args:
        gain: of what follows, √2 for rectifiers. rate: m, how much faster than others its weights
            move. start: the first value of m b.

    >>> layer = EqualisedLinear(8, 4, gain=2.0, rate=0.5)
    >>> layer.scale * 8**0.5, layer(torch.zeros(3, 8)).shape
    (1.0, torch.Size([3, 4]))
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        gain: float = RELU,
        rate: float = 1.0,
        bias: bool = True,
        start: float = 0.0,
    ) -> None:
        super().__init__(inputs, outputs, bias)
        self.rate, self.scale = rate, rate * gain / math.sqrt(inputs)
        nn.init.normal_(self.weight, std=1 / rate)
        if bias:
            nn.init.constant_(self.bias, start / rate)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.rate * self.bias
        return F.linear(x, self.scale * self.weight, bias)


class EqualisedConv2d(nn.Conv2d):
    """A convolution of stride 1 that keeps the size, its weights N(0, 1) times gain/√fan_in at run
    time, its bias 0 at first.

    >>> layer = EqualisedConv2d(3, 4, 3, gain=1.0)
    >>> layer(torch.zeros(2, 3, 8, 8)).shape, round(layer.scale**-2)
    (torch.Size([2, 4, 8, 8]), 27)
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, gain: float = RELU, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.scale = gain / math.sqrt(inputs * kernel**2)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.scale * self.weight, self.bias, padding=self.padding)


def pixel_norm(a: Tensor) -> Tensor:
    """a / √(mean over channels of a² + 1e-8), of (B, C) or (B, C, H, W).

    >>> pixel_norm(torch.tensor([[3.0, -3.0]]))
    tensor([[ 1., -1.]])
    """
    return a * torch.rsqrt(a.square().mean(1, keepdim=True) + 1e-8)
