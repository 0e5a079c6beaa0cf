"""Gaussians. Diagonal ones: log-density, Kullback-Leibler divergence, reparameterised draws; values
per dimension, callers sum. With a covariance matrix: what a part of the dimensions says of the
rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.nn.small import full


def log_normal(x: Tensor, mu: Tensor | float = 0.0, log_var: Tensor | None = None) -> Tensor:
    """log N(x; μ, σ²) in nats, elementwise with all constants; ``log_var`` None is σ = 1.

    >>> log_normal(torch.zeros(2)).exp()
    tensor([0.3989, 0.3989])
    """
    if log_var is None:
        return -0.5 * ((x - mu).square() + math.log(2 * math.pi))
    return -0.5 * ((x - mu).square() * (-log_var).exp() + log_var + math.log(2 * math.pi))


def kl_standard(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² - 1 - ln σ²), elementwise.

    >>> kl_standard(torch.tensor([0.0, 1.0]), torch.zeros(2))
    tensor([0.0000, 0.5000])
    """
    return 0.5 * (mu.square() + log_var.expm1() - log_var)


def kl_normal(mu_q: Tensor, log_var_q: Tensor, mu_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL(N(μ_q, σ_q²) ‖ N(μ_p, σ_p²)), elementwise.

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> kl_normal(one, zero, one, zero), kl_normal(one, zero, zero, zero)
    (tensor([0.]), tensor([0.5000]))
    """
    d = log_var_q - log_var_p
    return 0.5 * (d.expm1() - d + (mu_q - mu_p).square() * (-log_var_p).exp())


def reparameterise(mu: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """μ + σ ε, through which gradients reach μ and σ.

    >>> reparameterise(torch.tensor(1.0), torch.tensor(4.0).log(), torch.tensor(0.5))
    tensor(2.)
    """
    return mu + (0.5 * log_var).exp() * eps


def soft_clamp(log_var: Tensor, bound: float = 10.0) -> Tensor:
    """bound · tanh(· / bound): the identity near 0, never beyond the bound.

    >>> soft_clamp(torch.tensor([0.1, 1000.0]))
    tensor([ 0.1000, 10.0000])
    """
    return bound * torch.tanh(log_var / bound)


def split_kl(
    z: Tensor, own: Tensor, mu: Tensor, log_var: Tensor, log_w: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    """log q(z|x) - log p(z) at draws z, in three parts, with the aggregated posterior q(z) = Σ_m
    w_m N(z; μ_m, σ_m²) and p(z) = N(0, I): index-code mutual information log q(z|x) - log q(z),
    total correlation log q(z) - Σ_j log q(z_j), and the dimension-wise KL Σ_j log q(z_j) - log
    p(z_j), (B,) each (Chen et al. 2018, equation 2).

    Args:
        z: (B, J). own: log q(z|x) of each draw, (B,). mu, log_var: (M, J). log_w: log weights, (B,
            M), or one for all.

    >>> mu, log_var, z = torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(1, 2)  # every q is p
    >>> own = log_normal(z, mu[:1], log_var[:1]).sum(1)
    >>> parts = split_kl(z, own, mu, log_var, -math.log(3))
    >>> [round(abs(part.item()), 5) for part in parts]
    [0.0, 0.0, 0.0]
    """
    log_q = log_normal(z[:, None], mu, log_var)  # (B, M, J)
    w = log_w if isinstance(log_w, Tensor) else log_q.new_full(log_q.shape[:2], log_w)
    joint = (log_q.sum(2) + w).logsumexp(1)
    marginals = (log_q + w[..., None]).logsumexp(1).sum(1)
    return own - joint, joint - marginals, marginals - log_normal(z).sum(1)


def log_marginal(y: Tensor, known: Tensor, mu: Tensor, cov: Tensor) -> Tensor:
    """log N(y_known; μ_known, Σ_known) in nats, (B,).

    Args:
        y: (B, D). known: bool, (B, D) or (1, D). mu: (D,). cov: Σ, (D, D).

    >>> known, y = torch.tensor([[True, False]]), torch.tensor([[0.0, 7.0]])
    >>> log_marginal(y, known, torch.zeros(2), torch.eye(2)).exp()  # N(0; 0, 1), whatever y_2 is
    tensor([0.3989])
    """
    root, rest = _known_block(known, cov), known * (full(y) - full(mu))
    maha = (rest[..., None] * torch.cholesky_solve(rest[..., None], root)).sum((1, 2))
    log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
    return -0.5 * (maha + log_det + known.sum(1) * math.log(2 * math.pi))


def given_known(draw: Tensor, y: Tensor, known: Tensor, cov: Tensor) -> Tensor:
    """A draw of N(μ, Σ), (B, D), turned into one given that y holds where ``known``: s + Σ_·k
    Σ_kk⁻¹ (y - s)_k (Matheron's rule).

    >>> cov, known = torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.tensor([[True, False]])
    >>> given_known(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), known, cov)
    tensor([[2., 1.]])
    """
    root = _known_block(known, cov)
    rest = torch.cholesky_solve((known * (full(y) - full(draw)))[..., None], root)
    return torch.where(known, y, (draw + (known * rest[..., 0]) @ full(cov)).to(y.dtype))


def _known_block(known: Tensor, cov: Tensor) -> Tensor:
    """Cholesky factor of Σ with the rows and columns of the unknown dimensions replaced by the
    identity's, (B or 1, D, D), in single precision or better, as all linear algebra needs it.
    """
    cov = full(cov)
    m = known.to(cov.dtype)
    return torch.linalg.cholesky(m[:, :, None] * cov * m[:, None] + torch.diag_embed(1 - m))
