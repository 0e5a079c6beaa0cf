"""Gated PixelCNN: two stacks of convolutions without a blind spot, gated units, and conditioning.

Paper      van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu. Conditional Image Generation with PixelCNN Decoders.
           NIPS 2016. arXiv:1606.05328.
Model      P(x | s) = Π P(x_d | x_<d, s), pixels in raster order, the channels of a pixel one after the other. A vertical stack v sees
           the rows above, a horizontal stack u the pixels to the left and, by a 1x1 convolution from v, what v sees.
           V = conv(v) over rows r-⌊k/2⌋..r;  U = masked 1xk conv(u) + 1x1(V of the row above);  gate(a₁, a₂) = tanh(a₁) σ(a₂);
           v ← gate(V + V's share of s);  u ← [u +] 1x1(gate(U + U's share of s)), the residual from the second layer on.
Objective  -log P(x | s) in bits per dimension: the cross-entropy of the levels, which have no order for the model.
Labels     s is the one-hot label, or for the network any vector or map of features; its share is a 1x1 convolution without bias.
           ``classify`` is Bayes' rule with a uniform prior. Without labels ``log_prob`` and ``sample`` are those of P(x), the mean of
           P(x | y) over the labels.
Sampling   Raster order. ``cache=True`` computes the vertical stack once a row, by ordinary convolutions over the rows it needs, and
           the horizontal stack one column a step: one forward pass in total instead of D.
Notes      V is shifted down by one row on its way to u, so it needs no mask of channels. Inputs are scaled to [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core import AutoregressiveModule, DataSpec
from zoo.core.autoregressive import Stream
from zoo.core.module import Batch
from zoo.nn.masked_conv import ColumnConv, MaskedConv2d, by_dimension, check_width, row, share
from zoo.registry import Paper, register


def gate(a: Tensor, dim: int = 1) -> Tensor:
    """tanh of the first half of the features times the sigmoid of the second (equation 2)."""
    first, second = a.chunk(2, dim)
    return torch.tanh(first) * torch.sigmoid(second)


class Layer(nn.Module):
    """One layer of both stacks (figure 2). Only the first has mask A, and no residual; the last has no vertical output.

    Args:
        m: features of the condition, 0 for none.
    """

    def __init__(self, inputs: int, p: int, k: int, groups: int, m: int, first: bool, last: bool) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(inputs, 2 * p, (k // 2 + 1, k))
        self.link = nn.Conv2d(2 * p, 2 * p, 1)
        self.horizontal = MaskedConv2d("A" if first else "B", inputs, 2 * p, (1, k), groups, parts=2)
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
    """``Layer`` of n images: its vertical stack row by row, its horizontal stack one column at a time."""

    def __init__(self, layer: Layer, size: tuple[int, int], n: int, s: Tensor | None) -> None:
        self.layer, (height, self.width) = layer, size
        inputs, weight = layer.vertical.in_channels, layer.vertical.weight
        self.v = weight.new_zeros(n, inputs, layer.radius + height, self.width + 2 * layer.radius)  # vertical input, with its border
        self.share_v, self.share_u = share(layer.condition_v, s), share(layer.condition_u, s)
        self.horizontal, self.out = ColumnConv(layer.horizontal, size, n), ColumnConv(layer.out, size, n)
        self.plus: list[Tensor] = []  # for each group, what the row adds to the horizontal convolution, (W, features, n)

    def feed(self, r: int, v: Tensor) -> None:
        """Row r of the vertical input, (n, inputs, W)."""
        radius = self.layer.radius
        self.v[:, :, radius + r, radius : radius + self.width] = v

    def start(self, r: int) -> Tensor | None:
        """Before row r: V of row r-1, and so what the stack has for row r; returns row r-1 of the next layer's vertical input."""
        layer = self.layer
        vertical = layer.vertical(self.v[:, :, max(r - 1, 0) : max(r - 1, 0) + layer.radius + 1])[:, :, 0]
        above = vertical if r else torch.zeros_like(vertical)
        plus = layer.link(above[:, :, None])[:, :, 0] + layer.horizontal.bias[:, None] + row(self.share_u, r)
        plus = plus.permute(2, 1, 0).contiguous()
        self.plus = [plus] if len(self.horizontal.rows) == 1 else [plus[:, rows] for rows in self.horizontal.rows]
        return gate(vertical + row(self.share_v, r - 1)) if r else None

    def step(self, p: int, g: int, u: Tensor | None) -> Tensor:
        """Group g of column p of the next layer's horizontal input; u is this one's, None for the first layer."""
        plus = self.plus[g][p % self.width]
        if u is None:
            return self.out.step(p, g, gate(self.horizontal.get(p, g, plus), 0))
        return u + self.out.step(p, g, gate(self.horizontal.step(p, g, u, plus), 0))


