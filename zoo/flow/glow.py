"""Glow: generative flow with invertible 1x1 convolutions.

Paper      Kingma, Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions. NeurIPS 2018.
           arXiv:1807.03039.
Model      z = f(v), z ~ N(0, I), v = y - 1/2 of dequantised y = (x + u)/L. ``scales`` levels; each
           squeezes (C, H, W) -> (4C, H/2, W/2) and takes ``depth`` = K steps of flow (table 1),
           h <- coupling(W actnorm(h)), with log|det| in the last column:
               actnorm   (h + b) exp(s) for each channel,                            H W Σ s;
               1x1       W h at every pixel, W first a random rotation,              H W ln|det W|;
                         ``lu``: W = P L (U + diag(sign e^log_s)), P, sign fixed,    H W Σ log_s;
               coupling  (a, b) = halves of the channels, (t, r) = NN(a),
                         b <- (b + t) σ(r + 2),                                      Σ ln σ(r + 2);
                         or b <- b + t,                                              0.
           All levels but the last give half of their channels away: ε = (h₂ - μ(h₁)) exp(-log
           σ(h₁)), log|det| = -Σ log σ. This is the learned prior N(h₂; μ(h₁), σ(h₁)²) written as a
           step of the flow; the top has one with constants for each channel. So every part of z is
           N(0, 1), and a temperature scales them all alike.
Objective  -log p(y) = -log N(f(y); 0, I) - Σ log|det|, in bits per dimension (Σ includes D ln L).
Labels     ``conditional``: the top part of z is N(m_c, exp(l_c)²) for class c, learned, for each
           channel; without a label log p(x) is ln 1/C Σ_c p(x|c). ``classifier_weight`` adds the
           cross-entropy (in bits) of a linear classifier on the top's pixel means.
Sampling   z ~ N(0, T²), inverted; W⁻¹ is computed once for each call. x = floor(L y).
Notes      Actnorm starts from the first 256 training examples, pushed through layer by layer: mean
           0 and variance 1 in each channel. Actnorm and 1x1 convolution run as one convolution, and
           so do each convolution of NN and its actnorm. The released code stores s divided by
           three; this one does not, except in the gain of the zero convolutions.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import FlowModule
from zoo.bases.flow import standard_normal
from zoo.core import Batch, Image, Label, Spec
from zoo.core.likelihood import bits_per_dim, dequantise, row_noise
from zoo.core.noise import seeded
from zoo.core.options import Count, NonNegative, Positive, Whole
from zoo.nn.prior import Draw
from zoo.nn.small import full
from zoo.registry import Paper, register


def standardising(h: Tensor) -> tuple[Tensor, Tensor]:
    """b and s with which (h + b) exp(s) has mean 0 and variance 1 in each channel, (C,)."""
    var, mean = torch.var_mean(h, (0, 2, 3), correction=0)
    return -mean, -0.5 * var.clamp(min=1e-12).log()


class NormConv(nn.Module):
    """A convolution without bias, then actnorm: (w * h + b) exp(s)."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(outputs, inputs, size, size))
        self.b = nn.Parameter(torch.zeros(outputs))
        self.s = nn.Parameter(torch.zeros(outputs))

    def initialise(self, h: Tensor) -> None:
        b, s = standardising(F.conv2d(h, self.weight, padding="same"))
        self.b.copy_(b)
        self.s.copy_(s)

    def forward(self, h: Tensor) -> Tensor:
        gain, border = self.s.exp(), self.weight.shape[-1] // 2
        return F.conv2d(h, self.weight * gain[:, None, None, None], self.b * gain, padding=border)


