"""The whole grid of shape, scale, rotation, x and y as binary images: data whose factors are known,
independent and complete.
"""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from itertools import product
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from zoo.core.options import Count, Range, Whole
from zoo.core.spec import DataSpec, Spec
from zoo.data.base import Split, ZooDataModule, split_rows
from zoo.data.scene import REACH, SHAPES, SUB, centres, inside
from zoo.registry import register

SIZES = (16, 32, 64)
Radius = Annotated[float, Range(0, 0.5, above=True)]
TURNS = {
    "square": 4,
    "cross": 4,
    "triangle": 3,
    "star": 5,
}  # how often a shape comes to itself in a full turn


@register(
    "factor_grid",
    about="the whole grid of shape, scale, rotation, x and y, binary images 32x32; no download",
)
class FactorGrid(ZooDataModule):
    """White shapes on black, one image for each combination of the factors; the class is the shape,
    where there are several.

    A shape is turned by equal parts of the angle after which it comes to itself again, so that no
    two rotations are the same image (very small shapes have too few pixels to tell; a warning says
    so). Neighbouring positions are a whole number of pixels apart: cells that differ in x and y
    only are exact translations.

    Args:
        size: 16, 32 or 64 pixels.
        shapes: any of circle, square, triangle, cross, star, ring; circle and ring only without
            rotations.
        scales: radii of the circumscribed circle as parts of the image's side.
        rotations: number of angles.
        x: number of positions from left to right. y: from top to bottom.
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes.
        seed: of the order.
    """

    factor_names = ("shape", "scale", "rotation", "x", "y")

    def __init__(
        self,
        size: Count = 32,
        shapes: tuple[str, ...] = ("square", "triangle", "cross"),
        scales: tuple[Radius, ...] = (0.15, 0.2, 0.26),
        rotations: Count = 4,
        x: Count = 8,
        y: Count = 8,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if size not in SIZES:
            raise ValueError(f"factor_grid comes in sizes {', '.join(map(str, SIZES))}, got {size}")
        if not shapes or len({*shapes}) < len(shapes) or not {*shapes} <= {*SHAPES}:
            raise ValueError(f"shapes are different ones of {', '.join(SHAPES)}, got {[*shapes]}")
        if not scales or len({*scales}) < len(scales):
            raise ValueError(f"scales are different radii in (0, 0.5], got {[*scales]}")
        if rotations > 1 and {*shapes} & {"circle", "ring"}:
            raise ValueError(
                f"a turned circle or ring is the same image: leave them out or set rotations=1, "
                f"got rotations={rotations}"
            )
        self.size, self.shapes, self.scales, self.rotations = size, [*shapes], [*scales], rotations
        self.factor_sizes = (len(shapes), len(scales), rotations, x, y)
        self._steps = tuple(self._step(n) for n in (x, y))
        if math.prod(self.factor_sizes) < 10:
            raise ValueError(
                f"the grid has at least 10 cells, got {' x '.join(map(str, self.factor_sizes))}"
            )
        self._images: Tensor | None = None

    def _step(self, n: int) -> int:
        """Pixels between two of n positions: the most that keep every shape inside the image."""
        if n == 1:
            return 0
        reach = max(r * REACH.get(shape, 1.0) for r in self.scales for shape in self.shapes)
        room = self.size * (1 - 2 * reach)
        if room < n - 1:
            raise ValueError(
                f"{n} positions a pixel apart need {n - 1} pixels, but scale {max(self.scales)} "
                f"leaves {max(room, 0):.1f} of {self.size}; "
                "take fewer positions, smaller scales or a larger size"
            )
        return int(room / (n - 1))

    @cached_property
    def spec(self) -> Spec:
        cells = "x".join(map(str, self.factor_sizes))
        classes = len(self.shapes) if len(self.shapes) > 1 else 0
        return DataSpec(
            (1, self.size, self.size),
            2,
            classes,
            f"factor_grid {self.size}x{self.size} ({'+'.join(self.shapes)}, {cells})",
        )

    # -- the grid ---------------------------------------------------------------------------------
    def __len__(self) -> int:
        return math.prod(self.factor_sizes)

    def factors(self, rows: Tensor | None = None) -> Tensor:
        """The factors of cells of the grid (of all for None) as numbers 0..size-1, (N, 5) long, in
        the order of ``factor_names``.
        """
        rows = torch.arange(len(self)) if rows is None else rows
        return torch.stack(torch.unravel_index(rows, self.factor_sizes), 1)

    def rows(self, factors: Tensor) -> Tensor:
        """The cells of given factors, (N, 5): the inverse of ``factors``."""
        row = torch.zeros(len(factors), dtype=torch.long)
        for k, n in enumerate(self.factor_sizes):
            row = row * n + factors[:, k]
        return row

    def images(self) -> Tensor:
        """Every cell's image, (N, 1, S, S) uint8; the last factor changes fastest."""
        if self._images is None:
            self._images = torch.from_numpy(
                np.concatenate([self._places(*cell) for cell in self._turned()])
            )[:, None]
            distinct = len(torch.unique(self._images.flatten(1), dim=0))
            if distinct < len(self):
                warnings.warn(
                    f"{len(self)} cells are {distinct} images: larger scales or fewer rotations "
                    f"tell them apart",
                    stacklevel=2,
                )
        return self._images

    def grid(self) -> tuple[Tensor, Tensor]:
        """All images in levels, (N, 1, S, S) float, and their factors, (N, 5)."""
        return self.images().to(torch.get_default_dtype()), self.factors()

    def fixed(self, factor: str | int, value: int, n: int, generator: torch.Generator) -> Tensor:
        """n images, (n, 1, S, S) float, that share one factor's value, the other factors drawn
        uniformly and independently.
        """
        return self.images()[self.fixed_rows(factor, value, n, generator)].to(
            torch.get_default_dtype()
        )

    def fixed_rows(
        self, factor: str | int, value: int, n: int, generator: torch.Generator
    ) -> Tensor:
        """The cells of ``fixed``, (n,)."""
        k = self.factor_names.index(factor) if isinstance(factor, str) else factor
        if not 0 <= value < self.factor_sizes[k]:
            raise ValueError(
                f"{self.factor_names[k]} is one of 0..{self.factor_sizes[k] - 1}, got {value}"
            )
        drawn = torch.stack(
            [torch.randint(size, (n,), generator=generator) for size in self.factor_sizes], 1
        )
        drawn[:, k] = value
        return self.rows(drawn)

    def _turned(self) -> list[tuple[str, float, float]]:
        return [
            (shape, scale, k / self.rotations * math.tau / TURNS.get(shape, 1))
            for shape, scale, k in product(self.shapes, self.scales, range(self.rotations))
        ]

    def _places(self, shape: str, scale: float, angle: float) -> np.ndarray:
        """One shape at every position, (x·y, S, S) uint8: white where at least half of a pixel's
        4x4 points lie inside.
        """
        at = centres(self.size * SUB)
        x, y = (
            0.5 - step * (n - 1) / 2 / self.size
            for step, n in zip(self._steps, self.factor_sizes[3:], strict=True)
        )  # the first
        dx, dy = (at[None, :] - x) / scale, (at[:, None] - y) / scale
        c, s = math.cos(angle), math.sin(angle)
        covered = inside(shape, c * dx + s * dy, c * dy - s * dx).reshape(
            self.size, SUB, self.size, SUB
        )
        white = (covered.sum((1, 3)) >= SUB * SUB / 2).astype(np.uint8)
        places = product(*(range(n) for n in self.factor_sizes[3:]))
        return np.stack(
            [np.roll(white, (j * self._steps[1], i * self._steps[0]), (0, 1)) for i, j in places]
        )

    # -- as data of a model -----------------------------------------------------------------------
    def load(self) -> dict[str, Split]:
        """A fixed permutation of the grid, whatever the seed; a tenth for validation, a tenth for
        testing.
        """
        x, labelled = self.images(), len(self.shapes) > 1
        shape, tenth = self.factors()[:, 0], len(self) // 10
        splits = split_rows(len(self), 0, tenth, tenth)
        return {
            name: {"x": x[rows], "cell": rows, **({"y": shape[rows]} if labelled else {})}
            for name, rows in splits.items()
        }
