"""Pix2pix: a conditional GAN that makes an image of an image, its loss learnt and L1 beside it.

Paper      Isola, Zhu, Zhou, Efros. Image-to-image translation with conditional adversarial
           networks. CVPR 2017. arXiv:1611.07004.
Model      x̂ = G(s, z), s the source: a U-Net, whose skips carry what source and image share past
           the bottleneck. There is no code; the only noise z is dropout in the first levels of the
           decoder. D(s, x) is a grid of logits, each of a patch of source and image side by side.
Objective  from D's logits, the mean over rows and patches:
           D:  ½ (-E log D(s, x) - E log(1 - D(s, G(s, z)))), G(s, z) detached;
           G:  -E log D(s, G(s, z)) + λ E |x - G(s, z)|, the mean over pixels in [-1, 1], λ = 100.
           The ½ halves D's rate relative to G's (section 3.3).
Training   Adam; with ``decay_end`` both rates fall linearly, from ``decay_start``.
Logs       train/l1; train/d_real, d_fake, the mean probabilities of D. val/diversity: mean standard
           deviation of a pixel in [0, 1] over five draws of the dropout.
           Of every model of targets: val/psnr, ssim, l1 and their gains over trivial answers.
Sampling   G in training's own form: dropout drawn anew, norms by what is at hand.
           ``translate(..., deterministic=True)`` draws none.
Notes      norm="instance" is the paper's batch norm for its batches of one image, in training and
           at use, so that no image knows of another; norm="batch" takes the statistics of the batch
           at hand, at use too. G's step takes pairs and dropout of its own, not those of D's step.
           Ablations of section 4.2: gan=false is L1 alone, lam=0 the GAN alone,
           conditional_d=false shows D no source, skips=false leaves an encoder-decoder. The
           resizing before the paper's random crops is ``jitter`` of the data.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases import Adversary, LoopOptions, Loss, PairModule, Phase, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Share, Whole
from zoo.nn.patches import NORMS, PatchDiscriminator, check_patches
from zoo.nn.prior import Draw, Source
from zoo.nn.small import initialise
from zoo.nn.unet import UNet
from zoo.registry import Paper, register

# -½ log D, -½ log(1 - D), -log D, from logits s.
GAME = Loss(
    real=lambda s: F.softplus(-s) / 2,
    fake=lambda s: F.softplus(s) / 2,
    maker=lambda s: F.softplus(-s),
)
DRAWS = 5  # of the dropout, that are compared


def probabilities(real: Tensor, fake: Tensor) -> Terms:
    """D's mean probabilities, from its logits of pairs and of made ones."""
    return {"d_real": real.sigmoid().mean(), "d_fake": fake.sigmoid().mean()}


