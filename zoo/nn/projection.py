"""The affine projection on what a small image says of a large one (Sønderby et al. 2017, section
3.1): for a linear A that makes images smaller and its pseudo-inverse A⁺, with A A⁺ = I,

    Π_y f = f - A⁺ A f + A⁺ y,  so that  A Π_y f = y  whatever f is.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.small import full


@functools.lru_cache(maxsize=64)
def axis(kernel: tuple[float, ...], s: int, side: int) -> tuple[Tensor, Tensor]:
    """A filter of stride s along one axis of so many pixels as a matrix, (side/s, side), and its
    pseudo-inverse, (side, side/s), in float64.

    Output i has the kernel's middle in the middle of its s pixels; pixels beyond the edge are those
    before it, reflected; rows sum to 1.

    Raises:
        ValueError: no pseudo-inverse A⁺ has A A⁺ = I.

    >>> axis((1.0, 1.0), 2, 4)[0].tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    if (s - len(kernel)) % 2:
        raise ValueError(
            f"a kernel has its middle in that of {s} pixels, got {len(kernel)} values; give it "
            f"{'an even' if s % 2 == 0 else 'an odd'} number"
        )
    taps = torch.tensor(kernel, dtype=torch.float64)
    if taps.sum().abs() < 1e-9 * taps.abs().sum():
        raise ValueError(f"kernel {[*kernel]} sums to 0; give one that keeps a plain image")
    a = torch.zeros(side // s, side, dtype=torch.float64)
    at = torch.arange(len(kernel)) + (s - len(kernel)) // 2
    for i, row in enumerate(a):
        j = (at + i * s) % (2 * side)
        row.index_add_(0, torch.where(j < side, j, 2 * side - 1 - j), taps / taps.sum())
    inverse = torch.linalg.pinv(a)
    if (a @ inverse - torch.eye(len(a), dtype=a.dtype)).abs().max() > 1e-6:
        raise ValueError(
            f"kernel {[*kernel]} makes alike what differs over {side} pixels; give a shorter"
        )
    return a, inverse


@dataclass(frozen=True)
class Shrinking:
    """A, which makes images s times smaller, and A⁺. Both are computed in no less than single
    precision, whatever the autocast.

    Args:
        s: the factor, of which the sides are multiples. kernel: of the filter along either axis;
            none is the mean of s x s pixels, whose A⁺ repeats each pixel.

    >>> A = Shrinking(2)
    >>> g = A.project(torch.rand(1, 1, 4, 4), torch.ones(1, 1, 2, 2))
    >>> torch.allclose(A.down(g), torch.ones(1, 1, 2, 2))
    True
    """

    s: int
    kernel: tuple[float, ...] = ()

    def down(self, x: Tensor) -> Tensor:
        """A x, (B, C, H/s, W/s)."""
        x = full(x)
        return self._apply(x, 0, self.s) if self.kernel else F.avg_pool2d(x, self.s)

    def up(self, y: Tensor) -> Tensor:
        """A⁺ y, (B, C, s h, s w): of the images that y may come from the one nearest to 0."""
        y = full(y)
        if self.kernel:
            return self._apply(y, 1, 1)
        return y.repeat_interleave(self.s, 2).repeat_interleave(self.s, 3)

    def project(self, f: Tensor, y: Tensor) -> Tensor:
        """Π_y f: of the images that y may come from the one nearest to f."""
        return full(f) + self.up(full(y) - self.down(f))

    def _apply(self, x: Tensor, which: int, over: int) -> Tensor:
        """Matrices of both axes, of A (0) or A⁺ (1)."""
        sides = [side * self.s // over for side in x.shape[2:]]
        rows, columns = (axis(self.kernel, self.s, side)[which].to(x) for side in sides)
        with torch.autocast(x.device.type, enabled=False):
            return rows @ x @ columns.T
