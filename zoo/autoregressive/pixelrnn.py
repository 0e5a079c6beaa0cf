"""PixelRNN: an image as a sequence of pixels, each predicted from those before it by
two-dimensional LSTMs.

Paper      van den Oord, Kalchbrenner, Kavukcuoglu. Pixel Recurrent Neural Networks. ICML 2016.
           arXiv:1601.06759.
Model      P(x) = Π P(x_d | x_<d), pixels in raster order, the channels of a pixel one after the
           other. A 7x7 convolution with mask A, n residual LSTM blocks, and two 1x1 convolutions to
           the logits of L levels (one logit for binary data).
               [o, f, i, g] = input-to-state(x) + state-to-state(h);
               c ← σ(f) c + σ(i) tanh(g);
               h = σ(o) tanh(c).
           ``row_lstm``: a row at once, h and c from the row above, input-to-state 1x3 with mask B,
           state-to-state 1x3. A pixel sees a triangle above it. ``diagonal_bilstm``: a diagonal at
           once, h from the pixels above and beside, c from beside; one pass from the left, one from
           the right that is moved down by one row, and their sum. A pixel sees nearly all before
           it: the last pixel of the row above it sees within the first convolution only.
Objective  -log P(x) in bits per dimension: the cross-entropy of the levels, which have no order for
           the model.
Sampling   Raster order. ``cache=True`` computes one column of each layer a step, what depends on
           the row above once a row: one forward pass in total instead of D.
Notes      Layers: zoo/nn/pixel_lstm.py. Forget biases start at 1. Inputs are scaled to [-1, 1].
           With ``conditional``, labels enter as a bias of every block's gates, an extension.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from zoo.bases import AutoregressiveModule
from zoo.bases.autoregressive import Stream
from zoo.core import Image, Label, Spec
from zoo.core.options import Count, Positive, Whole
from zoo.nn.masked_conv import by_dimension, check_width
from zoo.nn.pixel_lstm import PixelLSTM, Variant
from zoo.registry import Paper, register


@register(
    "pixelrnn",
    paper=Paper(
        "van den Oord, Kalchbrenner, Kavukcuoglu",
        "Pixel Recurrent Neural Networks",
        2016,
        "1601.06759",
    ),
    about="two-dimensional LSTMs (by rows or by diagonals) predict each pixel from those before it",
    taxonomy="explicit tractable",
    likelihood="exact_mass",
    can={"sample", "log_prob", "inpaint"},
    data="digits",
    learns=("val/bits_per_dim", "<", 2.0),
)
class PixelRNN(AutoregressiveModule):
    """PixelRNN.

    Args:
        variant: "diagonal_bilstm" or "row_lstm".
        n: residual LSTM blocks.
        h: features of an LSTM; between blocks there are 2h.
        head: features of the last hidden layer.
        conditional: model P(x | label).
        optimiser: "adam", or the paper's "rmsprop".
        lr: learning rate.
    """

    accepts = {"x": Image}

    def __init__(
        self,
        spec: Spec,
        variant: Variant = "diagonal_bilstm",
        n: Whole = 2,
        h: Count = 16,
        head: Count = 48,
        conditional: bool = False,
        optimiser: Literal["adam", "rmsprop"] = "adam",
        lr: Positive = 3e-3,
    ) -> None:
        super().__init__(spec)
        spec.require("pixelrnn", levels=True)
        if conditional:
            spec.require("pixelrnn with conditional=true", y=Label)
        c, levels = spec.shape[0], spec.levels or 0
        check_width("pixelrnn", "h", h, c)
        check_width("pixelrnn", "head", head, c)
        self.conditional, self.optimiser, self.lr = conditional, optimiser, lr
        m = spec.num_classes if conditional else 0
        self.network = PixelLSTM(variant, c, c * (1 if levels == 2 else levels), n, h, head, m)

    def conditionals(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        """Logits of all D conditionals in one pass, (B, D, P), from levels."""
        out = self.network(self.spec.to_signed(x), self.one_hot(y))
        return by_dimension(out, self.spec.shape[0])

    def stream(self, n: int, *, y: Tensor | None = None) -> Stream:
        _, height, width = self.spec.shape
        network = self.network.stream(n, (height, width), self.one_hot(y))
        out = next(network)
        while True:
            value = yield out.T
            out = network.send(self.spec.to_signed(value))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimiser == "rmsprop":
            return torch.optim.RMSprop(self.parameters(), self.lr)
        return torch.optim.Adam(self.parameters(), self.lr)
