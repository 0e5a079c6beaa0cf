"""Geometric GAN: the discriminator is a support vector machine on learnt features.

Paper      Lim, Ye. Geometric GAN. 2017. arXiv:1705.02894.
Model      x = G(z); s(x) = ⟨w, Φ(x)⟩ + b, with the features Φ of a network and one separating
           hyperplane (w, b).
Objective  D:  E [1 - s(x)]₊ + E [1 + s(G(z_D))]₊ + ‖w‖²/(2C), G(z_D) detached: the soft-margin
           machine's primal; only w, the hyperplane's
               normal, is decayed, and every weight of Φ learns from the support vectors, the rows
               within the margin, alone.
           G:  -E s(G(z_G)) (g_loss="linear"): features of samples move along w, all by the same
           amount; or the hinge of the flipped
               label, [1 - s]₊ with slope ``leak`` beyond the margin (g_loss="leaky").
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

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.core import DataSpec, GeneratorModule, LoopOptions
from zoo.core.module import Batch
from zoo.nn import small
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

    g_losses = ("linear", "leaky")
    discriminator: small.MLPDiscriminator | small.ConvDiscriminator  # features and a linear end

    def __init__(
        self,
        spec: DataSpec,
        c: float | None = 1000.0,
        g_loss: str = "linear",
        leak: float = 0.1,
        latent: int | None = None,
        width: int | None = None,
        kernel: int = 4,
        norm: str = "none",
        init: str = "default",
        prior: str = "normal",
        k: int = 1,
        optimiser: str = "adam",
        lr_d: float = 5e-4,
        lr_g: float = 5e-4,
        beta1: float = 0.0,
        beta2: float = 0.9,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if c is not None and not c > 0:
            raise ValueError(
                f"geometric_gan: c weighs errors against the margin and is positive, or null for "
                f"no decay of w, got {c}"
            )
        if optimiser not in ("adam", "rmsprop"):
            raise ValueError(f"geometric_gan: optimiser is adam or rmsprop, got {optimiser!r}")
        super().__init__(
            spec,
            loop,
            latent=latent,
            prior=prior,
            k=k,
            g_loss=g_loss,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, beta2),
        )
        self.c, self.leak, self.optimiser = c, leak, optimiser
        generator = small.generator(self.latent, spec.shape, width, kernel)
        machine = small.discriminator(spec.shape, width, kernel, norm)
        self.build(*small.begun(init, generator, machine))

    @property
    def normal(self) -> Tensor:
        """w, one entry for each feature."""
        return self.discriminator.end.weight.flatten()

    def features(self, x: Tensor) -> Tensor:
        """Φ of examples as D sees them, (B, features)."""
        return self.discriminator.features(x).flatten(1)

    # -- losses -----------------------------------------------------------------------------------
    def price_real(self, s: Tensor) -> Tensor:
        return F.relu(1 - s)

    def price_fake(self, s: Tensor) -> Tensor:
        return F.relu(1 + s)

    def price_generator(self, s: Tensor) -> Tensor:
        return -s if self.g_loss == "linear" else F.leaky_relu(1 - s, self.leak)

    def watch(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {
            "sv_frac_real": (real < 1).float().mean(),
            "sv_frac_fake": (fake > -1).float().mean(),
            "d_acc_real": (real > 0).float().mean(),
            "d_acc_fake": (fake < 0).float().mean(),
        }

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().discriminator_loss(batch)
        decay = 0.0 if self.c is None else self.normal.square().sum() / (2 * self.c)
        return terms | {"loss": terms["loss"] + decay, "margin": 2 / self.normal.norm()}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return (
            super().optimisers() if self.optimiser == "adam" else self.one_each(torch.optim.RMSprop)
        )