class Network(nn.Module):
    """n layers of both stacks, and two 1x1 convolutions on the horizontal one. Maps to maps, all in [-1, 1] units.

    Args:
        c: channels. p: features of each stack. k: kernel of the first layer; the others have 3. m: features of the condition.
    """

    layers: Any  # a ModuleList of Layer

    def __init__(self, c: int, outputs: int, n: int, p: int, k: int, head: int, m: int = 0) -> None:
        super().__init__()
        self.c = c
        self.layers = nn.ModuleList(Layer(p if i else c, p, 3 if i else k, c, m, i == 0, i == n - 1) for i in range(n))
        self.hidden = MaskedConv2d("B", p, head, 1, c)
        self.logits = MaskedConv2d("B", head, outputs, 1, c)

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and the condition (B, m, 1 or H, 1 or W) to (B, outputs, H, W)."""
        v = u = x
        for layer in self.layers:
            v, u = layer(v, u, s)
        return self.logits(F.relu(self.hidden(F.relu(u))))

    def stream(self, n: int, size: tuple[int, int], s: Tensor | None = None) -> Generator[Tensor, Tensor, None]:
        """``forward`` one channel of one pixel at a time: yields its outputs (outputs/C, n), and is sent its value (n,)."""
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


@register(
    "gated_pixelcnn",
    paper=Paper(
        "van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu",
        "Conditional Image Generation with PixelCNN Decoders",
        2016,
        "1606.05328",
    ),
    about="PixelCNN in two stacks without a blind spot, gated and conditional; classifies by Bayes' rule",
    taxonomy="explicit tractable",
    likelihood="exact_mass",
    can={"sample", "log_prob", "inpaint", "classify"},
    data="digits",
    learns=(("val/bits_per_dim", "<", 1.90), ("val/bayes_accuracy", ">", 0.93)),
)
class GatedPixelCNN(AutoregressiveModule):
    """Gated PixelCNN.

    Args:
        n: layers. p: features of each stack.
        k: kernel of the first layer, odd; the others have 3.
        head: features of the last hidden layer.
        conditional: model P(x | label), where the data have labels.
        optimiser: "adam", or the paper's "rmsprop".
        lr: learning rate.
    """

    def __init__(
        self,
        spec: DataSpec,
        n: int = 5,
        p: int = 24,
        k: int = 7,
        head: int = 64,
        conditional: bool = True,
        optimiser: str = "adam",
        lr: float = 2e-3,
    ) -> None:
        super().__init__(spec)
        spec.require("gated_pixelcnn", image=True, levels=True)
        if n < 1 or k < 3 or k % 2 == 0:
            raise ValueError(f"n is at least 1 and k odd and at least 3, got n={n}, k={k}")
        if optimiser not in ("adam", "rmsprop"):
            raise ValueError(f"optimiser is adam or rmsprop, got {optimiser!r}")
        c, levels = spec.shape[0], spec.levels or 0
        check_width("gated_pixelcnn", "p", p, c)
        check_width("gated_pixelcnn", "head", head, c)
        self.conditional, self.optimiser, self.lr = conditional and spec.num_classes > 0, optimiser, lr
        m = spec.num_classes if self.conditional else 0
        self.network = Network(c, c * (1 if levels == 2 else levels), n, p, k, head, m)

    def conditionals(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits of all D conditionals in one pass, (B, D, P), from levels."""
        return by_dimension(self.network(self.spec.to_signed(x), self.one_hot(y)), self.spec.shape[0])

    # -- likelihood ----------------------------------------------------------------------------------------------------
    def log_prob(self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """log P(x | y); of a conditional model without y, log P(x) = log of the mean of P(x | y) over the labels."""
        if self.conditional and y is None:
            return self.log_prob_of_each(x).logsumexp(1) - math.log(self.spec.num_classes)
        return super().log_prob(x, y)

    def log_prob_of_each(self, x: Tensor) -> Tensor:
        """log P(x | y) for every label y, (B, classes)."""
        y = torch.arange(self.spec.num_classes, device=x.device)
        return torch.stack([self.log_prob(x, label.expand(len(x))) for label in y], 1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if not self.conditional or "y" not in batch:
            return {}
        return {"bayes_accuracy": (self.classify(batch["x"]).argmax(1) == batch["y"]).float()}

    # -- use -----------------------------------------------------------------------------------------------------------
    @property
    def uniforms(self) -> int:
        return self.spec.dim + self.conditional

    def generate(
        self, u: Tensor, y: Tensor | None, *, given: Tensor | None = None, known: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Without labels each row of a sample has its own, which the last uniform number chooses."""
        if self.conditional and y is None and given is None:
            y = (u[-1] * self.spec.num_classes).long()
        return super().generate(u, y, given=given, known=known, **options)

    def stream(self, n: int, y: Tensor | None) -> Stream:
        _, height, width = self.spec.shape
        network = self.network.stream(n, (height, width), self.one_hot(y))
        out = next(network)
        while True:
            value = yield out.T
            out = network.send(self.spec.to_signed(value))

    def classify(self, x: Tensor) -> Tensor:
        """log P(y | x) of every label under a uniform prior, (B, classes)."""
        if not self.conditional:
            raise ValueError(
                "gated_pixelcnn classifies by P(x | y), which this one does not model; build it with conditional=True on labels"
            )
        return self.log_prob_of_each(x).log_softmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimiser == "rmsprop":
            return torch.optim.RMSprop(self.parameters(), self.lr)
        return torch.optim.Adam(self.parameters(), self.lr)
