"""Modulated convolutions (Karras et al. 2020, arXiv:1912.04958, section 2.2): a style scales the
inputs, and each output keeps its deviation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.nn.equalised import EqualisedConv2d, EqualisedLinear


class ModulatedConv2d(nn.Module):
    """x, (B, inputs, H, W), and styles w, (B, units) -> (B, outputs, H, W): a convolution with the
    weights s_i W_oi, s affine in w and 1 at first, divided by the norm of each output's.

    Args:
        demodulate: whether they are divided.

    >>> layer = ModulatedConv2d(3, 4, 3, units=5)
    >>> layer(torch.zeros(2, 3, 8, 8), torch.zeros(2, 5)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, units: int, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.conv = EqualisedConv2d(inputs, outputs, kernel, gain=1.0, bias=False)
        self.style = EqualisedLinear(units, inputs, gain=1.0, start=1.0)
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        s = self.style(w)
        h = self.conv(x * s[:, :, None, None])
        if not self.demodulate:
            return h
        weight = self.conv.scale * self.conv.weight
        energy = s.square() @ weight.square().sum((2, 3)).T  # Σ (s W)², (B, outputs)
        return h * torch.rsqrt(energy + 1e-8)[:, :, None, None]
