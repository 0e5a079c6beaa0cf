"""Mixtures of independent sources, x = A s: the data of independent component analysis, with the
truth known.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from zoo.core.noise import seeded
from zoo.core.options import Count, Range, Whole
from zoo.core.spec import DataSpec, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.registry import register

KINDS = ("laplace", "logistic", "uniform", "gaussian")


@register(
    "sources",
    about="linear mixtures x = A s of independent sources: laplace, logistic, uniform, gaussian",
)
class Sources(ZooDataModule):
    """Samples of x = A s with independent s_i, the same for the same ``seed``; train, validation
    and test are drawn independently.

    A = Q₁ diag(½ .. 2) Q₂ with random rotations: |det A| = 1 and a condition number of 4 whatever
    the seed.

    Args:
        kind: of every source: laplace or logistic (of scale 1), uniform on [-1, 1], or gaussian (of
            variance 1).
        dim: number of sources and of their mixtures.
        size: training points; validation and test have a fifth of it each.
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes.
        seed: of A, of the points and of their order.
    """

    def __init__(
        self,
        kind: str = "laplace",
        dim: Annotated[int, Range(2)] = 4,
        size: Annotated[int, Range(10)] = 50_000,
        batch_size: Count = 256,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")
        self.kind, self.dim, self.size = kind, dim, size

    @cached_property
    def spec(self) -> Spec:
        return DataSpec((self.dim,), None, 0, f"{self.dim} mixed {self.kind} sources")

    @property
    def mixing(self) -> Tensor:
        """A, (D, D)."""
        rotations = torch.linalg.qr(
            torch.randn(
                2, self.dim, self.dim, generator=seeded(self.seed, "mixing"), dtype=torch.float64
            )
        )[0]
        return (
            rotations[0]
            * torch.logspace(-1, 1, self.dim, base=2, dtype=torch.float64)
            @ rotations[1]
        ).float()

    @property
    def entropy(self) -> float:
        """-E log p(x) in nats: the sum of the sources' entropies, since ln|det A| = 0."""
        each = {
            "laplace": 1 + math.log(2),
            "logistic": 2.0,
            "uniform": math.log(2),
            "gaussian": 0.5 * math.log(2 * math.pi * math.e),
        }
        return self.dim * each[self.kind]

    def load(self) -> dict[str, Split]:
        sizes = {"train": self.size, "val": self.size // 5, "test": self.size // 5}
        return {
            name: {"x": self.draw(n, seeded(self.seed, "sources", name)) @ self.mixing.T}
            for name, n in sizes.items()
        }

    def draw(self, n: int, g: torch.Generator) -> Tensor:
        """(n, D) unmixed sources."""
        if self.kind == "gaussian":
            return torch.randn(n, self.dim, generator=g)
        u = torch.rand(n, self.dim, generator=g).clamp(1e-7, 1 - 1e-7)
        if self.kind == "laplace":
            return -(2 * u - 1).sign() * torch.log1p(-(2 * u - 1).abs())
        return torch.logit(u) if self.kind == "logistic" else 2 * u - 1
