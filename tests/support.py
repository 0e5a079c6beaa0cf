"""What the tests share."""

from __future__ import annotations

from typing import Any

import torch

from zoo.check import fit
from zoo.data.base import Split, ZooDataModule

__all__ = ["Given", "fit"]


class Given(ZooDataModule):
    """A data module over given tensors; the same rows serve as train, val and test."""

    def __init__(self, spec: Any, x: torch.Tensor, y: torch.Tensor | None = None, batch_size: int = 4, **options: Any) -> None:
        super().__init__(batch_size, **options)
        self._spec, self._x, self._y = spec, x, y

    @property
    def spec(self) -> Any:
        return self._spec

    def load(self) -> dict[str, Split]:
        split = {"x": self._x} if self._y is None else {"x": self._x, "y": self._y}
        return {"train": split, "val": split, "test": split}
