"""Two stacks of gated masked convolutions without a blind spot (van den Oord et al. 2016,
arXiv:1606.05328).

A vertical stack sees the rows above, a horizontal one the pixels to the left and what the vertical
one sees. A condition s, a vector (B, m, 1, 1) or maps (B, m, H, W), adds a share to every gate.
``GatedStacks.stream`` computes the same one position at a time.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.masked_conv import ColumnConv, MaskedConv2d, row, share


def gate(a: Tensor, dim: int = 1) -> Tensor:
    """tanh of the first half of the features times the sigmoid of the second (equation 2).

    >>> gate(torch.tensor([[100.0, 0.0]]))
    tensor([[0.5000]])
    """
    first, second = a.chunk(2, dim)
    return torch.tanh(first) * torch.sigmoid(second)


class Layer(nn.Module):
    """One layer of both stacks (figure 2). Only the first has mask A, and no residual; the last has
    no vertical output.

    Args:
        m: features of the condition, 0 for none.
    """

    def __init__(
        self, inputs: int, p: int, k: int, groups: int, m: int, first: bool, last: bool
    ) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(inputs, 2 * p, (k // 2 + 1, k))
        self.link = nn.Conv2d(2 * p, 2 * p, 1)
        self.horizontal = MaskedConv2d(
            "A" if first else "B", inputs, 2 * p, (1, k), groups, parts=2
        )
        self.out = MaskedConv2d("B", p, p, 1, groups)
        self.condition_v = nn.Conv2d(m, 2 * p, 1, bias=False) if m and not last else None
        self.condition_u = nn.Conv2d(m, 2 * p, 1, bias=False) if m else None
        self.radius, self.residual = k // 2, not first

    def forward(self, v: Tensor, u: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        vertical = self.vertical(F.pad(v, (self.radius, self.radius, self.radius, 0)))
        above = F.pad(vertical, (0, 0, 1, 0))[:, :, :-1]
        horizontal = self.horizontal(u) + self.link(above)
        out = self.out(gate(horizontal + share(self.condition_u, s)))
        return gate(vertical + share(self.condition_v, s)), u + out if self.residual else out


class LayerStream:
    """``Layer`` of n images: its vertical stack row by row, its horizontal stack one column at a
    time.
    """

    def __init__(self, layer: Layer, size: tuple[int, int], n: int, s: Tensor | None) -> None:
        self.layer, (height, self.width) = layer, size
        inputs, weight = layer.vertical.in_channels, layer.vertical.weight
        self.v = weight.new_zeros(
            n, inputs, layer.radius + height, self.width + 2 * layer.radius
        )  # vertical input, with its border
        self.share_v, self.share_u = share(layer.condition_v, s), share(layer.condition_u, s)
        self.horizontal, self.out = (
            ColumnConv(layer.horizontal, size, n),
            ColumnConv(layer.out, size, n),
        )
        self.plus: list[
            Tensor
        ] = []  # for each group, what the row adds to the horizontal convolution, (W, features, n)

    def feed(self, r: int, v: Tensor) -> None:
        """Row r of the vertical input, (n, inputs, W)."""
        radius = self.layer.radius
        self.v[:, :, radius + r, radius : radius + self.width] = v

    def start(self, r: int) -> Tensor | None:
        """Before row r: V of row r-1, and so what the stack has for row r; returns row r-1 of the
        next layer's vertical input.
        """
        layer = self.layer
        vertical = layer.vertical(self.v[:, :, max(r - 1, 0) : max(r - 1, 0) + layer.radius + 1])[
            :, :, 0
        ]
        above = vertical if r else torch.zeros_like(vertical)
        plus = (
            layer.link(above[:, :, None])[:, :, 0]
            + layer.horizontal.bias[:, None]
            + row(self.share_u, r)
        )
        plus = plus.permute(2, 1, 0).contiguous()
        self.plus = (
            [plus]
            if len(self.horizontal.outputs) == 1
            else [plus[:, rows] for rows in self.horizontal.outputs]
        )
        return gate(vertical + row(self.share_v, r - 1)) if r else None

    def step(self, p: int, g: int, u: Tensor | None) -> Tensor:
        """Group g of column p of the next layer's horizontal input; u is this one's, None for the
        first layer.
        """
        plus = self.plus[g][p % self.width]
        if u is None:
            return self.out.step(p, g, gate(self.horizontal.get(p, g, plus), 0))
        return u + self.out.step(p, g, gate(self.horizontal.step(p, g, u, plus), 0))


class GatedStacks(nn.Module):
    """n layers of both stacks, and two 1x1 convolutions on the horizontal one. Maps to maps, all in
    [-1, 1] units.

    Args:
        c: channels. p: features of each stack. k: kernel of the first layer, ``inner`` that of the
            others. m: features of the condition.
    """

    layers: Any  # a ModuleList of Layer

    def __init__(
        self, c: int, outputs: int, n: int, p: int, k: int, head: int, m: int = 0, inner: int = 3
    ) -> None:
        super().__init__()
        self.c = c
        self.layers = nn.ModuleList(
            Layer(p if i else c, p, inner if i else k, c, m, i == 0, i == n - 1) for i in range(n)
        )
        self.hidden = MaskedConv2d("B", p, head, 1, c)
        self.logits = MaskedConv2d("B", head, outputs, 1, c)

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and the condition (B, m, 1 or H, 1 or W) to (B, outputs, H, W)."""
        v = u = x
        for layer in self.layers:
            v, u = layer(v, u, s)
        return self.logits(F.relu(self.hidden(F.relu(u))))

    def stream(
        self, n: int, size: tuple[int, int], s: Tensor | None = None
    ) -> Generator[Tensor, Tensor, None]:
        """``forward`` one channel of one pixel at a time: yields its outputs (outputs/C, n), and is
        sent its value (n,).
        """
        layers = [LayerStream(layer, size, n, s) for layer in self.layers]
        hidden, logits = ColumnConv(self.hidden, size, n), ColumnConv(self.logits, size, n)
        radius = layers[0].layer.radius
        for p in range(size[0] * size[1]):
            r, column = divmod(p, size[1])
            if column == 0:
                for layer, following in zip(layers, [*layers[1:], None], strict=True):
                    v = layer.start(r)
                    if following is not None and v is not None:
                        following.feed(r - 1, v)
            for g in range(self.c):
                u = None
                for layer in layers:
                    u = layer.step(p, g, u)
                assert u is not None
                value = yield logits.step(p, g, hidden.step(p, g, u.relu()).relu_())
                layers[0].v[:, g, radius + r, radius + column] = value
                layers[0].horizontal.put(p, g, value)
