"""The recurrent layers of PixelRNN (van den Oord et al. 2016, sections 3.1 to 3.3), and the network
they make.

Each layer exists twice: over the whole image, and as a stream that computes one column of features
(features, n) at a time for drawing n images, every value once. Positions count in raster order,
channels are groups of features as in ``zoo.nn.masked_conv``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.masked_conv import ColumnConv, MaskedConv2d, group_of, row, share

VARIANTS = ("row_lstm", "diagonal_bilstm")
Variant = Literal["row_lstm", "diagonal_bilstm"]


def cell(gates: Tensor, c: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """h and c from the four gates o, f, i, g and the c before (equation 3).

    >>> h, c = cell(torch.zeros(2, 4 * 3), torch.ones(2, 3))  # every gate half open
    >>> c[0], h.shape
    (tensor([0.5000, 0.5000, 0.5000]), torch.Size([2, 3]))
    """
    (o, f, i), g = (
        torch.sigmoid(gates.narrow(dim, 0, 3 * c.shape[dim])).chunk(3, dim),
        gates.narrow(dim, 3 * c.shape[dim], c.shape[dim]),
    )
    c = f * c + i * torch.tanh(g)
    return o * torch.tanh(c), c


def skew(x: Tensor) -> Tensor:
    """Row r shifted right by r: (B, F, H, W) to (B, F, H, W+H-1), so that a diagonal becomes a
    column.

    >>> skew(torch.tensor([[[[1, 2], [3, 4]]]]))[0, 0]
    tensor([[1, 2, 0],
            [0, 3, 4]])
    """
    height, width = x.shape[2:]
    return (
        F.pad(x, (0, height)).flatten(2)[:, :, :-height].unflatten(2, (height, width + height - 1))
    )


def unskew(x: Tensor, width: int) -> Tensor:
    """The inverse of ``skew``.

    >>> x = torch.arange(6).view(1, 1, 2, 3)
    >>> torch.equal(unskew(skew(x), 3), x)
    True
    """
    height = x.shape[2]
    return F.pad(x.flatten(2), (0, height)).unflatten(2, (height, width + height))[..., :width]


def input_to_state(inputs: int, h: int, kernel: tuple[int, int], groups: int) -> MaskedConv2d:
    """The masked convolution to the four gates, forget bias 1.

    >>> input_to_state(2, 3, (1, 3), 1).weight.shape
    torch.Size([12, 2, 1, 3])
    """
    conv = MaskedConv2d("B", inputs, 4 * h, kernel, groups, parts=4)
    with torch.no_grad():
        conv.bias[h : 2 * h] += 1
    return conv


class RowLSTM(nn.Module):
    """Row by row: the gates read a masked 1x3 convolution of the input and a 1x3 convolution of h
    in the row above.
    """

    directions = 1

    def __init__(self, inputs: int, h: int, groups: int) -> None:
        super().__init__()
        self.h = h
        self.input = input_to_state(inputs, h, (1, 3), groups)
        self.state = nn.Conv1d(h, 4 * h, 3, padding=1, bias=False)

    def forward(self, x: Tensor, plus: Tensor | float = 0.0) -> Tensor:
        """(B, inputs, H, W) to (B, h, H, W); ``plus``, (B, 4h, 1 or H, 1 or W), is added to the
        gates.
        """
        s = self.input(x) + plus
        h = c = s.new_zeros(len(x), self.h, x.shape[3])
        rows = []
        for r in range(x.shape[2]):
            h, c = cell(s[:, :, r] + self.state(h), c)
            rows.append(h)
        return torch.stack(rows, 2)


class Diagonal(nn.Module):
    """From the top left corner, diagonal by diagonal: the gates read the input, and h of the pixels
    above and to the left.
    """

    def __init__(self, inputs: int, h: int, groups: int) -> None:
        super().__init__()
        self.h = h
        self.input = input_to_state(inputs, h, (1, 1), groups)
        self.state = nn.Conv1d(h, 4 * h, 2, bias=False)  # on a skewed column: above, left

    def forward(self, x: Tensor, plus: Tensor | float = 0.0) -> Tensor:
        s = skew(self.input(x) + plus)
        h = c = s.new_zeros(len(x), self.h, x.shape[2])
        columns = []
        for j in range(s.shape[3]):
            h, c = cell(
                s[..., j] + self.state(F.pad(h, (1, 0))), c
            )  # the pad is on top: row r reads rows r-1 and r
            columns.append(h)
        return unskew(torch.stack(columns, 3), x.shape[3])


def halves(plus: Tensor | float) -> tuple[Tensor | float, Tensor | float]:
    """What is added to the gates of the left and of the right pass.

    >>> left, right = halves(torch.arange(4).view(1, 4))
    >>> left, right, halves(0.0)
    (tensor([[0, 1]]), tensor([[2, 3]]), (0.0, 0.0))
    """
    return (
        (plus[:, : plus.shape[1] // 2], plus[:, plus.shape[1] // 2 :])
        if isinstance(plus, Tensor)
        else (plus, plus)
    )


class DiagonalBiLSTM(nn.Module):
    """Two diagonal passes, from the left and from the right; the right one moves down by one row,
    or it would see the future.
    """

    directions = 2

    def __init__(self, inputs: int, h: int, groups: int) -> None:
        super().__init__()
        self.h = h
        self.left, self.right = Diagonal(inputs, h, groups), Diagonal(inputs, h, groups)

    def forward(self, x: Tensor, plus: Tensor | float = 0.0) -> Tensor:
        """(B, inputs, H, W) to (B, h, H, W); ``plus``, (B, 8h, 1 or H, 1 or W), is added to the
        gates of both passes.
        """
        left, right = halves(plus)
        mirrored = self.right(
            x.flip(3), right.flip(3) if isinstance(right, Tensor) else right
        ).flip(3)
        return self.left(x, left) + F.pad(mirrored, (0, 0, 1, 0))[:, :, :-1]


# -- one column at a time ------------------------------------------------------------------------
class RowLSTMStream:
    """``RowLSTM``: the convolution of the row above once a row, that of the input once a column."""

    def __init__(self, layer: RowLSTM, size: tuple[int, int], n: int, plus: Tensor | float) -> None:
        self.layer, self.width, self.plus = layer, size[1], plus
        self.input = ColumnConv(layer.input, size, n)
        self.features = shares(layer.h, layer.input.channels)
        self.h = layer.state.weight.new_zeros(
            self.width, layer.h, n
        )  # of the row in the making; right of the pixel, of the row above
        self.c = torch.zeros_like(self.h)
        self.above: list[
            Tensor
        ] = []  # for each group, what the row above and ``plus`` give to the gates, (W, gates, n)

    def start(self, r: int) -> None:
        """Before row r."""
        gates = (
            self.layer.state(self.h.permute(2, 1, 0))
            + self.layer.input.bias[:, None]
            + row(self.plus, r)
        )
        gates = gates.permute(2, 1, 0).contiguous()
        self.above = (
            [gates] if len(self.features) == 1 else [gates[:, rows] for rows in self.input.outputs]
        )

    def step(self, p: int, g: int, x: Tensor) -> Tensor:
        """Group g of column p."""
        column, features = p % self.width, self.features[g]
        h, c = cell(self.input.step(p, g, x, self.above[g][column]), self.c[column, features], 0)
        self.h[column, features], self.c[column, features] = h, c
        return h


class DiagonalStream:
    """The recurrence of ``Diagonal`` along one row after the other, i counting from the side where
    it starts.
    """

    def __init__(self, layer: Diagonal, width: int, n: int) -> None:
        self.weight = layer.state.weight.flip(2).transpose(1, 2).flatten(1)  # left, above
        self.h = self.weight.new_zeros(
            1 + width, layer.h, n
        )  # the border, then as in ``RowLSTMStream``
        self.c = torch.zeros_like(self.h[0])

    def gates(self, i: int, plus: Tensor) -> Tensor:
        """All gates of column i, given what the input adds; called once a column."""
        if i == 0:
            self.c.zero_()
        return torch.addmm(plus, self.weight, self.h[i : i + 2].flatten(0, 1))

    def update(self, i: int, gates: Tensor, features: slice) -> Tensor:
        """These features of h in column i."""
        h, c = cell(gates, self.c[features], 0)
        self.h[i + 1, features], self.c[features] = h, c
        return h


class DiagonalBiLSTMStream:
    """``DiagonalBiLSTM``: the left pass once a column, the right pass over the row above once a
    row.
    """

    def __init__(
        self, layer: DiagonalBiLSTM, size: tuple[int, int], n: int, plus: Tensor | float
    ) -> None:
        self.layer, self.width = layer, size[1]
        self.plus_left, self.plus_right = halves(plus)
        self.left, self.right = (
            DiagonalStream(layer.left, self.width, n),
            DiagonalStream(layer.right, self.width, n),
        )
        self.input, conv = ColumnConv(layer.left.input, size, n), layer.right.input
        self.features = shares(layer.h, conv.channels)
        self.right_weight = (conv.weight * conv.mask).flatten(1)
        self.x = conv.weight.new_zeros(
            self.width, conv.in_channels, n
        )  # the input of the row in the making
        self.above = conv.weight.new_zeros(
            self.width, layer.h, n
        )  # the right pass of the row above

    def start(self, r: int) -> None:
        """Before row r."""
        n = self.x.shape[2]
        bias = self.layer.left.input.bias[:, None] + row(self.plus_left, r)
        self.bias = bias.expand(n, -1, self.width).permute(2, 1, 0).contiguous()
        if r == 0:
            return
        bias = self.layer.right.input.bias[:, None] + row(self.plus_right, r - 1)
        s = torch.matmul(self.right_weight, self.x) + bias.expand(n, -1, self.width).permute(
            2, 1, 0
        )
        for i in range(self.width):
            column = self.width - 1 - i
            self.above[column] = self.right.update(i, self.right.gates(i, s[column]), slice(None))

    def step(self, p: int, g: int, x: Tensor) -> Tensor:
        """Group g of column p."""
        column, features = p % self.width, self.features[g]
        self.x[column, self.input.group[g]] = x
        if g == 0:
            self.state = self.left.gates(column, self.bias[column])
        gates = self.input.step(
            p, g, x, self.state if len(self.features) == 1 else self.state[self.input.outputs[g]]
        )
        return self.left.update(column, gates, features) + self.above[column, features]


def shares(h: int, groups: int) -> list[slice]:
    """The features of each group.

    >>> shares(6, 3)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    group = group_of(h, groups)
    return [slice(group.index(g), h - group[::-1].index(g)) for g in range(groups)]


