"""KID: the squared maximum mean discrepancy between two sets of features, unbiased.

Bińkowski, Sutherland, Arbel, Gretton. Demystifying MMD GANs. 2018. arXiv:1801.01401.

    k(a, b) = (a·b/d + 1)³,
    MMD² = Σ_{i≠j} k(x_i, x_j) / (m(m-1)) + Σ_{i≠j} k(y_i, y_j) / (n(n-1)) - 2 mean k(x_i, y_j).

Being unbiased it can be negative; it is not clamped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.metrics.base import KeptRows

CHUNK = 8_000_000  # values of the kernel held at once, 64 MB


def squared_mmd(x: Tensor, y: Tensor, degree: int = 3) -> Tensor:
    """Unbiased MMD² of (m, d) and (n, d) under the polynomial kernel, float64.

    >>> float(squared_mmd(torch.zeros(2, 1), torch.ones(2, 1), degree=1))  # 1 + 2 - 2
    1.0
    """
    x, y = x.double(), y.double()

    def kernel(products: Tensor) -> Tensor:
        return (products / x.shape[1] + 1) ** degree

    def total(a: Tensor, b: Tensor) -> Tensor:
        parts = a.split(max(1, CHUNK // len(b)))
        return torch.stack([kernel(part @ b.T).sum() for part in parts]).sum()

    def within(a: Tensor) -> Tensor:
        own = kernel(a.square().sum(1)).sum()
        return (total(a, a) - own) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * total(x, y) / (len(x) * len(y))


class KernelDistance(KeptRows):
    """KID over random subsets.

    Args:
        dim: features of one row. subsets: number of random subsets. subset_size: rows of each set
            in one subset, at most what there are. seed: of the choice of subsets. keep, keep_real:
                see ``KeptRows``.
    """

    def __init__(
        self,
        dim: int,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 0,
        keep: int | None = None,
        keep_real: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(dim, keep, keep_real, **kwargs)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and population standard deviation over the subsets, float64 scalars."""
        real, fake = self.kept("real"), self.kept("fake")
        size = min(self.subset_size, len(real), len(fake))
        if size < 2:
            raise ValueError(
                f"KID takes at least two rows of each set, got {len(real)} real and {len(fake)} "
                f"generated"
            )
        g = torch.Generator().manual_seed(self.seed)

        def some(rows: Tensor) -> Tensor:
            return rows[torch.randperm(len(rows), generator=g)[:size].to(rows.device)]

        values = torch.stack([squared_mmd(some(real), some(fake)) for _ in range(self.subsets)])
        return values.mean(), values.std(correction=0)
