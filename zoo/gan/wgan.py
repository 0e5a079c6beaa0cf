"""WGAN: Wasserstein GAN with weight clipping.

Paper      Arjovsky, Chintala, Bottou. Wasserstein GAN. ICML 2017. arXiv:1701.07875.
Model      x = G(z); a critic f with every parameter in [-c, c], hence K-Lipschitz for some K that
           the networks and c fix.
Objective  critic:  E f(G(z_D)) - E f(x), G(z_D) detached; its descent approaches -K·W1(p, q).
           G:       -E f(G(z_G)).
Training   Algorithm 1: k critic steps for one of G; after every critic step every critic parameter,
           biases and gains too, is clamped to [-c, c]. RMSProp for both, as the paper found
           momentum to destabilise the critic (section 4). bursts=True: 100 critic steps in each of
           G's first 25 steps and in every 500th (the authors' code).
Logs       train/w_est and val/w_est = E f(x) - E f(G(z)), proportional to W1 by the unknown K:
           comparable for one critic and one c only. train/clip_frac: share of the critic's
           parameters at ±c.
Sampling   z from the prior, G(z), quantised.
Notes      Algorithm 1 clamps after the step; the authors' code before the next one, so that G's
           step sees an unclamped critic. The critic's last layer has no bias: a constant added to f
           changes neither loss. The default networks are MLPs for vectors and small convolutional
           nets for images, no norm in the critic; the paper's are DCGAN's at 64x64 with batch norm
           in both (width=64, norm="batch", init="dcgan").
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.bases import Adversary, GeneratorModule, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, Norm, Positive, Prior
from zoo.nn import small
from zoo.nn.clipping import clip_weights
from zoo.nn.prior import Draw
from zoo.registry import Paper, register

WASSERSTEIN = Loss(real=lambda f: -f, fake=lambda f: f, maker=lambda f: -f, targets=False)


@register(
    "wgan",
    paper=Paper("Arjovsky, Chintala, Bottou", "Wasserstein GAN", 2017, "1701.07875"),
    about="a weight-clipped critic estimates the Wasserstein distance up to a constant, and the "
    "generator descends it",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 5.5), ("val/hq", ">", 0.45)),
)
class WGAN(GeneratorModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32). kernel: of the
            convolutions, 4 or 5.
        norm: of the critic, "none", "batch" or "layer". init: "default", or "dcgan" for N(0, 0.02²)
            convolutions.
        prior: "normal", "uniform" or "sphere".
        c: the clamp. k: critic steps per generator step. bursts: the schedule of 100 critic steps.
        lr_d: learning rate of the critic. lr_g: of G. alpha: RMSProp's decay.
        loop: options of the adversarial loop.
    """

    watches = ("w_est",)

    def __init__(
        self,
        spec: Spec,
        latent: Count | None = None,
        width: Count | None = None,
        kernel: Literal[4, 5] = 4,
        norm: Norm = "none",
        init: Literal["default", "dcgan"] = "default",
        prior: Prior = "normal",
        c: Positive = 0.1,
        k: Count = 5,
        bursts: bool = False,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        alpha: Decay = 0.99,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop, latent=latent, prior=prior, k=k, lr_d=lr_d, lr_g=lr_g)
        self.c, self.bursts, self.alpha = c, bursts, alpha
        g = small.generator(self.latent, spec.shape, width, kernel)
        critic = small.discriminator(spec.shape, width, kernel, norm, bias=False)
        self.g, critic = small.begun(init, g, critic)
        self.d = Adversary(self, critic, WASSERSTEIN, watch=self.estimate)

    # -- losses -----------------------------------------------------------------------------------
    @staticmethod
    def estimate(real: Tensor, fake: Tensor) -> Terms:
        return {"w_est": real.mean() - fake.mean()}

    def discriminator_loss(self, batch: Batch) -> Terms:
        return self.d.loss((self.scaled(batch["x"]),), (self.g(self.codes(batch.n)),))

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """w_est: the critic's difference between each held-out example and one sample, (B,)."""
        z = self.draw_codes(batch.n, Draw(generator, self.device, self.float_dtype))
        return {"w_est": self.d(self.scaled(batch["x"])) - self.d(self.g(z))}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.critic_steps, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    def critic_steps(self, step: int) -> int:
        """Critic steps before generator step ``step``, counted from 0."""
        return 100 if self.bursts and (step < 25 or step % 500 == 0) else self.k

    def after_step(self, player: str) -> None:
        if player == "d":
            clip_weights(self.d, self.c)

    @torch.no_grad()
    def after_cycle(self, terms: dict[str, Tensor]) -> None:
        parameters = [*self.d.parameters()]
        at_bound = torch.stack([(p.abs() >= p.new_tensor(self.c)).sum() for p in parameters]).sum()
        terms["clip_frac"] = at_bound / sum(p.numel() for p in parameters)

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.RMSprop, alpha=self.alpha)
