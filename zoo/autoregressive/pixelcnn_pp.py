"""PixelCNN++: a pixel-wise mixture of discretised logistics over a causal U-Net of two shifted
streams.

Paper      Salimans, Karpathy, Chen, Kingma. PixelCNN++: Improving the PixelCNN with Discretized
           Logistic Mixture Likelihood and Other Modifications. ICLR 2017. arXiv:1701.05517.
Model      Two streams of convolutions: u sees the rows above, ul also the pixels to the left;
           causality comes from shifting their inputs by one row or column, not from masks. Gated
           residual blocks; ul reads u. Blocks at several resolutions with stride-2 convolutions
           between them, then back up with a skip from every block to its mirror. All channels of a
           pixel come at once from a mixture of K logistics: m_G = μ_G + tanh(c0) x_R, m_B = μ_B +
           tanh(c1) x_R + tanh(c2) x_G, with the true values of the earlier channels; the weights π
           are the pixel's. P(x | k) = σ((x - m + δ)/s) - σ((x - m - δ)/s), δ = 1/(L-1), the end
           levels taking the tails; x on [-1, 1].
Objective  -log P(pixel) = -logsumexp_k [log π_k + Σ_c log P(x_c | k)], summed over pixels, in bits
           per dimension.
Sampling   Raster order. P(x_c | x_<c) is that mixture with the weights π_k P(x_<c | k), a table of
           L levels, which is inverted; so samples are levels, and what is fed back is what was
           drawn. The cached way keeps the last two rows of every convolution's input: u is computed
           once a row, ul once a pixel, coarser levels only when they are due.
Notes      Weight normalisation with data-dependent initialisation (100 images), the second
           convolution of a block at scale 0.1. A channel of ones tells the border from zero. The
           authors' fallback to a mid-point density for tiny masses is not normalised and is not
           used. They average the weights (here ``--ema.decay``) and do not round what they sample.
           Dropout masks differ from process to process, so the small configuration has none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import AutoregressiveModule
from zoo.bases.autoregressive import Stream
from zoo.core import Batch, Image, Label, Spec
from zoo.core.options import Count, Decay, Dropped, Factor, Positive
from zoo.nn.likelihood_heads import DiscretisedLogistic
from zoo.nn.shifted_conv import Conv, PixelConv, Pointwise, RowConv, down_shift, right_shift
from zoo.nn.weight_norm import measuring
from zoo.registry import Paper, register

MIN_LOG_SCALE = -7.0


# -- the network ---------------------------------------------------------------------------------
def celu(x: Tensor) -> Tensor:
    """The concatenation elu([x, -x])."""
    return F.elu(torch.cat([x, -x], 1))


class GatedResnet(nn.Module):
    """x + a ⊙ σ(b), [a, b] = conv(dropout(celu(conv(celu(x)) + 1x1(celu(skip))))) + V h."""

    def __init__(
        self, n: int, size: tuple[int, int], side: str, skip: int, dropout: float, classes: int
    ) -> None:
        super().__init__()
        self.first = Conv(2 * n, n, size, side)
        self.second = Conv(2 * n, 2 * n, size, side, scale=0.1)
        self.skip = Pointwise(2 * skip, n) if skip else None
        self.dropout = nn.Dropout2d(dropout)
        self.condition = nn.Embedding(classes, 2 * n) if classes else None

    def forward(
        self,
        x: Tensor,
        skip: Tensor | None = None,
        y: Tensor | None = None,
        first: Any = None,
        second: Any = None,
    ) -> Tensor:
        """``first`` and ``second`` stand in for the convolutions where the map comes row by row or
        pixel by pixel.
        """
        c = (first or self.first)(celu(x))
        if self.skip is not None and skip is not None:
            c = c + self.skip(celu(skip))
        out = (second or self.second)(self.dropout(celu(c)))
        if self.condition is not None and y is not None:
            out = out + self.condition(y)[..., None, None]
        a, b = out.chunk(2, 1)
        return x + a * torch.sigmoid(b)


class Level(nn.Module):
    """One resolution of the U-Net: blocks, the coarser level within, blocks with skips from the
    first ones.
    """

    up_u: Any  # ModuleLists of GatedResnet

    def __init__(self, n: int, blocks: int, coarser: int, dropout: float, classes: int) -> None:
        super().__init__()

        def stack(count: int, size: tuple[int, int], side: str, skip: int) -> nn.ModuleList:
            return nn.ModuleList(
                GatedResnet(n, size, side, skip, dropout, classes) for _ in range(count)
            )

        down = blocks + (1 if coarser else 0)
        self.up_u = stack(blocks, (2, 3), "both", 0)
        self.up_ul = stack(blocks, (2, 2), "left", n)
        self.down_u = stack(down, (2, 3), "both", n)
        self.down_ul = stack(down, (2, 2), "left", 2 * n)
        self.inner = None
        if coarser:
            self.inner = Level(n, blocks, coarser - 1, dropout, classes)
            self.shrink_u = Conv(n, n, (2, 3), stride=2)
            self.shrink_ul = Conv(n, n, (2, 2), "left", stride=2)
            self.grow_u = Conv(n, n, (2, 3), grow=True)
            self.grow_ul = Conv(n, n, (2, 2), "left", grow=True)

    def forward(self, u: Tensor, ul: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        us, uls = [u], [ul]
        for a, b in zip(self.up_u, self.up_ul, strict=True):
            us.append(a(us[-1], y=y))
            uls.append(b(uls[-1], us[-1], y))
        if self.inner is None:
            u, ul = us.pop(), uls.pop()
        else:
            u, ul = self.inner(self.shrink_u(us[-1]), self.shrink_ul(uls[-1]), y)
            u, ul = self.grow_u(u), self.grow_ul(ul)
        for a, b in zip(self.down_u, self.down_ul, strict=True):
            u = a(u, us.pop(), y)
            ul = b(ul, torch.cat([u, uls.pop()], 1), y)
        assert not us and not uls  # every skip is used once
        return u, ul


class Net(nn.Module):
    """x' with a channel of ones to the parameters of the mixtures."""

    def __init__(
        self,
        channels: int,
        n: int,
        outputs: int,
        blocks: int,
        resolutions: int,
        dropout: float,
        classes: int,
    ) -> None:
        super().__init__()
        c = channels + 1
        self.start_u = Conv(c, n, (2, 3))
        self.start_above, self.start_left = Conv(c, n, (1, 3)), Conv(c, n, (2, 1), "left")
        self.level = Level(n, blocks, resolutions - 1, dropout, classes)
        self.out = Pointwise(n, outputs)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        u = down_shift(self.start_u(x))
        ul = down_shift(self.start_above(x)) + right_shift(self.start_left(x))
        return self.out(F.elu(self.level(u, ul, y)[1]))


