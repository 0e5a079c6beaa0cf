"""AC-GAN: a discriminator that also tells the classes of what it sees, and a generator told which
class to make.

Paper      Odena, Olah, Shlens. Conditional Image Synthesis with Auxiliary Classifier GANs. ICML
           2017. arXiv:1610.09585.
Model      x = G(z, c), c uniform over the classes. D is one trunk with two heads: s(v), the logit
           of v being real, and P(C | v). No label enters D.
Objective  Equations 2 and 3:
           L_S = E log D(x) + E log(1 - D(G(z, c))),
           L_C = E log P(C = y | x) + E log P(C = c | G(z, c)).
           D:  -L_S - w_d L_C, G(z_D, c_D) detached:
               the generated images' classes are D's business too.
           G:  -E log D(G(z_G, c_G)) - w_g E log P(C = c_G | G(z_G, c_G)) (g_loss="nonsat";
               with "minimax" the first term is the paper's, of L_S).
Logs       train/class_acc_real, train/class_acc_fake: shares that D's own head classifies as
           labelled, as asked; val/* of the same on held-out images and on draws. D's head was
           trained on G's images and flatters them: judge by val/cond_acc_*. val/ms_ssim: mean
           MS-SSIM of two draws of one class, val/ms_ssim_real of two held-out images of one class
           (section 4.2): a generator whose classes collapse lies above the data.
Sampling   z from the prior, c given, G(z, c) quantised.
Notes      The class joins z as a one-hot vector, as in the paper. MS-SSIM has five scales and an
           11x11 window from 176 pixels on, and below, a 5x5 window and as many scales as leave it
           room (two at 16x16); both of a pair are in one validation minibatch. ``arch="paper"`` is
           the discriminator of table 2, whose dropout is drawn by each process on its own; its
           activation noise is not here (``loop.instance_noise`` is on the input). The default nets
           have layer norm in G and none in D, and no dropout.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Label, Spec, Vector
from zoo.core.options import Count, Decay, Dropped, NonNegative, Norm, Positive, Prior
from zoo.nn import small
from zoo.nn.adversarial_losses import divergence
from zoo.nn.prior import Draw, path
from zoo.registry import Paper, register

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # the exponents of MS-SSIM (Wang et al. 2003)


class Discriminator(nn.Module):
    """x -> (B, 1 + classes): the logit of being real, then those of the classes, by two heads on
    one trunk's features.
    """

    def __init__(self, trunk: nn.Module, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.trunk, self.dropout = trunk, nn.Dropout(dropout)
        self.source, self.classes = nn.Linear(features, 1), nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, features)."""
        return self.trunk(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.features(x))
        return small.full(torch.cat([self.source(h), self.classes(h)], 1))


