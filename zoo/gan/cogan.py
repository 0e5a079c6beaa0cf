"""CoGAN: a pair of GANs that share the layers of meaning, so that pairs come of domains without
pairs.

Paper      Liu, Tuzel. Coupled Generative Adversarial Networks. NIPS 2016. arXiv:1606.07536.
Model      (a, b) = (G_A(z), G_B(z)), of one z. The first layers of the two generators, which decide
           what is drawn, are the same layers; the last ones, which draw it, are each domain's own.
           Of the two discriminators the last layers are the same and the first ones their own.
Objective  Equation 2, from logits s_A, s_B; a and b are of independent minibatches:
           D:  Σ_{d = A, B} -E log D_d(x_d) - E log(1 - D_d(G_d(z_D))), G_d(z_D) detached.
           G:  Σ_{d = A, B} -E log D_d(G_d(z_G)) (g_loss="nonsat"), or E log(1 - D_d(G_d(z_G)))
               (g_loss="minimax"), with the same z_G in both.
           Layers that are shared get the sum of both domains' gradients.
           lam_c > 0 adds to D's, of labelled rows of A alone (section 4.1, adaptation),
               + λ_c E -log p(y | a), the softmax of a head on the last hidden layer of D,
           which B has in common.
Logs       train/loss_d, loss_g; train/loss_a, loss_b, D's part of either domain.
           Of data that know what belongs to an a: val/pair_agree, val/pair_random, val/pair_labels.
           With lam_c > 0: val/acc, on images of B, and val/acc_source, on those of A.
Sampling   z from the prior, both images of it quantised.
Notes      The paper takes the mean of the two gradients, a factor 2 that Adam does not see. D sees
           real and generated rows, and each domain, in passes of their own, so a batch norm (of
           arch="paper") would never mix them. "small" is the convolutional pair of the zoo with
           layer norm in G and none in D. ``share_g`` and ``share_d`` count the layers in common;
           with 0 these are two GANs that have nothing but z in common. Translation by a search for
           z is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import AdversarialModule, Adversary, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Prior, Whole
from zoo.nn.prior import Draw, Source, draw_prior
from zoo.nn.small import doublings, full, logits
from zoo.registry import Paper, register

Stages = list[nn.Module]


def small_generator(latent: int, shape: Sequence[int], width: int) -> Stages:
    """Projection to the base grid and transposed convolutions of stride 2; ReLU after layer norm,
    tanh at the end.
    """
    channels, height, breadth = shape
    m = doublings(height, breadth)
    filters = [width << i for i in reversed(range(m))]
    base = (height >> m, breadth >> m)
    up: Stages = [nn.ConvTranspose2d(latent, filters[0], base)]
    up += [
        nn.ConvTranspose2d(a, b, 4, 2, 1)
        for a, b in zip(filters, [*filters[1:], channels], strict=True)
    ]
    inner = zip(up[:-1], filters, strict=True)
    normed = [nn.Sequential(c, nn.GroupNorm(1, f), nn.ReLU()) for c, f in inner]
    return [*normed, nn.Sequential(up[-1], nn.Tanh())]


def small_discriminator(shape: Sequence[int], width: int) -> Stages:
    """Convolutions of stride 2, a hidden layer, the logit's; leaky ReLU 0.2."""
    channels, height, breadth = shape
    m = doublings(height, breadth)
    filters = [width << i for i in range(m)]
    down: Stages = [
        nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2))
        for a, b in zip([channels, *filters[:-1]], filters, strict=True)
    ]
    hidden = nn.Conv2d(filters[-1], 4 * width, (height >> m, breadth >> m))
    return [*down, nn.Sequential(hidden, nn.LeakyReLU(0.2), nn.Flatten()), nn.Linear(4 * width, 1)]


def paper_generator(latent: int, shape: Sequence[int], width: int) -> Stages:
    """The authors' network for 28x28, width 128: batch norm without gain, PReLU, sigmoid."""
    filters = [8 * width, 4 * width, 2 * width, width]
    up: Stages = [nn.ConvTranspose2d(latent, filters[0], 4)]
    up += [
        nn.ConvTranspose2d(a, b, 3, 2, 1) for a, b in zip(filters[:-1], filters[1:], strict=True)
    ]
    inner = zip(up, filters, strict=True)
    normed = [nn.Sequential(c, nn.BatchNorm2d(f, affine=False), nn.PReLU()) for c, f in inner]
    return [*normed, nn.Sequential(nn.ConvTranspose2d(width, shape[0], 6, 1, 1), nn.Sigmoid())]


