"""b-GAN: a generator that follows an estimate of the density ratio.

Paper      Uehara, Sato, Suzuki, Nakayama, Matsuo. Generative Adversarial Nets from a Density Ratio
           Estimation Perspective ("b-GAN: Unified Framework of Generative Adversarial Networks").
           2016. arXiv:1610.02920.
Model      x = G(z); R gives r(x) > 0, an estimate of p(x)/q(x), from the real number s at its
           network's end.
Objective  R:  E_q[f'(r) r - f(r)] - E_p f'(r), G(z) detached:
               the Bregman divergence of r from p/q but for -D_f(p‖q), which is the least value, at
               r = p/q.
           G:  E_q f_G(r(G(z))) (g_loss="f"), whose slope f_G'(r) draws samples to r = 1 from both
               sides for pearson, to r = 1/e for kl, and always upwards for gan; or
               the variational E_q[f_G(r) - f_G'(r) r] (g_loss="dual"), always upwards for all.
               r's weights fixed, gradient through x.
           f          f(r)                           R's loss
           pearson    ½ (r - 1)²                     ½ E_q r² - E_p r + ½
           kl         r log r                        E_q r - E_p log r - 1
           gan        r log r - (1 + r) log(1 + r)   E_q log(1 + r) + E_p log(1 + 1/r)
           These are uLSIF (pearson), KLIEP (kl) and logistic regression (gan).
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
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, Dropped, Norm, Positive, Prior, Range
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

    watches = ("div_lb",)

    def __init__(
        self,
        spec: Spec,
        f: Literal["pearson", "kl", "gan"] = "gan",
        f_g: Literal["pearson", "kl", "gan"] | None = None,
        g_loss: Literal["f", "dual"] = "f",
        alpha: Dropped = 0.0,
        r_max: Annotated[float, Range(1, above=True)] | None = None,
        latent: Count | None = None,
        width: Count | None = None,
        kernel: Literal[4, 5] = 4,
        norm: Norm = "none",
        prior: Prior = "normal",
        k: Count = 2,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, 0.999),
        )
        self.f, self.alpha, self.r_max, self.g_loss = f, alpha, r_max, g_loss
        self.of_r, self.of_g = FUNCTIONS[f], FUNCTIONS[f_g or f]
        self.g = small.generator(self.latent, spec.shape, width, kernel)
        bregman = Loss(real=self.price_real, fake=self.price_fake, maker=self.price_maker)
        r = small.discriminator(spec.shape, width, kernel, norm)
        self.d = Adversary(self, r, bregman, watch=self.watched)

    # -- losses -----------------------------------------------------------------------------------
    def positive(self, s: Tensor) -> Tensor:
        return positive(s, self.f, self.alpha)

    def price_real(self, s: Tensor) -> Tensor:
        """α (f'(r) r - f(r)) - f'(r)."""
        r = self.positive(s)
        return self.alpha * self.of_r.rest(r) - self.of_r.slope(r)

    def price_fake(self, s: Tensor) -> Tensor:
        """(1 - α) (f'(r) r - f(r))."""
        return (1 - self.alpha) * self.of_r.rest(self.positive(s))

    def price_maker(self, s: Tensor) -> Tensor:
        """f_G(r), or its dual f_G(r) - f_G'(r) r."""
        r = self.positive(s)
        if self.r_max is not None:
            r = r.clamp(max=self.r_max)
        return self.of_g.f(r) if self.g_loss == "f" else -self.of_g.rest(r)

    def mixed(self, real: Tensor, fake: Tensor) -> Tensor:
        """What has these values under p and q, under α p + (1 - α) q."""
        return self.alpha * real + (1 - self.alpha) * fake

    def watched(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        on_real, on_fake = self.positive(real), self.positive(fake)
        return {
            "div_lb": -self.price_real(real).mean() - self.price_fake(fake).mean(),
            "div": self.mixed(self.of_r.f(on_real).mean(), self.of_r.f(on_fake).mean()),
            "ratio_mean": self.mixed(on_real.mean(), on_fake.mean()),
            "d_acc_real": (on_real > 1).float().mean(),
            "d_acc_fake": (on_fake < 1).float().mean(),
        }

    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.scaled(batch["x"]),), (self.g(self.codes(batch.n)),))

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """div_lb: the bound's two terms of each held-out example and one sample; ratio_mean: r of
        the two, weighed; both (B,).
        """
        z = self.draw_codes(batch.n, Draw(generator, self.device, self.float_dtype))
        real, fake = self.d(self.scaled(batch["x"])), self.d(self.g(z))
        return {
            "div_lb": -self.price_real(real) - self.price_fake(fake),
            "ratio_mean": self.mixed(self.positive(real), self.positive(fake)),
        }

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def ratio(self, x: Tensor) -> Tensor:
        """r of examples in the units of ``spec``, (B,): about p/q, or p/(α p + (1 - α) q)."""
        return self.positive(self.d(self.scaled(x)))
