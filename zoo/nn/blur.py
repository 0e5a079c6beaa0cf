"""The binomial filter [1, 2, 1] in both directions, with which resizing leaves no checkerboard
(Karras et al. 2019, arXiv:1812.04948, section 2; Zhang 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def blur(x: Tensor) -> Tensor:
    """Each map of x, (B, C, H, W), convolved with [1, 2, 1]ᵀ [1, 2, 1] / 16; zeros beyond the edge.

    >>> spot = torch.zeros(1, 1, 3, 3)
    >>> spot[..., 1, 1] = 16
    >>> blur(spot)[0, 0]
    tensor([[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]])
    """
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device) / 4
    kernel = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def doubled(x: Tensor) -> Tensor:
    """Twice the size, each value four times.

    >>> doubled(torch.tensor([[[[1.0, 2.0]]]]))[0, 0]
    tensor([[1., 1., 2., 2.],
            [1., 1., 2., 2.]])
    """
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halved(x: Tensor) -> Tensor:
    """Half the size, the mean of each four values.

    >>> halved(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item()
    3.0
    """
    return F.avg_pool2d(x, 2)
