"""Geometric GAN: the discriminator is a support vector machine on learnt features.

Paper      Lim, Ye. Geometric GAN. 2017. arXiv:1705.02894.
Model      x = G(z); s(x) = ⟨w, Φ(x)⟩ + b, with the features Φ of a network and one separating
           hyperplane (w, b).
Objective  D:  E [1 - s(x)]₊ + E [1 + s(G(z_D))]₊ + ‖w‖²/(2C), G(z_D) detached:
               the soft-margin machine's primal; only w, the hyperplane's normal, is decayed, and
               every weight of Φ learns from the support vectors, the rows within the margin, alone.
           G:  -E s(G(z_G)) (g_loss="linear"): features of samples move along w, all by the same
               amount; or
               the hinge of the flipped label, [1 - s]₊ with slope ``leak`` beyond the margin
               (g_loss="leaky").
           For fixed G and free s the least value, 2 - ∫ |p - q|, is taken at s* = sign(p - q).
Logs       train/sv_frac_real, train/sv_frac_fake: share of support vectors, s(x) < 1 and s(G(z)) >
           -1; train/margin = 2/‖w‖; train/d_acc_real, train/d_acc_fake.
Sampling   z from the prior, G(z), quantised.
Notes      The default networks are MLPs for vectors and small convolutional nets for images, whose
           last layer is the hyperplane, and Adam without momentum. The paper trains DCGAN's
           networks by RMSProp (optimiser="rmsprop", init="dcgan"). Its code decays w by 1/(BC')
           with C' = 1 for B = 64 rows, which is our C = 64. G takes one step a cycle, only ``k`` is
           an option; the authors' scripts for images give it ten.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, Norm, Positive, Prior, Share
from zoo.nn import small
from zoo.nn.adversarial_losses import accuracy
from zoo.registry import Paper, register


@register(
    "geometric_gan",
    paper=Paper("Lim, Ye", "Geometric GAN", 2017, "1705.02894"),
    about="a support vector machine on learnt features separates data and samples, which move "
    "along its normal",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 6.5), ("val/hq", ">", 0.6)),
    waive={
        "every_parameter_learns": "while all rows are within the margin, as at first, the two "
        "hinges' slopes in b cancel"
    },
)
class GeometricGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        c: C, the weight of errors against the margin; None leaves w free.
        g_loss: "linear" or "leaky". leak: slope of the leaky hinge beyond the margin.
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32). kernel: of the
            convolutions, 4 or 5.
        norm: of D's features, "none", "batch" or "layer". init: "default", or "dcgan" for N(0,
            0.02²) convolutions.
        prior: "normal", "uniform" or "sphere".
        k: discriminator steps per generator step. optimiser: "adam" or "rmsprop".
        lr_d: learning rate of D. lr_g: of G. beta1, beta2: Adam's decays. loop: options of the
            adversarial loop.
    """

    watches = ("margin", "sv_frac_real")

    def __init__(
        self,
        spec: Spec,
        c: Positive | None = 1000.0,
        g_loss: Literal["linear", "leaky"] = "linear",
        leak: Share = 0.1,
        latent: Count | None = None,
        width: Count | None = None,
        kernel: Literal[4, 5] = 4,
        norm: Norm = "none",
        init: Literal["default", "dcgan"] = "default",
        prior: Prior = "normal",
        k: Count = 1,
        optimiser: Literal["adam", "rmsprop"] = "adam",
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.0,
        beta2: Decay = 0.9,
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
            betas=(beta1, beta2),
        )
        self.c, self.optimiser = c, optimiser
        g = small.generator(self.latent, spec.shape, width, kernel)
        machine = small.discriminator(spec.shape, width, kernel, norm)
        self.g, machine = small.begun(init, g, machine)
        flipped = {"linear": lambda s: -s, "leaky": lambda s: F.leaky_relu(1 - s, leak)}
        hinge = Loss(
            real=lambda s: F.relu(1 - s), fake=lambda s: F.relu(1 + s), maker=flipped[g_loss]
        )
        self.d = Adversary(self, machine, hinge)

    @property
    def normal(self) -> Tensor:
        """w, one entry for each feature."""
        return self.d.net.end.weight.flatten()

    def features(self, x: Tensor) -> Tensor:
        """Φ of examples as D sees them, (B, features)."""
        return self.d.net.features(x).flatten(1)

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        x = self.scaled(batch["x"])
        real, fake = self.d.both((x,), (self.g(self.codes(batch.n)),))
        hinges = self.d.cost(real, fake)
        decay = 0.0 if self.c is None else self.normal.square().sum() / (2 * self.c)
        terms = {
            "loss": hinges + decay,
            "sv_frac_real": (real < 1).float().mean(),
            "sv_frac_fake": (fake > -1).float().mean(),
            **accuracy(real, fake),
            "margin": 2 / self.normal.norm(),
        }
        return self.d.regularised(terms, x)

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
        return (
            super().optimisers() if self.optimiser == "adam" else self.one_each(torch.optim.RMSprop)
        )
