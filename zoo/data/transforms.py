"""What several data modules do to images: binarise, shift, resize. Integer levels in, integer
levels out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.noise import Noise

BINARISATIONS = ("none", "threshold", "stochastic", "fixed")


def check_binarise(how: str) -> None:
    if how not in BINARISATIONS:
        raise ValueError(f"binarize is one of {', '.join(BINARISATIONS)}, got {how!r}")


def binarise(x: Tensor, levels: int, how: str, noise: Noise | None = None) -> Tensor:
    """Levels 0..L-1 to {0, 1}: "threshold" x >= L/2 (x >= 8 for digits, >= 128 for 8-bit);
    "stochastic" Bernoulli(x/(L-1)), drawn from ``noise``. ("fixed" is one stochastic draw made when
    the data are loaded.)"""
    if how == "threshold":
        return (x >= levels // 2).to(x.dtype)
    assert noise is not None
    return noise.bernoulli(x / (levels - 1))


def shift(x: Tensor, pixels: int, noise: Noise) -> Tensor:
    """Translate each image by up to ``pixels`` in each direction, (B, C, H, W), filling with the
    border's nearest value.
    """
    b, _, h, w = x.shape
    offset = noise.integers(b, 2, high=2 * pixels + 1)
    padded = F.pad(x, (pixels,) * 4, mode="replicate")
    rows = (offset[:, :1] + torch.arange(h))[:, None, :, None]
    cols = (offset[:, 1:] + torch.arange(w))[:, None, None, :]
    return padded[
        torch.arange(b)[:, None, None, None],
        torch.arange(x.shape[1])[None, :, None, None],
        rows,
        cols,
    ]


def resize_levels(x: Tensor, size: int, levels: int) -> Tensor:
    """Bilinear resize to size x size, rounded back to integer levels."""
    if x.shape[-1] == size and x.shape[-2] == size:
        return x
    out = F.interpolate(
        x.float(),
        size=(size, size),
        mode="bilinear",
        align_corners=False,
        antialias=size < x.shape[-1],
    )
    return out.round().clamp(0, levels - 1)