@register(
    "pix2pix",
    paper=Paper(
        "Isola, Zhu, Zhou, Efros",
        "Image-to-image translation with conditional adversarial networks",
        2017,
        "1611.07004",
    ),
    about="an image of an image: U-Net, patches, L1 beside the adversary",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "translate"},
    told=("source",),
    data="paired",
    learns=(("val/l1_share", "<", 0.8), ("val/ssim", ">", 0.74)),
)
class Pix2Pix(PairModule):
    """See the module's docstring.

    Args:
        spec: images x and source of one height and width, powers of two or multiples of one.
        width: filters of the first layer of G and of D. widest: most filters of a layer of G.
        levels: halvings in G; None is down to one pixel of the shorter side.
        layers: of stride 2 in D: a patch is 16, 34 or 70 pixels for 1, 2 or 3.
        norm: "instance" or "batch". dropout: share of values dropped. noisy: levels of the decoder
            that have it. skips: whether G has them.
        lam: λ of L1. gan: whether there is an adversary. conditional_d: whether D sees the source.
        decay_start, decay_end: generator steps between which both rates fall linearly; 0, 0 is
            never.
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G. beta1:
            Adam's first decay. loop: options of the adversarial loop.
    """

    watches = ("l1", "loss_d")
    g: UNet

    def __init__(
        self,
        spec: Spec,
        width: Count = 16,
        widest: Count = 64,
        levels: Count | None = None,
        layers: Count = 1,
        norm: Literal["instance", "batch"] = "instance",
        dropout: Share = 0.5,
        noisy: Whole = 2,
        skips: bool = True,
        lam: NonNegative = 100.0,
        gan: bool = True,
        conditional_d: bool = True,
        decay_start: Whole = 0,
        decay_end: Whole = 0,
        k: Count = 1,
        lr_d: Positive = 2e-4,
        lr_g: Positive = 2e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        x, source = spec["x"].shape, spec["source"].shape
        if x[1:] != source[1:]:
            raise ValueError(f"pix2pix: source and image have one size, got {spec}")
        if not gan and not lam:
            raise ValueError("pix2pix: G has nothing to learn by, got gan=false and lam=0; set one")
        levels = levels or min(x[1:]).bit_length() - 1
        self.grain = 1 << levels
        if x[1] % self.grain or x[2] % self.grain:
            raise ValueError(
                f"pix2pix: {levels} halvings take sides that are multiples of {self.grain}, got "
                f"{spec}; set --data.size to one, or model.levels lower"
            )
        check_patches("pix2pix", x[1], x[2], layers)
        self.lam, self.gan, self.conditional_d, self.k = lam, gan, conditional_d, k
        self.decay_start, self.decay_end = decay_start, decay_end
        self.lr_d, self.lr_g, self.betas = lr_d, lr_g, (beta1, 0.999)

        widths = tuple(min(width << i, widest) for i in range(levels))
        make = NORMS[norm]
        net = UNet(source[0], x[0], widths, dropout, noisy, skips, make)
        self.g = initialise(net, biases=True)
        shapes = [x, source] if conditional_d else [x]
        critic = PatchDiscriminator(sum(s[0] for s in shapes), width, layers, make)
        self.d = Adversary(
            self, initialise(critic, biases=True), GAME, inputs=shapes, watch=probabilities
        )

    def made(self, s: Tensor, noise: Source | None = None) -> Tensor:
        return self.g(s, noise)

    # -- losses -----------------------------------------------------------------------------------
    def judged(self, x: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        """What D is shown of images and their sources."""
        return (x, s) if self.conditional_d else (x,)

    def discriminator_loss(self, batch: Batch) -> Terms:
        s, x = self.pair(batch)
        with torch.no_grad():
            made = self.made(s, self.noise)
        return self.d.loss(self.judged(x, s), self.judged(made, s))

    def generator_loss(self, batch: Batch) -> Terms:
        s, x = self.pair(batch)
        made = self.made(s, self.noise)
        l1 = (x - made).abs().mean()
        fooled = self.d.fool(*self.judged(made, s)) if self.gan else 0
        return {"loss": fooled + self.lam * l1, "l1": l1}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, Any]:
        return super().players() if self.gan else {"g": self.g}

    def phases(self) -> list[Phase]:
        reads = ("x", "source")
        judge = Phase("d", self.discriminator_loss, reads, repeat=self.k, critic=True)
        return [judge] * self.gan + [Phase("g", self.generator_loss, reads)]

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def translate(
        self,
        source: Tensor,
        *,
        generator: torch.Generator | None = None,
        deterministic: bool = False,
    ) -> Tensor:
        """The image of each source, both in levels.

        Args:
            deterministic: without dropout.
        """
        noise = None if deterministic else Draw(generator, self.device, self.float_dtype)
        return self.images("x", self.made(self.scaled("source", source), noise))

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        s, _ = self.pair(batch)
        noise = Draw(generator, self.device, self.float_dtype)
        draws = torch.stack([self.made(s, noise) for _ in range(DRAWS)]) / 2  # range 1
        return {"diversity": draws.std(0).flatten(1).mean(1)}
