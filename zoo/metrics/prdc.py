"""Precision, recall, density, coverage: manifolds of k-nearest-neighbour balls.

Kynkäänniemi et al. Improved Precision and Recall Metric for Assessing Generative Models. 2019.
arXiv:1904.06991. Naeem et al. Reliable Fidelity and Diversity Metrics for Generative Models. 2020.
arXiv:2002.09797.

With B_r(i) the closed ball (2019, equation 1) around real i of radius its distance to its k-th
nearest other real, k_i the number of other reals in it, and B_g(j) likewise:

    precision = mean_j 1[∃i: y_j ∈ B_r(i)]           recall   = mean_i 1[∃j: x_i ∈ B_g(j)]
    density   = Σ_ij 1[y_j ∈ B_r(i)] / k_i / M       coverage = mean_i 1[∃j: y_j ∈ B_r(i)]

k_i is k, as in the papers, but where reals are equally far: images that repeat more than k times
have balls of radius 0 that hold all of their repeats. (Open balls, as in the package ``prdc``, are
empty there, and a perfect model scores 0.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from zoo.metrics.base import KeptRows, rounding

CHUNK = 8_000_000  # distances held at once, 64 MB
SPARE = 4  # candidates beyond k, whose order rounding may have changed


def exact(a: Tensor, b: Tensor) -> Tensor:
    """Distances of rows pair by pair, (n,): 0 for equal ones, as no matrix product gives."""
    return (a - b).norm(dim=1)


class Squares:
    """The squared distances of all rows of a to all of b by a matrix product, a few rows at a time,
    and how far off they may be.
    """

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b
        self.of_a, self.of_b = a.square().sum(1), b.square().sum(1)
        largest = torch.cat([self.of_a, self.of_b]).max()
        self.slack = 8 * (a.shape[1] + 4) * torch.finfo(a.dtype).eps * largest

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        step = max(1, CHUNK // len(self.b))
        for low in range(0, len(self.a), step):
            part = slice(low, min(low + step, len(self.a)))
            cross = self.a[part] @ self.b.T
            yield part, self.of_a[part, None] + self.of_b - 2 * cross

    def within(self, part: slice, squared: Tensor, radii: Tensor) -> Tensor:
        """Which rows of b are no farther from those of a than these radii, which broadcast to the
        block; those too close to call are measured one by one.
        """
        limit = radii.square().expand_as(squared)
        inside = squared <= limit
        i, j = ((squared - limit).abs() <= self.slack).nonzero(as_tuple=True)
        inside[i, j] = exact(self.a[part][i], self.b[j]) <= radii.expand_as(squared)[i, j]
        return inside


def balls(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distance of each row to its k-th nearest other row, and how many other rows are no farther,
    (n,) each.

    >>> [v.tolist() for v in balls(torch.tensor([[0.0], [1.0], [3.0], [2.0]]), k=1)]
    [[1.0, 1.0, 1.0, 1.0], [1, 2, 1, 2]]
    """
    if not 1 <= k < len(x):
        raise ValueError(f"k nearest neighbours take 1 <= k < n, got k={k} for {len(x)} rows")
    least = rounding(x)  # no ball is smaller
    pairs = Squares(x, x)
    radii, others = [], []
    for part, squared in pairs:
        radius = _kth(pairs, part, squared, k + 1).clamp(min=least)  # the first is the row itself
        radii.append(radius)
        others.append(pairs.within(part, squared, radius[:, None]).sum(1) - 1)
    return torch.cat(radii), torch.cat(others)


def _kth(pairs: Squares, part: slice, squared: Tensor, k: int) -> Tensor:
    """The k-th smallest distance of each row of a block: the product names candidates, and where
    more rows than those may be as near, all are measured.
    """
    rows, wanted = pairs.a[part], min(k + SPARE, squared.shape[1])
    nearest = squared.topk(wanted, largest=False)
    near = [exact(row, pairs.b[j]) for row, j in zip(rows, nearest.indices, strict=True)]
    kth = torch.stack(near).kthvalue(k, dim=1).values
    if wanted < squared.shape[1]:
        for i in (nearest.values[:, -1] - kth.square() <= pairs.slack).nonzero()[:, 0]:
            kth[i] = exact(rows[i], pairs.b).kthvalue(k).values
    return kth


def prdc(real: Tensor, fake: Tensor, k: int = 3) -> dict[str, Tensor]:
    """The four numbers of (N, d) real and (M, d) generated features, float64 scalars. Only equal N
    and M compare.

    >>> real, fake = (torch.tensor(v)[:, None] for v in ([0.0, 1, 3, 6], [0.2, 0.3, 50, 60]))
    >>> {k: float(v) for k, v in prdc(real, fake, k=1).items()}
    {'precision': 0.5, 'recall': 0.0, 'density': 1.0, 'coverage': 0.5}
    """
    real, fake = real.double(), fake.double()
    (ball_r, others), (ball_g, _) = balls(real, k), balls(fake, k)
    precise = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    recalled, covered = torch.zeros(2, len(real), dtype=torch.bool, device=real.device)
    hits = torch.zeros((), dtype=torch.float64, device=real.device)
    pairs = Squares(fake, real)
    for part, squared in pairs:
        inside = pairs.within(part, squared, ball_r)
        precise[part] = inside.any(1)
        covered |= inside.any(0)
        hits += (inside * (k / others)).sum()
        recalled |= pairs.within(part, squared, ball_g[part, None]).any(0)
    return {
        "precision": precise.double().mean(),
        "recall": recalled.double().mean(),
        "density": hits / (k * len(fake)),
        "coverage": covered.double().mean(),
    }


class PRDC(KeptRows):
    """Precision, recall, density and coverage of equally many real and generated rows.

    Args:
        dim: features of one row. k: neighbours. keep, keep_real: see ``KeptRows``.
    """

    def __init__(
        self, dim: int, k: int = 3, keep: int | None = None, keep_real: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(dim, keep, keep_real, **kwargs)
        self.k = k

    def compute(self) -> dict[str, Tensor]:
        real, fake = self.kept("real"), self.kept("fake")
        n = min(len(real), len(fake))
        return prdc(real[:n], fake[:n], self.k)
