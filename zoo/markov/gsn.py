"""GSN: generative stochastic network, a denoising Markov chain trained by walkback.

Paper      Bengio, Thibodeau-Laufer, Alain, Yosinski. Deep Generative Stochastic Networks Trainable
           by Backprop. ICML 2014. arXiv:1306.1091. (Walkback: Bengio, Yao, Alain, Vincent, 2013,
           arXiv:1305.6663.)
Model      Layers x = h0, h1, ..., hK with tied weights; a_i = h_{i-1} W_{i-1} + h_{i+1} W_iᵀ + b_i,
           a missing neighbour left out. One step: the odd layers from the even ones, then the even
           layers, x among them, from the new odd ones. Hidden: h_i = tanh(a_i + σ ε) + σ ε', but h1
           without noise; visible: p = sigmoid(a_0). Corruption C: each pixel is replaced with
           probability q by a fair coin.
Objective  h = 0, x~ = C(x). For n = 1..N: one step from (x~, h) gives p_n and h, then x~ = C(a
           Bernoulli draw of p_n). (1/N) Σ_n BCE(p_n, x): always against the clean x. The gradient
           flows through all hidden states, not through the draws. Without walkback x~ = C(x) at
           every step.
Sampling   Pixels drawn independently at the data's means, then chains of x~ = C(x), one step, x ~
           Bernoulli(p); h is kept. Grey levels show p itself.
Notes      A chain begun far from the data, from coins for instance, can stay in modes that training
           never visited (negatives). No likelihood. Two indirect scores of binary data, each from
           10,000 states of 100 chains that never saw the example: val/csl_nats, -log (1/S) Σ_s Π_d
           P(x_d | h_s), which is conservative: its expectation is at least the chain's own NLL;
           val/parzen_nats, a gaussian window of one σ on the p_s, comparable with nothing but
           itself.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import LossModule
from zoo.core import Batch, Image, Spec
from zoo.core.noise import Noise, seeded
from zoo.core.options import Count, Decay, Dropped, Factor, NonNegative, Positive, Whole
from zoo.core.remember import Remembered
from zoo.registry import Paper, register


class Drawn:
    """The draws that a step makes, from a generator."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def normal_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, device=x.device, dtype=x.dtype)

    def bernoulli(self, p: Tensor) -> Tensor:
        u = torch.rand(p.shape, generator=self.generator, device=p.device, dtype=p.dtype)
        return (u < p).to(p.dtype)


def corrupt(x: Tensor, q: float, noise: Noise | Drawn) -> Tensor:
    """Salt and pepper: each pixel is a fair coin with probability q."""
    replaced = noise.bernoulli(torch.full_like(x, q))
    coin = noise.bernoulli(torch.full_like(x, 0.5))
    return torch.where(replaced > 0, coin, x)


def conservative_log_likelihood(x: Tensor, p: Tensor) -> Tensor:
    """log (1/S) Σ_s Π_d p_sd^x_d (1 - p_sd)^(1 - x_d), (B,), p kept within [0.001, 0.999].

    Args:
        x: (B, D) binary. p: (S, D).
    """
    p = p.double().clamp(1e-3, 1 - 1e-3)
    each = x.double() @ p.log().T + (1 - x.double()) @ (-p).log1p().T
    return each.logsumexp(1) - math.log(len(p))