def paper_discriminator(shape: Sequence[int], width: int) -> Stages:
    """The authors' network for 28x28: 5x5 convolutions with max-pooling, a hidden layer, the
    logit's.
    """
    return [
        nn.Sequential(nn.Conv2d(shape[0], 20, 5), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(50, 500, 4), nn.PReLU(), nn.Flatten()),
        nn.Linear(500, 1),
    ]


class Discriminator(nn.Module):
    """Images, (B, C, H, W) -> logits, (B,)."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self.hidden, self.end = nn.Sequential(*stages[:-1]), stages[-1]

    def features(self, v: Tensor) -> Tensor:
        """The last hidden layer, (B, units)."""
        return self.hidden(v)

    def forward(self, v: Tensor) -> Tensor:
        return logits(self.end(self.hidden(v)))


# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)) or log(1 - D(G(z))), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "cogan",
    paper=Paper("Liu, Tuzel", "Coupled Generative Adversarial Networks", 2016, "1606.07536"),
    about="two GANs share the layers of meaning: pairs of images from domains without pairs",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "classify"},
    makes=("a", "b"),
    data="unpaired",
    learns=(
        ("val/pair_agree", ">", 0.93),
        ("val/pair_labels", ">", 0.75),
        ("val/fid_pixels", "<", 0.5),
        ("val/fid_pixels_b", "<", 0.5),
        ("val/precision_pixels", ">", 0.33),
    ),
)
class CoGAN(AdversarialModule):
    """See the module's docstring.

    Args:
        spec: two fields of images, a and b, of one height and width (multiples of 4, at least 8;
            28x28 for "paper"); with lam_c > 0 also y, the class of a.
        arch: "small" or "paper".
        latent: dimension of z. prior: "normal", "uniform" or "sphere". width: filters before the
            image and after it.
        share_g: how many of G's layers, from the first, are both domains'; None is all but the
            last. share_d: how many of D's hidden ones, to the last; None is all but the first.
        g_loss: "nonsat" or "minimax". lam_c: λ_c; 0 is no classifier.
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G. beta1:
            Adam's first decay. weight_decay: of both, in Adam. loop: options of the adversarial
            loop.
    """

    watches = ("loss_a", "loss_b")
    accepts = {"a": Image, "b": Image}
    d: Any  # by domain
    c: Any

    def __init__(
        self,
        spec: Spec,
        arch: Literal["small", "paper"] = "small",
        latent: Count = 32,
        prior: Prior = "normal",
        width: Count = 24,
        share_g: Whole | None = None,
        share_d: Whole | None = None,
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        lam_c: NonNegative = 0.0,
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 1e-3,
        beta1: Decay = 0.5,
        weight_decay: NonNegative = 0.0,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        shapes = {name: spec[name].shape for name in "ab"}
        side = shapes["a"][1:]
        if shapes["b"][1:] != side or (arch == "paper" and side != (28, 28)):
            wanted = "of 28x28" if arch == "paper" else "of one size"
            raise ValueError(f"cogan's domains are images {wanted}, got {spec}; resize them")
        if lam_c and not spec.num_classes:
            raise ValueError(f"cogan's lam_c is of labels of a, got {spec}; leave it at 0")
        self.arch, self.latent, self.prior, self.lam_c, self.k = arch, latent, prior, lam_c, k
        self.lr_d, self.lr_g, self.betas, self.weight_decay = (
            lr_d,
            lr_g,
            (beta1, 0.999),
            weight_decay,
        )

        networks = {
            "small": (small_generator, small_discriminator),
            "paper": (paper_generator, paper_discriminator),
        }
        make_g, make_d = networks[arch]
        g_a, g_b = (make_g(latent, shape, width) for shape in shapes.values())
        d_a, d_b = (make_d(shape, width) for shape in shapes.values())
        most_g, most_d = len(g_a) - 1, len(d_a) - 1
        share_g = most_g if share_g is None else share_g
        share_d = most_d if share_d is None else share_d
        if share_g > most_g or share_d > most_d:
            raise ValueError(
                f"cogan's domains share at most {most_g} layers of G and {most_d} of D for {spec}, "
                f"got share_g={share_g}, share_d={share_d}; lower them"
            )
        first, last = g_a[:share_g], d_a[len(d_a) - share_d :]
        g_b, d_b = first + g_b[share_g:], d_b[: len(d_b) - share_d] + last
        self.g = nn.ModuleDict({"a": nn.Sequential(*g_a), "b": nn.Sequential(*g_b)})
        if arch == "paper":
            for layer in (m for stage in [*g_a, *g_b, *d_a, *d_b] for m in stage.modules()):
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                    nn.init.xavier_uniform_(layer.weight)
        self.d = nn.ModuleDict(
            {
                name: Adversary(self, Discriminator(d), LOSSES[g_loss], inputs=[shapes[name]])
                for name, d in (("a", d_a), ("b", d_b))
            }
        )
        end: Any = d_a[-1]
        self.c = nn.Linear(end.in_features, spec.num_classes) if lam_c else None

    # -- units and codes --------------------------------------------------------------------------
    def scaled(self, name: str, x: Tensor) -> Tensor:
        """Images of a domain in the units of ``spec`` as the networks see them."""
        field: Any = self.spec[name]
        return field.to_unit(x) if self.arch == "paper" else field.to_signed(x)

    def quantised(self, name: str, v: Tensor) -> Tensor:
        """Images of a domain as its generator makes them in the units of ``spec``."""
        field: Any = self.spec[name]
        return field.from_unit(v) if self.arch == "paper" else field.from_signed(v)

    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of the prior, (n, latent)."""
        return draw_prior(self.prior, n, self.latent, source)

    def made(self, z: Tensor) -> dict[str, Tensor]:
        """G_A(z) and G_B(z), (B, C, H, W) each."""
        return {name: g(z[:, :, None, None]) for name, g in self.g.items()}

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        made = self.made(self.draw_codes(batch.n, self.noise))
        terms: Terms = {}
        for name, d in self.d.items():
            x = self.scaled(name, batch[name])
            for key, value in d.loss((x,), (made[name],)).items():
                terms[f"{key}_{name}"] = value
        terms["loss"] = terms["loss_a"] + terms["loss_b"]
        if self.c is not None:
            said = self.c(self.d["a"].net.features(self.scaled("a", batch["a"])))
            terms["ce"] = F.cross_entropy(full(said), batch["y"])
            terms["loss"] = terms["loss"] + self.lam_c * terms["ce"]
        return terms

    def generator_loss(self, batch: Batch) -> Terms:
        made = self.made(self.draw_codes(batch.n, self.noise))
        return {"loss": self.d["a"].fool(made["a"]) + self.d["b"].fool(made["b"])}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module]:
        d = [self.d] if self.c is None else [self.d, self.c]
        return {"d": nn.ModuleList(d), "g": self.g}

    def phases(self) -> list[Phase]:
        reads = ("a", "b") if self.c is None else ("a", "b", "y")
        return [
            Phase("d", self.discriminator_loss, reads, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor) -> Batch:
        """Both images of each code, in the units of ``spec``."""
        made = self.made(z)
        return Batch({name: self.quantised(name, v) for name, v in made.items()}, len(z))

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Batch:
        return self.from_codes(self.draw_codes(n, Draw(generator, self.device, self.float_dtype)))

    def classify(self, x: Tensor, domain: str = "b") -> Tensor:
        """P(y | x), (B, num_classes), of images of a domain in levels; "b" is the one whose labels
        were never read.
        """
        if self.c is None:
            raise ValueError("cogan has no classifier without lam_c; set it, e.g. to 1")
        return full(self.c(self.d[domain].net.features(self.scaled(domain, x)))).softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        if self.c is None:
            return {}
        right = {"acc_source": self.classify(batch["a"], "a").argmax(1) == batch["y"]}
        if "oracle_b" in batch:
            right["acc"] = self.classify(batch["oracle_b"]).argmax(1) == batch["y"]
        return {key: value.to(self.float_dtype) for key, value in right.items()}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas, weight_decay=self.weight_decay)