class ZeroConv(nn.Module):
    """A 3x3 convolution that starts at zero, with the gain exp(3 g) for each channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.g = nn.Parameter(torch.zeros(outputs))

    def forward(self, h: Tensor) -> Tensor:
        gain = (3 * self.g).exp()
        return F.conv2d(h, self.weight * gain[:, None, None, None], self.bias * gain, padding=1)


class Coupling(nn.Module):
    """The first half of the channels determines shift and scale of the second."""

    def __init__(self, channels: int, width: int, affine: bool) -> None:
        super().__init__()
        kept, moved = channels - channels // 2, channels // 2
        self.affine, self.sizes = affine, [kept, moved]
        self.first, self.second = NormConv(kept, width, 3), NormConv(width, width, 1)
        self.last = ZeroConv(width, 2 * moved if affine else moved)

    def initialise(self, h: Tensor) -> None:
        a = h[:, : self.sizes[0]]
        self.first.initialise(a)
        self.second.initialise(F.relu(self.first(a)))

    def shift_scale(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """t and ln σ(r + 2), which is 0 for additive couplings."""
        h = F.relu(self.first(a), inplace=True)
        h = self.last(F.relu(self.second(h), inplace=True))
        if not self.affine:
            return h, h.new_zeros(()).expand_as(h)
        t, r = h.chunk(2, 1)
        return t, F.logsigmoid(r + 2)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        a, b = h.split(self.sizes, 1)
        t, log_scale = self.shift_scale(a)
        return torch.cat([a, (b + t) * log_scale.exp()], 1), log_scale.flatten(1).sum(1)

    def inverse(self, h: Tensor) -> tuple[Tensor, Tensor]:
        a, b = h.split(self.sizes, 1)
        t, log_scale = self.shift_scale(a)
        return torch.cat([a, b * (-log_scale).exp() - t], 1), -log_scale.flatten(1).sum(1)


class Mixing(nn.Module):
    """The matrices W of K steps, (K, C, C)."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linalg.qr(torch.randn(depth, channels, channels))[0])

    def forward(self) -> tuple[Tensor, Tensor]:
        """W, and the sum of ln|det W|."""
        return self.w, torch.linalg.slogdet(full(self.w))[1].sum()


