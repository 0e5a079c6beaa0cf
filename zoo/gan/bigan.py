"""BiGAN: a generator and its inverse, learnt by a discriminator of pairs.

Paper      Donahue, Krähenbühl, Darrell. Adversarial Feature Learning. ICLR 2017. arXiv:1605.09782.
Model      x = G(z), z ~ U(-1, 1)^n; a deterministic encoder z = E(x); D(x, z) = σ(s(x, z)) is the
           probability that a pair is (x, E(x)) of an example x and not (G(z), z) of a code z.
Objective  The value function V of equation 3, from logits s:
           D:  -E log D(x, E(x)) - E log(1 - D(G(z), z)), both pairs without gradient.
           G and E, in one optimiser:
               E -log(1 - D(x, E(x))) + E -log D(G(z), z) (g_loss="nonsat", labels swapped), or
               E log D(x, E(x)) + E log(1 - D(G(z), z)) (g_loss="minimax");
               E learns from the first pair alone, G from the second alone.
           At the optimum E inverts G almost everywhere (theorem 2): G(E(x)) = x is what the game
           leads to, not a loss.
Baselines  of the paper: ``regress`` adds its weight times E ‖E(G(z)) - z‖², through E and not into
           G; with ``joint=False`` D is shown no code, and E learns by that alone: the latent
           regressor.
Sampling   G(z), quantised. ``encode`` is E, ``reconstruct`` G(E(x)).
Logs       train/jsd_bound; val/recon_mse, val/recon_permuted, val/code_gain, val/d_acc_real.
Notes      D's step is of the pairs of the makers' step with ``simultaneous``, as in the authors'
           code; by default they take turns, with new pairs. E's end is linear, so that it reaches
           all codes. The paper's networks of ImageNet are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import Adversary, JointModule, LoopOptions, Loss, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, NonNegative, Norm, Positive, Prior, Whole
from zoo.nn.adversarial_losses import divergence
from zoo.nn.joint import JointDiscriminator, perceptron
from zoo.registry import Paper, register

# -log D, -log(1 - D), from logits s of pairs; makers pay for both kinds of pair.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


class Generator(nn.Module):
    """z -> (B, *shape), with tanh for images."""

    def __init__(self, latent: int, shape: Sequence[int], width: int, norm: str) -> None:
        super().__init__()
        self.net = perceptron(latent, torch.Size(shape).numel(), width, norm, 0.0)
        self.end = nn.Sequential(
            nn.Tanh() if len(shape) == 3 else nn.Identity(), nn.Unflatten(1, tuple(shape))
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.end(self.net(z))


class Encoder(nn.Module):
    """(B, *shape) -> z, (B, latent), unbounded."""

    def __init__(self, shape: Sequence[int], latent: int, width: int, norm: str) -> None:
        super().__init__()
        self.net = perceptron(torch.Size(shape).numel(), latent, width, norm, 0.2)

    def forward(self, v: Tensor) -> Tensor:
        return self.net(v.flatten(1))


@register(
    "bigan",
    paper=Paper("Donahue, Krähenbühl, Darrell", "Adversarial Feature Learning", 2017, "1605.09782"),
    about="a deterministic encoder learns to invert the generator, since a discriminator judges "
    "pairs of image and code",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(
        ("val/code_gain", ">", 0.05),
        ("val/is_pixels", ">", 4.8),
        ("val/precision_pixels", ">", 0.35),
        ("val/coverage_pixels", ">", 0.22),
    ),
    waive={
        "accumulation_equals_one_batch": "batch norm's statistics are those of a micro-batch",
        "ddp_equal": "batch norm's statistics are those of one process",
    },
)
class BiGAN(JointModule):
    """See the module's docstring.

    Args:
        spec: vectors or images.
        latent: dimension of z. width: hidden units of each network. norm: "none", "layer" or
            "batch", of G and E.
        joint: whether D is shown codes. regress: weight of E ‖E(G(z)) - z‖².
        prior: "uniform", "normal" or "sphere". g_loss: "nonsat" or "minimax".
        simultaneous: G and E, and D, step from the same pairs and weights; else in turn.
        k: discriminator steps per step of the makers, 1 where they are simultaneous. lr_d: learning
            rate of D. lr_g: of G and E. beta1: Adam's first decay. weight_decay, anneal_steps: see
            ``JointModule``. loop: options of the adversarial loop.
    """

    watches = ("jsd_bound",)

    def __init__(
        self,
        spec: Spec,
        latent: Count = 8,
        width: Count = 256,
        norm: Norm = "batch",
        joint: bool = True,
        regress: NonNegative = 0.0,
        prior: Prior = "uniform",
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        simultaneous: bool = False,
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 1e-3,
        beta1: Decay = 0.5,
        weight_decay: NonNegative = 0.0,
        anneal_steps: Whole = 0,
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
        if not joint and not regress:
            raise ValueError(
                "bigan without joint has no loss for E, got regress=0; set model.regress, e.g. to 1"
            )
        self.joint, self.regress = joint, regress
        self.play(simultaneous, weight_decay, anneal_steps)
        self.g = Generator(latent, spec.shape, width, norm)
        self.e = Encoder(spec.shape, latent, width, norm)
        d = JointDiscriminator(spec.shape, latent, width)
        inputs = [spec.shape, (latent,)]
        self.d = Adversary(self, d, LOSSES[g_loss], inputs=inputs, watch=divergence)

    # -- losses -----------------------------------------------------------------------------------
    def shown(self, z: Tensor) -> Tensor:
        """A code as D sees it."""
        return z if self.joint else torch.zeros_like(z)

    def judge_loss(self, v: Tensor, enc: Tensor, made: Tensor, z: Tensor, batch: Batch) -> Terms:
        return self.d.loss((v, self.shown(enc)), (made, self.shown(z)))

    def pairs_loss(self, v: Tensor, enc: Tensor, made: Tensor, z: Tensor) -> Terms:
        maker = self.d.price.maker
        s_enc = self.d.see(v, self.shown(enc))  # pays as a made one, its sign turned
        loss = maker(-s_enc).mean() + maker(self.d.see(made, self.shown(z))).mean()
        if not self.regress:
            return {"loss": loss}
        error = (self.e(made.detach()) - z).square().mean()
        return {"loss": loss + self.regress * error, "code_mse": error}
