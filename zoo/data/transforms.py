"""What several data modules do to images: binarise, shift, resize. Integer levels in, integer
levels out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.batch import Batch
from zoo.core.noise import Noise

LEVELS = 256  # of 8-bit images
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


def visited(batch: Batch, noise: Noise, flip: bool, binarize: str) -> Batch:
    """8-bit images x as one visit sees them: mirrored at random if ``flip``, drawn anew where
    ``binarize`` is "stochastic".
    """
    if flip:
        batch = flipped(batch, noise, "x")
    if binarize == "stochastic":
        batch["x"] = binarise(batch["x"], LEVELS, "stochastic", noise)
    return batch


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


def flipped(batch: Batch, noise: Noise, *fields: str) -> Batch:
    """Images (B, C, H, W) of these fields from left to right in half of the rows, all fields of a
    row alike.
    """
    mirrored = noise.uniform(batch.n, 1, 1, 1) < 0.5
    both = {k: torch.where(mirrored, batch[k].flip(-1), batch[k]) for k in fields}
    return Batch({**batch, **both}, batch.n)


def cropped(batch: Batch, size: int, noise: Noise | None, *fields: str) -> Batch:
    """Images (B, C, H, W) of these fields, of one height and width, cut to size x size, all fields
    of a row at the same place: drawn from ``noise``, or the centre without it.
    """
    h, w = batch[fields[0]].shape[-2:]
    if size > min(h, w):
        raise ValueError(f"a crop of {size} pixels does not fit in images of {h}x{w}")
    if noise is None:
        top = torch.full((batch.n,), (h - size) // 2)
        left = torch.full((batch.n,), (w - size) // 2)
    else:
        top = noise.integers(batch.n, high=h - size + 1)
        left = noise.integers(batch.n, high=w - size + 1)
    at = torch.arange(size)
    rows, columns = (top[:, None] + at)[:, :, None], (left[:, None] + at)[:, None, :]
    which = torch.arange(batch.n)[:, None, None]
    cut = {k: batch[k].movedim(1, -1)[which, rows, columns].movedim(-1, 1) for k in fields}
    return Batch({**batch, **cut}, batch.n)
