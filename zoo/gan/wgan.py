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

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.core import DataSpec, GeneratorModule, LoopOptions, Phase
from zoo.core.adversarial import TOOLKIT
from zoo.core.module import Batch
from zoo.nn import small
from zoo.nn.prior import Draw
from zoo.registry import Paper, register


@register(
    "wgan",
    paper=Paper("Arjovsky, Chintala, Bottou", "Wasserstein GAN", 2017, "1701.07875"),
    about="a weight-clipped critic estimates the Wasserstein distance up to a constant, and the "
    "generator descends it",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 5.5), ("val/hq", ">", 0.35)),
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

    toolkit = TOOLKIT - {"label_smooth", "label_flip"}  # a critic has no targets

    def __init__(
        self,
        spec: DataSpec,
        latent: int | None = None,
        width: int | None = None,
        kernel: int = 4,
        norm: str = "none",
        init: str = "default",
        prior: str = "normal",
        c: float = 0.1,
        k: int = 5,
        bursts: bool = False,
        lr_d: float = 5e-4,
        lr_g: float = 5e-4,
        alpha: float = 0.99,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if not c > 0:
            raise ValueError(f"wgan: c is a positive bound of the critic's parameters, got {c}")
        super().__init__(spec, loop, latent=latent, prior=prior, k=k, lr_d=lr_d, lr_g=lr_g)
        self.c, self.bursts, self.alpha = c, bursts, alpha
        generator = small.generator(self.latent, spec.shape, width, kernel)
        critic = small.discriminator(spec.shape, width, kernel, norm, bias=False)
        self.build(*small.begun(init, generator, critic))

    # -- losses -----------------------------------------------------------------------------------
    def price_real(self, s: Tensor) -> Tensor:
        return -s

    def price_fake(self, s: Tensor) -> Tensor:
        return s

    def price_generator(self, s: Tensor) -> Tensor:
        return -s

    def watch(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {"w_est": real.mean() - fake.mean()}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """w_est: the critic's difference between each held-out example and one sample, (B,)."""
        x = self.spec.to_signed(batch["x"])
        z = self.draw_codes(len(x), Draw(generator, self.device, self.float_dtype))
        return {"w_est": self.judge(x) - self.judge(self.generator(z))}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.critic_steps),
            Phase("g", self.generator_loss, real=False),
        ]

    def critic_steps(self, step: int) -> int:
        """Critic steps before generator step ``step``, counted from 0."""
        return 100 if self.bursts and (step < 25 or step % 500 == 0) else self.k

    @torch.no_grad()
    def after_step(self, player: str) -> None:
        if player == "d":
            for p in self.discriminator.parameters():
                p.clamp_(-self.c, self.c)

    @torch.no_grad()
    def after_cycle(self, terms: dict[str, Tensor]) -> None:
        parameters = [*self.discriminator.parameters()]
        at_bound = torch.stack([(p.abs() >= p.new_tensor(self.c)).sum() for p in parameters]).sum()
        terms["clip_frac"] = at_bound / sum(p.numel() for p in parameters)

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.RMSprop, alpha=self.alpha)
