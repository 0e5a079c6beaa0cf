"""GoGAN: gang of GANs, trained stage by stage with a maximum margin ranking.

Paper      Juefei-Xu, Boddeti, Savvides. Gang of GANs: Generative Adversarial Networks with Maximum
           Margin Ranking. 2017. arXiv:1704.04865. (RankGAN, ACCV 2018.)
Model      Stages i = 1, 2, ... of a generator G_i and a critic D_i with every parameter in [-c, c].
           G_{i+1} and D_{i+1} start as copies of G_i and D_i, which then stay as they are.
Objective  [v]₊ = max(v, 0); example x_n is paired with code z_n, and both generators of a stage are
           given the same codes.
           stage 1:    D_1:      E [D_1(G_1(z)) + ε - D_1(x)]₊
           stage i+1:  D_{i+1}:  λ1 E [D_{i+1}(G_{i+1}(z)) + ε - D_{i+1}(x)]₊ + λ2 E
           [D_{i+1}(G_i(z)) + 2ε - D_{i+1}(x)]₊:
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

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.core import DataSpec, LoopOptions, StagedModule
from zoo.core.adversarial import TOOLKIT, Terms
from zoo.core.module import Batch
from zoo.nn import small
from zoo.nn.prior import Draw
from zoo.registry import Paper, register


def hinge(low: Tensor, high: Tensor, margin: float) -> Tensor:
    """[low + margin - high]₊, one value for each pair: what is missing of the margin by which
    ``high`` should be above ``low``.
    """
    return F.relu(low + margin - high)


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

    toolkit = TOOLKIT - {
        "label_smooth",
        "label_flip",
        "replay",
    }  # a critic has no targets, and examples are paired by their codes

    def __init__(
        self,
        spec: DataSpec,
        latent: int | None = None,
        width: int | None = None,
        kernel: int = 4,
        norm: str = "none",
        init: str = "default",
        prior: str = "normal",
        stages: int = 2,
        stage_steps: int = 1300,
        epsilon: float = 1.0,
        lambda_new: float = 1.0,
        lambda_old: float = 0.5,
        rank_scorer: str = "new",
        c: float = 0.3,
        k: int = 5,
        lr_d: float = 5e-4,
        lr_g: float = 2e-4,
        alpha: float = 0.99,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        if not c > 0:
            raise ValueError(f"gogan: c is a positive bound of the critic's parameters, got {c}")
        if not epsilon > 0 or lambda_new < 0 or lambda_old < 0:
            raise ValueError(
                f"gogan: epsilon is positive, lambda_new and lambda_old are not negative, got "
                f"{epsilon}, {lambda_new}, {lambda_old}"
            )
        if rank_scorer not in ("new", "old"):
            raise ValueError(f"gogan: rank_scorer is new or old, got {rank_scorer!r}")
        super().__init__(spec, loop, latent=latent, prior=prior, k=k, lr_d=lr_d, lr_g=lr_g)
        self.epsilon, self.lambda_new, self.lambda_old, self.rank_scorer = (
            epsilon,
            lambda_new,
            lambda_old,
            rank_scorer,
        )
        self.c, self.alpha = c, alpha
        generator = small.generator(self.latent, spec.shape, width, kernel)
        critic = small.discriminator(spec.shape, width, kernel, norm, bias=False)
        self.build_stages(*small.begun(init, generator, critic), stages, stage_steps)

    # -- losses -----------------------------------------------------------------------------------
    def ranked(self, x: Tensor) -> list[Tensor]:
        """D's scores of examples, of as many new ones and, from the second stage on, of old ones of
        the same codes, (B,) each.
        """
        stage, z = int(self.stage), self.draw_codes(len(x), self.noise)
        with torch.no_grad():
            views = [self.d_input(x), *(self.of_stage(i)(z) for i in (stage, stage - 1) if i)]
        views = [self.seen(v) for v in views]
        scores = (
            [self.judge(v) for v in views]
            if self.loop.separate_batches
            else [*self.judge(torch.cat(views)).chunk(len(views))]
        )
        if stage > 1 and self.rank_scorer == "old":
            with torch.no_grad():
                scores[2] = self.of_stage(stage - 1, "discriminator")(views[2])
        return scores

    def discriminator_loss(self, batch: Batch) -> Terms:
        real, new, *old = self.ranked(batch["x"])
        missing = hinge(new, real, self.epsilon)
        terms = {"w_est": real.mean() - new.mean(), "active_new": (missing > 0).float().mean()}
        if not old:
            return {"loss": missing.mean(), **terms}
        behind = hinge(old[0], real, 2 * self.epsilon)
        loss = self.lambda_new * missing.mean() + self.lambda_old * behind.mean()
        return {
            "loss": loss,
            **terms,
            "active_old": (behind > 0).float().mean(),
            "rank_old": (new > old[0]).float().mean(),
        }

    def price_generator(self, s: Tensor) -> Tensor:
        return -s

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Of each held-out example and one sample, (B,): w_est, and whether they are ranked as they
        should be.
        """
        x, stage = self.d_input(batch["x"]), int(self.stage)
        z = self.draw_codes(len(x), Draw(generator, self.device, self.float_dtype))
        real, new = self.judge(x), self.judge(self.make(z))
        values = {"w_est": real - new, "rank_new": (real > new).to(real.dtype)}
        if stage > 1:
            values["rank_old"] = (new > self.judge(self.of_stage(stage - 1)(z))).to(real.dtype)
        return values

    # -- the game ---------------------------------------------------------------------------------
    @torch.no_grad()
    def after_step(self, player: str) -> None:
        if player == "d":
            for p in self.discriminator.parameters():
                p.clamp_(-self.c, self.c)

    # -- use --------------------------------------------------------------------------------------
    def sample(
        self,
        n: int,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
        stage: int = -1,
    ) -> Tensor:
        """n examples of a stage, counted from 1; -1 is the last so far."""
        z = self.draw_codes(n, Draw(generator, self.device, self.float_dtype))
        return self.spec.from_signed(self.of_stage(stage)(z))

    def inpaint(
        self,
        x: Tensor,
        known: Tensor,
        *,
        generator: torch.Generator | None = None,
        steps: int = 500,
        lr: float = 0.05,
        realism: float = 0.1,
    ) -> Tensor:
        """x completed where ``known`` is False, by a search of ``steps`` Adam steps for its code,
        from a draw of the prior.
        """
        wanted = self.d_input(x)
        z = self.draw_codes(len(x), Draw(generator, self.device, self.float_dtype))
        with torch.enable_grad():
            z.requires_grad_()
            search = torch.optim.Adam([z], lr)
            for _ in range(steps):
                made = self.make(z)
                apart = ((made - wanted).abs() * known).flatten(1).sum(1)
                (z.grad,) = torch.autograd.grad((apart - realism * self.judge(made)).sum(), z)
                search.step()
        return torch.where(known, x, self.from_codes(z.detach()))

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.RMSprop, alpha=self.alpha)
