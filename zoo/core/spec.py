"""What a data module promises and a model is built for: shape, number of grey levels, number of
classes.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


class DataSpec:
    """The data a model is built for.

    Batches are dicts: ``x`` float, (B, *shape); ``y`` long class labels, (B,), where
    ``num_classes > 0``; ``index`` long row ids. Images hold integer **levels** 0..levels-1 (17 for
    digits, 256 for 8-bit images, 2 for binarised ones), never a rescaled range: each model converts
    with ``to_unit`` or ``to_signed``, and ``sample`` returns levels again. Real-valued data
    (``levels=None``) pass through unchanged.

    Args:
        shape: (C, H, W) for images, (D,) for vectors.
        levels: number of grey levels L; None for real-valued data.
        num_classes: number of class labels; 0 for unlabelled data.
        name: which data this is, as it should stand in a results table, e.g.
            ``"digits 8x8 binarised (threshold)"``.
    """

    # Not a dataclass: the command line would take one for a group of options instead of what the
    # data module hands over.
    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        name: str = "data",
    ) -> None:
        self.shape = tuple(int(s) for s in shape)
        self.levels, self.num_classes, self.name = levels, num_classes, name
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(
                f"a data shape is (C, H, W) or (D,) with positive sizes, got {self.shape}"
            )
        if levels is not None and levels < 2:
            raise ValueError(f"levels is at least 2, or None for real-valued data, got {levels}")

    @property
    def dim(self) -> int:
        """Number of scalars in one example, D = C·H·W."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    def to_unit(self, x: Tensor) -> Tensor:
        """Levels to [0, 1]; real values unchanged."""
        return x if self.levels is None else x / (self.levels - 1)

    def to_signed(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1]; real values unchanged."""
        return x if self.levels is None else x * (2 / (self.levels - 1)) - 1

    def from_unit(self, v: Tensor) -> Tensor:
        """[0, 1] to the nearest level, clamped; real values unchanged. The quantisation every
        generated image passes through.
        """
        return (
            v if self.levels is None else (v * (self.levels - 1)).round().clamp(0, self.levels - 1)
        )

    def from_signed(self, v: Tensor) -> Tensor:
        """[-1, 1] to the nearest level, clamped; real values unchanged."""
        return v if self.levels is None else self.from_unit((v + 1) / 2)

    def require(
        self,
        model: str,
        *,
        image: bool | None = None,
        levels: Any = ...,
        square: bool = False,
        size: tuple[int, ...] = (),
    ) -> None:
        """Raise a ``ValueError`` naming the model, these data and the remedy, unless the data are
        what the model takes.

        Args:
            image: True for images only, False for vectors only. levels: an exact number of levels,
                ``True`` for any number, ``None`` for real-valued data only. square: height equals
                width. size: allowed heights.
        """
        problem = None
        if image is True and not self.is_image:
            problem, remedy = "models images", "choose image data such as digits"
        elif image is False and self.is_image:
            problem, remedy = "models vectors", "choose vector data such as toy2d"
        elif levels is True and self.levels is None:
            problem, remedy = (
                "models discrete data",
                "choose data with levels, or a density model such as realnvp",
            )
        elif levels is None and self.levels is not None:
            problem, remedy = "models real-valued data", "choose real-valued data such as toy2d"
        elif isinstance(levels, int) and levels is not True and self.levels != levels:
            how = "binarise it (--data.binarize=threshold)" if levels == 2 else "choose other data"
            problem, remedy = f"models data with {levels} levels", how
        elif square and self.shape[-1] != self.shape[-2]:
            problem, remedy = (
                "models square images",
                "crop or resize the images to a square (--data.size=N)",
            )
        elif size and self.shape[-1] not in size:
            problem, remedy = (
                f"models images of size {', '.join(map(str, size))}",
                f"resize them (--data.size={size[0]})",
            )
        if problem:
            raise ValueError(f"{model} {problem}, got {self}; {remedy}")

    def asdict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint; ``DataSpec(**values)`` is the way back."""
        return {**vars(self), "shape": [*self.shape]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataSpec) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        return (
            f"DataSpec({self.shape}, levels={self.levels}, num_classes={self.num_classes}, "
            f"name={self.name!r})"
        )

    def __str__(self) -> str:
        kind = "x".join(map(str, self.shape)) + (" images" if self.is_image else "-d vectors")
        return f"{self.name}: {kind}, " + (
            f"{self.levels} levels" if self.levels else "real-valued"
        )
