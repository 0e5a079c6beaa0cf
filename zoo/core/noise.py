"""Stateless noise: every random number of training is a pure function of (seed, purpose, step,
draw, row).

Nothing about it needs saving, so a resumed run draws what the uninterrupted one would have drawn.
Rows of a draw are numbered over the whole group of processes and dealt out in turn (process r of W
takes rows r, r+W, ...), exactly as the data are, so 1, 2 or 4 processes draw the same rows and no
two processes draw the same one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix(*key: int | str) -> int:
    """A 63-bit seed from integers and strings; equal keys give equal seeds on every machine
    (splitmix64).
    """
    h = 0x9E3779B97F4A7C15
    for part in key:
        h = (h ^ (zlib.crc32(part.encode()) if isinstance(part, str) else part & _MASK)) & _MASK
        h = ((h + 0x9E3779B97F4A7C15) ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        h = (h ^ (h >> 27)) * 0x94D049BB133111EB & _MASK
        h ^= h >> 31
    return h >> 1


def seeded(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator seeded by ``mix(*key)``."""
    return torch.Generator(device=device).manual_seed(mix(*key))


class Noise:
    """The noise of one training step, on one process.

    Args:
        key: what the draws depend on, e.g. (seed, "train", step).
        rank, world: which share of the rows belongs to this process. part, parts: which slice of
            that share is wanted, when a batch is processed in ``parts`` micro-batches.
        device, dtype: of the tensors drawn.
    """

    def __init__(
        self,
        *key: int | str,
        rank: int = 0,
        world: int = 1,
        part: int = 0,
        parts: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.key, self.rank, self.world, self.part, self.parts = key, rank, world, part, parts
        self.device, self.dtype, self.draws = device, dtype, 0

    def normal(self, n: int, *shape: int) -> Tensor:
        """(n, *shape) standard normal."""
        return self._rows(
            lambda s, g: torch.randn(s, generator=g, device=self.device, dtype=self.dtype), n, shape
        )

    def uniform(self, n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(n, *shape) uniform on [low, high)."""
        return (
            self._rows(
                lambda s, g: torch.rand(s, generator=g, device=self.device, dtype=self.dtype),
                n,
                shape,
            )
            * (high - low)
            + low
        )

    def integers(self, n: int, *shape: int, high: int) -> Tensor:
        """(n, *shape) long, uniform on 0..high-1."""
        return self._rows(
            lambda s, g: torch.randint(high, s, generator=g, device=self.device), n, shape
        )

    def bernoulli(self, p: Tensor) -> Tensor:
        """0/1 draws of the given probabilities, whose first dimension is the batch."""
        return (self.uniform(*p.shape) < p).to(p.dtype)

    def normal_like(self, x: Tensor) -> Tensor:
        return self.normal(*x.shape)

    def _rows(
        self,
        draw: Callable[[tuple[int, ...], torch.Generator], Tensor],
        n: int,
        shape: tuple[int, ...],
    ) -> Tensor:
        g = seeded(*self.key, self.draws, device=self.device)
        self.draws += 1
        rows = draw((n * self.parts * self.world, *shape), g)
        if self.world > 1:
            rows = rows[self.rank :: self.world]
        return rows[self.part * n : (self.part + 1) * n] if self.parts > 1 else rows
