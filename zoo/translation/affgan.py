"""AffGAN: super-resolution that never contradicts its source, and lands where images are likely.

Paper      Sønderby, Caballero, Theis, Shi, Huszár. Amortised MAP inference for image
           super-resolution. ICLR 2017. arXiv:1610.04490.
Model      y = A x, a smaller image. g(y) = (I - A⁺A) f(y) + A⁺ y, f a residual network at y's size
           and a sub-pixel shuffle: the projection of f(y) on the images that y may come from, so
           that A g(y) = y whatever the weights are. D judges images alone, without y.
Objective  KL(q ‖ p) of what is made, q, and images, p, by one of three modes:
           gan:       D:  -E log D(x + ε) - E log(1 - D(g(y) + ε)), g(y) detached;
                      G:  -E log D/(1 - D)(g(y) + ε), that is minus D's logit, KL(q ‖ p) for the
                      best D; ε ~ N(0, σ_t²), the instance noise, σ_t from σ to 0, linearly.
           denoiser:  r:  E ‖r(x + σ n) - x‖² / dim;
                      G:  E <g(y), (g̃ - r(g̃)) / σ²>, g̃ = g(y) + σ n, the second factor without
                      gradient: -∇ log p_σ(g̃), that of the cross-entropy H[q, p_σ] alone.
           mse:       G:  E ‖g(y) - x‖² / dim, AffMSE; nothing else moves.
           With ``warmup`` the first steps of G are those of mse, and nobody else moves.
Logs       train/kl_est, minus D's mean logit of what is made; val/kl_est, that without noise;
           train/mse while G descends it. val/lr_consistency: the largest |A g(y) - y| of an image
           in [0, 1]; val/sharpness: the mean length of g(y)'s gradients over that of x's.
           Of every model of targets: val/psnr, ssim, l1 and their gains over trivial answers.
Sampling   g(y), without noise. Display rounds to levels and clamps: only before that A g(y) = y.
Notes      A is the mean of s x s pixels, A⁺ repeats a pixel; of any other separable filter
           (``kernel``, of sources that were made by it) A⁺ is the exact pseudo-inverse of either
           axis, where the paper fits a transposed convolution. f has no bound: a tanh would leave
           the plane. Only mode mse and ``warmup`` know which x a y was made of: the others learn
           without a pair. Depth and rates are ours. The paper's third method, a density that is
           fitted to images by likelihood, is left out. Instance noise is on images and on what is
           made alike (``loop.instance_noise`` is refused).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Adversary, LoopOptions, Loss, PairModule, Phase, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, Norm, Positive, Real, Whole
from zoo.nn import small
from zoo.nn.projection import Shrinking, axis
from zoo.registry import Paper, register

# -log D, -log(1 - D), -log D/(1 - D), from logits s.
GAME = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -s)


class Residual(nn.Module):
    """Images, (B, C, h, w) -> (B, C, s h, s w), unbounded: 3x3 convolutions with blocks h +
    conv(relu(conv(h))) between, no norm, and the sub-pixel shuffle.
    """

    def __init__(self, channels: int, width: int, blocks: int, s: int = 1) -> None:
        super().__init__()
        self.begin = nn.Conv2d(channels, width, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1),
            )
            for _ in range(blocks)
        )
        self.end = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, channels * s * s, 3, 1, 1), nn.PixelShuffle(s)
        )

    def forward(self, y: Tensor) -> Tensor:
        h = self.begin(y)
        for block in self.blocks:
            h = h + block(h)
        return self.end(h)


class Affine(nn.Module):
    """g(y) = Π_y f(y)."""

    def __init__(self, f: nn.Module, a: Shrinking) -> None:
        super().__init__()
        self.f, self.a = f, a

    def forward(self, y: Tensor) -> Tensor:
        return self.a.project(self.f(y), y).to(y.dtype)


class Denoiser(nn.Module):
    """r(x̃) = x̃ + a residual network of it."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.net = Residual(channels, width, blocks)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def surrogate(made: Tensor, noisy: Tensor, cleaned: Tensor, sigma: float) -> Tensor:
    """<g, (g̃ - r(g̃)) / σ²>, (B,), whose gradient in g is (g̃ - r(g̃)) / σ²."""
    return (made * ((noisy - cleaned) / sigma**2).detach()).flatten(1).sum(1)


def slope(v: Tensor) -> Tensor:
    """Mean length of the gradient, forward differences of neighbours, (B,)."""
    right, down = v[..., :-1, 1:] - v[..., :-1, :-1], v[..., 1:, :-1] - v[..., :-1, :-1]
    return (right.square() + down.square()).sqrt().flatten(1).mean(1)


def watched(real: Tensor, fake: Tensor) -> Terms:
    """D's mean probabilities, from its logits of images and of made ones."""
    return {"d_real": real.sigmoid().mean(), "d_fake": fake.sigmoid().mean()}