def paper_trunk(shape: tuple[int, ...], width: int, dropout: float) -> tuple[nn.Module, int]:
    """Table 2: six 3x3 convolutions of strides 2, 1, 2, 1, 2, 1, batch norm from the second on,
    leaky ReLU, dropout after each.
    """
    layers: list[nn.Module] = []
    filters, (inputs, *sides) = width, shape
    for i in range(6):
        layers += [
            nn.Conv2d(inputs, filters, 3, 2 - i % 2, 1, bias=not i),
            *([nn.BatchNorm2d(filters)] if i else []),
            nn.LeakyReLU(0.2),
        ]
        layers += [nn.Dropout(dropout)] if i < 5 else []  # the last one is the heads'
        inputs, filters = filters, 2 * filters
        sides = [-(-side // 2) for side in sides] if i % 2 == 0 else sides
    return nn.Sequential(*layers), inputs * sides[0] * sides[1]


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale structural similarity of pairs of images in [0, 1], (B,); 1 for equal ones."""
    side = min(a.shape[2:])
    window = 11 if side >= 11 << 4 else 5
    scales = sum(side >> i >= window for i in range(5))
    betas = tuple(beta / sum(SCALES[:scales]) for beta in SCALES[:scales])
    value = multiscale_structural_similarity_index_measure(
        a,
        b,
        sigma=1.5 if window == 11 else 0.5,
        kernel_size=window,
        betas=betas,
        data_range=1.0,
        reduction="none",
    )
    assert isinstance(value, Tensor)
    return value.view(len(a))


def partners(y: Tensor) -> Tensor:
    """For each row the next one with its label, cyclically; itself where there is none. (B,)."""
    i = torch.arange(len(y), device=y.device)
    ahead = (i - i[:, None] - 1) % len(y)  # itself comes last
    return ahead.masked_fill(y != y[:, None], len(y)).argmin(1)


# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)) or log(1 - D(G(z))), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "acgan",
    paper=Paper(
        "Odena, Olah, Shlens",
        "Conditional Image Synthesis with Auxiliary Classifier GANs",
        2017,
        "1610.09585",
    ),
    about="the discriminator names the class of real and generated images, and the generator "
    "makes the class it is told",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "classify"},
    told=("y",),
    data="digits",
    learns=(
        ("val/cond_acc_digitsnet", ">", 0.9),
        ("val/class_acc_real", ">", 0.93),
        ("val/fid_pixels", "<", 0.6),
    ),
)
class ACGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: labelled vectors, or labelled images (height and width multiples of 4, at least 8).
        arch: D is "small" or "paper" (images).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32): of G before the
            image, of D's first layer.
        width_d: of D's, where it differs. kernel: of G's convolutions, 4 or 5. norm: of G, "layer",
            "batch" or "none".
        init: "default", or "dcgan" for N(0, 0.02²) convolutions.
        dropout: in D, before the heads ("small") or after every layer ("paper").
        prior: "normal", "uniform" or "sphere". g_loss: "nonsat" or "minimax". k: discriminator
            steps per generator step.
        w_d, w_g: weights of L_C in D's and in G's loss.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    watches = ("jsd_bound", "class_acc_fake")
    accepts = {"x": (Vector, Image), "y": Label}

    def __init__(
        self,
        spec: Spec,
        arch: Literal["small", "paper"] = "small",
        latent: Count | None = None,
        width: Count | None = None,
        width_d: Count | None = None,
        kernel: Literal[4, 5] = 4,
        norm: Norm = "layer",
        init: Literal["default", "dcgan"] = "default",
        dropout: Dropped = 0.0,
        prior: Prior = "normal",
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        k: Count = 1,
        w_d: NonNegative = 1.0,
        w_g: NonNegative = 1.0,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if arch == "paper":
            spec.require("acgan with arch=paper", x=Image)
        if spec.num_classes == 1:
            raise ValueError(f"acgan names the class, got one class in {spec}; choose more")
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
        self.w_d, self.w_g = w_d, w_g
        wide = width_d or width
        if arch == "small":
            trunk, features = small.trunk(spec.shape, wide)
        else:
            trunk, features = paper_trunk(spec.shape, wide or 16, dropout)
        g = small.generator(self.latent + spec.num_classes, spec.shape, width, kernel, norm)
        judge = Discriminator(trunk, features, spec.num_classes, dropout)
        self.g, d = small.begun(init, g, judge)
        alone = {"replay": "the store does not know its rows' classes"}
        self.d = Adversary(self, d, LOSSES[g_loss], realness=lambda out: out[:, 0], without=alone)

    # -- losses -----------------------------------------------------------------------------------
    def one_hot(self, y: Tensor) -> Tensor:
        """(B, classes)."""
        return F.one_hot(y, self.spec.num_classes).to(self.float_dtype)

    def draw_classes(self, n: int) -> Tensor:
        """Uniform classes of a step's generated rows, (n,)."""
        return self.noise.integers(n, high=self.spec.num_classes)

    def made(self, c: Tensor) -> Tensor:
        """G(z, c) for a step's classes."""
        return self.g(torch.cat([self.codes(len(c)), self.one_hot(c)], 1))

    def discriminator_loss(self, batch: Batch) -> Terms:
        x, y, c = self.scaled(batch["x"]), batch["y"], self.draw_classes(batch.n)
        real, fake = self.d.both((x,), (self.made(c),))
        source = self.d.cost(real[:, 0], fake[:, 0])
        of_class = F.cross_entropy(real[:, 1:], y) + F.cross_entropy(fake[:, 1:], c)
        terms = {
            "loss": source + self.w_d * of_class,
            "d_class": of_class,
            **divergence(real[:, 0], fake[:, 0]),
            "class_acc_real": (real[:, 1:].argmax(1) == y).float().mean(),
            "class_acc_fake": (fake[:, 1:].argmax(1) == c).float().mean(),
        }
        return self.d.regularised(terms, x)

    def generator_loss(self, batch: Batch) -> Terms:
        c = self.draw_classes(batch.n)
        out = self.d.see(self.made(c))
        of_class = F.cross_entropy(out[:, 1:], c)
        source = self.d.price.maker(out[:, 0]).mean()
        return {"loss": source + self.w_g * of_class, "g_class": of_class}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, ("x", "y"), repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor, *, y: Tensor) -> Tensor:
        """G(z, y) in the units of ``spec``, (B, *shape)."""
        return self.quantised(self.g(torch.cat([z, self.one_hot(y)], 1)))

    @torch.no_grad()
    def sample(self, n: int, *, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        source = Draw(generator, self.device, self.float_dtype)
        return self.from_codes(self.draw_codes(n, source), y=y)

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10, *, y: Tensor) -> Tensor:
        """Examples of classes y along the path between codes a and b: (B, frames, *shape)."""
        z, c = path(self.prior, a, b, frames), y.repeat_interleave(frames)
        return self.from_codes(z.flatten(0, 1), y=c).unflatten(0, (len(a), frames))

    def classify(self, x: Tensor) -> Tensor:
        """P(C | x), (B, classes), by D."""
        return self.d(self.scaled(x))[:, 1:].softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        x, y, source = batch["x"], batch["y"], Draw(generator, self.device, self.float_dtype)
        drawn = [self.from_codes(self.draw_codes(batch.n, source), y=y) for _ in range(2)]
        shares = {
            "class_acc_real": self.classify(x).argmax(1) == y,
            "class_acc_fake": self.classify(drawn[0]).argmax(1) == y,
        }
        values = {name: share.to(x.dtype) for name, share in shares.items()}
        if self.spec.has(x=Image):
            made, own = (self.spec.to_unit(v).clamp(0, 1) for v in (torch.stack(drawn), x))
            values["ms_ssim"] = ms_ssim(*made)
            other = partners(y)
            paired = other != torch.arange(len(y), device=y.device)
            if paired.any():  # rows without a partner count as the mean of the others
                mean = ms_ssim(own[paired], own[other[paired]]).mean()
                values["ms_ssim_real"] = mean.expand(len(y))
        return values
