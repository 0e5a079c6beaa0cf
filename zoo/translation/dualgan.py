"""DualGAN: two domains without pairs as a dual task, by Wasserstein critics and round trips.

Paper      Yi, Zhang, Tan, Gong. DualGAN: unsupervised dual learning for image-to-image translation.
           ICCV 2017. arXiv:1704.02510.
Model      Two U-Nets of pix2pix, here by the domain that they make: G_b(a, z), the paper's G_A, and
           G_a(b, z'), its G_B; z is dropout in the first levels of the decoder, and nothing else.
           D_b and D_a, the paper's D_A and D_B, score patches of the domain that they judge.
Objective  Means over rows and patches; z is drawn anew for every pass, images are in [-1, 1]:
           critics: E D_b(G_b(a, z)) - E D_b(b) + E D_a(G_a(b, z')) - E D_a(a), what is made
                    detached;
           G:       λ_a E |a - G_a(G_b(a, z), z')| + λ_b E |b - G_b(G_a(b, z'), z)|
                    - E D_a(G_a(b, z')) - E D_b(G_b(a, z)).
           loss="bce", the authors' code: D and G pay cross-entropies of logits instead.
Training   RMSProp. k steps of both critics, each with images of its own, for one of both G; after
           every step of the critics all of their parameters are clamped to [-c, c], as WGAN's are.
           loss="bce" clamps none, and has two steps of both G for one of both D.
Logs       train/w_a, w_b: E D(x) - E D(made) of either domain; recon_a, recon_b, the distances that
           λ weighs. val/cycle_a, cycle_b: the same on [0, 1], of held-out images, and back_l1 of
           G_a where its answer is known; val/psnr and the like of G_b.
Sampling   G_b(a, z) or G_a(b, z), dropout drawn anew; ``translate(..., deterministic=True)`` draws
           none.
Notes      Instance norms, in the U-Nets with gains as in ``pix2pix``, in the critics without: no
           image knows of another, and no gain is clamped. A Wasserstein critic's last layer has no
           bias: a constant added to its scores changes no loss. The paper has λ of 100 to 1000, c
           of .01 to .1 and k of 2 to 4; the code λ = 20. Where scores weigh too little, round
           trips are learnt and digits become others: at λ = 100 with c = .01, and with patches of
           16 pixels (layers=1) from some seeds.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import Adversary, DomainsModule, LoopOptions, Loss, Phase, Terms
from zoo.bases.translation import OTHER
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Share, Whole
from zoo.nn.clipping import clip_weights
from zoo.nn.patches import PatchDiscriminator, check_patches
from zoo.nn.prior import Draw, Source
from zoo.nn.small import initialise
from zoo.nn.unet import UNet
from zoo.registry import Paper, register

GAMES = {
    "wgan": Loss(real=lambda s: -s, fake=lambda s: s, maker=lambda s: -s, targets=False),
    "bce": Loss(
        real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)
    ),  # -log D, -log(1 - D), -log D, from logits s
}


def estimate(real: Tensor, fake: Tensor) -> Terms:
    """w, by how much a critic's scores of data are above those of what was made."""
    return {"w": real.mean() - fake.mean()}


