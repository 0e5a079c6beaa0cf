"""b-GAN: a generator that follows an estimate of the density ratio.

Paper      Uehara, Sato, Suzuki, Nakayama, Matsuo. Generative Adversarial Nets from a Density Ratio
           Estimation Perspective ("b-GAN: Unified Framework of Generative Adversarial Networks").
           2016. arXiv:1610.02920.
Model      x = G(z); R gives r(x) > 0, an estimate of p(x)/q(x), from the real number s at its
           network's end.
Objective  R:  E_q[f'(r) r - f(r)] - E_p f'(r), G(z) detached: the Bregman divergence of r from p/q
           but for -D_f(p‖q), which is the least
               value, at r = p/q.
           G:  E_q f_G(r(G(z))) (g_loss="f"), whose slope f_G'(r) draws samples to r = 1 from both
           sides for pearson, to r = 1/e for kl,
               and always upwards for gan; or the variational E_q[f_G(r) - f_G'(r) r]
               (g_loss="dual"), always upwards for all. r's weights fixed, gradient through x.
           f          f(r)                           R's loss
           pearson    ½ (r - 1)²                     ½ E_q r² - E_p r + ½
                      (uLSIF)
           kl         r log r                        E_q r - E_p log r - 1
                      (KLIEP)
           gan        r log r - (1 + r) log(1 + r)   E_q log(1 + r) + E_p log(1 + 1/r)
                      (logistic regression)
Relative   α > 0: r estimates p/(α p + (1 - α) q) ≤ 1/α, R's loss with α p + (1 - α) q in place of
           q.
Logs       With m = q, or α p + (1 - α) q: train/ratio_mean and val/ratio_mean = E_m r (1 for the
           true ratio); train/div = E_m f(r); train/div_lb and val/div_lb = minus R's loss, a lower
           bound of D_f(p‖m); train/d_acc_real, train/d_acc_fake: share of rows on the right side of
           r = 1.
Ratio      ``ratio(x)`` = r(x).
Sampling   z from the prior, G(z), quantised.
Notes      r = softplus(s) + 1e-6 for pearson, exp(s) with s clamped to ±10 for the others, σ(s)/α
           with s at least -30 for a relative ratio. ``r_max`` caps r in G's loss. With g_loss="f"
           the slope in s vanishes as r does: where R is sure, samples stay. On the ring "gan"
           trains all the same; pearson, plain or relative, needs "dual". The default networks are
           MLPs for vectors and small convolutional nets for images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core import DataSpec, GeneratorModule, LoopOptions
from zoo.core.module import Batch
from zoo.nn import small
from zoo.nn.prior import Draw
from zoo.registry import Paper, register

LARGEST = 10.0  # of |log r| where r is an exponential
LEAST = -30.0  # of s for a relative ratio, whose logarithm must be finite


@dataclass(frozen=True)
class Bregman:
    """A convex f of the ratio r, elementwise. slope: f'(r). rest: f'(r) r - f(r), the value of f's
    conjugate at the slope.
    """

    f: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    rest: Callable[[Tensor], Tensor]


FUNCTIONS: dict[str, Bregman] = {
    "pearson": Bregman(lambda r: (r - 1) ** 2 / 2, lambda r: r - 1, lambda r: (r**2 - 1) / 2),
    "kl": Bregman(lambda r: r * r.log(), lambda r: r.log() + 1, lambda r: r),
    "gan": Bregman(
        lambda r: -r * torch.log1p(1 / r) - torch.log1p(r),
        lambda r: -torch.log1p(1 / r),
        torch.log1p,
    ),
}


def positive(s: Tensor, f: str, alpha: float = 0.0) -> Tensor:
    """r > 0 from a network's output; at most 1/α for a relative ratio."""
    if alpha:
        return s.clamp(min=LEAST).sigmoid() / alpha
    return F.softplus(s) + 1e-6 if f == "pearson" else s.clamp(-LARGEST, LARGEST).exp()


