"""Causal convolutions by shifting and padding instead of masks, weight-normalised, and the same
ones row by row or pixel by pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.weight_norm import WeightNormed


class Conv(WeightNormed):
    """Weight-normalised convolution that reads rows above and, with ``side`` "both" or "left",
    columns beside its own.

    ``grow`` is the transposed convolution of stride 2, cropped so that it reads the same places.
    """

    def __init__(
        self,
        a: int,
        b: int,
        size: tuple[int, int],
        side: str = "both",
        stride: int = 1,
        grow: bool = False,
        scale: float = 1.0,
    ):
        super().__init__(a, b, size, grow, scale)
        self.size, self.side, self.stride = size, side, stride

    @property
    def left(self) -> int:
        return self.size[1] - 1 if self.side == "left" else (self.size[1] - 1) // 2

    def _apply_to(self, x: Tensor) -> Tensor:
        (kh, kw), (h, w) = self.size, x.shape[2:]
        if not self.grow:
            return F.conv2d(
                F.pad(x, (self.left, kw - 1 - self.left, kh - 1, 0)),
                self.weight(),
                self.b,
                self.stride,
            )
        whole = F.conv_transpose2d(x, self.weight(), self.b, stride=2, output_padding=1)
        start = 0 if self.side == "left" else (kw - 1) // 2
        return whole[:, :, : 2 * h, start : start + 2 * w]


class Pointwise(Conv):
    """1x1 convolution."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] == (1, 1) and self.folded is not None:  # quicker than a convolution
            return F.linear(x.flatten(1), self.folded.flatten(1), self.b)[..., None, None]
        return super().forward(x)


def down_shift(x: Tensor) -> Tensor:
    """Every row one place down; the first is zero.

    >>> down_shift(torch.tensor([[[[1], [2], [3]]]])).flatten()
    tensor([0, 1, 2])
    """
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def right_shift(x: Tensor) -> Tensor:
    """Every column one place to the right; the first is zero.

    >>> right_shift(torch.tensor([[[[1, 2, 3]]]])).flatten()
    tensor([0, 1, 2])
    """
    return F.pad(x, (1, 0))[..., :-1]


class RowConv:
    """A convolution of u that is given its input row by row and remembers the last one."""

    def __init__(self, conv: Conv, like: Tensor) -> None:
        self.conv, self.last = conv, like

    def keep(self, row: Tensor) -> None:
        self.last = row

    def __call__(self, row: Tensor) -> Tensor:
        both = torch.cat([self.last.expand(*row.shape), row], 2) if self.conv.size[0] == 2 else row
        self.last = row
        (_, kw), left = self.conv.size, self.conv.left
        return F.conv2d(
            F.pad(both, (left, kw - 1 - left)),
            self.conv.weight(),
            self.conv.b,
            (1, self.conv.stride),
        )


class PixelConv:
    """A 2x2 convolution of ul that is given its input pixel by pixel and remembers this row and the
    last one.
    """

    def __init__(self, conv: Conv, width: int, n: int) -> None:
        self.weight, self.bias, self.stride = conv.weight().flatten(1), conv.b, conv.stride
        self.two_rows = conv.b.new_zeros(n, conv.v.shape[1], 2, width + 1)
        self.column = 0

    def keep(self, pixel: Tensor) -> None:
        if self.column == self.two_rows.shape[3] - 1:
            self.two_rows[:, :, 0] = self.two_rows[:, :, 1]
            self.column = 0
        self.column += 1
        self.two_rows[:, :, 1, self.column] = pixel[:, :, 0, 0]

    def __call__(self, pixel: Tensor) -> Tensor:
        self.keep(pixel)
        window = self.two_rows[:, :, :, self.column - 1 : self.column + 1]
        return F.linear(window.flatten(1), self.weight, self.bias)[..., None, None]
