"""AnoGAN: what a generator of normal images cannot make is an anomaly.

Paper      Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs. Unsupervised Anomaly Detection with
           Generative Adversarial Networks to Guide Marker Discovery. IPMI 2017. arXiv:1703.05921.
Model      x = G(z), z ~ U(-1, 1)^n, against D: the pair of DCGAN, trained on normal images alone.
           f(x) are the activations of D's last hidden layer.
Objective  Of the game, from logits s:
           D:  -E log D(x) - E log(1 - D(G(z))), G(z) detached.
           G:  -E log D(G(z)).
           Of the mapping of an image x to a code, with G and D as they are, by Γ steps on z alone:
           L(z) = (1 - λ) R(z) + λ D(z),
           R(z) = Σ |x - G(z)|, the residual loss,
           D(z) = Σ |f(x) - f(G(z))|, the discrimination loss (measure="features"), or
                  -log D(G(z)), the one it replaces (measure="sigmoid"), which knows nothing of x.
Score      A(x) = L(z_Γ), of the best of ``restarts`` searches; higher is stranger. The residual
           |x - G(z_Γ)| shows where.
Sampling   z ~ U(-1, 1)^n, G(z) quantised.
Notes      In the search the networks are in evaluation mode, its loss is a sum over rows, and every
           row begins from the same few codes of the prior: a score is the same whatever shares its
           batch, and without chance. Labels are read only to remember which classes the training
           data have: ``seen``. The small networks normalise layers, so that rows do not interact;
           norm="batch" is the paper's. One of the convolutional network's layers, the last hidden
           one, serves as f.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.draw import undisturbed
from zoo.core.noise import seeded
from zoo.core.options import Count, Decay, Norm, Positive, Prior, Share, Whole
from zoo.nn.adversarial_losses import divergence
from zoo.nn.latent_search import latent_search
from zoo.nn.prior import Draw
from zoo.nn.small import ConvDiscriminator, ConvGenerator, initialise
from zoo.registry import Paper, register

# -log D(x), -log(1 - D(G(z))), -log D(G(z)), from logits s.
NONSATURATING = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Σ |a - b| of each row, (B,)."""
    return (a - b).abs().flatten(1).sum(1)


def mixture(r: Tensor, d: Tensor, lam: float) -> Tensor:
    """(1 - λ) R + λ D: the loss of the mapping, and at its end the score A(x)."""
    return (1 - lam) * r + lam * d


@register(
    "anogan",
    paper=Paper(
        "Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs",
        "Unsupervised Anomaly Detection with Generative Adversarial Networks to Guide Marker "
        "Discovery",
        2017,
        "1703.05921",
    ),
    about="anomalies are the images that a generator of normal ones cannot make, however long one "
    "searches its codes",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "reconstruct", "score"},
    data="digits",
    learns=(
        ("val/auroc", ">", 0.65),
        ("val/is_pixels", ">", 3.2),
        ("val/precision_pixels", ">", 0.25),
    ),
)
class AnoGAN(GeneratorModule):
    """See the module's docstring.

    Attributes:
        seen: of each class, whether the training data have it, (classes,) booleans.

    Args:
        spec: images, height and width multiples of 4 and at least 8.
        latent: dimension of z. width: filters of D's first layer and of G's last hidden one.
            kernel: of all convolutions, 4 or 5. norm: of both networks, "layer", "batch" or "none".
        prior: "uniform", "normal" or "sphere". k: discriminator steps per generator step. lr_d:
            learning rate of D. lr_g: of G. beta1: Adam's first decay.
        lam: λ, the share of the discrimination loss. measure: "features" or "sigmoid".
        gamma: Γ, steps of a search. search_lr: Adam's rate in it. restarts: searches of an image.
        loop: options of the adversarial loop.
    """

    watches = ("jsd_bound",)
    accepts = {"x": Image}
    seen: Tensor

    def __init__(
        self,
        spec: Spec,
        latent: Count = 32,
        width: Count = 32,
        kernel: Literal[4, 5] = 4,
        norm: Norm = "layer",
        prior: Prior = "uniform",
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        lam: Share = 0.1,
        measure: Literal["features", "sigmoid"] = "features",
        gamma: Whole = 100,
        search_lr: Positive = 0.1,
        restarts: Count = 1,
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
        self.lam, self.measure = lam, measure
        self.gamma, self.search_lr, self.restarts = gamma, search_lr, restarts
        self.g = initialise(ConvGenerator(latent, spec.shape, width, kernel, norm))
        d = initialise(ConvDiscriminator(spec.shape, width, kernel, norm))
        self.d = Adversary(self, d, NONSATURATING, watch=divergence)
        self.register_buffer("seen", torch.zeros(spec.num_classes, dtype=torch.bool))

    def initialise_from(self, batch: Batch) -> None:
        if "y" in batch and len(self.seen):
            self.seen[batch["y"].unique()] = True

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

    # -- the mapping ------------------------------------------------------------------------------
    def mapping_losses(self, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """R(z) and D(z), (B,) each, for images in [-1, 1]."""
        made = self.g(z)
        if self.measure == "sigmoid":
            return distance(v, made), F.softplus(-self.d(made))
        f = self.d.net.features
        return distance(v, made), distance(f(v).detach(), f(made))

    def starts(self, n: int) -> Tensor:
        """The first codes of n searches, (restarts, n, latent), the same for every image."""
        g = seeded(0, "latent search", device=self.device)
        z = self.draw_codes(self.restarts, Draw(g, self.device, self.float_dtype))
        return z[:, None].expand(-1, n, -1)

    def search(self, x: Tensor) -> Tensor:
        """z_Γ of images in levels, (B, latent)."""
        v = self.scaled(x)

        def cost(z: Tensor) -> Tensor:
            return mixture(*self.mapping_losses(v, z), self.lam)

        with undisturbed(self):
            return latent_search(cost, self.starts(len(x)), self.gamma, self.search_lr)[0]

    # -- use --------------------------------------------------------------------------------------
    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """The score A(x), and its parts R and D, (B,) each."""
        z = self.search(x)
        with undisturbed(self):
            r, d = self.mapping_losses(self.scaled(x), z)
        return {"score": mixture(r, d, self.lam), "residual": r, "discrimination": d}

    def score(self, x: Tensor) -> Tensor:
        """A(x), (B,); higher is stranger."""
        return self.scores(x)["score"]

    def reconstruct(self, x: Tensor) -> Tensor:
        """G(z_Γ) in levels."""
        z = self.search(x)
        with undisturbed(self):
            return self.from_codes(z)

    def residual(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """G(z_Γ) and |x - G(z_Γ)|, both in levels."""
        made = self.reconstruct(x)
        return made, (x - made).abs()
