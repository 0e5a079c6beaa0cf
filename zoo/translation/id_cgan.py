"""ID-CGAN: rain is taken out of an image by a conditional GAN that also looks at what it made.

Paper      Zhang, Sindagi, Patel. Image de-raining using a conditional generative adversarial
           network. arXiv:1701.05957, 2017; IEEE TCSVT 30, 2020.
Model      x̂ = G(s), s the rainy image. variant="v1": 3x3 convolutions that keep its size;
           "final": dense blocks, down to an eighth and back. D(s, x) is a grid of logits, each of a
           patch of both; of "final" beside averages of the whole image.
Objective  D:  ½ (-E log D(s, x) - E log(1 - D(s, G(s)))), G(s) detached;
           G:  λ_e E (G(s) - x)² + λ_a E -log D(s, G(s)) + λ_p E (φ(G(s)) - φ(x))²,
           means over rows, pixels in [-1, 1], patches, and values of φ, a frozen network's layer;
           λ_e = 1, λ_a = .0066, λ_p = 1. The authors' code divides by λ_a: 150, 1 and 150.
Training   D, then G, on the same pairs, by Adam.
Logs       train/mse, perceptual, adversarial: the terms of G's loss before their weights; train/
           d_real, d_fake, mean probabilities of D; train/d_acc, the share of patches that it is
           right about. Of every model of targets: val/psnr, ssim, l1 and their gains.
Sampling   G with the statistics of its batch norms kept in training: without noise.
Notes      φ is by default a small network that knows drawn scenes (zoo.pretrain --net percep);
           look.kind="vgg16" with the file of its weights is the paper's, layer relu2_2. The
           architectures are as remembered: v1 is K, K, K, K, K/2, 1 filters and back with sums of
           layers of one place; blocks of "final" have four layers, and its skips and D's four grids
           (1, 2, 4, 8) are ours where the paper leaves them open. Scores are of RGB, the paper's of
           luminance.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.auxiliary.look import Look, LookOptions
from zoo.bases import Adversary, LoopOptions, Loss, PairModule, Phase, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive
from zoo.nn.derain import DenseCoder, FullSize
from zoo.nn.patches import NORMS, PatchDiscriminator, PyramidDiscriminator, check_patches
from zoo.nn.small import initialise
from zoo.registry import Paper, register

# -½ log D, -½ log(1 - D), -log D, from logits s.
GAME = Loss(
    real=lambda s: F.softplus(-s) / 2,
    fake=lambda s: F.softplus(s) / 2,
    maker=lambda s: F.softplus(-s),
)
SAME = ("rainy", "clean")  # the pairs that D was shown, for G


def told_apart(real: Tensor, fake: Tensor) -> Terms:
    """D's mean probabilities and the share of its patches that are right, from its logits."""
    right = (real > 0).double().mean() + (fake < 0).double().mean()
    return {"d_real": real.sigmoid().mean(), "d_fake": fake.sigmoid().mean(), "d_acc": right / 2}


@register(
    "id_cgan",
    paper=Paper(
        "Zhang, Sindagi, Patel",
        "Image de-raining using a conditional generative adversarial network",
        2017,
        "1701.05957",
    ),
    about="an image behind rain without the rain: squares, an adversary, and a network's eye",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "translate"},
    told=("source",),
    data="paired",
    learns=(("val/psnr_gain", ">", 5.0), ("val/ssim_gain", ">", 0.03)),
    waive={
        "seed_matters": "what becomes of an image is a function of it",
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class IDCGAN(PairModule):
    """See the module's docstring.

    Args:
        spec: images x and source of one size and of 1 or 3 channels.
        variant: "v1" or "final", whose sides are multiples of 8.
        width: K, filters of G's first layer. narrow: of the narrowest one of v1.
        width_d: filters of D's first layer. layers: of stride 2 in D: a patch is 16, 34 or 70
            pixels for 1, 2 or 3.
        lam_e, lam_a, lam_p: λ of the squares, of the adversary, of the perceptual distance; 0 is
            without.
        look: the network φ.
        lr_d: learning rate of D. lr_g: of G. beta1: Adam's first decay. loop: options of the
            adversarial loop.
    """

    watches = ("mse", "loss_d")
    first_examples = 1  # of which nothing is asked: it is the time to fill in φ

    def __init__(
        self,
        spec: Spec,
        variant: Literal["v1", "final"] = "v1",
        width: Count = 16,
        narrow: Count = 4,
        width_d: Count = 16,
        layers: Count = 1,
        lam_e: NonNegative = 1.0,
        lam_a: NonNegative = 0.0066,
        lam_p: NonNegative = 1.0,
        look: LookOptions = LookOptions(),
        lr_d: Positive = 2e-4,
        lr_g: Positive = 2e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        x, source = spec["x"].shape, spec["source"].shape
        self.grain = 8 if variant == "final" else 1
        if x[1:] != source[1:] or x[1] % self.grain or x[2] % self.grain:
            sides = ", whose sides are multiples of 8" if variant == "final" else ""
            raise ValueError(f"id_cgan: source and image have one size{sides}, got {spec}")
        if lam_p and x[0] not in (1, 3):
            raise ValueError(f"id_cgan: φ sees 1 or 3 channels, got {spec}; set model.lam_p=0")
        if not (lam_e or lam_a or lam_p):
            raise ValueError("id_cgan: G has nothing to learn by; set one of lam_e, lam_a, lam_p")
        check_patches("id_cgan", x[1], x[2], layers)
        self.lam_e, self.lam_a, self.lam_p = lam_e, lam_a, lam_p
        self.lr_d, self.lr_g, self.betas = lr_d, lr_g, (beta1, 0.999)

        if variant == "v1":
            self.g = initialise(FullSize(source[0], x[0], width, narrow))
        else:
            self.g = initialise(DenseCoder(source[0], x[0], width))
        kind = PatchDiscriminator if variant == "v1" else PyramidDiscriminator
        net = initialise(kind(x[0] + source[0], width_d, layers, NORMS["batch"]))
        self.d = Adversary(self, net, GAME, inputs=[x, source], watch=told_apart)
        self.look = Look(look) if lam_p else None

    def initialise_from(self, batch: Batch) -> None:
        if self.look is not None:
            self.look.load()

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        s, x = self.pair(batch)
        with torch.no_grad():
            made = self.made(s)
        return {**self.d.loss((x, s), (made, s)), **dict(zip(SAME, (s, x), strict=True))}

    def generator_loss(self, batch: Batch) -> Terms:
        s, x = (batch[k] for k in SAME) if self.lam_a else self.pair(batch)
        made = self.made(s)
        terms: Terms = {"mse": (made - x).square().mean()}
        loss = self.lam_e * terms["mse"]
        if self.lam_a:
            terms["adversarial"] = self.d.fool(made, s)
            loss = loss + self.lam_a * terms["adversarial"]
        if self.look is not None:
            terms["perceptual"] = self.look((made + 1) / 2, (x + 1) / 2)
            loss = loss + self.lam_p * terms["perceptual"]
        return {"loss": loss, **terms}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, Any]:
        return super().players() if self.lam_a else {"g": self.g}

    def phases(self) -> list[Phase]:
        reads = ("x", "source")
        if not self.lam_a:
            return [Phase("g", self.generator_loss, reads)]
        judge = Phase("d", self.discriminator_loss, reads, critic=True, makes=SAME)
        return [judge, Phase("g", self.generator_loss, SAME)]
