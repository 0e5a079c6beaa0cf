"""RBM: restricted Boltzmann machine, trained by contrastive divergence or persistent chains.

Paper      Hinton. Training Products of Experts by Minimizing Contrastive Divergence. Neural
           Computation 14, 2002. (The machine: Smolensky 1986. Persistent chains: Tieleman, ICML
           2008. Annealed importance sampling: Salakhutdinov and Murray, ICML 2008.)
Model      E(v, h) = -b·v - c·h - v·Wh; F(v) = -b·v - Σ_j softplus(c_j + v·W_j); log P(v) = -F(v) -
           log Z; P(h_j = 1 | v) = sigmoid(c_j + v·W_j), P(v_i = 1 | h) = sigmoid(b_i + W_i·h).
           Real vectors: F(v) = ½|v - b|² - Σ_j softplus(c_j + v·W_j), v | h ~ N(b + Wh, I), on
           standardised data.
Objective  mean F(v⁺) - mean F(v⁻), v⁻ detached: its gradient is <v h>_model - <v h>_data. Its value
           is no likelihood. "pcd": v⁻ are ``particles`` that are never reset, moved k Gibbs steps
           at each update. "cd": k steps from the minibatch.
log Z      By enumerating the smaller layer where it has at most 20 units; else by annealed
           importance sampling from the machine without weights, whose biases are the data's logits.
           log Z is then, as a rule, estimated low and log P high. Annealing back from the states of
           a long run errs on the other side: val/log_z_upper, and with it val/nll_upper_nats. It is
           a bound (Burda, Grosse and Salakhutdinov, AISTATS 2015) as far as the run has reached the
           machine's own distribution.
Sampling   Gibbs chains started from independent pixels at the data's means.
Notes      The particles are one set for all processes: each moves its share and all gather the
           whole, so W processes train as one. The learning rate falls linearly to zero over
           ``decay_steps``. Adam does not suit persistent chains: they cannot follow it. The label
           units of a classifying machine are not here.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import LikelihoodModule
from zoo.core import Batch, Image, Spec
from zoo.core.noise import seeded
from zoo.core.options import Count, Decay, NonNegative, Positive, Whole
from zoo.core.remember import Remembered
from zoo.nn.boltzmann import bernoulli, enumerable, free_energy, log_z_bounds
from zoo.registry import Paper, register


@register(
    "rbm",
    paper=Paper(
        "Hinton",
        "Training Products of Experts by Minimizing Contrastive Divergence",
        2002,
        "Neural Computation 14",
    ),
    about="one hidden layer of binary units, trained by (persistent) Gibbs chains",
    taxonomy="explicit markov chain",
    likelihood="estimate",
    can={"sample", "log_prob", "encode", "decode", "reconstruct", "inpaint"},
    data="digits",
    learns=("val/nll_nats", "<", 20.3),
)
class RBM(LikelihoodModule):
    """Restricted Boltzmann machine.

    Args:
        hidden: hidden units.
        algorithm: "pcd" (persistent particles) or "cd" (chains from the minibatch).
        k: Gibbs steps before each update.
        particles: persistent chains of all processes together.
        lr: learning rate of plain gradient descent.
        decay_steps: updates over which it falls linearly to zero; 0 keeps it constant.
        momentum: of the updates; keep 0 with "pcd".
        weight_decay: on W only.
        temperatures, chains: of annealed importance sampling.
        gibbs_steps: of ``sample`` and ``inpaint``.
    """

    watches = ("free_energy_gap",)
    particles: Tensor
    base: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        spec: Spec,
        hidden: Count = 64,
        algorithm: Literal["pcd", "cd"] = "pcd",
        k: Count = 1,
        particles: Count = 100,
        lr: Positive = 0.05,
        decay_steps: Whole = 4200,
        momentum: Decay = 0.0,
        weight_decay: NonNegative = 1e-4,
        temperatures: Count = 1000,
        chains: Count = 200,
        gibbs_steps: Count = 1000,
    ) -> None:
        super().__init__(spec)
        if spec.has(x=Image):
            spec.require("rbm", levels=2)
        self.algorithm, self.k, self.gibbs_steps = algorithm, k, gibbs_steps
        self.lr, self.decay_steps = lr, decay_steps
        self.momentum, self.weight_decay = momentum, weight_decay
        self.temperatures, self.chains = temperatures, chains
        self.real = spec.levels is None
        self.W = nn.Parameter(0.01 * torch.randn(spec.dim, hidden))
        self.b = nn.Parameter(torch.zeros(spec.dim))
        self.c = nn.Parameter(torch.zeros(hidden))
        if self.real:
            start = torch.randn(particles, spec.dim)
        else:
            start = torch.bernoulli(torch.full((particles, spec.dim), 0.5))
        self.register_buffer("particles", start)
        # visible biases of the machine AIS starts from
        self.register_buffer("base", torch.zeros(spec.dim))
        self.register_buffer("shift", torch.zeros(spec.dim))  # standardisation of real vectors
        self.register_buffer("scale", torch.ones(spec.dim))
        self._log_z: Remembered[dict[str, Tensor]] = Remembered()

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """Visible biases at the smoothed logits of the data's means; chains start from independent
        pixels.
        """
        v = batch["x"].flatten(1)
        g = seeded(int(self.noise_seed), "particles")
        if self.real:
            self.shift.copy_(v.mean(0))
            self.scale.copy_(v.std(0))
            self.particles.copy_(torch.randn(self.particles.shape, generator=g))
            return
        mean = (v.sum(0) + 0.5) / (len(v) + 1)
        self.base.copy_(mean.logit())
        self.b.copy_(self.base)
        self.particles.copy_(torch.rand(self.particles.shape, generator=g).to(mean.device) < mean)

    # -- the two layers ---------------------------------------------------------------------------
    @property
    def exact(self) -> bool:
        return enumerable(len(self.b), len(self.c), self.real)

    @property
    def likelihood_kind(self) -> str:
        return "estimate" if not self.exact else "exact_density" if self.real else "exact_mass"

    def visible_units(self, x: Tensor) -> Tensor:
        """v, (B, D): binary pixels as they are, real vectors standardised."""
        return (x.flatten(1) - self.shift) / self.scale

    def data_units(self, v: Tensor) -> Tensor:
        return (v * self.scale + self.shift).view(len(v), *self.spec.shape)

    def hidden_given(self, v: Tensor) -> Tensor:
        """P(h_j = 1 | v), (B, H)."""
        return torch.sigmoid(self.c + v @ self.W)

    def visible_given(self, h: Tensor) -> Tensor:
        """P(v_i = 1 | h), or the mean of v | h, (B, D)."""
        a = self.b + h @ self.W.T
        return a if self.real else torch.sigmoid(a)

    @torch.no_grad()
    def gibbs(self, v: Tensor, steps: int, generator: torch.Generator | None) -> Tensor:
        """v after ``steps`` rounds of h ~ P(h | v), v ~ P(v | h)."""
        for _ in range(steps):
            h = bernoulli(self.hidden_given(v), generator)
            v = self._visible(self.visible_given(h), generator)
        return v

    def _visible(self, p: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.real:
            return bernoulli(p, generator)
        return p + torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype)

    # -- likelihood -------------------------------------------------------------------------------
    def free_energy(self, v: Tensor) -> Tensor:
        return free_energy(v, self.W, self.b, self.c, self.real)

    def log_z(self) -> dict[str, Tensor]:
        """log Z with its standard error (0 where it is exact) and, where it is annealed, from
        above.
        """
        machine = self.W, self.b, self.c, self.base

        def compute() -> dict[str, Tensor]:
            return log_z_bounds(*machine, self.temperatures, self.chains, self._long_run, self.real)

        return self._log_z([*machine, self.particles], compute)

    def _long_run(self, n: int, generator: torch.Generator) -> Tensor:
        """n states of long chains, (n, D), from the particles where training has moved them."""
        if self.algorithm == "pcd":
            which = torch.arange(n, device=self.device) % len(self.particles)
            v = self.particles[which].to(self.W.dtype)
        else:
            v = self._independent(n, generator)
        return self.gibbs(v, self.gibbs_steps, generator)

    def _independent(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Pixels drawn independently at the data's means, (n, D)."""
        start = self.base if self.real else torch.sigmoid(self.base)
        return self._visible(start.expand(n, -1), generator)

    def log_prob(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        log_p = -self.free_energy(self.visible_units(x)) - self.log_z()["log_z"]
        return log_p - self.scale.log().sum()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        v = self.visible_units(batch["x"])
        gap = self.free_energy(v).mean() - self.free_energy(self._negative(v)).mean()
        return {"loss": gap, "free_energy_gap": gap}

    @torch.no_grad()
    def _negative(self, v: Tensor) -> Tensor:
        """v⁻ of this process: k steps from the minibatch, or the particles moved k steps and
        kept.
        """
        rank, world = self.noise.rank, self.noise.world
        persistent = self.algorithm == "pcd"
        if persistent:
            v = self.particles[rank::world].to(v.dtype)
        for _ in range(self.k):
            h = self.noise.bernoulli(self.hidden_given(v))
            p = self.visible_given(h)
            v = p + self.noise.normal_like(p) if self.real else self.noise.bernoulli(p)
        if persistent:
            self.particles.copy_(self.everyone(v))
        return v

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if len(self.particles) % self.trainer.world_size:
            raise ValueError(
                f"rbm's particles={len(self.particles)} cannot be shared by "
                f"{self.trainer.world_size} processes; take a multiple"
            )

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """log Z, its error, its upper estimate; for binary data, the cross-entropy of
        reconstruction and pseudo-likelihood (nats).
        """
        v = self.visible_units(batch["x"])
        values = {name: value.expand(len(v)) for name, value in self.log_z().items()}
        if "log_z_upper" in values:
            values["nll_upper_nats"] = (
                self.free_energy(v) + values["log_z_upper"] + self.scale.log().sum()
            )
        if self.real:
            return values
        logits = self.b + self.hidden_given(v) @ self.W.T
        values["recon_bce"] = F.binary_cross_entropy_with_logits(logits, v, reduction="none").sum(1)
        bit = torch.randint(self.spec.dim, (len(v), 1), generator=generator, device=v.device)
        flipped = v.scatter(1, bit, 1 - v.gather(1, bit))
        values["pseudo_nll"] = -self.spec.dim * F.logsigmoid(
            self.free_energy(flipped) - self.free_energy(v)
        )
        return values

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        v = self.gibbs(self._independent(n, generator), self.gibbs_steps, generator)
        return self.data_units(v)

    def encode(self, x: Tensor) -> Tensor:
        """P(h = 1 | v), (B, H)."""
        return self.hidden_given(self.visible_units(x))

    def decode(self, h: Tensor) -> Tensor:
        """The mean of v given h, in the units of ``spec``."""
        return self.spec.from_unit(self.data_units(self.visible_given(h)))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the dimensions where ``known`` is False, given the others, by Gibbs sampling with
        those clamped.
        """
        given, known = self.visible_units(x), known.expand_as(x).flatten(1)
        v = torch.where(known, given, self._independent(len(given), generator))
        for _ in range(self.gibbs_steps):
            v = torch.where(known, given, self.gibbs(v, 1, generator))
        return self.data_units(v)

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [
            {"params": [self.W], "weight_decay": self.weight_decay},
            {"params": [self.b, self.c]},
        ]
        optimiser = torch.optim.SGD(groups, self.lr, momentum=self.momentum)
        if not self.decay_steps:
            return optimiser
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: max(1 - step / self.decay_steps, 0.0)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