# -- the same network, a row (u) or a pixel (ul) at a time ---------------------------------------
class LevelStream:
    """``Level`` in raster order: ``row`` gives u of a row, then ``pixel`` gives ul of each of its
    pixels.
    """

    def __init__(self, level: Level, width: int, n: int, y: Tensor | None) -> None:
        zero = level.up_u[0].first.b.new_zeros(1, 1, 1, 1)
        self.level, self.y, self.r, self.c, self.width = level, y, 0, 0, width
        self.inner = None if level.inner is None else LevelStream(level.inner, width // 2, n, y)

        def rows(block: Any) -> tuple[RowConv, RowConv]:
            return RowConv(block.first, zero), RowConv(block.second, zero)

        def pixels(block: Any) -> tuple[PixelConv, PixelConv]:
            return PixelConv(block.first, width, n), PixelConv(block.second, width, n)

        self.u_convs = [rows(b) for b in (*level.up_u, *level.down_u)]
        self.ul_convs = [pixels(b) for b in (*level.up_ul, *level.down_ul)]
        if level.inner is not None:
            self.shrink_u = RowConv(level.shrink_u, zero)
            self.shrink_ul = PixelConv(level.shrink_ul, width, n)
        self.ups: list[Tensor] = []  # u of this row after each block of the first half
        self.downs: list[Tensor] = []  # and of the second half
        # What the coarser level gave: two rows; two by two pixels.
        self.grown_u, self.grown_ul = zero, [zero] * (width // 2)

    def row(self, u: Tensor) -> Tensor:
        level, r, convs = self.level, self.r, iter(self.u_convs)
        self.r, self.c = r + 1, 0
        us = [u]
        for block in level.up_u:
            us.append(block(us[-1], y=self.y, **_pair(next(convs))))
        self.ups = us[1:]
        if self.inner is None:
            u = us.pop()
        else:
            if r % 2 == 0:
                self.grown_u = level.grow_u(self.inner.row(self.shrink_u(us[-1])))
            else:
                self.shrink_u.keep(us[-1])
            u = self.grown_u[:, :, r % 2 : r % 2 + 1]
        self.downs = []
        for block in level.down_u:
            u = block(u, us.pop(), self.y, **_pair(next(convs)))
            self.downs.append(u)
        return u

    def pixel(self, ul: Tensor) -> Tensor:
        level, r, c, convs = self.level, self.r - 1, self.c, iter(self.ul_convs)
        self.c = c + 1
        here = slice(c, c + 1)
        uls = [ul]
        for block, u in zip(level.up_ul, self.ups, strict=True):
            uls.append(block(uls[-1], u[..., here], self.y, **_pair(next(convs))))
        if self.inner is None:
            ul = uls.pop()
        else:
            if r % 2 == 0 and c % 2 == 0:
                self.grown_ul[c // 2] = level.grow_ul(self.inner.pixel(self.shrink_ul(uls[-1])))
            else:
                self.shrink_ul.keep(uls[-1])
            ul = self.grown_ul[c // 2][:, :, r % 2 : r % 2 + 1, c % 2 : c % 2 + 1]
        for block, u in zip(level.down_ul, self.downs, strict=True):
            ul = block(ul, torch.cat([u[..., here], uls.pop()], 1), self.y, **_pair(next(convs)))
        return ul


def _pair(convs: tuple[Callable, Callable]) -> dict[str, Callable]:
    return {"first": convs[0], "second": convs[1]}


# -- the mixture ---------------------------------------------------------------------------------
def mixture(params: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log π (..., K), means m given the earlier channels and log-scales, both (..., C, K).

    Args:
        params: (..., K (1 + 2C + C(C-1)/2)). x: values of the channels on [-1, 1], (..., C).
    """
    c = x.shape[-1]
    k = params.shape[-1] // (1 + 2 * c + c * (c - 1) // 2)
    logits, mu, log_s, coupling = params.split([k, c * k, c * k, c * (c - 1) // 2 * k], -1)
    mu, log_s = mu.unflatten(-1, (c, k)), log_s.unflatten(-1, (c, k)).clamp(min=MIN_LOG_SCALE)
    means, used = [mu[..., 0, :]], 0
    for channel in range(1, c):
        m = mu[..., channel, :]
        for earlier in range(channel):
            m = m + torch.tanh(coupling[..., used : used + k]) * x[..., earlier, None]
            used += k
        means.append(m)
    return logits.log_softmax(-1), torch.stack(means, -2), log_s


@register(
    "pixelcnn_pp",
    paper=Paper(
        "Salimans, Karpathy, Chen, Kingma",
        "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood",
        2017,
        "1701.05517",
    ),
    about="a causal U-Net of shifted convolutions that gives each pixel a mixture of discretised "
    "logistics",
    taxonomy="explicit tractable",
    likelihood="exact_mass",
    can={"sample", "log_prob", "inpaint"},
    data="digits",
    learns=("val/bits_per_dim", "<", 1.95),
)
class PixelCNNpp(AutoregressiveModule):
    """PixelCNN++.

    Args:
        width: n, maps of each stream.
        blocks: gated residual blocks before each change of resolution.
        resolutions: of the U-Net; sides must be multiples of 2^(resolutions - 1).
        components: K logistics of a pixel.
        dropout: in the residual blocks.
        conditional: model P(x | label).
        lr: Adam's learning rate. betas: Adam's. decay: factor of the rate at every step.
    """

    accepts = {"x": Image}
    first_examples = 100

    def __init__(
        self,
        spec: Spec,
        width: Count = 24,
        blocks: Count = 1,
        resolutions: Count = 2,
        components: Count = 5,
        dropout: Dropped = 0.0,
        conditional: bool = False,
        lr: Positive = 3e-3,
        betas: tuple[Decay, Decay] = (0.9, 0.999),
        decay: Factor = 1.0,
    ) -> None:
        super().__init__(spec)
        spec.require("pixelcnn_pp", levels=True)
        factor = 2 ** (resolutions - 1)
        if any(side % factor for side in spec.shape[1:]):
            raise ValueError(
                f"pixelcnn_pp with resolutions={resolutions} needs sides divisible by {factor}, "
                f"got {spec}; lower it, or resize"
            )
        if conditional:
            spec.require("pixelcnn_pp with conditional=true", y=Label)
        self.conditional, self.lr, self.betas, self.decay = conditional, lr, betas, decay
        c = spec.shape[0]
        outputs = components * (1 + 2 * c + c * (c - 1) // 2)
        classes = spec.num_classes if conditional else 0
        self.net = Net(c, width, outputs, blocks, resolutions, dropout, classes)
        self.head = DiscretisedLogistic(spec.levels or 0)

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """Every convolution's output on the first 100 images gets mean 0 and its scale, in the
        order of the forward pass.
        """
        x = batch["x"][: self.first_examples]
        y = torch.zeros(len(x), dtype=torch.long, device=x.device) if self.conditional else None
        training = self.training
        self.eval()
        with measuring(self.net):
            self.net(self.spec.to_signed(x), y)
        self.train(training)

    # -- likelihood -------------------------------------------------------------------------------
    def mixtures(self, x: Tensor, y: Tensor | None) -> Tensor:
        """The mixtures' parameters of every pixel, (B, H, W, P)."""
        y = self.need_labels(y) if self.conditional else None
        return self.net(self.spec.to_signed(x), y).permute(0, 2, 3, 1)

    def log_prob(
        self, x: Tensor, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        log_pi, m, log_s = mixture(self.mixtures(x, y), self.spec.to_signed(pixels))
        log_mass = self.head.log_mass(m, log_s, pixels[..., None]).sum(-2)
        return (log_pi + log_mass).logsumexp(-1).flatten(1).sum(1)

    def table(self, params: Tensor, pixel: Tensor, channel: int) -> Tensor:
        """log P(level | earlier channels of the pixel) of every level, (..., L), from (..., P) and
        levels (..., C).
        """
        log_pi, m, log_s = mixture(params, self.spec.to_signed(pixel))
        earlier = self.head.log_mass(
            m[..., :channel, :], log_s[..., :channel, :], pixel[..., :channel, None]
        ).sum(-2)
        levels = torch.arange(self.head.levels, device=params.device, dtype=params.dtype)
        each = self.head.log_mass(
            m[..., None, channel, :], log_s[..., None, channel, :], levels[:, None]
        )
        return ((log_pi + earlier)[..., None, :] + each).logsumexp(-1).log_softmax(-1)

    def conditionals(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        params, pixels = self.mixtures(x, y), x.permute(0, 2, 3, 1)
        tables = [self.table(params, pixels, c) for c in range(x.shape[1])]
        return torch.stack(tables, 1).flatten(1, 3)

    # -- use --------------------------------------------------------------------------------------
    def stream(self, n: int, *, y: Tensor | None = None) -> Stream:
        c, h, w = self.spec.shape
        net = copy.deepcopy(self.net).requires_grad_(False).eval()
        for conv in (m for m in net.modules() if isinstance(m, Conv)):
            conv.folded = conv.weight()
        y = self.need_labels(y) if self.conditional else None
        level = LevelStream(net.level, w, n, y)
        # a row of zeros above
        image = torch.zeros(n, c + 1, h + 1, w, device=self.device, dtype=self.float_dtype)
        image[:, c, 1:] = 1
        left_weight, left_bias = net.start_left.weight()[..., 0], net.start_left.b
        zero = image.new_zeros(n, len(left_bias), 1, w)
        for r in range(h):
            above = net.start_above(image[:, :, r : r + 1]) if r else zero
            level.row(net.start_u(image[:, :, max(r - 1, 0) : r + 1])[:, :, -1:] if r else zero)
            for j in range(w):
                ul = above[..., j : j + 1]
                if j:
                    left = image[:, :, r : r + 2, j - 1]
                    beside = torch.einsum("ncr,ocr->no", left, left_weight) + left_bias
                    ul = ul + beside[..., None, None]
                params = net.out(F.elu(level.pixel(ul)))[:, :, 0, 0]
                pixel = image.new_zeros(n, c)
                for channel in range(c):
                    value = yield self.table(params, pixel, channel)
                    pixel[:, channel] = value
                image[:, :c, r + 1, j] = self.spec.to_signed(pixel)

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.parameters(), self.lr, betas=self.betas)
        if self.decay == 1:
            return optimiser
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, self.decay)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
