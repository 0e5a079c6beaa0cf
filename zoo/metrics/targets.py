"""How near images are to the ones that were wanted, one value a row, of images in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

MOST = 100.0  # dB of images that are equal


def l1(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of a pixel, (B,).

    >>> import torch
    >>> l1(torch.full((1, 1, 2, 2), 0.5), torch.ones(1, 1, 2, 2)).item()
    0.5
    """
    return (made - wanted).abs().flatten(1).mean(1)


def psnr(made: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10 of the mean squared difference, (B,); at most
    100.

    >>> import torch
    >>> psnr(torch.full((1, 1, 2, 2), 0.9), torch.ones(1, 1, 2, 2)).round().item()
    20.0
    """
    each = peak_signal_noise_ratio(
        made, wanted, data_range=1.0, reduction="none", dim=tuple(range(1, made.ndim))
    )
    return each.clamp(max=MOST)


def ssim(made: Tensor, wanted: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), (B,), at most 1: gaussian window of deviation 1.5
    and 11 pixels to a side, over images reflected at their edges; K1 = .01, K2 = .03.

    >>> import torch
    >>> ssim(torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16)).item()
    1.0
    """
    found = structural_similarity_index_measure(
        made,
        wanted,
        gaussian_kernel=True,
        sigma=1.5,
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(found, Tensor)
    return found.view(len(made))


def reached(made: Tensor, wanted: Tensor) -> Tensor:
    """Share of the wanted images, (N, ...), that are the nearest one to something made, (M, ...):
    1/N where all that was made is one picture.

    >>> import torch
    >>> made = torch.tensor([[0.0], [0.1], [0.9]])
    >>> reached(made, torch.tensor([[0.0], [0.5], [1.0], [2.0]])).item()
    0.5
    """
    distance = torch.cdist(made.flatten(1).double(), wanted.flatten(1).double())
    return distance.new_tensor(len(distance.argmin(1).unique()) / len(wanted))


def answers(source: Tensor, mean: Tensor) -> dict[str, Tensor]:
    """What one would answer without learning, as images like the mean one, (B, *mean.shape).

    "mean" is the mean training image; "copy" the source itself, grey in every channel where it has
    one; of a smaller source "copy" repeats its pixels, and "bicubic" is between them. A source of
    other channels has no copy.

    Args:
        source: (B, c, h, w) in [0, 1]. mean: (C, H, W).

    >>> import torch
    >>> [*answers(torch.zeros(2, 1, 4, 4), torch.zeros(3, 8, 8))]
    ['mean', 'copy', 'bicubic']
    """
    found = {"mean": mean.expand(len(source), *mean.shape)}
    if source.shape[1] not in (1, mean.shape[0]):
        return found
    source = source.expand(-1, mean.shape[0], -1, -1)
    size = [*mean.shape[1:]]
    found["copy"] = F.interpolate(source, size, mode="nearest")
    if source.shape[-1] < size[-1]:
        found["bicubic"] = F.interpolate(source, size, mode="bicubic").clamp(0, 1)
    return found