@register(
    "dualgan",
    paper=Paper(
        "Yi, Zhang, Tan, Gong",
        "DualGAN: unsupervised dual learning for image-to-image translation",
        2017,
        "1704.02510",
    ),
    about="two domains without pairs: U-Nets there and back, Wasserstein critics, dropout as noise",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "translate"},
    told=("a",),
    makes=("b",),
    data="unpaired",
    learns=(("val/l1_share", "<", 0.45), ("val/class_kept", ">", 0.8)),
)
class DualGAN(DomainsModule):
    """See the module's docstring.

    Args:
        spec: two fields of images, a and b, of one height and width, powers of two or multiples of
            one.
        width: filters of the first layer of the generators and the critics. widest: most filters of
            a layer of a generator. levels: halvings in a generator; None is down to one pixel of
            the shorter side. layers: of stride 2 in a critic: a patch is 16, 34 or 70 pixels for 1,
            2 or 3.
        dropout: share of values dropped. noisy: levels of the decoder that have it.
        loss: "wgan", the paper's, or "bce", the authors' code's.
        lam_a, lam_b: λ_a, λ_b. c: the clamp.
        k: critic steps in a row; None is 3, and 1 with loss="bce".
        lr_d: learning rate of both critics. lr_g: of both G. alpha: RMSProp's decay. loop: options
            of the adversarial loop.
    """

    watches = ("recon_a", "w_b")

    def __init__(
        self,
        spec: Spec,
        width: Count = 16,
        widest: Count = 64,
        levels: Count | None = None,
        layers: Count = 2,
        dropout: Share = 0.5,
        noisy: Whole = 2,
        loss: Literal["wgan", "bce"] = "wgan",
        lam_a: NonNegative = 100.0,
        lam_b: NonNegative = 100.0,
        c: Positive = 0.1,
        k: Count | None = None,
        lr_d: Positive = 5e-5,
        lr_g: Positive = 5e-5,
        alpha: Decay = 0.9,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        shapes = {name: spec[name].shape for name in "ab"}
        sides = shapes["a"][1:]
        if sides != shapes["b"][1:]:
            raise ValueError(f"dualgan: images of both domains have one size, got {spec}")
        levels = levels or min(sides).bit_length() - 1
        self.grain = 1 << levels
        if any(side % self.grain for side in sides):
            raise ValueError(
                f"dualgan: {levels} halvings take sides that are multiples of {self.grain}, got "
                f"{spec}; set --data.size to one, or model.levels lower"
            )
        check_patches("dualgan", sides[0], sides[1], layers)
        self.loss, self.lam, self.c = loss, {"a": lam_a, "b": lam_b}, c
        self.k = k or (3 if loss == "wgan" else 1)
        self.lr_d, self.lr_g, self.alpha = lr_d, lr_g, alpha

        widths = tuple(min(width << i, widest) for i in range(levels))
        self.g, self.d = nn.ModuleDict(), nn.ModuleDict()
        for name, shape in shapes.items():
            g = UNet(shapes[OTHER[name]][0], shape[0], widths, dropout, noisy)
            net = PatchDiscriminator(shape[0], width, layers, nn.InstanceNorm2d, bias=loss == "bce")
            self.g[name] = initialise(g, biases=True)
            self.d[name] = Adversary(
                self, initialise(net, biases=True), GAMES[loss], inputs=[shape], watch=estimate
            )

    def made(self, name: str, v: Tensor, noise: Source | None = None) -> Tensor:
        return self.g[name](v, noise)

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        real = dict(zip("ab", self.both(batch), strict=True))
        terms: Terms = {}
        for name, d in self.d.items():
            with torch.no_grad():
                made = self.made(name, real[OTHER[name]], self.noise)
            for key, value in d.loss((real[name],), (made,)).items():
                terms[f"{key}_{name}"] = value
        return {**terms, "loss": terms["loss_a"] + terms["loss_b"]}

    def generator_loss(self, batch: Batch) -> Terms:
        real = dict(zip("ab", self.both(batch), strict=True))
        terms: Terms = {}
        loss = real["a"].new_zeros(())
        for name, x in real.items():
            there = self.made(OTHER[name], x, self.noise)
            recon = (x - self.made(name, there, self.noise)).abs().mean()
            terms[f"recon_{name}"] = recon
            loss = loss + self.lam[name] * recon + self.d[OTHER[name]].fool(there)
        return {**terms, "loss": loss}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        reads = ("a", "b")
        turns = 1 if self.loss == "wgan" else 2
        return [
            Phase("d", self.discriminator_loss, reads, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads, repeat=turns),
        ]

    def after_step(self, player: str) -> None:
        if player == "d" and self.loss == "wgan":
            clip_weights(self.d, self.c)

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def translate(
        self,
        x: Tensor,
        to: str = "b",
        *,
        generator: torch.Generator | None = None,
        deterministic: bool = False,
    ) -> Tensor:
        """As of any model of two domains.

        Args:
            deterministic: without dropout.
        """
        noise = None if deterministic else Draw(generator, self.device, self.float_dtype)
        return self.images(to, self.made(to, self.scaled(OTHER[to], x), noise))

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.RMSprop, alpha=self.alpha)
