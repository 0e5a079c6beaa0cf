"""GAN: the original generative adversarial net.

Paper      Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio. Generative
           Adversarial Nets. NIPS 2014. arXiv:1406.2661.
Model      x = G(z); D(v) = σ(s(v)) is the probability that v is real. All losses are computed from
           the logit s.
Objective  D:  -E log D(x) - E log(1 - D(G(z_D))), G(z_D) detached: ascent of the value function V,
           equation 1.
           G:  -E log D(G(z_G)) (g_loss="nonsat", what the authors train, section 3), or
               E log(1 - D(G(z_G))) (g_loss="minimax").
           For fixed G the optimum is D* = p/(p + q), where V = -log 4 + 2 JSD(p‖q) (theorem 1).
Training   Algorithm 1: k steps of D, each with fresh data and fresh noise, then one of G.
Logs       train/jsd_bound = (log 4 - loss_d)/2, a lower bound of JSD(p‖q) in nats, whatever D is;
           train/d_acc_real, train/d_acc_fake.
Sampling   z from the prior, G(z), quantised.
Notes      The default is Adam on MLPs for vectors, and on small convolutional nets for images.
           ``arch="maxout"`` is the paper's MNIST model as the authors' code has it: ReLU generator
           with sigmoid end in [0, 1], whose last bias starts at the log-odds of the mean pixels;
           maxout discriminator with dropout (input kept with 0.8, hidden layers with 0.5).
           ``optimiser="sgd"`` is its training: the rate divided by ``lr_decay`` after every step,
           momentum rising linearly. The paper leaves the prior open; here it is N(0, I), or
           ``prior="uniform"``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, Positive, Prior, Range
from zoo.nn import small
from zoo.nn.adversarial_losses import divergence
from zoo.nn.maxout import Maxout
from zoo.nn.schedules import goodfellow
from zoo.registry import Paper, register

# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)) or log(1 - D(G(z))), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}
PIECES = 5  # linear maps of one maxout unit


class SigmoidGenerator(nn.Module):
    """z -> ReLU -> ReLU -> sigmoid, (B, *shape) in (0, 1); weights U(-0.05, 0.05)."""

    def __init__(self, latent: int, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.pixels = nn.Linear(width, torch.Size(shape).numel())
        self.shape = shape
        small.uniform(self, 0.05)

    def forward(self, z: Tensor) -> Tensor:
        return self.pixels(self.hidden(z)).sigmoid().unflatten(1, self.shape)


class MaxoutDiscriminator(nn.Module):
    """Two maxout layers and a logit, (B,), with dropout before each; weights U(-0.005, 0.005)."""

    def __init__(self, dim: int, units: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.2), Maxout(dim, units), nn.Dropout(0.5), Maxout(units, units)
        )
        self.end = nn.Sequential(nn.Dropout(0.5), nn.Linear(units, 1))
        small.uniform(self, 0.005)

    def features(self, x: Tensor) -> Tensor:
        """(B, units)."""
        return self.hidden(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.hidden(x)).squeeze(1)


@register(
    "gan",
    paper=Paper(
        "Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio",
        "Generative Adversarial Nets",
        2014,
        "1406.2661",
    ),
    about="the original game: a discriminator tells data from samples, a generator makes it err",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 6.5), ("val/hq", ">", 0.6)),
)
class GAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (with "small": height and width multiples of 4, at least 8).
        arch: "small", or "maxout" for the paper's network (images).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128) and of G in maxout (256; D has a fifth of it,
            of 5 pieces each); filters of "small" on images (32).
        prior: "normal", "uniform" or "sphere". g_loss: "nonsat" or "minimax". k: discriminator
            steps per generator step.
        optimiser: "adam", or "sgd" for the paper's training.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay, or SGD's momentum at the
            start.
        lr_decay: what SGD's rates are divided by after each step. momentum_end: SGD's momentum
            after ``momentum_steps`` generator steps.
        loop: options of the adversarial loop.
    """

    watches = ("jsd_bound",)

    def __init__(
        self,
        spec: Spec,
        arch: Literal["small", "maxout"] = "small",
        latent: Count | None = None,
        width: Count | None = None,
        prior: Prior = "normal",
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        k: Count = 1,
        optimiser: Literal["adam", "sgd"] = "adam",
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        lr_decay: Annotated[float, Range(1)] = 1.000004,
        momentum_end: Decay = 0.7,
        momentum_steps: Count = 125_000,
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
            unit=arch == "maxout",
        )
        self.optimiser, self.lr_decay = optimiser, lr_decay
        self.momentum_end, self.momentum_steps = momentum_end, momentum_steps
        if arch == "small":
            self.g = small.generator(self.latent, spec.shape, width)
            d = small.discriminator(spec.shape, width)
        else:
            spec.require("gan with arch=maxout", x=Image)
            width = width or 256
            self.g = SigmoidGenerator(self.latent, spec.shape, width)
            d = MaxoutDiscriminator(spec.dim, width // PIECES)
        self.d = Adversary(self, d, LOSSES[g_loss], watch=divergence)

    def initialise_from(self, batch: Batch) -> None:
        """The sigmoid generator starts at the mean image."""
        if isinstance(self.g, SigmoidGenerator):
            mean = self.spec.to_unit(batch["x"]).mean(0).flatten().clamp(1e-7, 1 - 1e-7)
            self.g.pixels.bias.copy_(torch.logit(mean))

    # -- losses -----------------------------------------------------------------------------------
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

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        if self.optimiser == "adam":
            return super().optimisers()
        return self.one_each(torch.optim.SGD, momentum=self.betas[0])

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if self.optimiser == "adam":
            return {}
        momenta = (self.betas[0], self.momentum_end)
        return goodfellow(optimisers, self.lr_decay, momenta, self.momentum_steps, self.steps_of)
