"""Gated PixelCNN: two stacks of convolutions without a blind spot, gated units, and conditioning.

Paper      van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu. Conditional Image
           Generation with PixelCNN Decoders. NIPS 2016. arXiv:1606.05328.
Model      P(x | s) = Π P(x_d | x_<d, s), pixels in raster order, the channels of a pixel one after
           the other. A vertical stack v sees the rows above, a horizontal stack u the pixels to the
           left and, by a 1x1 convolution from v, what v sees.
               V = conv(v) over rows r-⌊k/2⌋..r;
               U = masked 1xk conv(u) + 1x1(V of the row above);
               gate(a₁, a₂) = tanh(a₁) σ(a₂);
               v ← gate(V + V's share of s);
               u ← [u +] 1x1(gate(U + U's share of s)), the residual from the second layer on.
Objective  -log P(x | s) in bits per dimension: the cross-entropy of the levels, which have no order
           for the model.
Labels     s is the one-hot label, or for the network any vector or map of features; its share is a
           1x1 convolution without bias. ``classify`` is Bayes' rule with a uniform prior. Without
           labels ``log_prob`` is that of P(x), the mean of P(x | y) over the labels.
Sampling   Raster order. ``cache=True`` computes the vertical stack once a row, by ordinary
           convolutions over the rows it needs, and the horizontal stack one column a step: one
           forward pass in total instead of D.
Notes      V is shifted down by one row on its way to u, so it needs no mask of channels. Inputs are
           scaled to [-1, 1].
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from zoo.bases import AutoregressiveModule
from zoo.bases.autoregressive import Stream
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Positive
from zoo.nn.gated_conv import GatedStacks
from zoo.nn.masked_conv import by_dimension, check_width
from zoo.registry import Paper, register


@register(
    "gated_pixelcnn",
    paper=Paper(
        "van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu",
        "Conditional Image Generation with PixelCNN Decoders",
        2016,
        "1606.05328",
    ),
    about="PixelCNN in two stacks without a blind spot, gated and conditional; classifies by "
    "Bayes' rule",
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

    accepts = {"x": Image}

    def __init__(
        self,
        spec: Spec,
        n: Count = 5,
        p: Count = 24,
        k: Count = 7,
        head: Count = 64,
        conditional: bool = True,
        optimiser: Literal["adam", "rmsprop"] = "adam",
        lr: Positive = 2e-3,
    ) -> None:
        super().__init__(spec)
        spec.require("gated_pixelcnn", levels=True)
        if k < 3 or k % 2 == 0:
            raise ValueError(
                f"gated_pixelcnn: k is odd and at least 3, got {k}; choose 3, 5, 7 ..."
            )
        c, levels = spec.shape[0], spec.levels or 0
        check_width("gated_pixelcnn", "p", p, c)
        check_width("gated_pixelcnn", "head", head, c)
        self.conditional = conditional and spec.num_classes > 0
        self.optimiser, self.lr = optimiser, lr
        m = spec.num_classes if self.conditional else 0
        self.network = GatedStacks(c, c * (1 if levels == 2 else levels), n, p, k, head, m)

    def conditionals(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        """Logits of all D conditionals in one pass, (B, D, P), from levels."""
        out = self.network(self.spec.to_signed(x), self.one_hot(y))
        return by_dimension(out, self.spec.shape[0])

    # -- likelihood -------------------------------------------------------------------------------
    def log_prob(
        self, x: Tensor, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """log P(x | y); of a conditional model without y, log P(x) = log of the mean of P(x | y)
        over the labels.
        """
        if not self.conditional:
            return super().log_prob(x)
        if y is None:
            return self.log_prob_of_each(x).logsumexp(1) - math.log(self.spec.num_classes)
        return super().log_prob(x, y=y)

    def log_prob_of_each(self, x: Tensor) -> Tensor:
        """log P(x | y) for every label y, (B, classes)."""
        y = torch.arange(self.spec.num_classes, device=x.device)
        return torch.stack([self.log_prob(x, y=label.expand(len(x))) for label in y], 1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if not self.conditional or "y" not in batch:
            return {}
        return {"bayes_accuracy": (self.classify(batch["x"]).argmax(1) == batch["y"]).float()}

    # -- use --------------------------------------------------------------------------------------
    def stream(self, n: int, *, y: Tensor | None = None) -> Stream:
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
                "gated_pixelcnn classifies by P(x | y), which this one does not model; build it "
                "with conditional=True on labels"
            )
        return self.log_prob_of_each(x).log_softmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimiser == "rmsprop":
            return torch.optim.RMSprop(self.parameters(), self.lr)
        return torch.optim.Adam(self.parameters(), self.lr)
