"""DBM: deep Boltzmann machine with two hidden layers.

Paper      Salakhutdinov and Hinton. Deep Boltzmann Machines. AISTATS 2009.
Model      E(v, h1, h2) = -b·v - c1·h1 - c2·h2 - v·W1 h1 - h1·W2 h2; P(h1 | v, h2) = sigmoid(c1 + v
           W1 + W2 h2), P(v | h1) = sigmoid(b + W1 h1), P(h2 | h1) = sigmoid(c2 + h1 W2). Given h1,
           v and h2 are independent: the machine is an RBM whose visible layer is s = (v, h2), with
           weights [W1; W2ᵀ] and biases (b, c2).
Objective  Pretraining, layer by layer, by one step of contrastive divergence on <v h>:
               pre1  P(h1 | v) = sigmoid(2 v W1 + c1), P(v | h1) = sigmoid(W1 h1 + b): each h1 will
                     hear two layers;
               pre2  the same for h1 ~ sigmoid(2 v W1 + c1) under P(h1 | h2) = sigmoid(2 W2 h2 + a),
                     P(h2 | h1) = sigmoid(h1 W2 + c2).
           joint  mean F(s⁻) subtracted from the mean energy at (v, μ1, μ2), the mean field μ
                  constant, s⁻ = ``particles`` moved k steps:
               ∇W1 = <v~ h1~> - <v μ1>, ∇W2 = <h1~ h2~> - <μ1 μ2>, h1~ as its probability given s⁻.
Bound      log P(v) >= b·v + v W1 μ1 + μ1 W2 μ2 + c1·μ1 + c2·μ2 + H(μ1) + H(μ2) - log Z, with, by
           turns,
               μ1 <- sigmoid(c1 + v W1 + W2 μ2), μ2 <- sigmoid(c2 + μ1 W2), begun at sigmoid(c1 + 2
               v W1).
           log Z of the RBM above, by enumeration or annealed as rbm's, from below and from above.
Sampling   Gibbs chains of h1 | s and s | h1, started from pixels at the data's means.
Notes      The phase follows from ``updates``, a buffer. a serves pretraining alone; c1 is pre1's.
           Particles are one set for all processes. Sparsity targets and discriminative fine-tuning
           are not here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import LikelihoodModule
from zoo.core import Batch, Spec
from zoo.core.noise import seeded
from zoo.core.options import Count, Positive, Whole
from zoo.core.remember import Remembered
from zoo.nn.boltzmann import all_states, bernoulli, enumerable, free_energy, log_z_bounds
from zoo.registry import Paper, register

PHASES = ("pre1", "pre2", "joint")


def entropy(p: Tensor) -> Tensor:
    """Of independent bits with these probabilities, nats, (B,)."""
    return (torch.special.entr(p) + torch.special.entr(1 - p)).sum(1)


@register(
    "dbm",
    paper=Paper("Salakhutdinov, Hinton", "Deep Boltzmann Machines", 2009, "AISTATS 2009"),
    about="two hidden layers of binary units, mean field against persistent chains",
    taxonomy="explicit markov chain",
    likelihood="estimate",
    can={"sample", "elbo", "encode", "reconstruct", "inpaint"},
    data="digits",
    learns=("val/elbo", ">", -21.0),
    waive={
        "every_parameter_learns": "pretraining moves one layer at a time, so the upper one rests "
        "in the first steps"
    },
)
class DBM(LikelihoodModule):
    """Deep Boltzmann machine.

    Args:
        hidden1, hidden2: units of the two hidden layers.
        pretrain_steps: updates of each of the two pretraining phases; 0 leaves them out.
        pretrain_lr: their learning rate.
        lr: of the joint phase, falling linearly to zero over decay_steps.
        decay_steps: updates of the joint phase; 0 keeps its rate constant.
        particles: persistent chains of all processes together.
        k: their Gibbs steps before each update.
        sweeps: mean-field iterations in training. evaluation_sweeps: elsewhere.
        temperatures, chains: of annealed importance sampling.
        gibbs_steps: of ``sample`` and ``inpaint``.
    """

    watches = ("gap", "recon_bce")
    particles: Tensor
    base: Tensor
    updates: Tensor

    def __init__(
        self,
        spec: Spec,
        hidden1: Count = 64,
        hidden2: Count = 32,
        pretrain_steps: Whole = 1100,
        pretrain_lr: Positive = 0.05,
        lr: Positive = 0.02,
        decay_steps: Whole = 1700,
        particles: Count = 100,
        k: Count = 5,
        sweeps: Count = 10,
        evaluation_sweeps: Count = 30,
        temperatures: Count = 1000,
        chains: Count = 200,
        gibbs_steps: Count = 2000,
    ) -> None:
        super().__init__(spec)
        spec.require("dbm", levels=2)
        self.pretrain_steps, self.pretrain_lr = pretrain_steps, pretrain_lr
        self.lr, self.decay_steps = lr, decay_steps
        self.k, self.sweeps, self.evaluation_sweeps = k, sweeps, evaluation_sweeps
        self.temperatures, self.chains, self.gibbs_steps = temperatures, chains, gibbs_steps
        self.W1 = nn.Parameter(0.01 * torch.randn(spec.dim, hidden1))
        self.W2 = nn.Parameter(0.01 * torch.randn(hidden1, hidden2))
        self.b = nn.Parameter(torch.zeros(spec.dim))
        self.c1 = nn.Parameter(torch.zeros(hidden1))
        self.c2 = nn.Parameter(torch.zeros(hidden2))
        # biases of h1 while the upper layer is pretrained
        self.a = nn.Parameter(torch.zeros(hidden1))
        coins = torch.bernoulli(torch.full((particles, spec.dim + hidden2), 0.5))
        self.register_buffer("particles", coins)  # (v, h2) each
        self.register_buffer("base", torch.zeros(spec.dim))  # the data's logits
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._log_z: Remembered[dict[str, Tensor]] = Remembered()

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """Visible biases at the smoothed logits of the data's means; chains start from independent
        pixels and fair coins.
        """
        v = batch["x"].flatten(1)
        self.base.copy_(((v.sum(0) + 0.5) / (len(v) + 1)).logit())
        self.b.copy_(self.base)
        source = seeded(int(self.noise_seed), "particles", device=self.device)
        self.particles.copy_(self._independent(len(self.particles), source))

    # -- the layers -------------------------------------------------------------------------------
    @property
    def phase(self) -> str:
        if not self.pretrain_steps:
            return "joint"
        return PHASES[min(int(self.updates) // self.pretrain_steps, 2)]

    def machine(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, visible and hidden biases of the RBM between s = (v, h2) and h1."""
        return torch.cat([self.W1, self.W2.T]), torch.cat([self.b, self.c2]), self.c1

    @torch.no_grad()
    def mean_field(self, v: Tensor, sweeps: int) -> tuple[Tensor, Tensor]:
        """μ1 and μ2 after so many sweeps, (B, H1) and (B, H2)."""
        mu1 = torch.sigmoid(self.c1 + 2 * v @ self.W1)
        mu2 = torch.sigmoid(self.c2 + mu1 @ self.W2)
        for _ in range(sweeps):
            mu1 = torch.sigmoid(self.c1 + v @ self.W1 + mu2 @ self.W2.T)
            mu2 = torch.sigmoid(self.c2 + mu1 @ self.W2)
        return mu1, mu2

    def energy(self, v: Tensor, h1: Tensor, h2: Tensor) -> Tensor:
        """E(v, h1, h2), (B,), linear in each layer."""
        return -(v @ self.b + h2 @ self.c2 + (h1 * (self.c1 + v @ self.W1 + h2 @ self.W2.T)).sum(1))

    @torch.no_grad()
    def gibbs(self, s: Tensor, steps: int, generator: torch.Generator | None) -> Tensor:
        """s = (v, h2) after ``steps`` rounds of h1 ~ P(h1 | s), s ~ P(s | h1)."""
        weight, visible, hidden = self.machine()
        for _ in range(steps):
            h1 = bernoulli(torch.sigmoid(hidden + s @ weight), generator)
            s = bernoulli(torch.sigmoid(visible + h1 @ weight.T), generator)
        return s

    def _independent(self, n: int, generator: torch.Generator | None) -> Tensor:
        p = torch.cat([torch.sigmoid(self.base), torch.full_like(self.c2, 0.5)])
        return bernoulli(p.expand(n, -1), generator)

    # -- training ---------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        v, phase = batch["x"].flatten(1), self.phase
        turns = {"pre1": self._pretrain_lower, "pre2": self._pretrain_upper, "joint": self._joint}
        terms = turns[phase](v)
        # A gradient, if zero, for the layers that rest: DDP waits for each.
        idle = torch.stack([p.sum() for p in self.parameters()]).sum()
        terms["loss"] = terms["gap"] + 0.0 * idle
        return {**terms, "phase": v.new_tensor(PHASES.index(phase))}

    def _pretrain_lower(self, v: Tensor) -> dict[str, Tensor]:
        def layers(v: Tensor) -> tuple[Tensor, Tensor]:
            return v, self.bottom_up(v)

        def energy(v: Tensor, h: Tensor) -> Tensor:
            return -(v @ self.b + (h * (self.c1 + v @ self.W1)).sum(1))

        with torch.no_grad():
            _, h = layers(v)
            p = torch.sigmoid(self.b + self.noise.bernoulli(h) @ self.W1.T)
            negative = layers(self.noise.bernoulli(p))
        return {
            "gap": energy(v, h).mean() - energy(*negative).mean(),
            "recon_bce": F.binary_cross_entropy(p, v),
        }

    def _pretrain_upper(self, v: Tensor) -> dict[str, Tensor]:
        def energy(h1: Tensor, h2: Tensor) -> Tensor:
            return -(h1 @ self.a + (h2 * (self.c2 + h1 @ self.W2)).sum(1))

        with torch.no_grad():
            h1 = self.noise.bernoulli(self.bottom_up(v))
            h2 = torch.sigmoid(self.c2 + h1 @ self.W2)
            again = self.noise.bernoulli(self.top_down(self.noise.bernoulli(h2)))
            negative = again, torch.sigmoid(self.c2 + again @ self.W2)
        return {"gap": energy(h1, h2).mean() - energy(*negative).mean()}

    def bottom_up(self, v: Tensor) -> Tensor:
        """P(h1 | v) without the upper layer, whose input the doubled weights stand for, (B, H1)."""
        return torch.sigmoid(self.c1 + 2 * v @ self.W1)

    def top_down(self, h2: Tensor) -> Tensor:
        """P(h1 | h2) without the data, whose input the doubled weights stand for, (B, H1)."""
        return torch.sigmoid(self.a + 2 * h2 @ self.W2.T)

    def _joint(self, v: Tensor) -> dict[str, Tensor]:
        mu1, mu2 = self.mean_field(v, self.sweeps)
        negative = free_energy(self._negative(), *self.machine()).mean()
        gap = self.energy(v, mu1, mu2).mean() - negative
        recon = F.binary_cross_entropy_with_logits(self.b + mu1 @ self.W1.T, v)
        return {"gap": gap, "recon_bce": recon.detach()}

    @torch.no_grad()
    def _negative(self) -> Tensor:
        """This process's share of the particles, moved k steps and kept."""
        rank, world = self.noise.rank, self.noise.world
        weight, visible, hidden = self.machine()
        s = self.particles[rank::world].to(weight.dtype)
        for _ in range(self.k):
            h1 = self.noise.bernoulli(torch.sigmoid(hidden + s @ weight))
            s = self.noise.bernoulli(torch.sigmoid(visible + h1 @ weight.T))
        self.particles.copy_(self.everyone(s))
        return s

    def after_step(self) -> None:
        self.updates += 1

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if len(self.particles) % self.trainer.world_size:
            raise ValueError(
                f"dbm's particles={len(self.particles)} cannot be shared by "
                f"{self.trainer.world_size} processes; take a multiple"
            )

    # -- likelihood -------------------------------------------------------------------------------
    @property
    def likelihood_kind(self) -> str:
        _, visible, hidden = self.machine()
        return "lower_bound" if enumerable(len(visible), len(hidden)) else "estimate"

    def log_z(self) -> dict[str, Tensor]:
        """log Z with its standard error (0 where it is exact) and, where it is annealed, from
        above.
        """
        machine, base = self.machine(), torch.cat([self.base, torch.zeros_like(self.c2)])

        def compute() -> dict[str, Tensor]:
            return log_z_bounds(*machine, base, self.temperatures, self.chains, self._long_run)

        return self._log_z([*machine, base, self.particles], compute)

    def _long_run(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.arange(n, device=self.device) % len(self.particles)
        s = self.particles[which].to(self.W1.dtype)
        return self.gibbs(s, self.gibbs_steps, generator)

    def elbo(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        mu1, mu2 = self.mean_field(x.flatten(1), self.evaluation_sweeps)
        return self.bound(x.flatten(1), mu1, mu2) - self.log_z()["log_z"]

    def bound(self, v: Tensor, mu1: Tensor, mu2: Tensor) -> Tensor:
        """-E(v, μ1, μ2) + H(μ1) + H(μ2), at most log Σ_h exp(-E(v, h)), (B,)."""
        return -self.energy(v, mu1, mu2) + entropy(mu1) + entropy(mu2)

    def importance_bound(
        self, x: Tensor, samples: int = 64, generator: torch.Generator | None = None
    ) -> Tensor:
        """log of the mean of exp(-F(v, h2)) / μ2(h2) over draws of h2, less log Z: at least the
        bound in expectation, (B,).
        """
        v = x.flatten(1)
        _, mu2 = self.mean_field(v, self.evaluation_sweeps)
        weights = []
        for _ in range(samples):
            h2 = bernoulli(mu2, generator)
            log_q = -F.binary_cross_entropy(mu2, h2, reduction="none").sum(1)
            weights.append(-free_energy(torch.cat([v, h2], 1), *self.machine()) - log_q)
        mean = torch.stack(weights).logsumexp(0) - torch.tensor(samples).log()
        return mean - self.log_z()["log_z"]

    def exact_log_prob(self, x: Tensor) -> Tensor:
        """log P(v) by the sum over all h2, (B,); for tiny machines."""
        h2 = all_states(0, 2 ** len(self.c2), len(self.c2), self.W2)
        states = [torch.cat([v.expand(len(h2), -1), h2], 1) for v in x.flatten(1)]
        each = [(-free_energy(s, *self.machine())).logsumexp(0) for s in states]
        return torch.stack(each) - self.log_z()["log_z"]

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """log Z, its error, its upper estimate and the bound of that; the reconstruction's
        cross-entropy; the last change of μ1.
        """
        v = batch["x"].flatten(1)
        values = {name: value.expand(len(v)) for name, value in self.log_z().items()}
        mu1, mu2 = self.mean_field(v, self.evaluation_sweeps)
        if "log_z_upper" in values:
            values["nll_upper_nats"] = values["log_z_upper"] - self.bound(v, mu1, mu2)
        values["recon_bce"] = F.binary_cross_entropy_with_logits(
            self.b + mu1 @ self.W1.T, v, reduction="none"
        ).sum(1)
        again = torch.sigmoid(self.c1 + v @ self.W1 + mu2 @ self.W2.T)
        return {**values, "mean_field_residual": (again - mu1).abs().amax(1)}

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        s = self.gibbs(self._independent(n, generator), self.gibbs_steps, generator)
        return self._visible(s)

    def _visible(self, s: Tensor) -> Tensor:
        return s[:, : self.spec.dim].reshape(len(s), *self.spec.shape)

    def encode(self, x: Tensor) -> Tensor:
        """The mean field (μ1, μ2), (B, H1 + H2)."""
        return torch.cat(self.mean_field(x.flatten(1), self.evaluation_sweeps), 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        mu1, _ = self.mean_field(x.flatten(1), self.evaluation_sweeps)
        return self.spec.from_unit(torch.sigmoid(self.b + mu1 @ self.W1.T)).view(
            len(x), *self.spec.shape
        )

    @torch.no_grad()
    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the dimensions where ``known`` is False, given the others, by Gibbs sampling with
        those clamped.
        """
        s = self._independent(len(x), generator)
        h2 = s[:, self.spec.dim :]
        free = torch.zeros_like(h2, dtype=torch.bool)
        clamped = torch.cat([known.expand_as(x).flatten(1), free], 1)
        given = torch.cat([x.flatten(1), h2], 1)
        s = torch.where(clamped, given, s)
        for _ in range(self.gibbs_steps):
            s = torch.where(clamped, given, self.gibbs(s, 1, generator))
        return self._visible(s)

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.SGD(self.parameters(), self.lr)

        def rate(step: int) -> float:
            joint = step - 2 * self.pretrain_steps
            if joint < 0:
                return self.pretrain_lr / self.lr
            return max(1 - joint / self.decay_steps, 0.0) if self.decay_steps else 1.0

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
