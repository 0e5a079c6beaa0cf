"""Responses of a linear model with known noise, whose posterior over the weights is normal."""

from __future__ import annotations

from functools import cached_property

import torch

from zoo.core.noise import seeded
from zoo.core.options import Count, Positive, Whole
from zoo.core.spec import Spec, Vector
from zoo.data.base import Split, ZooDataModule
from zoo.registry import register


@register(
    "linear_regression",
    about="responses x = wᵀc + noise to covariates c, with weights from N(0, I)",
)
class LinearRegression(ZooDataModule):
    """x = wᵀc + σ ε with c, ε and w standard normal; the same for the same ``seed``.

    Args:
        weights: D. sigma: σ. size: training rows; validation and test have as many each.
        batch_size: rows of one minibatch on one process. num_workers: loader processes.
        seed: of the weights, the rows and their order.
    """

    def __init__(
        self,
        weights: Count = 5,
        sigma: Positive = 1.0,
        size: Count = 400,
        batch_size: Count = 100,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.weights, self.sigma, self.size = weights, sigma, size

    @cached_property
    def spec(self) -> Spec:
        name = f"linear regression, {self.weights} weights (sigma {self.sigma:g})"
        return Spec(name, x=Vector((1,)), covariates=Vector((self.weights,)))

    def load(self) -> dict[str, Split]:
        w = torch.randn(self.weights, generator=seeded(self.seed, "weights"))
        splits = {}
        for name in ("train", "val", "test"):
            g = seeded(self.seed, "linear_regression", name)
            c = torch.randn(self.size, self.weights, generator=g)
            x = (c @ w + self.sigma * torch.randn(self.size, generator=g))[:, None]
            splits[name] = {"x": x, "covariates": c}
        return splits
