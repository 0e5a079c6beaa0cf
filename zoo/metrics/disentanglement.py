"""How far single latent dimensions stand for single factors of the data: MIG by two estimators, and
the FactorVAE score.

MIG (Chen, Li, Grosse, Duvenaud 2018): the mean over factors v_k of [I(z_j*; v_k) - max_{j≠j*}
I(z_j; v_k)] / H(v_k), j* the dimension that knows most of v_k. The two estimators of I differ, so
each has its name: ``mig_discrete`` counts in a histogram of the mean code, ``mig_q`` takes the
posterior's mixtures. FactorVAE score (Kim & Mnih 2018): how well the dimension that varies least
tells which factor was held fixed; chance is one over the number of factors.

Factors are integers, (N, K), over a complete grid or a sample in which they are independent; those
with one value are left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BINS = 20
# dimensions whose standard deviation is below this are pruned; N(0, 1) is what a used one has
COLLAPSED = 0.05


def mig_discrete(codes: Tensor, factors: Tensor, bins: int = BINS) -> float:
    """MIG of mean codes, (N, J), each dimension cut in equal bins between its extremes; I is the
    plug-in estimate.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    >>> round(mig_discrete(factors.double(), factors), 4)  # a dimension for each factor
    1.0
    >>> mixed = factors.sum(1, keepdim=True).repeat(1, 2)
    >>> round(mig_discrete(mixed.double(), factors), 4)  # two dimensions that know the same
    0.0
    """
    return _gap(mutual_information(codes, factors, bins), factors)


def mig_q(
    mu: Tensor, log_var: Tensor, factors: Tensor, samples: int = 10_000, seed: int = 0
) -> float:
    """MIG of posteriors q(z_j | x_n) = N(mu, exp(log_var)), (N, J) each, given for every x_n of the
    grid.

    Args:
        samples: least number of draws of z behind the entropies; every x_n takes part equally often
            (a subset where N is larger).

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    >>> mu = 10.0 * factors
    >>> round(mig_q(mu, torch.full_like(mu, -4.0), factors), 2)  # narrow, and far from each other
    1.0
    """
    return _gap(posterior_information(mu, log_var, factors, samples, seed), factors)


def mutual_information(codes: Tensor, factors: Tensor, bins: int = BINS) -> Tensor:
    """I(z_j; v_k) in nats from counts, (J, K) float64.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    >>> mutual_information(factors.double(), factors).exp().round().tolist()
    [[4.0, 1.0], [1.0, 3.0]]
    """
    _check(factors, codes)
    low, high = codes.double().aminmax(dim=0)
    width = torch.where(high > low, high - low, torch.ones_like(low))
    cell = ((codes.double() - low) / width * bins).floor().long().clamp(max=bins - 1)
    columns = []
    for v in factors.long().T:
        size = int(v.max()) + 1
        joint = torch.stack(
            [torch.bincount(c * size + v, minlength=bins * size) for c in cell.T]
        ).view(-1, bins, size)
        columns.append(_entropy(joint.sum(2)) + _entropy(joint.sum(1)) - _entropy(joint.flatten(1)))
    return torch.stack(columns, 1).clamp(min=0)


@torch.no_grad()
def posterior_information(
    mu: Tensor,
    log_var: Tensor,
    factors: Tensor,
    samples: int = 10_000,
    seed: int = 0,
    rows: int = 1024,
) -> Tensor:
    """I(z_j; v_k) = E log q(z_j | v_k) - log q(z_j) in nats, (J, K) float64, with q(z_j) the mean
    of q(z_j | x_n) over the grid, and q(z_j | v_k) that over the x_n of this value. ``rows`` draws
    are held against the whole grid at a time.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    >>> mu = 10.0 * factors
    >>> posterior_information(mu, torch.full_like(mu, -4.0), factors).exp().round().tolist()
    [[4.0, 1.0], [1.0, 3.0]]
    """
    _check(factors, mu, log_var)
    mu, log_var, factors = mu.double(), log_var.double(), factors.long()
    g, n = torch.Generator().manual_seed(seed), len(mu)
    drawn = (
        torch.arange(n).repeat(-(-samples // n))
        if n <= samples
        else torch.randperm(n, generator=g)[:samples]
    )
    eps = torch.randn(len(drawn), mu.shape[1], generator=g, dtype=torch.float64)
    z = mu[drawn] + (log_var[drawn] / 2).exp() * eps
    member = torch.cat(
        [torch.nn.functional.one_hot(v).double() for v in factors.T], 1
    )  # (N, all values of all factors)
    member = member / member.sum(0).clamp(min=1)
    sizes = [int(v.max()) + 1 for v in factors.T]
    first = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    total = torch.zeros(mu.shape[1], factors.shape[1], dtype=torch.float64)
    for part in torch.arange(len(drawn)).split(rows):
        own = factors[drawn[part]] + first
        for j in range(mu.shape[1]):
            log_q = -0.5 * (
                (z[part, j, None] - mu[:, j]) ** 2 * (-log_var[:, j]).exp() + log_var[:, j]
            )  # less ln √(2π)
            q = (log_q - log_q.amax(1, keepdim=True)).exp()
            total[j] += ((q @ member).gather(1, own).log() - q.mean(1, keepdim=True).log()).sum(0)
    return (total / len(drawn)).clamp(min=0)


def factor_vae_score(
    codes: Tensor,
    factors: Tensor,
    votes: int = 800,
    batch: int = 100,
    seed: int = 0,
    collapsed: float = COLLAPSED,
) -> float:
    """FactorVAE score of mean codes, (N, J).

    A vote: a factor and a value of it at random, ``batch`` rows that share it, and the dimension
    whose variance over them, relative to that over all rows, is least. The majority factor of each
    dimension, from ``votes`` votes, is scored on as many fresh ones.

    Args:
        collapsed: standard deviation below which a dimension has no vote.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(3)).repeat(20, 1)
    >>> factor_vae_score(factors.double(), factors)
    1.0
    """
    _check(factors, codes)
    codes, g = codes.double(), torch.Generator().manual_seed(seed)
    std = codes.std(0, correction=0)
    used = (std >= collapsed) & (std > 0)
    if not used.any():
        return 0.0
    kept = _varying(factors)
    rows = {
        (k, v): torch.nonzero(factors[:, k] == v)[:, 0]
        for k in kept
        for v in factors[:, k].unique().tolist()
    }
    values = {k: factors[:, k].unique().tolist() for k in kept}

    def vote() -> tuple[int, int]:
        which = int(torch.randint(len(kept), (), generator=g))
        k = kept[which]
        v = values[k][int(torch.randint(len(values[k]), (), generator=g))]
        share = rows[k, v]
        drawn = codes[share[torch.randint(len(share), (batch,), generator=g)]]
        ratio = torch.where(used, drawn.var(0) / std**2, math.inf)
        return int(ratio.argmin()), which

    counts = torch.zeros(codes.shape[1], len(kept))
    for _ in range(votes):
        counts[vote()] += 1
    majority = torch.where(
        counts.sum(1) > 0, counts.argmax(1), -1
    )  # a dimension that never won names no factor
    return sum(int(majority[j]) == k for j, k in (vote() for _ in range(votes))) / votes


def _gap(information: Tensor, factors: Tensor) -> float:
    kept = _varying(factors)
    entropy = torch.stack([_entropy(torch.bincount(factors[:, k].long())) for k in kept])
    two = (
        torch.cat([information[:, kept], torch.zeros(1, len(kept), dtype=torch.float64)])
        .topk(2, dim=0)
        .values
    )
    return ((two[0] - two[1]) / entropy).mean().item()


def _varying(factors: Tensor) -> list[int]:
    return [k for k in range(factors.shape[1]) if len(factors[:, k].unique()) > 1]


def _entropy(counts: Tensor) -> Tensor:
    """Of the distributions in the last dimension, in nats."""
    p = counts.double() / counts.sum(-1, keepdim=True)
    return -torch.special.xlogy(p, p).sum(-1)


def _check(factors: Tensor, *codes: Tensor) -> None:
    if factors.ndim != 2 or any(c.ndim != 2 or len(c) != len(factors) for c in codes):
        raise ValueError(
            f"expected codes (N, J) and factors (N, K), got "
            f"{[tuple(t.shape) for t in (*codes, factors)]}"
        )
    if factors.is_floating_point() or factors.min() < 0:
        raise ValueError("factors are integers 0, 1, ...")
    if not _varying(factors):
        raise ValueError("no factor has more than one value")