@register(
    "gsn",
    paper=Paper(
        "Bengio, Thibodeau-Laufer, Alain, Yosinski",
        "Deep Generative Stochastic Networks Trainable by Backprop",
        2014,
        "1306.1091",
    ),
    about="a deep denoising Markov chain trained by walkback",
    taxonomy="implicit markov chain",
    likelihood="none",
    can={"sample", "reconstruct", "inpaint"},
    data="digits",
    learns=(("val/csl_nats", "<", 22.0), ("train/walkback_bce", "<", 18.0)),
)
class GSN(LossModule):
    """Generative stochastic network.

    Args:
        width: units of each hidden layer.
        layers: K, hidden layers.
        corruption: q.
        sigma: σ of the hidden noise, before and after tanh.
        noiseless_h1: whether the first hidden layer goes without.
        steps: N of the objective, at least K, so that every layer is heard.
        walkback: feed back the model's own samples; else corrupt the example afresh at each step.
        burn_in: steps of ``sample`` and ``inpaint``, and before the chains are scored.
        score_samples, score_chains: S and the number of chains of the indirect scores.
        parzen_sigma: the window's.
        optimiser: "adam" or "sgd" (with momentum).
        lr: learning rate. momentum: of sgd.
        decay_steps: steps over which lr falls linearly to zero; 0 for no such fall.
        gamma: factor of lr at each step.
    """

    watches = ("walkback_bce",)
    accepts = {"x": Image}
    means: Tensor

    def __init__(
        self,
        spec: Spec,
        width: Count = 200,
        layers: Count = 2,
        corruption: Dropped = 0.3,
        sigma: NonNegative = 1.0,
        noiseless_h1: bool = True,
        steps: Count = 5,
        walkback: bool = True,
        burn_in: Count = 100,
        score_samples: Count = 10_000,
        score_chains: Count = 100,
        parzen_sigma: Positive = 0.2,
        optimiser: Literal["adam", "sgd"] = "adam",
        lr: Positive = 2e-3,
        momentum: Decay = 0.5,
        decay_steps: Whole = 4200,
        gamma: Factor = 1.0,
    ) -> None:
        super().__init__(spec)
        spec.require("gsn", levels=True)
        if steps < layers:
            raise ValueError(
                f"gsn: steps is at least layers, or the upper ones hear nothing of x, got "
                f"steps={steps}, layers={layers}; raise --model.steps"
            )
        self.corruption, self.sigma, self.noiseless_h1 = corruption, sigma, noiseless_h1
        self.steps, self.walkback, self.burn_in = steps, walkback, burn_in
        self.score_samples, self.score_chains = score_samples, score_chains
        self.parzen_sigma = parzen_sigma
        self.optimiser, self.lr, self.momentum = optimiser, lr, momentum
        self.decay_steps, self.gamma = decay_steps, gamma
        sizes = [spec.dim, *[width] * layers]
        self.W = nn.ParameterList(
            0.1 * torch.randn(m, n) for m, n in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.b = nn.ParameterList(torch.zeros(n) for n in sizes)
        self.register_buffer("means", torch.full((spec.dim,), 0.5))
        self._scored: Remembered[Tensor] = Remembered()

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """Where chains begin: the data's means."""
        self.means.copy_(self.spec.to_unit(batch["x"]).flatten(1).mean(0))

    # -- the chain --------------------------------------------------------------------------------
    def pre_activation(self, i: int, h: list[Tensor]) -> Tensor:
        """a_i, (B, n_i), from the layers beside it."""
        a = self.b[i]
        if i > 0:
            a = a + h[i - 1] @ self.W[i - 1]
        if i < len(self.W):
            a = a + h[i + 1] @ self.W[i].T
        return a

    def transition(
        self, x: Tensor, h: list[Tensor], noise: Noise | Drawn | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits of p, (B, D), and the new hidden layers, from a corrupted x and the old ones;
        without noise for None.
        """
        layers = [x, *h]
        for first in (1, 2):
            for i in range(first, len(layers), 2):
                layers[i] = self._hidden(i, self.pre_activation(i, layers), noise)
        return self.pre_activation(0, layers), layers[1:]

    def _hidden(self, i: int, a: Tensor, noise: Noise | Drawn | None) -> Tensor:
        if noise is None or not self.sigma or (i == 1 and self.noiseless_h1):
            return torch.tanh(a)
        return torch.tanh(a + self.sigma * noise.normal_like(a)) + self.sigma * noise.normal_like(a)

    def rest(self, x: Tensor) -> list[Tensor]:
        """The hidden layers before the first step: zeros."""
        return [x.new_zeros(len(x), len(b)) for b in self.b[1:]]

    def walk(self, x: Tensor, noise: Noise | Drawn) -> list[Tensor]:
        """Logits of p_1..p_N of the objective."""
        h, out = self.rest(x), []
        source = x
        for _ in range(self.steps):
            logits, h = self.transition(corrupt(source, self.corruption, noise), h, noise)
            out.append(logits)
            if self.walkback:
                source = noise.bernoulli(torch.sigmoid(logits.detach()))
        return out

    @torch.no_grad()
    def chain(
        self, x: Tensor, h: list[Tensor], steps: int, noise: Drawn, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """x, its p and h after so many steps; where ``keep`` is True, x stays as it is and is not
        corrupted.
        """
        given, p = x, x
        for _ in range(steps):
            corrupted = corrupt(x, self.corruption, noise)
            if keep is not None:
                corrupted = torch.where(keep, given, corrupted)
            logits, h = self.transition(corrupted, h, noise)
            p = torch.sigmoid(logits)
            x = noise.bernoulli(p)
            if keep is not None:
                x, p = torch.where(keep, given, x), torch.where(keep, given, p)
        return x, p, h

    # -- training and scores ----------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = self.spec.to_unit(batch["x"]).flatten(1)
        walked = self.walk(x, self.noise)
        bce = torch.stack([F.binary_cross_entropy_with_logits(a, x) for a in walked])
        nats = bce.detach() * self.spec.dim
        return {
            "loss": bce.mean(),
            "walkback_bce": nats.mean(),
            **{f"walkback_bce_{n + 1}": v for n, v in enumerate(nats)},
        }

    def states(self) -> Tensor:
        """p of the states that the scores rest on, (S, D); made once for the same weights."""

        def compute() -> Tensor:
            noise = Drawn(seeded(0, "score", device=self.device))
            x = noise.bernoulli(self.means.expand(self.score_chains, -1))
            x, p, h = self.chain(x, self.rest(x), self.burn_in, noise)
            kept = []
            for _ in range(-(-self.score_samples // self.score_chains)):
                x, p, h = self.chain(x, h, 1, noise)
                kept.append(p)
            return torch.cat(kept)[: self.score_samples]

        return self._scored([*self.parameters(), self.means], compute)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Cross-entropy of one denoising step and, for binary data, the two indirect scores;
        nats.
        """
        x, noise = self.spec.to_unit(batch["x"]).flatten(1), Drawn(generator)
        logits, _ = self.transition(corrupt(x, self.corruption, noise), self.rest(x), noise)
        bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        values = {"denoise_bce": bce}
        if self.spec.levels == 2:
            p = self.states()
            window = -torch.cdist(x.double(), p.double()).square() / (2 * self.parzen_sigma**2)
            scale = math.log(self.parzen_sigma * math.sqrt(2 * math.pi))
            constant = math.log(len(p)) + self.spec.dim * scale
            values["csl_nats"] = -conservative_log_likelihood(x, p)
            values["parzen_nats"] = window.logsumexp(1) - constant
        return values

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        noise = Drawn(generator)
        x = noise.bernoulli(self.means.expand(n, -1))
        return self._shown(*self.chain(x, self.rest(x), self.burn_in, noise)[:2])

    def _shown(self, x: Tensor, p: Tensor) -> Tensor:
        """Levels: the draw itself if binary, else the probabilities."""
        return self.spec.from_unit(x if self.spec.levels == 2 else p).view(len(x), *self.spec.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """p after ``steps`` steps without noise or corruption, x held."""
        v = self.spec.to_unit(x).flatten(1)
        logits, h = self.transition(v, self.rest(v), None)
        for _ in range(self.steps - 1):
            logits, h = self.transition(v, h, None)
        return self.spec.from_unit(torch.sigmoid(logits)).view_as(x)

    @torch.no_grad()
    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """A chain in which the pixels where ``known`` is True are held."""
        noise, keep = Drawn(generator), known.expand_as(x).flatten(1)
        v = self.spec.to_unit(x).flatten(1)
        v = torch.where(keep, v, noise.bernoulli(self.means.expand_as(v)))
        v, p, _ = self.chain(v, self.rest(v), self.burn_in, noise, keep)
        return torch.where(known, x, self._shown(v, p))

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        if self.optimiser == "adam":
            optimiser: torch.optim.Optimizer = torch.optim.Adam(self.parameters(), self.lr)
        else:
            optimiser = torch.optim.SGD(self.parameters(), self.lr, momentum=self.momentum)

        def rate(step: int) -> float:
            left = max(1 - step / self.decay_steps, 0.0) if self.decay_steps else 1.0
            return self.gamma**step * left

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
