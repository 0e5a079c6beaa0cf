"""Likelihood units and preprocessing, once for every family: nats, bits per dimension,
dequantisation, logit transform.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.noise import seeded

KINDS = {
    "exact_mass": "log P(x), a probability mass; sums to one over all images",
    "exact_density": "log p(x), a density on R^D",
    "dequantised_bound": "E_u log p((x+u)/L) - D ln L, a lower bound of log P(x)",
    "lower_bound": "a variational lower bound of log P(x)",
    "estimate": "the unnormalised part exact, the partition function estimated by AIS",
    "none": "the model assigns no likelihood",
}


def bits_per_dim(log_prob: Tensor, dim: int) -> Tensor:
    """-log_prob / (D ln 2): nats of one example to bits per dimension, the only conversion of the
    project.

    Args:
        log_prob: nats, any shape. dim: D, the number of scalars of one example (sub-pixels count).
    """
    return -log_prob / (dim * math.log(2))


def log_frequencies(x: Tensor, levels: int) -> Tensor:
    """Logarithms of the smoothed frequencies of each dimension's levels, (D, L): of (count + 1/2) /
    (N + L/2).

    Args:
        x: (N, *shape) levels.
    """
    v = x.flatten(1).long()
    firsts = levels * torch.arange(v.shape[1], device=v.device)  # each pair (d, level) its number
    counts = (v + firsts).flatten().bincount(minlength=levels * v.shape[1]) + 0.5
    counts = counts.view(-1, levels)
    return (counts / counts.sum(1, keepdim=True)).log()


def dequantise(x: Tensor, levels: int, u: Tensor) -> tuple[Tensor, float]:
    """Integer levels to y = (x + u)/L in [0, 1).

    Args:
        x: (B, *shape) levels. u: noise of the same shape, uniform on [0, 1).

    Returns:
        y, and the constant -D ln L which turns log p(y) into a lower bound of log P(x).
    """
    return (x + u) / levels, -x[0].numel() * math.log(levels)


def quantise(y: Tensor, levels: int) -> Tensor:
    """y in [0, 1] back to levels, floor(L y) clamped to 0..L-1: the inverse of ``dequantise`` for
    any u.
    """
    return (y * levels).floor().clamp(0, levels - 1)


def logit_transform(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """v = ln p - ln(1 - p) with p = α + (1 - 2α) y (Dinh et al. 2017 as their code has it; the
    printed α + (1-α) y overflows at white).

    Returns:
        v, and log|dv/dy| summed over dimensions, (B,).
    """
    p = alpha + (1 - 2 * alpha) * y
    v = torch.log(p) - torch.log1p(-p)
    return v, _logit_log_det(v, alpha)


def inverse_logit_transform(v: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """y from v, a hair outside [0, 1] where sigmoid(v) is within α of an end, and log|dy/dv|,
    (B,).
    """
    return (torch.sigmoid(v) - alpha) / (1 - 2 * alpha), -_logit_log_det(v, alpha)


def _logit_log_det(v: Tensor, alpha: float) -> Tensor:
    return (math.log(1 - 2 * alpha) + F.softplus(v) + F.softplus(-v)).flatten(1).sum(1)


class RowNoise:
    """Noise of Monte Carlo estimates about each row of ``x``, with the methods of training noise.

    Without a generator a row's noise is a fixed function of the row's content: the estimate is
    repeatable, and does not depend on the batch in which the row comes. Later draws continue
    earlier ones.
    """

    def __init__(
        self, x: Tensor, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.x, self.generator, self.dtype = x, generator, dtype or x.dtype
        self.sources: list[torch.Generator] = []
        if generator is None:
            rows = x.detach().float().cpu().flatten(1).numpy()
            self.sources = [seeded("row noise", zlib.crc32(row.tobytes())) for row in rows]

    def normal(self, n: int, *shape: int) -> Tensor:
        """(n, *shape) standard normal, n the rows of ``x``."""
        return self._draw(torch.randn, shape)

    def uniform(self, n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(n, *shape) uniform on [low, high)."""
        return self._draw(torch.rand, shape) * (high - low) + low

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if self.generator is not None:
            size, device = (len(self.x), *shape), self.x.device
            return draw(size, generator=self.generator, device=device, dtype=self.dtype)
        rows = [draw(shape, generator=source, dtype=self.dtype) for source in self.sources]
        return torch.stack(rows).to(self.x.device)


def row_noise(
    draw: Callable[..., Tensor],
    x: Tensor,
    shape: tuple[int, ...],
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One draw of ``RowNoise``, (B, *shape), by ``draw`` = torch.rand or torch.randn."""
    return RowNoise(x, generator, dtype)._draw(draw, shape)