# -- the network ---------------------------------------------------------------------------------
class Block(nn.Module):
    """x + 1x1(LSTM(x)): 2h features, over h, to 2h (figure 5, right). A condition enters the
    gates.
    """

    def __init__(self, variant: str, h: int, groups: int, m: int) -> None:
        super().__init__()
        self.lstm: RowLSTM | DiagonalBiLSTM = (
            RowLSTM if variant == "row_lstm" else DiagonalBiLSTM
        )(2 * h, h, groups)
        self.up = MaskedConv2d("B", h, 2 * h, 1, groups)
        self.condition = nn.Conv2d(m, 4 * h * self.lstm.directions, 1, bias=False) if m else None

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        return x + self.up(self.lstm(x, share(self.condition, s)))

    def stream(
        self, size: tuple[int, int], n: int, s: Tensor | None
    ) -> RowLSTMStream | DiagonalBiLSTMStream:
        plus = share(self.condition, s)
        if isinstance(self.lstm, RowLSTM):
            return RowLSTMStream(self.lstm, size, n, plus)
        return DiagonalBiLSTMStream(self.lstm, size, n, plus)


class PixelLSTM(nn.Module):
    """7x7 convolution with mask A, n residual LSTM blocks, two 1x1 convolutions with mask B after
    ReLUs (table 1).

    Args:
        c: channels. outputs: of all channels together. h: features of an LSTM; between blocks there
            are 2h. m: features of the condition, 0 for none.
    """

    blocks: Any  # a ModuleList of Block

    def __init__(
        self, variant: str, c: int, outputs: int, n: int, h: int, head: int, m: int = 0
    ) -> None:
        super().__init__()
        self.c = c
        self.first = MaskedConv2d("A", c, 2 * h, 7, c)
        self.blocks = nn.ModuleList(Block(variant, h, c, m) for _ in range(n))
        self.hidden = MaskedConv2d("B", 2 * h, head, 1, c)
        self.logits = MaskedConv2d("B", head, outputs, 1, c)

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and the condition (B, m, 1 or H, 1 or W) to (B, outputs, H, W)."""
        a = self.first(x)
        for block in self.blocks:
            a = block(a, s)
        return self.logits(F.relu(self.hidden(F.relu(a))))

    def stream(
        self, n: int, size: tuple[int, int], s: Tensor | None = None
    ) -> Generator[Tensor, Tensor, None]:
        """``forward`` one channel of one pixel at a time: yields its outputs (outputs/C, n), and is
        sent its value (n,).
        """
        first, hidden, logits = (
            ColumnConv(conv, size, n) for conv in (self.first, self.hidden, self.logits)
        )
        blocks = [(b.stream(size, n, s), ColumnConv(b.up, size, n)) for b in self.blocks]
        for p in range(size[0] * size[1]):
            if p % size[1] == 0:
                for lstm, _ in blocks:
                    lstm.start(p // size[1])
            for g in range(self.c):
                a = first.get(p, g)
                for lstm, up in blocks:
                    a = a + up.step(p, g, lstm.step(p, g, a))
                value = yield logits.step(p, g, hidden.step(p, g, a.relu_()).relu_())
                first.put(p, g, value)
