"""The residual translator (Johnson et al. 2016; as in Zhu et al. 2017, section 4): convolutions
down, residual blocks, convolutions up. Convolutions before a norm, which would take them away,
have no biases.
"""

from __future__ import annotations

from torch import Tensor, nn


def norm(width: int) -> nn.Module:
    """Instance norm without gain or running statistics: no image knows of another."""
    return nn.InstanceNorm2d(width)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3 with reflected edges and instance norm; no ReLU after the sum.

    >>> import torch
    >>> ResidualBlock(4)(torch.zeros(2, 4, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=False),
            norm(width),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=False),
            norm(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class ResidualTranslator(nn.Sequential):
    """x, (B, inputs, H, W), H and W multiples of 4 -> (B, outputs, H, W) in (-1, 1).

    Args:
        width: filters of the first layer, 7x7; two of stride 2 double them, two transposed ones
            halve them again. blocks: residual blocks between.

    >>> import torch
    >>> ResidualTranslator(1, 3, 4, 2)(torch.zeros(2, 1, 16, 12)).shape
    torch.Size([2, 3, 16, 12])
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int) -> None:
        super().__init__(
            nn.ReflectionPad2d(3),
            nn.Conv2d(inputs, width, 7, bias=False),
            norm(width),
            nn.ReLU(),
            *(layer for i in range(2) for layer in _down(width << i)),
            *(ResidualBlock(4 * width) for _ in range(blocks)),
            *(layer for i in (2, 1) for layer in _up(width << i)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, outputs, 7),
            nn.Tanh(),
        )


def _down(width: int) -> list[nn.Module]:
    return [nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), norm(2 * width), nn.ReLU()]


def _up(width: int) -> list[nn.Module]:
    half = width // 2
    up = nn.ConvTranspose2d(width, half, 3, 2, 1, output_padding=1, bias=False)
    return [up, norm(half), nn.ReLU()]