class LUMixing(nn.Module):
    """The same as W = P L (U + diag(sign exp(log_s)))."""

    p: Tensor
    sign: Tensor

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.zeros(depth, channels, channels))
        self.upper = nn.Parameter(torch.zeros(depth, channels, channels))
        self.log_s = nn.Parameter(torch.zeros(depth, channels))
        self.register_buffer("p", torch.zeros(depth, channels, channels))
        self.register_buffer("sign", torch.ones(depth, channels))
        self.set(torch.linalg.qr(torch.randn(depth, channels, channels))[0])

    @torch.no_grad()
    def set(self, w: Tensor) -> None:
        """Take the values of W, (K, C, C)."""
        p, lower, upper = torch.linalg.lu(w)
        diagonal = upper.diagonal(dim1=1, dim2=2)
        self.p.copy_(p)
        self.lower.copy_(lower)
        self.upper.copy_(upper)
        self.sign.copy_(diagonal.sign())
        self.log_s.copy_(diagonal.abs().log())

    def forward(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(self.lower.shape[1]).to(self.lower)
        upper = self.upper.triu(1) + torch.diag_embed(self.sign * self.log_s.exp())
        return self.p @ lower @ upper, self.log_s.sum()


def squeeze(h: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 4C, H/2, W/2), channels last in memory: convolutions on a CPU are a third
    quicker so.
    """
    return F.pixel_unshuffle(h, 2).contiguous(memory_format=torch.channels_last)


class Level(nn.Module):
    """K steps of flow on C channels."""

    couplings: Any  # a ModuleList

    def __init__(self, depth: int, channels: int, width: int, affine: bool, lu: bool) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(depth, channels))
        self.s = nn.Parameter(torch.zeros(depth, channels))
        self.mixing = (LUMixing if lu else Mixing)(depth, channels)
        self.couplings = nn.ModuleList(Coupling(channels, width, affine) for _ in range(depth))

    def initialise(self, h: Tensor) -> Tensor:
        """Set every actnorm from its input; returns the level's output."""
        for k, coupling in enumerate(self.couplings):
            self.b[k], self.s[k] = standardising(h)
            h = F.conv2d(self.actnorm(h, k), self.mixing()[0][k, :, :, None, None])
            coupling.initialise(h)
            h = coupling(h)[0]
        return h

    def actnorm(self, h: Tensor, k: int) -> Tensor:
        """Step k's, by itself."""
        return (h + self.b[k, :, None, None]) * self.s[k, :, None, None].exp()

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        w, log_det = self.mixing()
        w = w * self.s.exp()[:, None, :]  # W actnorm(h) = (W e^s) h + (W e^s) b
        bias = (w @ self.b[:, :, None])[:, :, 0]
        total = (h.shape[2] * h.shape[3] * (log_det + self.s.sum())).expand(len(h))
        weights, shifts = w[..., None, None].unbind(), bias.unbind()
        for coupling, weight, shift in zip(self.couplings, weights, shifts, strict=True):
            h, term = coupling(F.conv2d(h, weight, shift))
            total = total + term
        return h, total

    def inverse(self, h: Tensor) -> tuple[Tensor, Tensor]:
        w, log_det = self.mixing()
        w = torch.linalg.inv(full(w)).to(w.dtype) * (-self.s).exp()[:, :, None]
        total = -(h.shape[2] * h.shape[3] * (log_det + self.s.sum())).expand(len(h))
        for k in reversed(range(len(self.couplings))):
            h, term = self.couplings[k].inverse(h)
            h, total = F.conv2d(h, w[k, :, :, None, None], -self.b[k]), total + term
        return h, total


@register(
    "glow",
    paper=Paper(
        "Kingma, Dhariwal",
        "Glow: Generative Flow with Invertible 1x1 Convolutions",
        2018,
        "1807.03039",
    ),
    about="actnorm, invertible 1x1 convolutions and affine couplings, with learned priors at "
    "every scale",
    taxonomy="explicit tractable",
    likelihood="dequantised_bound",
    can={"sample", "log_prob", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=("val/bits_per_dim", "<", 2.65),
)
class Glow(FlowModule):
    """Glow.

    Args:
        scales: levels of the multi-scale architecture.
        depth: K, steps of flow in a level.
        width: channels of the coupling networks.
        coupling: "affine" or "additive".
        lu: parametrise the 1x1 convolutions by their LU decomposition.
        conditional: a prior for each class.
        classifier_weight: weight of the classifier's cross-entropy; 0 for no classifier.
        draws: draws of u in the evaluated bound.
        optimiser: "adam", or the paper's "adamax".
        lr: learning rate. warmup: steps in which it grows linearly from 0.
    """

    accepts = {"x": Image}
    first_examples = 256

    levels: Any  # ModuleLists
    splits: Any

    def __init__(
        self,
        spec: Spec,
        scales: Count = 2,
        depth: Count = 4,
        width: Count = 64,
        coupling: Literal["affine", "additive"] = "affine",
        lu: bool = False,
        conditional: bool = False,
        classifier_weight: NonNegative = 0.0,
        draws: Count = 4,
        optimiser: Literal["adam", "adamax"] = "adam",
        lr: Positive = 1e-3,
        warmup: Whole = 0,
    ) -> None:
        super().__init__(spec)
        spec.require("glow", levels=True)
        if conditional or classifier_weight:
            spec.require("glow with conditional or classifier_weight", y=Label)
        c, h, w = spec.shape
        if h % 2**scales or w % 2**scales:
            raise ValueError(
                f"glow with scales={scales} needs sides divisible by {2**scales}, got {spec}; "
                f"lower scales, or resize"
            )
        self.conditional, self.classifier_weight, self.draws = conditional, classifier_weight, draws
        self.optimiser, self.lr, self.warmup = optimiser, lr, warmup
        self.levels, self.splits = nn.ModuleList(), nn.ModuleList()
        self.sizes = []  # dimensions that leave after each level
        for i in range(scales):
            c, h, w = 4 * c, h // 2, w // 2
            self.levels.append(Level(depth, c, width, coupling == "affine", lu))
            if i < scales - 1:
                c //= 2
                self.splits.append(ZeroConv(c, 2 * c))
                self.sizes.append(c * h * w)
        self.top = (c, h, w)  # what remains
        self.top_prior = nn.Parameter(torch.zeros(2, c, 1, 1))  # mean and log σ of the top
        # m_c and l_c
        classes = torch.zeros(2, spec.num_classes, c) if conditional else None
        self.class_prior = None if classes is None else nn.Parameter(classes)
        self.classifier = nn.Linear(c, spec.num_classes) if classifier_weight else None

    @property
    def told(self) -> tuple[str, ...]:
        return ("y",) if self.conditional else ()

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        x = batch["x"][: self.first_examples]
        source = seeded(int(self.noise_seed), "actnorm")
        u = torch.rand(x.shape, generator=source, dtype=x.dtype).to(x.device)
        h = self.preprocess(dequantise(x, self.spec.levels or 0, u)[0])[0]
        for level in self.levels:
            h = level.initialise(F.pixel_unshuffle(h, 2))
            h = h.chunk(2, 1)[0]

    # -- the flow ---------------------------------------------------------------------------------
    def forward_flow(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(v), (B, D), with the parts that left first in front, and log|det dz/dv|, (B,)."""
        h, log_det = v, v.new_zeros(len(v))
        parts: list[Tensor] = []
        for i, level in enumerate(self.levels):
            h, term = level(squeeze(h))
            log_det = log_det + term
            if i < len(self.splits):
                h, out = h.chunk(2, 1)
                mean, log_scale = self.splits[i](h).chunk(2, 1)
                parts.append(((out - mean) * (-log_scale).exp()).flatten(1))
                log_det = log_det - log_scale.flatten(1).sum(1)
        mean, log_scale = self.top_prior
        parts.append(((h - mean) * (-log_scale).exp()).flatten(1))
        return torch.cat(parts, 1), log_det - h[0, 0].numel() * log_scale.sum()

    def inverse_flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """v = f⁻¹(z), (B, *shape), and log|det dv/dz|, (B,)."""
        *parts, top = z.split([*self.sizes, math.prod(self.top)], 1)
        mean, log_scale = self.top_prior
        h = top.view(-1, *self.top) * log_scale.exp() + mean
        log_det = (h[0, 0].numel() * log_scale.sum()).expand(len(z))
        for i, level in reversed([*enumerate(self.levels)]):
            if i < len(self.splits):
                mean, log_scale = self.splits[i](h).chunk(2, 1)
                h = torch.cat([h, parts[i].view_as(h) * log_scale.exp() + mean], 1)
                log_det = log_det + log_scale.flatten(1).sum(1)
            h, term = level.inverse(h.contiguous(memory_format=torch.channels_last))
            h, log_det = F.pixel_shuffle(h, 2), log_det + term
        return h, log_det

    def preprocess(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y - 0.5, y.new_zeros(len(y))

    def postprocess(self, v: Tensor) -> Tensor:
        return v + 0.5

    # -- labels -----------------------------------------------------------------------------------
    def _class_prior(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """m_c and l_c of every dimension of the top part, (B, D_top)."""
        assert self.class_prior is not None
        m, log_s = self.class_prior[:, y].repeat_interleave(self.top[1] * self.top[2], 2)
        return m, log_s

    def log_base(self, z: Tensor, *, y: Tensor | None = None) -> Tensor:
        """log p(z | y), or log p(z) without labels, (B,)."""
        if self.class_prior is None:
            return standard_normal(z)
        if y is None:
            classes = torch.arange(self.spec.num_classes, device=z.device)
            each = torch.stack([self.log_base(z, y=c.expand(len(z))) for c in classes])
            return each.logsumexp(0) - math.log(len(classes))
        rest, top = z.split([z.shape[1] - math.prod(self.top), math.prod(self.top)], 1)
        m, log_s = self._class_prior(y)
        return standard_normal(rest) + standard_normal((top - m) * (-log_s).exp()) - log_s.sum(1)

    def class_logits(self, z: Tensor) -> Tensor:
        """The classifier's logits, (B, classes), from z."""
        if self.classifier is None:
            raise ValueError("glow was built without a classifier; set classifier_weight > 0")
        return self.classifier(z[:, -math.prod(self.top) :].view(len(z), self.top[0], -1).mean(2))

    # -- likelihood -------------------------------------------------------------------------------
    def log_prob(
        self, x: Tensor, *, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """log p(x | y), or log p(x) without labels."""
        u = row_noise(torch.rand, x, (self.draws, *self.spec.shape), generator)
        return torch.stack([self._bound(x, u[:, s], y)[0] for s in range(self.draws)]).mean(0)

    def _bound(self, x: Tensor, u: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """log p((x + u)/L | y) - D ln L, (B,), and z."""
        v, constant = dequantise(x, self.spec.levels or 0, u)
        z, log_det = self.to_code(v)
        return self.log_base(z, y=y) + log_det + constant, z

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["x"], batch["y"] if self.conditional else None
        log_prob, z = self._bound(x, self.noise.uniform(*x.shape), y)
        bits = bits_per_dim(log_prob, self.spec.dim).mean()
        if self.classifier is None:
            return {"loss": bits, "bits_per_dim": bits}
        cross_entropy = F.cross_entropy(self.class_logits(z), batch["y"]) / math.log(2)
        return {
            "loss": bits + self.classifier_weight * cross_entropy,
            "bits_per_dim": bits,
            "cross_entropy": cross_entropy,
        }

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Of the given classes. ``temperature`` multiplies every ε; the paper likes T = 0.7."""
        z = temperature * self.draw_codes(n, Draw(generator, self.device, self.float_dtype))
        if self.conditional:
            m, log_s = self._class_prior(self.need_labels(y))
            rest, top = z.split([z.shape[1] - m.shape[1], m.shape[1]], 1)
            z = torch.cat([rest, top * log_s.exp() + m], 1)
        return self.decode(z)

    @torch.no_grad()
    def manipulate(
        self, x: Tensor, positive: Tensor, negative: Tensor, amount: float = 1.0
    ) -> Tensor:
        """x with an attribute added (section 5): z moved by the difference of the mean z of
        examples with and without it.
        """
        direction = self.encode(positive).mean(0) - self.encode(negative).mean(0)
        return self.decode(self.encode(x) + amount * direction)

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        kind = torch.optim.Adam if self.optimiser == "adam" else torch.optim.Adamax
        optimiser = kind(self.parameters(), self.lr)
        if not self.warmup:
            return optimiser
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / self.warmup, 1.0)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
