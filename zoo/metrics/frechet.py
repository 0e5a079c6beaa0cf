"""FID: the Fréchet distance between Gaussian fits of two sets of features.

Heusel et al. GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium.
2017. arXiv:1706.08500.

    FID = |μ_r - μ_g|² + Tr(Σ_r + Σ_g - 2 (Σ_r Σ_g)^½), unbiased covariances.

The estimate is biased upwards by about c/n, so only values at equal sample sizes compare.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.metrics.base import TwoSets


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """|μ_a - μ_b|² + Tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), float64.

    With Σ = F Fᵀ by the symmetric eigendecomposition, Tr (Σ_a Σ_b)^½ is the sum of the singular
    values of F_aᵀ F_b: real numbers throughout, and exact for singular covariances (n < d). Not a
    number if a feature is not.

    >>> zero, one = torch.zeros(1), torch.eye(1)
    >>> round(float(frechet_distance(zero, one, zero + 3, 4 * one)), 6)  # 3² + (1 - 2)²
    10.0
    """
    if not (cov_a.isfinite().all() and cov_b.isfinite().all()):
        return torch.full((), float("nan"), dtype=torch.float64, device=cov_a.device)
    cross = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    return (
        (mean_a - mean_b).double().square().sum()
        + torch.trace(cov_a.double())
        + torch.trace(cov_b.double())
        - 2 * cross
    )


def _factor(cov: Tensor) -> Tensor:
    """F, (d, rank), with F Fᵀ = Σ; eigenvalues below rounding are dropped."""
    values, vectors = torch.linalg.eigh(cov.double())
    keep = values > values[-1].clamp(min=0) * len(values) * torch.finfo(torch.float64).eps
    return vectors[:, keep] * values[keep].sqrt()


def moments(n: Tensor, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance from n, Σf and Σffᵀ.

    >>> f = torch.tensor([[0.0], [2.0]])
    >>> [v.tolist() for v in moments(torch.tensor(2), f.sum(0), f.T @ f)]
    [[1.0], [[2.0]]]
    """
    if n < 2:
        raise ValueError(
            f"a covariance takes at least two rows, got {int(n)}; raise the number of samples"
        )
    mean = total / n
    return mean, (outer - n * torch.outer(mean, mean)) / (n - 1)


class FrechetDistance(TwoSets):
    """FID from accumulated float64 sums; processes' sums are added, so it does not matter who saw
    which row.

    Args:
        dim: features of one row. keep_real: whether ``reset`` keeps the real sums.
    """

    real_n: Tensor
    real_sum: Tensor
    real_outer: Tensor
    fake_n: Tensor
    fake_sum: Tensor
    fake_outer: Tensor

    def __init__(self, dim: int, keep_real: bool = True, **kwargs: Any) -> None:
        super().__init__(keep_real, **kwargs)
        for side in ("real", "fake"):
            self.add_state(f"{side}_n", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(
                f"{side}_sum", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum"
            )
            self.add_state(
                f"{side}_outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum"
            )

    def update(self, features: Tensor, real: bool = False) -> None:
        """Add features, (B, dim)."""
        f = features.detach().to(self.device, torch.float64)
        side = "real" if real else "fake"
        for name, value in (("n", len(f)), ("sum", f.sum(0)), ("outer", f.T @ f)):
            setattr(self, f"{side}_{name}", getattr(self, f"{side}_{name}") + value)

    def compute(self) -> Tensor:
        """The distance, a float64 scalar."""
        return frechet_distance(
            *moments(self.real_n, self.real_sum, self.real_outer),
            *moments(self.fake_n, self.fake_sum, self.fake_outer),
        )
