"""Bayesian GAN: samples of both players' weights, not one of each.

Paper      Saatchi, Wilson. Bayesian GAN. NIPS 2017. arXiv:1705.09558.
Model      x = G(z; θ_g), θ_g from its posterior given D and that given G. J generators, each kept
           as M chains: C = J M generators side by side, which meet in D alone.
Objective  Equations 1 and 2 as potentials, of all N rows of the data; priors N(0, σ²) on every
           weight; z fresh in each step, which marginalises it:
           U_d = N [-E log D(x) - E_c E_z log(1 - D(G(z; θ_g^c)))] + ‖θ_d‖²/(2σ²),
           U_g = Σ_c U_g^c,    U_g^c = -N E_z log D(G(z; θ_g^c)) + ‖θ_g^c‖²/(2σ²).
           labels: D's logits are l_0 of "made" and l_1..l_K of the classes, D(x) = 1 - softmax_0,
           and U_d has also -N E log softmax_y(x_l) of labelled rows (equation 3).
           D's step sees G(z) detached. Each weight moves by SGHMC (``zoo.nn.sghmc``), friction α,
           η = rate/N; the first ``warm_up`` cycles are Adam's.
Logs       train/loss_d = U_d, loss_g = U_g, nats; train/d_acc_real, d_acc_fake.
           val/chain_div: mean distance of what two chains make of one code. Labelled: val/acc.
Sampling   z from the prior, and for each row one of the kept samples of the posterior, all alike
           likely; before any is kept, one of the chains as they stand.
Notes      After the first cycles the weights of all chains and of D are kept every
           ``collect_every`` cycles, the last ``keep`` of them; ``classify`` averages over the kept
           D. The noise of a step is a function of the run's seed and the step alone, so it is
           resumed to the last bit and the same on all processes. ``temperature`` is that of the
           posterior: the authors' code adds far less noise than SGHMC asks for, which a small one
           is like; 0 is gradient descent with momentum. η is constant; there is one chain of D.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector
from torch.optim import Optimizer

from zoo.bases import AdversarialModule, Adversary, FewLabels, LoopOptions, Loss, Phase, Terms
from zoo.core import Batch, Image, Spec
from zoo.core.likelihood import RowNoise
from zoo.core.noise import seeded
from zoo.core.options import Count, Decay, Factor, NonNegative, Positive, Prior, Whole
from zoo.nn import small
from zoo.nn.adversarial_losses import accuracy
from zoo.nn.prior import Draw, Source, draw_prior
from zoo.nn.sghmc import SGHMC
from zoo.registry import Paper, register


def log_prior(net: nn.Module, sigma: float) -> Tensor:
    """Σ log N(θ; 0, σ²) over all weights of a network, up to its constant, nats."""
    return -torch.stack([p.square().sum() for p in net.parameters()]).sum() / (2 * sigma**2)


def realness(out: Tensor) -> Tensor:
    """The logit of being real, (B,), of D's logits: s, (B,), or (B, 1 + K), of which the first is
    "made": log Σ_k exp l_k - l_0.
    """
    return out if out.ndim == 1 else out[:, 1:].logsumexp(1) - out[:, 0]


def after_made(batch: Batch) -> Batch:
    """Rows whose classes are 1..K, 0 being "made"."""
    return Batch({**batch, "y": batch["y"] + 1}, batch.n)


class Generators(nn.ModuleList):
    """Generators side by side: z, (B, C, latent) -> (B, C, *shape), each of its own codes."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([g(z[:, c]) for c, g in enumerate(self)], 1)


# -log D(x), -log(1 - D(G(z))), and what G pays: -log D(G(z)), from the logit s of being real.
LOSS = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: F.softplus(-s))


