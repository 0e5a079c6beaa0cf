"""PixelCNN: an image as a sequence of pixels, each predicted from those before it by masked
convolutions.

Paper      van den Oord, Kalchbrenner, Kavukcuoglu. Pixel Recurrent Neural Networks. ICML 2016.
           arXiv:1601.06759, section 3.5.
Model      P(x) = Π P(x_d | x_<d), pixels in raster order, the channels of a pixel one after the
           other. A 7x7 convolution with mask A, n residual blocks [ReLU, 1x1, ReLU, 3x3, ReLU, 1x1]
           from 2h features over h and back, all with mask B, and two 1x1 convolutions to the logits
           of L levels (one logit for binary data). No pooling: every position is predicted in one
           pass.
Objective  -log P(x) in bits per dimension: the cross-entropy of the levels, which have no order for
           the model.
Sampling   Raster order. ``cache=True`` keeps the columns of features that are final, and computes
           one column of each layer a step: one forward pass in total instead of D.
Notes      A stack of such convolutions has a blind spot: pixels above and to the right that no
           depth reaches (gated_pixelcnn has none). Inputs are scaled to [-1, 1]. With
           ``conditional``, labels enter as a bias of every block's 3x3 convolution, an extension.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import AutoregressiveModule
from zoo.bases.autoregressive import Stream
from zoo.core import Image, Label, Spec
from zoo.core.options import Count, Positive, Whole
from zoo.nn.masked_conv import ColumnConv, MaskedConv2d, by_dimension, check_width
from zoo.registry import Paper, register


class Block(nn.Module):
    """Residual block: 2h features, over h, to 2h (figure 5, left)."""

    def __init__(self, h: int, groups: int, classes: int) -> None:
        super().__init__()
        self.down = MaskedConv2d("B", 2 * h, h, 1, groups)
        self.conv = MaskedConv2d("B", h, h, 3, groups)
        self.up = MaskedConv2d("B", h, 2 * h, 1, groups)
        self.label = nn.Embedding(classes, h) if classes else None

    def bias(self, y: Tensor | None) -> Tensor | None:
        """The label's share of the 3x3 convolution, (B, h, 1, 1)."""
        return None if self.label is None or y is None else self.label(y)[:, :, None, None]

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        a, bias = self.conv(F.relu(self.down(F.relu(x)))), self.bias(y)
        return x + self.up(F.relu(a if bias is None else a + bias))


@register(
    "pixelcnn",
    paper=Paper(
        "van den Oord, Kalchbrenner, Kavukcuoglu",
        "Pixel Recurrent Neural Networks",
        2016,
        "1601.06759",
    ),
    about="masked convolutions predict each pixel from those before it",
    taxonomy="explicit tractable",
    likelihood="exact_mass",
    can={"sample", "log_prob", "inpaint"},
    data="digits",
    learns=("val/bits_per_dim", "<", 2.0),
)
class PixelCNN(AutoregressiveModule):
    """PixelCNN.

    Args:
        n: residual blocks.
        h: features inside a block; between blocks there are 2h.
        head: features of the last hidden layer.
        conditional: model P(x | label).
        optimiser: "adam", or the paper's "rmsprop".
        lr: learning rate.
    """

    accepts = {"x": Image}
    blocks: Any  # a ModuleList of Block

    def __init__(
        self,
        spec: Spec,
        n: Whole = 5,
        h: Count = 16,
        head: Count = 64,
        conditional: bool = False,
        optimiser: Literal["adam", "rmsprop"] = "adam",
        lr: Positive = 2e-3,
    ) -> None:
        super().__init__(spec)
        spec.require("pixelcnn", levels=True)
        if conditional:
            spec.require("pixelcnn with conditional=true", y=Label)
        c, levels = spec.shape[0], spec.levels or 0
        check_width("pixelcnn", "h", h, c)
        check_width("pixelcnn", "head", head, c)
        self.conditional, self.optimiser, self.lr = conditional, optimiser, lr
        self.first = MaskedConv2d("A", c, 2 * h, 7, c)
        self.blocks = nn.ModuleList(
            Block(h, c, spec.num_classes if conditional else 0) for _ in range(n)
        )
        self.hidden = MaskedConv2d("B", 2 * h, head, 1, c)
        self.logits = MaskedConv2d("B", head, c * (1 if levels == 2 else levels), 1, c)

    def conditionals(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        """Logits of all D conditionals in one pass, (B, D, P), from levels."""
        y = self.need_labels(y) if self.conditional else None
        a = self.first(self.spec.to_signed(x))
        for block in self.blocks:
            a = block(a, y)
        return by_dimension(self.logits(F.relu(self.hidden(F.relu(a)))), self.spec.shape[0])

    def stream(self, n: int, *, y: Tensor | None = None) -> Stream:
        """``conditionals`` one channel of one pixel at a time."""
        c, *size = self.spec.shape
        y = self.need_labels(y) if self.conditional else None

        def columns(conv: MaskedConv2d, plus: Tensor | None = None) -> ColumnConv:
            return ColumnConv(conv, (size[0], size[1]), n, plus)

        first, hidden, logits = columns(self.first), columns(self.hidden), columns(self.logits)
        blocks = [(columns(b.down), columns(b.conv, b.bias(y)), columns(b.up)) for b in self.blocks]
        for p in range(size[0] * size[1]):
            for g in range(c):
                a = first.get(p, g)
                for down, conv, up in blocks:
                    inner = conv.step(p, g, down.step(p, g, a.relu()).relu_())
                    a = a + up.step(p, g, inner.relu_())
                value = yield logits.step(p, g, hidden.step(p, g, a.relu_()).relu_()).T
                first.put(p, g, self.spec.to_signed(value))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimiser == "rmsprop":
            return torch.optim.RMSprop(self.parameters(), self.lr)
        return torch.optim.Adam(self.parameters(), self.lr)