@register(
    "affgan",
    paper=Paper(
        "Sønderby, Caballero, Theis, Shi, Huszár",
        "Amortised MAP inference for image super-resolution",
        2017,
        "1610.04490",
    ),
    about="super-resolution: a projection keeps what the source says, an adversary adds the rest",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "translate"},
    told=("source",),
    data="paired",
    learns=(
        ("val/lr_consistency", "<", 1e-5),
        ("val/psnr_gain", ">", 4.0),
        ("val/class_kept", ">", 0.87),
        ("val/sharpness", ">", 0.85),
        ("val/sharpness", "<", 1.15),
    ),
    waive={"seed_matters": "what becomes of a source is a function of it"},
)
class AffGAN(PairModule):
    """See the module's docstring.

    Args:
        spec: images x and their sources, s times smaller, of as many channels.
        mode: "gan", "denoiser" or "mse". width: filters of f and r, and of D's first layer. blocks:
            residual ones of f and r. norm: of D, "none", "batch" or "layer".
        kernel: of the filter, along either axis, that made the sources; none is the mean of blocks.
        sigma: σ on [-1, 1], of the instance noise at the start, and of the denoiser's. fade: G's
            steps over which instance noise falls to 0. warmup: first steps of G, in mode mse.
        k: steps of D or r per step of G. lr_d: learning rate of D or r. lr_g: of G. beta1: Adam's
            first decay. loop: options of the adversarial loop.
    """

    watches = ("kl_est", "loss_d")
    g: Affine

    def __init__(
        self,
        spec: Spec,
        mode: Literal["gan", "denoiser", "mse"] = "gan",
        width: Count = 32,
        blocks: Whole = 4,
        norm: Norm = "none",
        kernel: Sequence[Real] = (),
        sigma: Positive = 0.2,
        fade: Count = 1500,
        warmup: Whole = 0,
        k: Count = 1,
        lr_d: Positive = 1e-4,
        lr_g: Positive = 1e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        (channels, height, breadth), source = spec["x"].shape, spec["source"].shape
        s = max(height // source[1], 2)
        if (channels, height, breadth) != (source[0], source[1] * s, source[2] * s):
            raise ValueError(
                "affgan: x is its source made larger by a whole number, of as many channels, got "
                f"{spec}; choose such pairs, e.g. --data=paired --data.kind=sr4"
            )
        if mode == "gan" and (height % 4 or breadth % 4 or min(height, breadth) < 8):
            raise ValueError(
                f"affgan: D takes sides that are multiples of 4, at least 8, got {spec}; set "
                "--data.size to one, or model.mode=mse"
            )
        if self.loop.instance_noise:
            raise ValueError(
                "affgan has an instance noise of its own, got loop.instance_noise="
                f"{self.loop.instance_noise}; set model.sigma and model.fade"
            )
        self.loop = dataclasses.replace(self.loop, instance_noise=sigma, instance_noise_steps=fade)
        self.mode, self.sigma, self.warmup, self.k = mode, sigma, warmup, k
        self.lr_d, self.lr_g, self.betas = lr_d, lr_g, (beta1, 0.999)

        self.a = Shrinking(s, tuple(map(float, kernel)))
        for side in (height, breadth) if kernel else ():
            try:
                axis(self.a.kernel, s, side)
            except ValueError as error:
                raise ValueError(f"affgan: {error}") from None
        self.g = Affine(Residual(channels, width, blocks, s), self.a)
        if mode == "gan":
            net = small.discriminator(spec["x"].shape, width, norm=norm)
            self.d = Adversary(self, net, GAME, inputs=[spec["x"].shape], watch=watched)
        elif mode == "denoiser":
            self.d = Denoiser(channels, width, blocks)

    # -- losses -----------------------------------------------------------------------------------
    @property
    def warming(self) -> bool:
        return self.mode == "mse" or (self.step or 0) < self.warmup

    def discriminator_loss(self, batch: Batch) -> Terms:
        s, x = self.pair(batch)
        with torch.no_grad():
            made = self.g(s)
        return self.d.loss((x,), (made,))

    def denoiser_loss(self, batch: Batch) -> Terms:
        x = self.scaled("x", batch["x"])
        noisy = x + self.sigma * self.noise.normal_like(x)
        return {"loss": (self.d(noisy) - x).square().mean()}

    def generator_loss(self, batch: Batch) -> Terms:
        s, x = self.pair(batch)
        made = self.g(s)
        if self.warming:
            mse = (made - x).square().mean()
            return {"loss": mse, "mse": mse}
        if self.mode == "denoiser":
            noisy = (made + self.sigma * self.noise.normal_like(made)).detach()
            return {"loss": surrogate(made, noisy, self.d(noisy), self.sigma).mean()}
        kl = self.d.fool(made)
        return {"loss": kl, "kl_est": kl}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, Any]:
        return {"g": self.g} if self.mode == "mse" else super().players()

    def phases(self) -> list[Phase]:
        reads = ("x", "source")
        judge = {
            "gan": [Phase("d", self.discriminator_loss, reads, self.judge_steps, critic=True)],
            "denoiser": [Phase("d", self.denoiser_loss, ("x",), self.judge_steps, critic=True)],
            "mse": [],
        }
        return [*judge[self.mode], Phase("g", self.generator_loss, reads)]

    def judge_steps(self, step: int) -> int:
        """Steps of D or r before G's step ``step``, counted from 0."""
        return self.k if step >= self.warmup else 0

    # -- use --------------------------------------------------------------------------------------
    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        s, x = self.pair(batch)
        made = self.g(s)
        apart = (self.a.down(made) - s).abs().flatten(1).amax(1) / 2  # range 1
        terms = {"lr_consistency": apart, "sharpness": slope(made) / slope(x).clamp(min=1e-6)}
        return terms | ({"kl_est": -self.d(made)} if self.mode == "gan" else {})
