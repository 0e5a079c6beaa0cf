"""Predators and prey: time series of a stochastic simulator with four rates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from zoo.core.noise import seeded
from zoo.core.options import Count, Positive, Whole
from zoo.core.spec import Series, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.nn.simulators import STEPS, lotka_volterra
from zoo.registry import register


@register(
    "lotka_volterra",
    about="populations of predators and prey over time, by a stochastic simulator of four rates",
)
class LotkaVolterra(ZooDataModule):
    """Independent series of the same rates; the same for the same ``seed``.

    Args:
        rates: of predators' birth and death and of prey's birth and death, as
            ``zoo.nn.simulators.lotka_volterra`` has them.
        points: observations in a series, 0.2 apart. size: training series; validation and test
            have as many each.
        batch_size: rows of one minibatch on one process. num_workers: loader processes.
        seed: of the series and their order.
    """

    def __init__(
        self,
        rates: Sequence[Positive] = (0.01, 0.5, 1.0, 0.01),
        points: Count = 30,
        size: Count = 200,
        batch_size: Count = 50,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if len(rates) != 4:
            raise ValueError(f"lotka_volterra has 4 rates, got {list(rates)}")
        self.rates, self.points, self.size = tuple(map(float, rates)), points, size

    @cached_property
    def spec(self) -> Spec:
        rates = ", ".join(f"{r:g}" for r in self.rates)
        return Spec(f"Lotka-Volterra, rates {rates}", x=Series((self.points, 2)))

    def load(self) -> dict[str, Split]:
        splits = {}
        for name in ("train", "val", "test"):
            noise = torch.randn(
                self.size, self.points, STEPS, 4, generator=seeded(self.seed, "lotka", name)
            )
            rates = torch.tensor(self.rates).expand(self.size, 4)
            splits[name] = {"x": lotka_volterra(rates, noise)}
        return splits
