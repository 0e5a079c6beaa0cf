"""What images are made of in the tasks whose answer is the image: grey of colour, small of large,
whole of torn, dry of rainy. Integer levels in, integer levels out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.keyed import numbers

LUMINANCE = (0.299, 0.587, 0.114)
RAIN = 4  # group of random numbers of an item
STREAKS = (12, 28)  # of an image


def grey(x: Tensor) -> Tensor:
    """Luminance .299 R + .587 G + .114 B of colour images, (B, 3, H, W) -> (B, 1, H, W), rounded.

    >>> grey(torch.tensor([255.0, 0.0, 0.0]).view(1, 3, 1, 1)).item()
    76.0
    """
    weights = torch.tensor(LUMINANCE, dtype=torch.float64).view(3, 1, 1)
    return (x.double() * weights).sum(1, keepdim=True).add(0.5).floor().to(x.dtype)


def summed(x: Tensor, s: int) -> Tensor:
    """Sums over blocks of s x s pixels, (B, C, H/s, W/s): the exact box average in levels of which
    there are s² (L - 1) + 1.

    >>> summed(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 2).tolist()
    [[[[10.0]]]]
    """
    return x.unfold(2, s, s).unfold(3, s, s).sum((-2, -1))


def hole(height: int, breadth: int) -> Tensor:
    """The centre square of half the sides, (1, H, W), 1 inside.

    >>> hole(4, 4)[0].int().tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    inside = torch.zeros(1, height, breadth)
    h, w = height // 2, breadth // 2
    top, left = (height - h) // 2, (breadth - w) // 2
    inside[:, top : top + h, left : left + w] = 1
    return inside


def torn(x: Tensor, inside: Tensor) -> Tensor:
    """Images whose pixels inside have the mean colour of those outside, rounded.

    >>> torn(torch.tensor([[[[9.0, 2.0, 4.0]]]]), torch.tensor([[[1.0, 0.0, 0.0]]])).tolist()
    [[[[3.0, 2.0, 4.0]]]]
    """
    seen = 1 - inside
    mean = ((x * seen).sum((2, 3), keepdim=True) / seen.sum()).round()
    return torch.where(inside.bool(), mean, x)


def outlines(labels: Tensor) -> Tensor:
    """Where a label map, (B, H, W), changes to the pixel above, below, left or right, (B, 1, H, W):
    0 there, 1 elsewhere.

    >>> outlines(torch.tensor([[[0, 0, 2, 2]]])).tolist()
    [[[[1, 0, 0, 1]]]]
    """
    line = torch.zeros_like(labels, dtype=torch.bool)
    down, right = labels.diff(dim=1) != 0, labels.diff(dim=2) != 0
    line[:, 1:] |= down
    line[:, :-1] |= down
    line[..., 1:] |= right
    line[..., :-1] |= right
    return (~line).to(labels.dtype)[:, None]


def streaks(seed: int, split: int, item: int, size: int) -> NDArray[np.float64]:
    """The rain over an item of size x size pixels, (S, S) in [0, 1], from its own numbers alone.

    There are 12 to 28 streaks of one angle in [-.5, .5] radians from the vertical, 4 to 12 pixels
    long and .4 to .8 wide at 32 pixels and in proportion otherwise, each of strength .3 to .7;
    where two cross the stronger one is seen. A pixel's share is how far the streak's middle line is
    from its centre: all within the half width, nothing a pixel further out.
    """
    low, high = STREAKS
    u = numbers(seed, (split, item, RAIN), 2 + 5 * high)
    n, angle = low + int(u[0] * (high - low + 1)), u[1] - 0.5
    x, y, length, width, strength = u[2:].reshape(high, 5)[:n].T[..., None, None]
    scale = size / 32
    half, thick = scale * (4 + 8 * length) / 2, scale * (0.4 + 0.4 * width) / 2
    at = np.arange(size) + 0.5
    dx, dy = at[None, None, :] - size * x, at[None, :, None] - size * y
    along = dx * math.sin(angle) + dy * math.cos(angle)
    across = dx * math.cos(angle) - dy * math.sin(angle)
    beyond = np.hypot(np.maximum(abs(along) - half, 0), across)
    share = (1 - np.maximum(beyond - thick, 0)).clip(0, 1)
    return (share * (0.3 + 0.4 * strength)).max(0)


def rainy(x: Tensor, rain: Tensor, levels: int) -> Tensor:
    """Images behind rain of strengths in [0, 1]: x + R (1 - x) on [0, 1], rounded.

    >>> rainy(torch.tensor([100.0]), torch.tensor([0.5]), 256).item()
    178.0
    """
    top = levels - 1
    return (x + rain * (top - x)).add(0.5).floor().clamp(0, top)
