"""AdaGAN: boosting generators, each trained on what the mixture of those before it has missed.

Paper      Tolstikhin, Gelly, Bousquet, Simon-Gabriel, Schölkopf. AdaGAN: Boosting Generative
           Models. NIPS 2017. arXiv:1701.02386.
Model      A mixture P_t = (1 - β_t) P_{t-1} + β_t Q_t, β_1 = 1, of generators x = G_t(z), one for
           each stage.
Objective  In stage t, with a new pair, the game of Goodfellow et al. 2014 on rows drawn with
           replacement with probabilities w:
           D:  -E_w log D(x) - E log(1 - D(G(z_D))), G(z_D) detached.
           G:  -E log D(G(z_G)) (g_loss="nonsat"), or E log(1 - D(G(z_G))) (g_loss="minimax").
Weights    w_n = 1/N in the first stage. Before another, with β = β_t, a classifier C is trained to
           tell the N training examples from samples of P_{t-1}; h_n = (1 - C(x_n))/C(x_n) estimates
           dP_{t-1}/dP_data, and by ``rule``
           "theory_star":    w_n = [λ - (1 - β) h_n]₊ / (Nβ), which minimises
                             JSD((1 - β) P_{t-1} + β Q ‖ P_data) over Q (theorem 2);
           "theory_dagger":  w_n = [1 - λ (1 - β) h_n]₊ / (Nβ) (theorem 3);
           "topk":           uniform on the share ``top`` of the examples with the smallest h
                             (section 3.3),
           λ being the number with which Σ w_n = 1.
Sampling   The generator is drawn for each sample, with probability β_i Π_{j>i} (1 - β_j) that of
           stage i; then G_i(z), quantised.
Logs       train/ess = 1/(N Σ w²), the effective share of the examples; train/unused, the share
           whose weight is 0.
Notes      β_t = 1/t (beta="uniform") makes a uniform mixture. As h is an estimate, theory_dagger's
           λ may be below 1, and where no λ will do, more than Nβ examples having h = 0, these share
           the weight. C is a network like D, trained for ``mix_steps`` steps on quantised samples
           and then thrown away, without the loop's options; only w stays. From the second stage on
           rows are read as they are, not augmented. Codes and the paths between them are those of
           the generator in training. The mass of the data under the model's 95 % support, the
           paper's coverage, is not logged; val/modes and val/recall say as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases import Adversary, LoopOptions, Loss, Phase, StagedModule, Terms
from zoo.core import Batch, Spec
from zoo.core.noise import mix, seeded
from zoo.core.options import Count, Decay, Positive, Prior, Range
from zoo.core.transfer import fresh
from zoo.nn import small
from zoo.nn.adversarial_losses import divergence
from zoo.nn.prior import Draw
from zoo.registry import Paper, register

ROWS = 256  # of either kind in one step of the classifier


def theory_star(h: Tensor, beta: float) -> Tensor:
    """[λ - (1 - β) h]₊ / (Nβ), which sums to 1. The r smallest values a_1 <= ... <= a_r of (1 - β)
    h are below λ = (Nβ + Σ a)/r.
    """
    a, order = ((1 - beta) * h).sort()
    count = torch.arange(1, len(a) + 1, device=a.device)
    r = int((count * a - a.cumsum(0) < len(a) * beta).sum())
    return _normalised(F.relu((len(a) * beta + a[:r].sum()) / r - a), order)


def theory_dagger(h: Tensor, beta: float) -> Tensor:
    """[1 - λ (1 - β) h]₊ / (Nβ), which sums to 1: of the r smallest values a_i of (1 - β) h, λ = (r
    - Nβ)/Σ a.
    """
    a, order = ((1 - beta) * h).sort()
    count = torch.arange(1, len(a) + 1, device=a.device)
    r = int((count * a - a.cumsum(0) <= len(a) * beta * a).sum())
    share = torch.where(a > 0, a / a[:r].sum(), a)
    return _normalised(F.relu(1 - (r - len(a) * beta) * share), order)


def topk(h: Tensor, top: float) -> Tensor:
    """Uniform on the share ``top`` of the smallest values, at least one."""
    chosen = h.argsort()[: max(round(top * len(h)), 1)]
    return torch.zeros_like(h).index_fill_(0, chosen, 1 / len(chosen))


def _normalised(w: Tensor, order: Tensor) -> Tensor:
    return torch.empty_like(w).index_copy_(0, order, w / w.sum())


def mixture_weights(betas: Sequence[float]) -> list[float]:
    """Each generator's share of the mixture, from β_1 = 1, β_2, ...: β_i Π_{j>i} (1 - β_j)."""
    shares: list[float] = []
    for beta in betas:
        shares = [*((1 - beta) * share for share in shares), beta]
    return shares


# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)) or log(1 - D(G(z))), from logits s.
LOSSES = {
    "nonsat": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s)),
    "minimax": Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: -F.softplus(s)),
}


@register(
    "adagan",
    paper=Paper(
        "Tolstikhin, Gelly, Bousquet, Simon-Gabriel, Schölkopf",
        "AdaGAN: Boosting Generative Models",
        2017,
        "1701.02386",
    ),
    about="generators trained one after another on data reweighted towards what their mixture has "
    "missed",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "interpolate"},
    data="toy2d",
    learns=(("val/modes", ">", 20.5), ("val/hq", ">", 0.5), ("val/hq_strict", ">", 0.25)),
)
class AdaGAN(StagedModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        latent: dimension of z; None is that of the data for vectors and 32 for images.
        width: hidden units for vectors (None is 128), filters for images (32).
        prior: "normal", "uniform" or "sphere". g_loss: "nonsat" or "minimax".
        stages: generators of the mixture. stage_steps: generator steps of each but the last, which
            has the rest of the run.
        rule: "theory_star", "theory_dagger" or "topk". top: the share of the examples that topk
            keeps.
        beta: "uniform" for β_t = 1/t, or "constant" for β_t = ``beta_constant``.
        mix_steps: steps of the classifier C. lr_mix: its learning rate.
        k: discriminator steps per generator step. lr_d: learning rate of D. lr_g: of G. beta1:
            Adam's first decay.
        loop: options of the adversarial loop.
    """

    watches = ("jsd_bound", "ess")
    kept = ("g",)
    anew = True
    w: Tensor

    def __init__(
        self,
        spec: Spec,
        latent: Count | None = None,
        width: Count | None = None,
        prior: Prior = "normal",
        g_loss: Literal["nonsat", "minimax"] = "nonsat",
        stages: Count = 4,
        stage_steps: Count = 700,
        rule: Literal["theory_star", "theory_dagger", "topk"] = "theory_star",
        top: Annotated[float, Range(0, 1, above=True)] = 0.5,
        beta: Literal["uniform", "constant"] = "uniform",
        beta_constant: Annotated[float, Range(0, 1, above=True, below=True)] = 0.5,
        mix_steps: Count = 300,
        lr_mix: Positive = 1e-3,
        k: Count = 1,
        lr_d: Positive = 5e-4,
        lr_g: Positive = 5e-4,
        beta1: Decay = 0.5,
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
        self.rule, self.top, self.beta, self.beta_constant = rule, top, beta, beta_constant
        self.mix_steps, self.lr_mix = mix_steps, lr_mix
        self.g = small.generator(self.latent, spec.shape, width)
        d = small.discriminator(spec.shape, width)
        self.d = Adversary(self, d, LOSSES[g_loss], watch=divergence)
        self.begin(stages, stage_steps)
        # As many as there are training examples, once they are known.
        self.register_buffer("w", torch.ones(1, dtype=torch.float64))

    def initialise_from(self, batch: Batch) -> None:
        self.w = self.w.new_full((batch.n,), 1 / batch.n)

    def beta_of(self, stage: int) -> float:
        """β_t, the share that stage t's generator has when it joins."""
        if stage == 1:
            return 1.0
        return 1 / stage if self.beta == "uniform" else self.beta_constant

    # -- a stage begins ---------------------------------------------------------------------------
    def begin_stage(self) -> None:
        stage, data = int(self.stage), self._data()
        x = data.examples()["x"].to(self.device, self.float_dtype)
        h = self.ratio(x, stage - 1)
        if self.rule == "topk":
            w = topk(h, self.top)
        else:
            rule = theory_star if self.rule == "theory_star" else theory_dagger
            w = rule(h, self.beta_of(stage))
        self.w = self.reduce(w)  # the same to the last bit on every process
        made: Any = fresh(self, mix(int(self.noise_seed), "networks", stage))
        for name in ("g", "d"):
            self.net(name).load_state_dict(made.net(name).state_dict())

    def ratio(self, x: Tensor, stages: int) -> Tensor:
        """h, (N,) float64, of all training examples: a new classifier's estimate of the mixture's
        density over the data's.
        """
        seed = int(self.noise_seed)
        source = seeded(seed, "mix", stages, device=self.device)
        new: Any = fresh(self, mix(seed, "classifier", stages), loop=LoopOptions())
        classifier = new.d.net.train()
        optimiser = torch.optim.Adam(classifier.parameters(), self.lr_mix)
        for _ in range(self.mix_steps):
            real = x[torch.randint(len(x), (ROWS,), generator=source, device=self.device)]
            fake = self.draw_from(ROWS, stages, source)
            with torch.enable_grad():
                s = classifier(self.scaled(torch.cat([real, fake])))
                loss = F.softplus(-s[:ROWS]).mean() + F.softplus(s[ROWS:]).mean()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
            optimiser.step()
        with torch.no_grad():
            s = torch.cat([classifier.eval()(self.scaled(part)) for part in x.split(4096)])
        return s.double().neg().exp()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._data()

    def _data(self) -> Any:
        trainer: Any = self.trainer
        if not hasattr(trainer.datamodule, "evaluation_batch"):
            raise ValueError(
                "adagan reads training examples by their weights; train it on a data module of "
                "the zoo"
            )
        return trainer.datamodule

    # -- losses -----------------------------------------------------------------------------------
    def drawn(self, batch: Batch) -> Batch:
        """From the second stage on as many rows of the training data, drawn by their weights."""
        if int(self.stage) == 1:
            return batch
        u = self.noise.uniform(batch.n).double()
        rows = torch.searchsorted(self.w.cumsum(0), u, right=True).clamp(max=len(self.w) - 1)
        drawn = self._data().evaluation_batch("train", rows.cpu())
        return drawn.to(self.device, self.float_dtype)

    def discriminator_loss(self, batch: Batch) -> Terms:
        x = self.scaled(self.drawn(batch)["x"])
        return self.d.loss((x,), (self.g(self.codes(batch.n)),))

    def generator_loss(self, batch: Batch) -> Terms:
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    def after_cycle(self, terms: Terms) -> None:
        terms["ess"] = 1 / (len(self.w) * self.w.square().sum())
        terms["unused"] = (self.w == 0).double().mean()

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def draw_from(self, n: int, stages: int, generator: torch.Generator | None = None) -> Tensor:
        """n examples of the mixture as it was after this many stages."""
        source = Draw(generator, self.device, self.float_dtype)
        z, u = self.draw_codes(n, source), source.uniform(n)
        shares = mixture_weights([self.beta_of(t) for t in range(1, stages + 1)])
        edges = torch.tensor(shares).cumsum(0)[:-1]
        which = torch.bucketize(u, edges.to(u), right=True)
        x = z.new_empty(n, *self.spec.shape)
        for i in range(stages):
            rows = which == i
            if rows.any():
                x[rows] = self.of_stage(i + 1)(z[rows])
        return self.quantised(x)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.draw_from(n, int(self.stage), generator)

    # -- checkpoints ------------------------------------------------------------------------------
    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        if prefix + "w" in state:  # as many as the checkpoint holds
            self.w = torch.empty_like(state[prefix + "w"], device=self.device)
        super()._load_from_state_dict(state, prefix, *rest)
