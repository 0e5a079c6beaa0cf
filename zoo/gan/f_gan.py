"""f-GAN: a generator that descends an f-divergence of one's choice.

Paper      Nowozin, Cseke, Tomioka. f-GAN: Training Generative Neural Samplers using Variational
           Divergence Minimization. NIPS 2016. arXiv:1606.00709.
Model      x = G(z); T(x) = g_f(V(x)), where V is a network with a linear end and g_f an increasing
           map onto the domain of f*.
Objective  F = E_p T(x) - E_q f*(T(x)) ≤ D_f(p‖q) = ∫ q f(p/q), with equality at T* = f'(p/q)
           (equations 4, 6).
           V:  -F, G(z) detached.
           G:  -E_q f*(T(G(z))) (g_loss="minimax"), or -E_q T(G(z)) (g_loss="nonsat", section 3.2).
Divergences  "tv", "kl", "rkl", "pearson", "neyman", "hellinger", "jeffrey", "js", "gan", "alpha":
           the table ``DIVERGENCES``. "kl" is KL(p‖q) of data and samples, "js" is 2 JSD and "gan"
           2 JSD - log 4: Goodfellow et al.'s game.
Training   Algorithm 1, the single-step method: both gradients from the same weights and the same
           samples, then both steps. So G plays first, and V learns from the samples that G made
           before it moved. ``simultaneous=False``: k steps of V, then one of G; with "js" or "gan"
           that is Goodfellow et al.'s training, step for step, so that the paper's own method is
           the default.
Logs       train/div_lb and val/div_lb = F, a lower bound of D_f(p‖q) in nats; train/d_acc_real,
           train/d_acc_fake: a row is taken for real where T > f'(1). train/clamped: see the notes;
           for maps with an exponential only.
Sampling   z from the prior, G(z), quantised.
Notes      E_q f*(T) is computed from V's output, never from T. Where g_f or f* is exponential V's
           output is clamped to ±30 (for "alpha" to ±30/max(1, |α|, |α - 1|), within single
           precision). Printings of the paper differ in the sign of v in some g_f; here every g_f
           increases, so that T grows with p/q. The map for "alpha" is ours, g_f(v) = f'(e^v). The
           default networks are MLPs for vectors and small convolutional nets for images.
           ``arch="paper"`` is the MNIST model of section 4 in [0, 1] (weights U(-0.05, 0.05), a
           reading of "weight scale"); ``arch="line"`` is the experiment of section 2.4, G(z) = μ +
           σz against a tanh network, with toy2d's kind=mixture1d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Positive, Prior, Real
from zoo.nn import small
from zoo.nn.prior import Draw
from zoo.registry import Paper, register

LARGEST = 30.0  # of |V(x)|, and of the exponents made of it, under an exponential map


@dataclass(frozen=True)
class Divergence:
    """One row of the paper's tables: a convex f and what goes with it, elementwise.

    Attributes:
        f: of u = p/q. conjugate: f*(t). g: g_f(v), onto the domain of f*. composite: f*(g_f(v)) in
            a stable form. threshold: f'(1).
        exponential: whether g or the composite holds an exponential of v. largest: |v| within which
            they then are finite.
    """

    f: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    g: Callable[[Tensor], Tensor]
    composite: Callable[[Tensor], Tensor]
    threshold: float
    exponential: bool = False
    largest: float = LARGEST


def omega(y: Tensor) -> Tensor:
    """The w with w + log w = y (Lambert's W of e^y), by Newton's method on log w; differentiable
    once.
    """
    with torch.no_grad():
        # above the root, whence the steps fall monotonically
        a = torch.where(y > 1, y.clamp(min=1).log(), y)
        for _ in range(8):
            a = a - (a.exp() + a - y) / (a.exp() + 1)
    # one more step, which carries the derivative w/(1 + w)
    return (a - (a.exp() + a - y) / (a.exp() + 1)).exp()


def jeffrey_conjugate(t: Tensor) -> Tensor:
    """f*(t) = w + 1/w + t - 2 with w + log w = 1 - t."""
    w = omega(1 - t)
    return w + 1 / w + t - 2


def alpha_divergence(alpha: float) -> Divergence:
    """f(u) = (u^α - 1 - α(u - 1))/(α(α - 1)); the limits α → 1 and α → 0 are "kl" and "rkl"."""
    if alpha in (0.0, 1.0):
        raise ValueError(
            f"f_gan: alpha is neither 0 nor 1, got {alpha:g}; those are the divergences rkl and kl"
        )
    return Divergence(
        f=lambda u: (u**alpha - 1 - alpha * (u - 1)) / (alpha * (alpha - 1)),
        conjugate=lambda t: ((t * (alpha - 1) + 1) ** (alpha / (alpha - 1)) - 1) / alpha,
        g=lambda v: torch.expm1((alpha - 1) * v) / (alpha - 1),
        composite=lambda v: torch.expm1(alpha * v) / alpha,
        threshold=0.0,
        exponential=True,
        largest=LARGEST / max(1.0, abs(alpha), abs(alpha - 1)),
    )


LOG2 = math.log(2.0)
Name = Literal["tv", "kl", "rkl", "pearson", "neyman", "hellinger", "jeffrey", "js", "gan", "alpha"]
DIVERGENCES: dict[str, Divergence] = {  # f, f*, g_f, f*(g_f(v)), f'(1)
    "tv": Divergence(
        lambda u: (u - 1).abs() / 2,
        lambda t: t,
        lambda v: v.tanh() / 2,
        lambda v: v.tanh() / 2,
        0.0,
    ),
    "kl": Divergence(
        lambda u: u * u.log(),
        lambda t: (t - 1).exp(),
        lambda v: v,
        lambda v: (v - 1).exp(),
        1.0,
        True,
    ),
    "rkl": Divergence(
        lambda u: -u.log(),
        lambda t: -1 - (-t).log(),
        lambda v: -(-v).exp(),
        lambda v: v - 1,
        -1.0,
        True,
    ),
    "pearson": Divergence(
        lambda u: (u - 1) ** 2, lambda t: t**2 / 4 + t, lambda v: v, lambda v: v**2 / 4 + v, 0.0
    ),
    "neyman": Divergence(
        lambda u: (1 - u) ** 2 / u,
        lambda t: 2 - 2 * (1 - t).sqrt(),
        lambda v: -torch.expm1(-v),
        lambda v: -2 * torch.expm1(-v / 2),
        0.0,
        True,
    ),
    "hellinger": Divergence(
        lambda u: (u.sqrt() - 1) ** 2,
        lambda t: t / (1 - t),
        lambda v: -torch.expm1(-v),
        torch.expm1,
        0.0,
        True,
    ),
    "jeffrey": Divergence(
        lambda u: (u - 1) * u.log(), jeffrey_conjugate, lambda v: v, jeffrey_conjugate, 0.0, True
    ),
    "js": Divergence(
        lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
        lambda t: -(2 - t.exp()).log(),
        lambda v: LOG2 - F.softplus(-v),
        lambda v: F.softplus(v) - LOG2,
        0.0,
    ),
    "gan": Divergence(
        lambda u: u * u.log() - (u + 1) * (u + 1).log(),
        lambda t: -(-torch.expm1(t)).log(),
        lambda v: -F.softplus(-v),
        F.softplus,
        -LOG2,
    ),
}


class SigmoidGenerator(nn.Module):
    """z -> batch norm, ReLU -> batch norm, ReLU -> sigmoid, (B, *shape) in (0, 1)."""

    def __init__(self, latent: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        widths = [latent, width, width]
        hidden = [
            m
            for a, b in zip(widths, widths[1:], strict=False)
            for m in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())
        ]
        self.net = nn.Sequential(
            *hidden,
            nn.Linear(width, torch.Size(shape).numel()),
            nn.Sigmoid(),
            nn.Unflatten(1, shape),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


class LinearGenerator(nn.Module):
    """G(z) = μ + σz, (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.sigma = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        return self.mu + self.sigma * z


class Variational(nn.Module):
    """V: two hidden layers with this activation and a linear end, (B,)."""

    def __init__(self, dim: int, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(dim, width), activation(), nn.Linear(width, width), activation()
        )
        self.end = nn.Linear(width, 1)

    def features(self, x: Tensor) -> Tensor:
        """(B, width)."""
        return self.hidden(x)

    def forward(self, x: Tensor) -> Tensor:
        return small.logits(self.end(self.hidden(x)))


@register(
    "f_gan",
    paper=Paper(
        "Nowozin, Cseke, Tomioka",
        "f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization",
        2016,
        "1606.00709",
    ),
    about="a discriminator bounds an f-divergence of one's choice from below, and the generator "
    "descends the bound",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 6.5), ("val/hq", ">", 0.6), ("val/div_lb", "<", 0.3)),
    waive={
        "fresh_data_and_noise": "in the single-step method V learns from the samples of G's turn"
    },
)
class FGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (with "small": height and width multiples of 4, at least 8).
        divergence: a name of the module's docstring. alpha: α of the divergence "alpha", not 0 or
            1.
        arch: "small", "paper" (images), or "line" (data on the line).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128; 64 of "line") and of G in "paper" (1200; V has
            a fifth of it); filters of "small" on images (32).
        prior: "normal", "uniform" or "sphere". g_loss: "nonsat" or "minimax".
        simultaneous: both players step from the same weights and samples; else in turn.
        k: steps of V per generator step, 1 where they are simultaneous. lr_d: learning rate of V.
            lr_g: of G. beta1: Adam's first decay.
        loop: options of the adversarial loop.
    """

    watches = ("div_lb",)

    def __init__(
        self,
        spec: Spec,
        divergence: Name = "js",
        alpha: Real = 1.5,
        arch: Literal["small", "paper", "line"] = "small",
        latent: Count | None = None,
        width: Count | None = None,
        prior: Prior = "normal",
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        simultaneous: bool = True,
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if simultaneous and k > 1:
            raise ValueError(
                f"f_gan: simultaneous steps leave one to each player, got k={k}; set k=1, or "
                "simultaneous=false"
            )
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, 0.999),
            unit=arch == "paper",
        )
        named = alpha_divergence(alpha) if divergence == "alpha" else DIVERGENCES[divergence]
        self.divergence, self.g_loss, self.simultaneous = named, g_loss, simultaneous
        v: nn.Module
        if arch == "small":
            self.g = small.generator(self.latent, spec.shape, width)
            v = small.discriminator(spec.shape, width)
        elif arch == "paper":
            spec.require("f_gan with arch=paper", x=Image)
            width = width or 1200
            g = SigmoidGenerator(self.latent, spec.shape, width)
            v = Variational(spec.dim, width // 5, nn.ELU)
            self.g, v = (small.uniform(net, 0.05) for net in (g, v))
        else:
            if spec.shape != (1,) or self.latent != 1:
                raise ValueError(
                    "f_gan with arch=line models points of the line with one latent, got "
                    f"{spec} and latent={self.latent}; set --data.kind=mixture1d and "
                    "--model.latent=1"
                )
            self.g, v = LinearGenerator(), Variational(1, width or 64, nn.Tanh)
        bound = Loss(real=self.price_real, fake=self.price_fake, maker=self.price_maker)
        self.d = Adversary(self, v, bound, watch=self.watched)

    # -- losses -----------------------------------------------------------------------------------
    def bounded(self, v: Tensor) -> Tensor:
        """V's output where its exponentials are finite."""
        if not self.divergence.exponential:
            return v
        return v.clamp(-self.divergence.largest, self.divergence.largest)

    def price_real(self, s: Tensor) -> Tensor:
        """-T."""
        return -self.divergence.g(self.bounded(s))

    def price_fake(self, s: Tensor) -> Tensor:
        """f*(T)."""
        return self.divergence.composite(self.bounded(s))

    def price_maker(self, s: Tensor) -> Tensor:
        """-T of a made row, or -f*(T)."""
        return self.price_real(s) if self.g_loss == "nonsat" else -self.price_fake(s)

    def watched(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        g, middle = self.divergence.g, self.divergence.threshold
        terms = {
            "div_lb": -self.price_real(real).mean() - self.price_fake(fake).mean(),
            "d_acc_real": (g(self.bounded(real)) > middle).float().mean(),
            "d_acc_fake": (g(self.bounded(fake)) <= middle).float().mean(),
        }
        if self.divergence.exponential:
            beyond = torch.cat([real, fake]).abs() > self.divergence.largest
            terms["clamped"] = beyond.float().mean()
        return terms

    def discriminator_loss(self, batch: Batch) -> Terms:
        """-F, of new samples, or of those of G's turn."""
        fake = batch["fake"] if self.simultaneous else self.g(self.codes(batch.n))
        return self.d.loss((self.scaled(batch["x"]),), (fake,))

    def generator_loss(self, batch: Batch) -> Terms:
        fake = self.g(self.codes(batch.n))
        terms = {"loss": self.d.fool(fake)}
        return terms | {"fake": fake} if self.simultaneous else terms

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """div_lb: the bound's two terms of each held-out example and one sample, (B,)."""
        fake = self.g(self.draw_codes(batch.n, Draw(generator, self.device, self.float_dtype)))
        s, t = self.d(self.scaled(batch["x"])), self.d(fake)
        return {"div_lb": -self.price_real(s) - self.price_fake(t)}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        v_loss, g_loss = self.discriminator_loss, self.generator_loss
        if self.simultaneous:  # V learns from the samples that G made before it moved
            return [
                Phase("g", g_loss, reads=(), makes=("fake",)),
                Phase("d", v_loss, ("x", "fake"), critic=True),
            ]
        return [Phase("d", v_loss, repeat=self.k, critic=True), Phase("g", g_loss, reads=())]
