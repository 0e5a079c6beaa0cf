"""Multi-scale PixelRNN: a small image first, then the large one given the small one.

Paper      van den Oord, Kalchbrenner, Kavukcuoglu. Pixel Recurrent Neural Networks. ICML 2016.
           arXiv:1601.06759, section 3.6.
Model      s(x) = x[::f, ::f], every f-th pixel. log P(x) = log P_small(s(x)) + log P_cond(x |
           s(x)). P_small is a PixelRNN; P_cond is one whose gates also read, at every pixel, a 1x1
           convolution without mask of e(s), the small image enlarged by two transposed
           convolutions. So every pixel knows the small image around it, its future included.
Objective  -log P(x) in bits per dimension of the large image, both networks together; they share
           nothing. ``constrained``: the pixels of s are copied into x and cost nothing there, so
           this is the exact likelihood of x. Otherwise P_cond predicts them again; the same sum is
           then the log of the joint of s(x) and x, below that of the marginal P(x).
Sampling   s, then x, each in raster order and with a cache as in pixelrnn: one forward pass of both
           networks in total. ``translate`` draws large images of given small ones.
Notes      The paper subsamples; taking strided pixels makes s a part of x. Layers:
           zoo/nn/pixel_lstm.py. Logged besides: bits_small and bits_cond, per dimension that the
           network predicts, and in validation bits_of_s, what P_cond would lose for each such
           dimension by the small image of another row of the batch.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from zoo.bases import AutoregressiveModule
from zoo.bases.autoregressive import Stream, Told
from zoo.core import Batch, Image, Spec
from zoo.core.likelihood import bits_per_dim
from zoo.core.options import Count, Positive, Range
from zoo.nn.masked_conv import by_dimension, check_width
from zoo.nn.pixel_lstm import PixelLSTM, Variant
from zoo.registry import Paper, register


class Upsampler(nn.Module):
    """e(s): two transposed convolutions, the second of stride f; (B, C, h, w) to (B, e, H, W)."""

    def __init__(self, c: int, e: int, f: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.net = nn.Sequential(
            nn.ConvTranspose2d(c, e, 5, padding=2),
            nn.ReLU(),
            nn.ConvTranspose2d(e, e, f + 2, f, padding=1),
            nn.ReLU(),
        )

    def forward(self, s: Tensor) -> Tensor:
        return self.net(s)[:, :, : self.size[0], : self.size[1]]


@register(
    "multiscale_pixelrnn",
    paper=Paper(
        "van den Oord, Kalchbrenner, Kavukcuoglu",
        "Pixel Recurrent Neural Networks",
        2016,
        "1601.06759",
    ),
    about="a PixelRNN of every f-th pixel, then one of the whole image given those pixels",
    taxonomy="explicit tractable",
    likelihood="exact_mass",
    can={"sample", "log_prob", "inpaint", "translate"},
    data="digits",
    learns=(("val/bits_per_dim", "<", 0.85), ("val/bits_of_s", ">", 1.0)),
)
class MultiScalePixelRNN(AutoregressiveModule):
    """Multi-scale PixelRNN.

    Args:
        factor: f, how many times smaller the small image is.
        constrained: copy the pixels of the small image instead of predicting them again.
        variant: "row_lstm" or "diagonal_bilstm", of both networks.
        n: residual LSTM blocks of each network.
        h: features of an LSTM; between blocks there are 2h.
        head: features of the last hidden layer.
        e: features of the enlarged small image.
        optimiser: "adam", or the paper's "rmsprop".
        lr: learning rate.
    """

    accepts = {"x": Image}

    def __init__(
        self,
        spec: Spec,
        factor: Annotated[int, Range(2)] = 2,
        constrained: bool = True,
        variant: Variant = "row_lstm",
        n: Count = 2,
        h: Count = 16,
        head: Count = 48,
        e: Count = 16,
        optimiser: Literal["adam", "rmsprop"] = "adam",
        lr: Positive = 3e-3,
    ) -> None:
        super().__init__(spec)
        spec.require("multiscale_pixelrnn", levels=True)
        c, height, width = spec.shape
        if height == width == 1:
            raise ValueError(
                f"multiscale_pixelrnn subsamples images, got {spec}; choose larger images"
            )
        check_width("multiscale_pixelrnn", "h", h, c)
        check_width("multiscale_pixelrnn", "head", head, c)
        self.factor, self.constrained, self.optimiser, self.lr = factor, constrained, optimiser, lr
        outputs = c * (1 if spec.levels == 2 else spec.levels or 0)
        self.small = PixelLSTM(variant, c, outputs, n, h, head)
        self.upsampler = Upsampler(c, e, factor, (height, width))
        self.large = PixelLSTM(variant, c, outputs, n, h, head, m=e)

    @property
    def likelihood_kind(self) -> str:
        return "exact_mass" if self.constrained else "lower_bound"

    # -- which dimensions -------------------------------------------------------------------------
    def subsample(self, x: Tensor) -> Tensor:
        """s(x), (B, C, ⌈H/f⌉, ⌈W/f⌉)."""
        return x[:, :, :: self.factor, :: self.factor]

    @property
    def copied(self) -> Tensor:
        """Flat (c, h, w) indices in x of the dimensions of s."""
        return self.subsample(torch.arange(self.spec.dim).view(1, *self.spec.shape)).flatten()

    @property
    def predicted(self) -> Tensor:
        """Flat indices of the dimensions that P_cond predicts, in raster order."""
        order = super().order
        return order[~torch.isin(order, self.copied)] if self.constrained else order

    @property
    def steps(self) -> Tensor:
        """The dimension that each step of sampling draws: those of s, then those of x."""
        raster = super().order
        return torch.cat([raster[torch.isin(raster, self.copied)], self.predicted])

    @property
    def order(self) -> Tensor:
        return self.steps if self.constrained else super().order

    @property
    def uniforms(self) -> int:
        return len(self.steps)

    # -- likelihood -------------------------------------------------------------------------------
    def small_conditionals(self, s: Tensor) -> Tensor:
        """Logits of P_small, (B, D_s, P)."""
        return by_dimension(self.small(self.spec.to_signed(s)), self.spec.shape[0])

    def large_conditionals(self, x: Tensor, s: Tensor) -> Tensor:
        """Logits of P_cond(x | s), (B, D, P)."""
        around = self.upsampler(self.spec.to_signed(s))
        return by_dimension(self.large(self.spec.to_signed(x), around), self.spec.shape[0])

    def conditionals(self, x: Tensor) -> Tensor:
        """Logits of all D dimensions, (B, D, P): those of s from P_small if they are copied, the
        others from P_cond given s(x).
        """
        s = self.subsample(x)
        large = self.large_conditionals(x, s)
        if not self.constrained:
            return large
        return large.index_copy(1, self.copied.to(x.device), self.small_conditionals(s))

    def log_small(self, s: Tensor) -> Tensor:
        """log P_small(s), (B,)."""
        return self.log_conditionals(self.small_conditionals(s), s.flatten(1)).sum(1)

    def log_cond(self, x: Tensor, s: Tensor) -> Tensor:
        """log P_cond(x | s) over the dimensions that it predicts, (B,)."""
        each = self.log_conditionals(self.large_conditionals(x, s), x.flatten(1))
        return each[:, self.predicted.to(x.device)].sum(1)

    def log_prob(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        s = self.subsample(x)
        return self.log_small(s) + self.log_cond(x, s)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        bits = {name: value.mean() for name, value in self.bits(batch["x"]).items()}
        return {"loss": bits["bits_per_dim"], **bits}

    def bits(self, x: Tensor) -> dict[str, Tensor]:
        """Bits of the whole and of each network for each of the dimensions that it predicts,
        (B,).
        """
        s = self.subsample(x)
        small, cond = self.log_small(s), self.log_cond(x, s)
        return {
            "bits_per_dim": bits_per_dim(small + cond, self.spec.dim),
            "bits_small": bits_per_dim(small, s[0].numel()),
            "bits_cond": bits_per_dim(cond, len(self.predicted)),
        }

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        x, bits = batch["x"], self.bits(batch["x"])
        other = bits_per_dim(self.log_cond(x, self.subsample(x).roll(1, 0)), len(self.predicted))
        return {
            "bits_small": bits["bits_small"],
            "bits_cond": bits["bits_cond"],
            "bits_of_s": other - bits["bits_cond"],
        }

    # -- use --------------------------------------------------------------------------------------
    def stream(self, n: int) -> Stream:
        """The conditionals of s, then those of x given s, in ``steps``."""
        s = yield from self.small_stream(n)
        yield from self.large_stream(s)

    def small_stream(self, n: int) -> Generator[Tensor, Tensor, Tensor]:
        """The conditionals of P_small; at the end returns s."""
        s = torch.zeros(n, *self.spec.shape, device=self.device, dtype=self.float_dtype)
        network = self.small.stream(n, (self.subsample(s).shape[2], self.subsample(s).shape[3]))
        value: Tensor | None = None
        for d in self.steps[: len(self.copied)].tolist():
            out = next(network) if value is None else network.send(self.spec.to_signed(value))
            value = yield out.T
            s.view(n, -1)[:, d] = value
        return self.subsample(s)

    def large_stream(self, s: Tensor) -> Stream:
        """The conditionals of P_cond(x | s) that it predicts."""
        x = torch.zeros(len(s), *self.spec.shape, device=s.device, dtype=self.float_dtype)
        self.subsample(x).copy_(s)
        network = self.large.stream(
            len(s), (x.shape[2], x.shape[3]), self.upsampler(self.spec.to_signed(s))
        )
        value, predicted = None, set(self.predicted.tolist())
        for d in super().order.tolist():
            out = next(network) if value is None else network.send(self.spec.to_signed(value))
            value = (yield out.T) if d in predicted else x.view(len(s), -1)[:, d]

    def naive(self, n: int) -> Stream:
        """``stream`` by a full pass for each dimension."""
        x = torch.zeros(n, *self.spec.shape, device=self.device, dtype=self.float_dtype)
        copied = self.copied.tolist()
        for d in self.steps[: len(copied)].tolist():
            params = self.small_conditionals(self.subsample(x))
            x.view(n, -1)[:, d] = yield params[:, copied.index(d)]
        s = self.subsample(x).clone()
        for d in self.predicted.tolist():
            x.view(n, -1)[:, d] = yield self.large_conditionals(x, s)[:, d]

    def generate(
        self,
        u: Tensor,
        told: Told,
        cache: bool = True,
        temperature: float = 1.0,
        *,
        given: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        stream = (self.stream if cache else self.naive)(u.shape[1])
        return self.ancestral(stream, self.steps, u, given, known, temperature)

    def leads(self, known: Tensor) -> bool:
        return self.constrained and super().leads(known)

    @torch.no_grad()
    def translate(self, s: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Large images drawn given small ones, (B, C, ⌈H/f⌉, ⌈W/f⌉) to (B, *shape), in levels."""
        expected = self.subsample(torch.zeros(len(s), *self.spec.shape)).shape
        if s.shape != expected:
            raise ValueError(
                f"multiscale_pixelrnn enlarges {tuple(expected[1:])} to {self.spec.shape}, got "
                f"{tuple(s.shape[1:])}; resize it"
            )
        u = torch.rand(
            len(self.predicted),
            len(s),
            generator=generator,
            device=self.device,
            dtype=self.float_dtype,
        )
        drawn, _ = self.ancestral(self.large_stream(s), self.predicted, u, None, None)
        x = drawn.view(-1, *self.spec.shape)
        if self.constrained:
            self.subsample(x).copy_(s)
        return x

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimiser == "rmsprop":
            return torch.optim.RMSprop(self.parameters(), self.lr)
        return torch.optim.Adam(self.parameters(), self.lr)
