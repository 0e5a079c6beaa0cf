"""GoGAN: gang of GANs, trained stage by stage with a maximum margin ranking.

Paper      Juefei-Xu, Boddeti, Savvides. Gang of GANs: Generative Adversarial Networks with Maximum
           Margin Ranking. 2017. arXiv:1704.04865. (RankGAN, ACCV 2018.)
Model      Stages i = 1, 2, ... of a generator G_i and a critic D_i with every parameter in [-c, c].
           G_{i+1} and D_{i+1} start as copies of G_i and D_i, which then stay as they are.
Objective  [v]₊ = max(v, 0); example x_n is paired with code z_n, and both generators of a stage are
           given the same codes.
           stage 1:    D_1:      E [D_1(G_1(z)) + ε - D_1(x)]₊
           stage i+1:  D_{i+1}:  λ1 E [D_{i+1}(G_{i+1}(z)) + ε - D_{i+1}(x)]₊
                                 + λ2 E [D_{i+1}(G_i(z)) + 2ε - D_{i+1}(x)]₊:
                       data above new examples by ε, above those of the stage before by 2ε.
           G_i:        -E D_i(G_i(z)).
           Generated examples carry no gradient in D's loss. With ε -> ∞ and λ2 = 0 this is WGAN.
Training   That of WGAN: k critic steps for one of G, the critic clamped after each, RMSProp;
           optimisers begin anew with each stage.
Logs       train/w_est and val/w_est = E D(x) - E D(G(z)). val/rank_new = P[D(x) > D(G(z))] and
           val/rank_old = P[D(G_{i+1}(z)) > D(G_i(z))]. train/active_new, train/active_old: shares
           of pairs within their margin.
Sampling   z from the prior, G_i(z) of the last stage (or the one given), quantised.
Completion z minimises ‖M (G(z) - x)‖₁ - 0.1 D(G(z)) by Adam, M the known pixels; they are then
           pasted in.
Notes      The ranking is read as one critic, the new one, scoring all three. ``rank_scorer="old"``
           scores old examples by the critic of their stage, D_i(G_i(z)), a number that gives
           D_{i+1} no gradient. The critic's last layer has no bias: a constant added to D changes
           no loss but that of rank_scorer="old". ``stage_steps`` is a number of steps, not a share
           of the run. For images G has batch norm, and past stages are in evaluation mode: G_{i+1}
           starts with the weights of G_i, yet its examples in training are those of a minibatch's
           statistics. Completion is there as ``inpaint``; no score of it is logged.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.bases import Adversary, LoopOptions, Loss, Phase, StagedModule, Terms
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, NonNegative, Norm, Positive, Prior
from zoo.nn import small
from zoo.nn.clipping import clip_weights
from zoo.nn.prior import Draw
from zoo.registry import Paper, register


def hinge(low: Tensor, high: Tensor, margin: float) -> Tensor:
    """[low + margin - high]₊, one value for each pair: what is missing of the margin by which
    ``high`` should be above ``low``.
    """
    return F.relu(low + margin - high)


# G's price is -D; what the critic pays is a price of pairs, in ``discriminator_loss``.
RANKED = Loss(real=lambda s: -s, fake=lambda s: s, maker=lambda s: -s, targets=False)


@register(
    "gogan",
    paper=Paper(
        "Juefei-Xu, Boddeti, Savvides",
        "Gang of GANs: Generative Adversarial Networks with Maximum Margin Ranking",
        2017,
        "1704.04865",
    ),
    about="each stage's critic ranks data above new examples and those above the ones of the "
    "stage before, by margins",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate", "inpaint"},
    data="toy2d",
    learns=(
        ("val/modes", ">", 6.5),
        ("val/hq", ">", 0.5),
        ("val/rank_new", ">", 0.6),
        ("val/rank_old", ">", 0.6),
    ),
)
class GoGAN(StagedModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32). kernel: of the
            convolutions, 4 or 5.
        norm: of the critic, "none", "batch" or "layer". init: "default", or "dcgan" for N(0, 0.02²)
            convolutions.
        prior: "normal", "uniform" or "sphere".
        stages: how many there are. stage_steps: generator steps of each but the last, which has the
            rest of the run.
        epsilon: the margin ε. lambda_new: λ1. lambda_old: λ2. rank_scorer: "new" or "old".
        c: the clamp. k: critic steps per generator step. lr_d: learning rate of the critic. lr_g:
            of G. alpha: RMSProp's decay.
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
        stages: Count = 2,
        stage_steps: Count = 1300,
        epsilon: Positive = 1.0,
        lambda_new: NonNegative = 1.0,
        lambda_old: NonNegative = 0.5,
        rank_scorer: Literal["new", "old"] = "new",
        c: Positive = 0.3,
        k: Count = 5,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 2e-4,
        alpha: Decay = 0.99,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop, latent=latent, prior=prior, k=k, lr_d=lr_d, lr_g=lr_g)
        self.epsilon, self.rank_scorer = epsilon, rank_scorer
        self.lambda_new, self.lambda_old = lambda_new, lambda_old
        self.c, self.alpha = c, alpha
        g = small.generator(self.latent, spec.shape, width, kernel)
        critic = small.discriminator(spec.shape, width, kernel, norm, bias=False)
        self.g, critic = small.begun(init, g, critic)
        paired = {"replay": "examples are paired by their codes"}
        self.d = Adversary(self, critic, RANKED, without=paired)
        self.begin(stages, stage_steps)

    # -- losses -----------------------------------------------------------------------------------
    def ranked(self, x: Tensor) -> list[Tensor]:
        """D's scores of examples, of as many new ones and, from the second stage on, of old ones of
        the same codes, (B,) each.
        """
        stage, z = int(self.stage), self.codes(len(x))
        with torch.no_grad():
            views = [x, *(self.of_stage(i)(z) for i in (stage, stage - 1) if i)]
        views = [self.d.noisy(v) for v in views]
        if self.loop.separate_batches:
            scores = [self.d(v) for v in views]
        else:
            scores = [*self.d(torch.cat(views)).chunk(len(views))]
        if stage > 1 and self.rank_scorer == "old":
            with torch.no_grad():
                scores[2] = self.of_stage(stage - 1, "d")(views[2])
        return scores

    def discriminator_loss(self, batch: Batch) -> Terms:
        x = self.scaled(batch["x"])
        real, new, *old = self.ranked(x)
        missing = hinge(new, real, self.epsilon)
        terms = {
            "loss": missing.mean(),
            "w_est": real.mean() - new.mean(),
            "active_new": (missing > 0).float().mean(),
        }
        if old:
            behind = hinge(old[0], real, 2 * self.epsilon)
            terms |= {
                "loss": self.lambda_new * missing.mean() + self.lambda_old * behind.mean(),
                "active_old": (behind > 0).float().mean(),
                "rank_old": (new > old[0]).float().mean(),
            }
        return self.d.regularised(terms, x)

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """Of each held-out example and one sample, (B,): w_est, and whether they are ranked as they
        should be.
        """
        x, stage = self.scaled(batch["x"]), int(self.stage)
        z = self.draw_codes(batch.n, Draw(generator, self.device, self.float_dtype))
        real, new = self.d(x), self.d(self.g(z))
        values = {"w_est": real - new, "rank_new": (real > new).to(real.dtype)}
        if stage > 1:
            values["rank_old"] = (new > self.d(self.of_stage(stage - 1)(z))).to(real.dtype)
        return values

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    def after_step(self, player: str) -> None:
        if player == "d":
            clip_weights(self.d, self.c)

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self, n: int, *, generator: torch.Generator | None = None, stage: int = -1
    ) -> Tensor:
        """n examples of a stage, counted from 1; -1 is the last so far."""
        z = self.draw_codes(n, Draw(generator, self.device, self.float_dtype))
        return self.quantised(self.of_stage(stage)(z))

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        known: Tensor,
        *,
        generator: torch.Generator | None = None,
        steps: int = 500,
        lr: Positive = 0.05,
        realism: float = 0.1,
    ) -> Tensor:
        """x completed where ``known`` is False, by a search of ``steps`` Adam steps for its code,
        from a draw of the prior.
        """
        wanted = self.scaled(x)
        z = self.draw_codes(len(x), Draw(generator, self.device, self.float_dtype))
        with torch.enable_grad():
            z.requires_grad_()
            search = torch.optim.Adam([z], lr)
            for _ in range(steps):
                made = self.g(z)
                apart = ((made - wanted).abs() * known).flatten(1).sum(1)
                (z.grad,) = torch.autograd.grad((apart - realism * self.d(made)).sum(), z)
                search.step()
        return torch.where(known, x, self.from_codes(z.detach()))

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.RMSprop, alpha=self.alpha)
