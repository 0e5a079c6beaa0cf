"""InfoGAN: a GAN whose samples tell a part of their code, found without labels.

Paper      Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel. InfoGAN: Interpretable Representation
           Learning by Information Maximizing Generative Adversarial Nets. NIPS 2016.
           arXiv:1606.03657.
Model      x = G(z, c): noise z, a category and continuous codes in (-1, 1). D and Q are two heads
           on one trunk: s(v), the logit of v being real, and Q(c | v), a categorical and,
           independent of it, gaussians.
Objective  Equation 5, in nats:
           L_I = E_{c, x = G(z, c)} log Q(c | x) + H(c) ≤ I(c; G(z, c)),
               H(c) = log K and log 2 for each continuous code.
           D and Q:  -E log D(x) - E log(1 - D(G)) - λ L_I, G detached:
                     Q's head and the trunk learn L_I in D's turn.
           G:        -E log D(G) (g_loss="nonsat"; "minimax" is the paper's V) - λ L_I.
           Two weights λ: lam_cat for the category, lam_cont for the continuous codes (section 6:
           small where their scale is not 1).
Logs       train/mi_cat, val/mi_cat: the category's part of L_I, at most log K; mi_cont: the
           continuous codes' part. val/cluster_acc: share of held-out rows whose most probable
           category has their label; the labels of categories are those of recent training rows
           (``zoo.nn.votes``); train/nmi. No label enters a loss.
Sampling   z and c from their priors, G(z, c) quantised; ``switched`` gives the codes of the paper's
           figures: every category, or a continuous code from -2 to 2, wider than in training, all
           else held.
Notes      A code is the row (z, one-hot category, continuous). ``encode`` gives Q's probabilities
           and means. ``interpolate`` takes z along the prior's path, an arc where that is normal,
           and mixes categories and continuous codes along the line, which keeps them in the simplex
           and the cube. With fixed_std=True the gaussians have deviation 1 (the paper on MNIST),
           and their part of L_I cannot be positive. How far a code stands for a known factor of the
           data is not logged: ``zoo.probe`` says it (MIG, FactorVAE score) of a model of
           ``factor_grid``. ``arch="paper"`` is the MNIST network of appendix C.1. "small" has no
           batch norm: layer norm in G, none in D and Q; its categories are seldom the digits.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Prior, Whole
from zoo.nn import small
from zoo.nn.adversarial_losses import divergence
from zoo.nn.gaussian import log_normal, soft_clamp
from zoo.nn.prior import Draw, Source, draw_prior, path
from zoo.nn.votes import Votes
from zoo.registry import Paper, register


class Discriminator(nn.Module):
    """x -> (B, 1 + Q's): the logit of being real, then what Q says, by two heads on one trunk's
    features.
    """

    def __init__(self, trunk: nn.Module, features: int, q: nn.Module) -> None:
        super().__init__()
        self.trunk, self.source, self.q = trunk, nn.Linear(features, 1), q

    def features(self, x: Tensor) -> Tensor:
        """(B, features)."""
        return self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        h = self.trunk(x)
        return small.full(torch.cat([self.source(h), self.q(h)], 1))


def small_nets(
    codes: int, shape: tuple[int, ...], width: int | None, outputs: int
) -> tuple[nn.Module, Discriminator]:
    """The zoo's small pair, D with one more hidden layer for its two heads."""
    trunk, features = small.trunk(shape, width)
    if len(shape) == 3:
        trunk, features = (
            nn.Sequential(trunk, nn.Flatten(), nn.Linear(features, 128), nn.LeakyReLU(0.1)),
            128,
        )
    q = nn.Sequential(nn.Linear(features, 64), nn.LeakyReLU(0.1), nn.Linear(64, outputs))
    return small.generator(codes, shape, width, norm="layer"), Discriminator(trunk, features, q)


def paper_nets(
    codes: int, shape: tuple[int, ...], width: int, outputs: int
) -> tuple[nn.Module, Discriminator]:
    """Appendix C.1, width 64: two transposed convolutions after two linear layers; two convolutions
    before one, and Q's own of 128.
    """
    channels, height, breadth = shape
    base = (2 * width, height // 4, breadth // 4)
    cells, hidden = torch.Size(base).numel(), 16 * width
    generator = nn.Sequential(
        nn.Linear(codes, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, cells),
        nn.BatchNorm1d(cells),
        nn.ReLU(),
        nn.Unflatten(1, base),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 4, 2, 1),
        nn.Sigmoid(),
    )
    trunk = nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(cells, hidden),
        nn.BatchNorm1d(hidden),
        nn.LeakyReLU(0.1),
    )
    q = nn.Sequential(
        nn.Linear(hidden, 2 * width),
        nn.BatchNorm1d(2 * width),
        nn.LeakyReLU(0.1),
        nn.Linear(2 * width, outputs),
    )
    return generator, Discriminator(trunk, hidden, q)


# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)) or log(1 - D(G(z))), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "infogan",
    paper=Paper(
        "Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel",
        "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative "
        "Adversarial Nets",
        2016,
        "1606.03657",
    ),
    about="a part of the generator's code must be readable from its samples, which finds classes "
    "and styles without labels",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "encode"},
    data="digits",
    learns=(
        ("val/mi_cat", ">", 2.0),
        ("val/cluster_acc", ">", 0.6),
        ("val/is_digitsnet", ">", 8.0),
        ("val/fid_pixels", "<", 0.4),
    ),
    waive={
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class InfoGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        arch: "small", or "paper" (images).
        categories: K; 0 is the data's number of classes, or 10. continuous: number of continuous
            codes. noise: dimensions of z.
        fixed_std: Q's gaussians have deviation 1. lam_cat, lam_cont: weights λ.
        width: hidden units for vectors (None is 128), filters for images (32; 64 of "paper").
        prior: of z, "normal", "uniform" or "sphere". g_loss: "nonsat" or "minimax". k:
            discriminator steps per generator step.
        lr_d: learning rate of D and Q. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    watches = ("mi_cat", "nmi")

    def __init__(
        self,
        spec: Spec,
        arch: Literal["small", "paper"] = "small",
        categories: Whole = 0,
        continuous: Whole = 2,
        noise: Whole = 20,
        fixed_std: bool = False,
        lam_cat: NonNegative = 1.0,
        lam_cont: NonNegative = 0.1,
        width: Count | None = None,
        prior: Prior = "normal",
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 1e-3,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        categories = categories or spec.num_classes or 10
        if categories < 2:
            raise ValueError(
                f"infogan takes 2 categories or more, got {categories}; set categories, e.g. to 10"
            )
        codes = noise + categories + continuous
        super().__init__(
            spec,
            loop,
            latent=codes,
            prior=prior,
            k=k,
            lr_d=lr_d,
            lr_g=lr_g,
            betas=(beta1, 0.999),
            unit=arch == "paper",
        )
        self.categories, self.continuous, self.dim_z = categories, continuous, noise
        self.fixed_std, self.lam_cat, self.lam_cont = fixed_std, lam_cat, lam_cont
        outputs = categories + continuous * (1 if fixed_std else 2)
        if arch == "small":
            self.g, d = small_nets(codes, spec.shape, width, outputs)
        else:
            spec.require("infogan with arch=paper", x=Image)
            small.doublings(*spec.shape[1:])  # multiples of 4
            self.g, d = paper_nets(codes, spec.shape, width or 64, outputs)
        alone = {"replay": "the store does not know its rows' codes"}
        self.d = Adversary(self, d, LOSSES[g_loss], realness=lambda out: out[:, 0], without=alone)
        self.votes = Votes(categories, spec.num_classes)

    # -- codes ------------------------------------------------------------------------------------
    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes (z, one-hot category, continuous), (n, latent)."""
        z = [draw_prior(self.prior, n, self.dim_z, source)] if self.dim_z else []
        which = (source.uniform(n) * self.categories).long().clamp(max=self.categories - 1)
        c = F.one_hot(which, self.categories).to(self.float_dtype)
        return torch.cat([*z, c, source.uniform(n, self.continuous, low=-1.0)], 1)

    def parts(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The one-hot category, (B, K), and the continuous codes, (B, C)."""
        return codes[:, self.dim_z : self.dim_z + self.categories], codes[
            :, self.dim_z + self.categories :
        ]

    def information(self, q: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The parts of L_I for each row from Q's outputs: log Q(category | x) + log K, and log
        Q(continuous | x) + C log 2, (B,) each.
        """
        category, continuous = self.parts(codes)
        said, rest = q[:, : self.categories].log_softmax(1), q[:, self.categories :]
        mu, log_var = (rest, torch.zeros_like(rest)) if self.fixed_std else rest.chunk(2, 1)
        of_continuous = log_normal(continuous, mu, soft_clamp(log_var)).sum(1)
        return (said * category).sum(1) + math.log(
            self.categories
        ), of_continuous + self.continuous * math.log(2)

    def lower_bound(self, q: Tensor, codes: Tensor) -> tuple[Tensor, Terms]:
        """λ L_I of a minibatch, and its parts."""
        of_category, of_continuous = (v.mean() for v in self.information(q, codes))
        known = self.lam_cat * of_category + self.lam_cont * of_continuous
        return known, {"mi_cat": of_category, "mi_cont": of_continuous}

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        x, codes = self.scaled(batch["x"]), self.codes(batch.n)
        real, fake = self.d.both((x,), (self.g(codes),))
        source = self.d.cost(real[:, 0], fake[:, 0])
        known, parts = self.lower_bound(fake[:, 1:], codes)
        if self.spec.num_classes:  # to name the categories; no gradient
            said = real[:, 1 : 1 + self.categories].argmax(1)
            self.votes.add(said, batch["y"], self.reduce)
            parts["nmi"] = self.votes.nmi()
        terms = {"loss": source - known, **divergence(real[:, 0], fake[:, 0]), **parts}
        return self.d.regularised(terms, x)

    def generator_loss(self, batch: Batch) -> Terms:
        codes = self.codes(batch.n)
        out = self.d.see(self.g(codes))
        known, _ = self.lower_bound(out[:, 1:], codes)
        return {"loss": self.d.price.maker(out[:, 0]).mean() - known}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        reads = ("x", "y") if self.spec.num_classes else ("x",)
        return [
            Phase("d", self.discriminator_loss, reads, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def encode(self, x: Tensor) -> Tensor:
        """Q's probabilities of the categories and means of the continuous codes, (B, K + C)."""
        q = self.d(self.scaled(x))[:, 1 : 1 + self.categories + self.continuous]
        return torch.cat([q[:, : self.categories].softmax(1), q[:, self.categories :]], 1)

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        z = path(self.prior, a[:, : self.dim_z], b[:, : self.dim_z], frames)
        c = path("uniform", a[:, self.dim_z :], b[:, self.dim_z :], frames)
        return self.from_codes(torch.cat([z, c], 2).flatten(0, 1)).unflatten(0, (len(a), frames))

    @property
    def variables(self) -> int:
        """What ``switched`` can vary: the category, then each continuous code."""
        return 1 + self.continuous

    def switched(self, z: Tensor, variable: int) -> Tensor:
        """Codes with variable 0, the category, set to each of its K values in turn, or with a
        continuous one at K values from -2 to 2: (B, K, latent)."""
        codes = z[:, None].repeat(1, self.categories, 1)
        if variable == 0:
            codes[:, :, self.dim_z : self.dim_z + self.categories] = torch.eye(self.categories).to(
                z
            )
        else:
            codes[:, :, self.dim_z + self.categories + variable - 1] = torch.linspace(
                -2, 2, self.categories
            ).to(z)
        return codes

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        codes = self.draw_codes(batch.n, Draw(generator, self.device, self.float_dtype))
        parts = self.information(self.d(self.g(codes))[:, 1:], codes)
        values = dict(zip(("mi_cat", "mi_cont"), parts, strict=True))
        if self.spec.num_classes:
            said = self.votes.names()[self.encode(batch["x"])[:, : self.categories].argmax(1)]
            values["cluster_acc"] = (said == batch["y"]).to(parts[0].dtype)
        return values
