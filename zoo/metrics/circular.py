"""How two angles go together."""

from __future__ import annotations

import torch
from torch import Tensor


def circular_correlation(p: Tensor, q: Tensor) -> Tensor:
    """The correlation of pairs of angles in radians, (N,), in [-1, 1] (Jammalamadaka and Sarma
    1988): that of the sines of their distances to their circular means. 0 where either is constant.

    >>> p = torch.tensor([0.1, 0.5, 3.0])
    >>> round(circular_correlation(p, 1 - p).item(), 4)
    -1.0
    """
    off = [torch.sin(v - _mean(v)) for v in (p.double(), q.double())]
    squares = off[0].square().sum() * off[1].square().sum()
    return (off[0] * off[1]).sum() / squares.sqrt().clamp(min=1e-12)


def _mean(v: Tensor) -> Tensor:
    """The direction of the sum of unit vectors."""
    return torch.atan2(v.sin().sum(), v.cos().sum())
