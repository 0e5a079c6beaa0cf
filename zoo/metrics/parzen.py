"""The Parzen window estimate of a log-likelihood: gaussians on samples (Goodfellow et al. 2014,
section 5).

It measures a window, not the model: in many dimensions it prefers memorised examples, and it means
nothing without σ (Theis et al. 2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.metrics.base import KeptRows

GRID = tuple(10 ** (-1.5 + i / 10) for i in range(16))  # .03 to 1, for pixels in [0, 1]


def parzen_log_density(x: Tensor, samples: Tensor, sigma: float, chunk: int = 256) -> Tensor:
    """log (1/n) Σ_j N(x; g_j, σ² I), nats, (B,).

    Args:
        x: (B, ...) held-out examples. samples: (n, ...) in the same units. chunk: rows of x at a
            time.

    >>> two = parzen_log_density(torch.zeros(1, 1), torch.tensor([[0.0], [99.0]]), sigma=1.0)
    >>> round(two.exp().item(), 4)  # half of 1/√2π
    0.1995
    """
    samples = samples.flatten(1).double()
    n, dim = samples.shape
    constant = math.log(n) + dim * math.log(sigma * math.sqrt(2 * math.pi))
    rows = x.flatten(1).double().split(chunk)
    return torch.cat(
        [
            torch.logsumexp(-torch.cdist(r, samples).square() / (2 * sigma**2), 1) - constant
            for r in rows
        ]
    )


def choose_sigma(x: Tensor, samples: Tensor, grid: Sequence[float]) -> float:
    """The σ of the grid under which the validation examples x are likeliest.

    >>> choose_sigma(torch.tensor([[1.0], [-1.0]]), torch.zeros(5, 1), [0.1, 1.0, 10.0])
    1.0
    """
    return max(grid, key=lambda sigma: parzen_log_density(x, samples, sigma).mean().item())


class ParzenWindow(KeptRows):
    """The estimate for held-out rows: σ is chosen on one half of them (those of even number), the
    mean taken over the other.
    """

    def compute(self) -> dict[str, Tensor]:
        held_out, samples = self.kept("real"), self.kept("fake")
        if len(held_out) < 2:
            raise ValueError(
                f"the Parzen window takes at least two held-out rows, got {len(held_out)}"
            )
        sigma = choose_sigma(held_out[::2], samples, GRID)
        return {
            "nats": parzen_log_density(held_out[1::2], samples, sigma).mean(),
            "sigma": torch.tensor(sigma, dtype=torch.float64),
        }
