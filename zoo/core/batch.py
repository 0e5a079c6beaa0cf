"""What a loss is given: named tensors with equal first dimension, and how many rows there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

ROWS = "index"  # row numbers, which every batch of a data module has


class Batch(dict[str, Tensor]):
    """n rows by field. A batch of no field is n rows of nothing, for a phase that reads no data.

    >>> batch = Batch({"x": torch.zeros(4, 2), "y": torch.arange(4)})
    >>> batch.n, [part.n for part in batch.chunk(2)], [*batch.only(("x",))]
    (4, [2, 2], ['x'])
    """

    n: int

    def __init__(self, fields: Mapping[str, Tensor] = {}, n: int | None = None) -> None:
        super().__init__(fields)
        sizes = {v.shape[0] for v in self.values()}
        self.n = next(iter(sizes), 0) if n is None else n
        if sizes - {self.n}:
            had = {k: len(v) for k, v in self.items()}
            raise ValueError(
                f"the fields of a batch have equally many rows, got {had} for {self.n}"
            )

    def only(self, names: Iterable[str]) -> Batch:
        """These fields, and the row numbers where there are any.

        Raises:
            KeyError: a field is missing.
        """
        wanted = {*names}
        if missing := wanted - self.keys():
            raise KeyError(
                f"the batch has no {', '.join(sorted(missing))}; it has {', '.join(self)}"
            )
        return Batch({k: v for k, v in self.items() if k in wanted or k == ROWS}, self.n)

    def chunk(self, parts: int) -> list[Batch]:
        """Equal parts, in order; ``parts`` divides n."""
        if parts == 1:
            return [self]
        size = self.n // parts
        return [self.rows(slice(i * size, (i + 1) * size), size) for i in range(parts)]

    def rows(self, which: Any, n: int | None = None) -> Batch:
        """Some of the rows, by a slice, a mask or numbers."""
        if n is None:
            n = len(torch.arange(self.n)[which])
        return Batch({k: v[which] for k, v in self.items()}, n)

    def to(self, device: Any, dtype: torch.dtype | None = None) -> Batch:
        """On a device; floating fields in ``dtype``."""
        moved = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in self.items()}
        return Batch(moved, self.n)
