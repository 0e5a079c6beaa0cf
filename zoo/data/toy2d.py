"""Two-dimensional densities drawn on the spot: the ring of 8 gaussians, the grid of 25, swiss roll,
moons, checkerboard, 1-d mixture.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from zoo.core.noise import seeded
from zoo.core.options import Count, Positive, Range, Whole
from zoo.core.spec import DataSpec, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.registry import register

KINDS = ("ring", "grid", "swiss_roll", "moons", "checkerboard", "mixture1d")
HIGH_QUALITY_RADIUS = 0.3  # a sample this near a centre counts as of high quality
MIXTURE_1D = ((-1.5, 0.2, 0.3), (0.0, 0.4, 0.4), (1.5, 0.2, 0.3))  # mean, std, weight


@register(
    "toy2d",
    about="points of the plane: ring (8 gaussians), grid (25), swiss roll, moons, checkerboard, "
    "1-d mixture",
)
class Toy2D(ZooDataModule):
    """Samples of a toy density, the same for the same ``seed``; train, validation and test are
    drawn independently.

    Args:
        kind: ring (8 gaussians on radius 2), grid (25 gaussians on {-2,-1,0,1,2}²), swiss_roll,
            moons, checkerboard ([-2,2]²), or mixture1d (three gaussians on the line, D = 1).
        std: standard deviation of each gaussian of ring and grid, and the noise of moons and
            swiss_roll.
        size: training points; validation and test have a fifth of it each.
        labelled: the component's number is the class of each point (ring, grid).
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes.
        seed: of the points and of their order.
    """

    def __init__(
        self,
        kind: str = "ring",
        std: Positive = 0.05,
        size: Annotated[int, Range(10)] = 50_000,
        labelled: bool = False,
        batch_size: Count = 256,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if kind not in KINDS:
            raise ValueError(f"toy2d's kind is one of {', '.join(KINDS)}, got {kind!r}")
        if labelled and kind not in ("ring", "grid"):
            raise ValueError(f"the points of {kind} have no classes: labelled is for ring and grid")
        self.kind, self.std, self.size, self.labelled = kind, std, size, labelled

    @cached_property
    def spec(self) -> Spec:
        classes = len(self.centres) if self.labelled and self.centres is not None else 0
        return DataSpec(
            (1 if self.kind == "mixture1d" else 2,),
            None,
            classes,
            f"toy2d {self.kind} (std {self.std:g})",
        )

    @property
    def centres(self) -> Tensor | None:
        """Component means, (K, 2), where the density is a mixture of equal gaussians."""
        if self.kind == "ring":
            angle = torch.arange(8) * (math.tau / 8)
            return 2 * torch.stack([angle.cos(), angle.sin()], 1)
        if self.kind == "grid":
            return torch.cartesian_prod(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0))
        return None

    def load(self) -> dict[str, Split]:
        sizes = {"train": self.size, "val": self.size // 5, "test": self.size // 5}
        splits = {}
        for name, n in sizes.items():
            splits[name] = {"x": self.draw(n, seeded(self.seed, "toy2d", name))}
            if self.labelled and self.centres is not None:  # the same draw of the components
                splits[name]["y"] = torch.randint(
                    len(self.centres), (n,), generator=seeded(self.seed, "toy2d", name)
                )
        return splits

    def draw(self, n: int, g: torch.Generator) -> Tensor:
        """(n, D) float32 samples of the density."""
        if self.centres is not None:
            which = torch.randint(len(self.centres), (n,), generator=g)
            return self.centres[which] + self.std * torch.randn(n, 2, generator=g)
        u = torch.rand(n, generator=g)
        if self.kind == "mixture1d":
            mean, std, weight = torch.tensor(MIXTURE_1D).T
            which = torch.multinomial(weight, n, replacement=True, generator=g)
            return (mean[which] + std[which] * torch.randn(n, generator=g))[:, None]
        if self.kind == "checkerboard":
            x = 4 * u - 2
            cell = torch.randint(2, (n,), generator=g)
            y = torch.rand(n, generator=g) - 2 * cell + (x.floor() % 2) + 0
            return torch.stack([x, y], 1)
        noise = self.std * torch.randn(n, 2, generator=g)
        if self.kind == "swiss_roll":
            t = 1.5 * math.pi * (1 + 2 * u)
            return torch.stack([t * t.cos(), t * t.sin()], 1) / 7 + noise
        angle = math.pi * u  # two moons
        upper = torch.rand(n, generator=g) < 0.5
        x = torch.where(upper, angle.cos(), 1 - angle.cos())
        y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
        return torch.stack([x - 0.5, y - 0.25], 1) + noise