@register(
    "b_gan",
    paper=Paper(
        "Uehara, Sato, Suzuki, Nakayama, Matsuo",
        "Generative Adversarial Nets from a Density Ratio Estimation Perspective",
        2016,
        "1610.02920",
    ),
    about="the discriminator fits the density ratio by Bregman matching, and the generator draws "
    "its samples to ratio one",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 6.5), ("val/hq", ">", 0.55)),
)
class BGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        f: "pearson", "kl" or "gan", of R's loss. f_g: of G's; None is the same. g_loss: "f" or
            "dual".
        alpha: α of the relative ratio, in [0, 1). r_max: cap of r in G's loss, or None.
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32). kernel: of the
            convolutions, 4 or 5.
        norm: of R, "none", "batch" or "layer". prior: "normal", "uniform" or "sphere".
        k: steps of R per generator step. lr_d: learning rate of R. lr_g: of G. beta1: Adam's first
            decay.
        loop: options of the adversarial loop.
    """

    g_losses = ("f", "dual")

    def __init__(
        self,
        spec: DataSpec,
        f: str = "gan",
        f_g: str | None = None,
        g_loss: str = "f",
        alpha: float = 0.0,
        r_max: float | None = None,
        latent: int | None = None,
        width: int | None = None,
        kernel: int = 4,
        norm: str = "none",
        prior: str = "normal",
        k: int = 2,
        lr_d: float = 5e-4,
        lr_g: float = 5e-4,
        beta1: float = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        for name, value in (("f", f), ("f_g", f_g or f)):
            if value not in FUNCTIONS:
                raise ValueError(f"b_gan: {name} is one of {', '.join(FUNCTIONS)}, got {value!r}")
        if not 0 <= alpha < 1:
            raise ValueError(f"b_gan: alpha is in [0, 1), got {alpha}; 0 is the plain ratio")
        if r_max is not None and not r_max > 1:
            raise ValueError(
                f"b_gan: r_max caps r above 1, where samples are drawn to, got {r_max}; null is "
                f"no cap"
            )
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            g_loss=g_loss,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, 0.999),
        )
        self.f, self.alpha, self.r_max = f, alpha, r_max
        self.of_r, self.of_g = FUNCTIONS[f], FUNCTIONS[f_g or f]
        generator = small.generator(self.latent, spec.shape, width, kernel)
        self.build(generator, small.discriminator(spec.shape, width, kernel, norm))

    # -- losses -----------------------------------------------------------------------------------
    def positive(self, s: Tensor) -> Tensor:
        return positive(s, self.f, self.alpha)

    def price_real(self, s: Tensor) -> Tensor:
        r = self.positive(s)
        return self.alpha * self.of_r.rest(r) - self.of_r.slope(r)

    def price_fake(self, s: Tensor) -> Tensor:
        return (1 - self.alpha) * self.of_r.rest(self.positive(s))

    def price_generator(self, s: Tensor) -> Tensor:
        r = self.positive(s)
        if self.r_max is not None:
            r = r.clamp(max=self.r_max)
        return self.of_g.f(r) if self.g_loss == "f" else -self.of_g.rest(r)

    def mixed(self, real: Tensor, fake: Tensor) -> Tensor:
        """What has these values under p and q, under α p + (1 - α) q."""
        return self.alpha * real + (1 - self.alpha) * fake

    def watch(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        on_real, on_fake = self.positive(real), self.positive(fake)
        return {
            "div_lb": -self.price_real(real).mean() - self.price_fake(fake).mean(),
            "div": self.mixed(self.of_r.f(on_real).mean(), self.of_r.f(on_fake).mean()),
            "ratio_mean": self.mixed(on_real.mean(), on_fake.mean()),
            "d_acc_real": (on_real > 1).float().mean(),
            "d_acc_fake": (on_fake < 1).float().mean(),
        }

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """div_lb: the bound's two terms of each held-out example and one sample; ratio_mean: r of
        the two, weighed; both (B,).
        """
        x = self.d_input(batch["x"])
        real, fake = (
            self.judge(x),
            self.judge(
                self.make(self.draw_codes(len(x), Draw(generator, self.device, self.float_dtype)))
            ),
        )
        return {
            "div_lb": -self.price_real(real) - self.price_fake(fake),
            "ratio_mean": self.mixed(self.positive(real), self.positive(fake)),
        }

    # -- use --------------------------------------------------------------------------------------
    def ratio(self, x: Tensor) -> Tensor:
        """r of examples in the units of ``spec``, (B,): about p/q, or p/(α p + (1 - α) q)."""
        return self.positive(self.judge(self.d_input(x)))