@register(
    "bayesian_gan",
    paper=Paper("Saatchi, Wilson", "Bayesian GAN", 2017, "1705.09558"),
    about="Hamiltonian chains sample the weights of several generators and of the discriminator",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "classify"},
    data="toy2d",
    learns=(("val/modes", ">", 7.5), ("val/hq", ">", 0.8), ("val/hq_strict", ">", 0.6)),
)
class BayesianGAN(FewLabels, AdversarialModule):
    """See the module's docstring.

    Args:
        spec: vectors, or images (height and width multiples of 4, at least 8).
        generators: J. chains: M of each. width: hidden units for vectors (None is 128), filters for
            images (32). latent: dimension of z; None is the data's for vectors and 32 for images.
            prior: "normal", "uniform" or "sphere".
        sigma: σ of the priors of the weights. alpha: the friction. temperature: of the posterior.
        warm_up: generator steps of Adam before SGHMC. rate: η N. collect_every: generator steps
            between kept samples. keep: how many are.
        mode: "unsup", or "semi" for K + 1 classes. labels: training rows whose labels are used;
            None for all.
        k: discriminator steps per generator step. lr_d: Adam's rate of D. lr_g: of G. beta1: Adam's
            first decay. loop: options of the adversarial loop.
    """

    watches = ("d_acc_real", "d_acc_fake")
    kept: Tensor
    past_g: Tensor
    past_d: Tensor

    def __init__(
        self,
        spec: Spec,
        generators: Count = 3,
        chains: Count = 2,
        width: Count | None = None,
        latent: Count | None = None,
        prior: Prior = "normal",
        sigma: Positive = 1.0,
        alpha: Factor = 0.1,
        temperature: NonNegative = 1.0,
        warm_up: Whole = 1000,
        rate: Positive = 3e-3,
        collect_every: Count = 100,
        keep: Count = 8,
        mode: Literal["unsup", "semi"] = "unsup",
        labels: Count | None = None,
        k: Count = 1,
        lr_d: Positive = 1e-3,
        lr_g: Positive = 1e-3,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        if mode == "semi" and not spec.num_classes:
            raise ValueError(
                f"bayesian_gan's mode semi needs labels, got {spec}; choose labelled data, or "
                "mode=unsup"
            )
        self.latent = latent or (32 if spec.has(x=Image) else spec.dim)
        self.prior, self.sigma, self.alpha, self.temperature = prior, sigma, alpha, temperature
        self.warm_up, self.rate, self.mode, self.k = warm_up, rate, mode, k
        self.collect_every, self.keep = collect_every, keep
        self.lr_d, self.lr_g, self.betas = lr_d, lr_g, (beta1, 0.999)
        outputs = 1 + spec.num_classes if mode == "semi" else 1
        self.g = Generators(
            small.generator(self.latent, spec.shape, width, norm="layer")
            for _ in range(generators * chains)
        )
        d = small.discriminator(spec.shape, width, outputs=outputs)
        self.d = Adversary(self, d, LOSS, realness=realness)
        self.use_labels(labels)
        of_g = parameters_to_vector(self.g[0].parameters()).numel()
        of_d = parameters_to_vector(d.parameters()).numel()
        self.register_buffer("kept", torch.zeros((), dtype=torch.int64))
        self.register_buffer("past_g", torch.zeros(keep, len(self.g), of_g))
        self.register_buffer("past_d", torch.zeros(keep, of_d))

    # -- codes ------------------------------------------------------------------------------------
    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of the prior for each chain, (n, C, latent)."""
        z = draw_prior(self.prior, n, len(self.g) * self.latent, source)
        return z.view(n, len(self.g), self.latent)

    def made(self, n: int) -> Tensor:
        """n examples of each chain as D sees them, (n C, *shape)."""
        return self.g(self.draw_codes(n, self.noise)).flatten(0, 1)

    # -- potentials -------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        x = self.spec.to_signed(batch["x"])
        real, fake = self.d.both((x,), (self.made(batch.n),))
        s, t = realness(real), realness(fake)
        nats = self.d.cost(s, t)
        terms = accuracy(s, t)
        if self.mode == "semi":
            terms["ce"] = self.label_cost(real, after_made(batch))
            nats = nats + terms["ce"]
        terms["loss"] = self.size * nats - log_prior(self.d.net, self.sigma)
        return self.d.regularised(terms, x)

    def generator_loss(self, batch: Batch) -> Terms:
        paid = self.d.price.maker(realness(self.d.see(self.made(batch.n))))
        of_chains = paid.view(batch.n, len(self.g)).mean(0).sum()  # Σ_c E_z -log D
        return {"loss": self.size * of_chains - log_prior(self.g, self.sigma)}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module]:
        return {"d": self.d, "g": self.g}

    def phases(self) -> list[Phase]:
        reads = ("x", "y") if self.mode == "semi" else ("x",)
        return [
            Phase("d", self.discriminator_loss, reads, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    def before_cycle(self, step: int) -> None:
        """Keep the weights as a sample of the posterior, where it is time to."""
        since = step - self.warm_up
        if since <= 0 or since % self.collect_every:
            return
        slot = int(self.kept) % self.keep
        with torch.no_grad():
            for c, g in enumerate(self.g):
                self.past_g[slot, c] = parameters_to_vector(g.parameters())
            self.past_d[slot] = parameters_to_vector(self.d.net.parameters())
        self.kept += 1

    # -- use --------------------------------------------------------------------------------------
    def of_sample(self, net: nn.Module, weights: Tensor, v: Tensor) -> Tensor:
        """A network with other weights, (P,), at v."""
        named = [*net.named_parameters()]
        parts = weights.split([p.numel() for _, p in named])
        values = {k: w.view_as(p) for (k, p), w in zip(named, parts, strict=True)}
        return functional_call(net, values, (v,))

    def posterior(self) -> list[tuple[int, int]]:
        """The samples of the posterior of a generator's weights: (slot, chain), slot -1 for the
        chains as they stand.
        """
        slots = range(min(int(self.kept), self.keep)) if self.kept else [-1]
        return [(slot, c) for slot in slots for c in range(len(self.g))]

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        source = Draw(generator, self.device, self.float_dtype)
        samples = self.posterior()
        z = draw_prior(self.prior, n, self.latent, source)
        which = (source.uniform(n) * len(samples)).long().clamp(max=len(samples) - 1)
        v = z.new_empty(n, *self.spec.shape)
        for i in which.unique().tolist():
            (slot, c), rows = samples[i], which == i
            g = self.g[c]
            v[rows] = g(z[rows]) if slot < 0 else self.of_sample(g, self.past_g[slot, c], z[rows])
        return self.spec.from_signed(v)

    def classify(self, x: Tensor) -> Tensor:
        """p(y | x, real), (B, num_classes), averaged over the kept samples of D."""
        if self.mode != "semi":
            raise ValueError("bayesian_gan classifies in mode semi alone; set mode=semi")
        v, slots = self.spec.to_signed(x), range(min(int(self.kept), self.keep))
        nets = [self.of_sample(self.d.net, self.past_d[slot], v) for slot in slots]
        said = torch.stack(nets or [self.d(v)])
        return said[:, :, 1:].softmax(2).mean(0)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        z = draw_prior(self.prior, batch.n, self.latent, RowNoise(batch["x"]))
        made = self.g(z[:, None].expand(-1, len(self.g), -1)).flatten(2)  # one code for all chains
        pairs = max(len(self.g) * (len(self.g) - 1), 1)
        values = {"chain_div": torch.cdist(small.full(made), small.full(made)).sum((1, 2)) / pairs}
        if self.mode == "semi":
            right = self.classify(batch["x"]).argmax(1) == batch["y"]
            values["acc"] = right.to(self.float_dtype)
        return values

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return {"d": self.sampler("d", self.lr_d, self.k), "g": self.sampler("g", self.lr_g, 1)}

    def sampler(self, player: str, lr: float, each: int) -> Optimizer:
        """SGHMC of a player's weights, who takes so many steps in each cycle."""

        def source(step: int) -> torch.Generator:
            return seeded(int(self.noise_seed), "sghmc", player, step, device=self.device)

        return SGHMC(
            self.parameters_of(player),
            lambda: self.rate / float(self.size),
            self.alpha,
            self.temperature,
            source,
            warm_up=self.warm_up * each,
            lr=lr,
            betas=self.betas,
        )
