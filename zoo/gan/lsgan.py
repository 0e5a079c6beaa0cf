"""LSGAN: least squares GAN.

Paper      Mao, Li, Xie, Lau, Wang, Smolley. Least Squares Generative Adversarial Networks. ICCV
           2017. arXiv:1611.04076.
Model      x = G(z); D gives a real number s, the end of a linear layer, regressed on the codes a
           (generated) and b (real).
Objective  Equation 2:
           D:  ½ E (s(x) - b)² + ½ E (s(G(z_D)) - a)², G(z_D) detached.
           G:  ½ E (s(G(z_G)) - c)².
           For fixed G the optimum is s* = (b p + a q)/(p + q).
           Where b - c = 1 and b - a = 2, G then descends the Pearson χ² divergence of p + q from
           2q (theorem 1):
               2 L_G + E_p (s* - c)² = ∫ (2q - (p + q))²/(p + q).
Logs       train/d_acc_real, train/d_acc_fake: share of outputs on the right side of (a + b)/2. With
           the Pearson codes also train/chi2, the estimate E (s(x) - c)² + E (s(G(z)) - c)² of that
           divergence, between 0 and 2 at the optimum.
Sampling   z from the prior, G(z), quantised.
Notes      The default codes a, b, c = 0, 1, 1 are the paper's second choice and not Pearson's; (-1,
           1, 0) are. The default networks are MLPs for vectors and small convolutional nets for
           images; ``arch="paper"`` is the 112x112 network of figure 2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Positive, Prior, Real
from zoo.nn import small
from zoo.nn.adversarial_losses import accuracy
from zoo.registry import Paper, register


class Generator(nn.Module):
    """Figure 2(a): linear to (256, H/16, W/16), then 5x5 transposed convolutions of stride 2, 1, 2,
    1, 2, 2, 1; tanh end.

    Batch norm and ReLU after every layer but the last.
    """

    def __init__(self, latent: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        base = (width, height // 16, breadth // 16)
        layers = [
            nn.Linear(latent, torch.Size(base).numel(), bias=False),
            nn.Unflatten(1, base),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        before = width
        for filters, stride in (
            (width, 2),
            (width, 1),
            (width, 2),
            (width, 1),
            (width, 2),
            (width // 2, 2),
        ):
            layers += [
                nn.ConvTranspose2d(before, filters, 5, stride, 2, stride - 1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
            before = filters
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(before, channels, 5, 1, 2), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


def squared_error(s: Tensor, code: float) -> Tensor:
    """½ (s - code)², one value for each output."""
    return (s - code).square() / 2


@register(
    "lsgan",
    paper=Paper(
        "Mao, Li, Xie, Lau, Wang, Smolley",
        "Least Squares Generative Adversarial Networks",
        2017,
        "1611.04076",
    ),
    about="the discriminator regresses on codes by least squares, so far-away samples are pulled "
    "back even where it is sure",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 6.5), ("val/hq", ">", 0.6)),
)
class LSGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8; of 16 with
            arch="paper").
        arch: "small", or "paper" (images).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128); filters of "small" on images (32); G's first
            filters of "paper" (256; D begins with a quarter of it).
        prior: "normal", "uniform" or "sphere".
        a: D's code of generated data. b: D's code of real data. c: the code that G wants.
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G. beta1:
            Adam's first decay.
        loop: options of the adversarial loop.
    """

    watches = ("d_acc_real", "d_acc_fake")

    def __init__(
        self,
        spec: Spec,
        arch: Literal["small", "paper"] = "small",
        latent: Count | None = None,
        width: Count | None = None,
        prior: Prior = "normal",
        a: Real = 0.0,
        b: Real = 1.0,
        c: Real = 1.0,
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if a == b:
            raise ValueError(f"lsgan: the codes a and b differ, got {a} twice; set b above a")
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
        self.a, self.b, self.c = a, b, c
        if arch == "small":
            self.g = small.generator(self.latent, spec.shape, width)
            d = small.discriminator(spec.shape, width)
        else:
            spec.require("lsgan with arch=paper", x=Image)
            if spec.shape[1] % 16 or spec.shape[2] % 16:
                raise ValueError(
                    f"lsgan's paper network takes images of multiples of 16 pixels, got {spec}; "
                    "resize them (--data.size=112)"
                )
            width = width or 256
            self.g = Generator(self.latent, spec.shape, width)
            d = small.ConvDiscriminator(spec.shape, width // 4, kernel=5, norm="batch")
        least_squares = Loss(
            real=lambda s: squared_error(s, b),
            fake=lambda s: squared_error(s, a),
            maker=lambda s: squared_error(s, c),
        )
        self.d = Adversary(self, d, least_squares, watch=self.watched)

    @property
    def is_pearson(self) -> bool:
        return self.b - self.c == 1 and self.b - self.a == 2

    # -- losses -----------------------------------------------------------------------------------
    def watched(self, real: Tensor, fake: Tensor) -> Terms:
        middle, sign = (self.a + self.b) / 2, 1 if self.b > self.a else -1
        terms = accuracy(sign * (real - middle), sign * (fake - middle))
        if self.is_pearson:
            chi2 = (real - self.c).square().mean() + (fake - self.c).square().mean()
            terms["chi2"] = chi2
        return terms

    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.scaled(batch["x"]),), (self.g(self.codes(batch.n)),))

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]
