"""β-TCVAE: the KL taken apart, and only its total correlation pressed.

Paper      Chen, Li, Grosse, Duvenaud. Isolating Sources of Disentanglement in Variational
           Autoencoders. NeurIPS 2018. arXiv:1802.04942.
Model      z ~ N(0, I), x ~ p(x | z), q(z | x) = N(μ(x), σ²(x)): the VAE's. q(z) = 1/N Σ_n q(z |
           x_n) over the N training examples.
Objective  -E_q log p(x | z) + α MI + β TC + γ DWKL (equation 4), one draw of z, with
           MI   = E [log q(z | x) - log q(z)]               index-code mutual information,
           TC   = E [log q(z) - Σ_j log q(z_j)]             total correlation,
           DWKL = E [Σ_j log q(z_j) - log p(z_j)]           dimension-wise KL;
           their sum is the KL of the VAE, taken at the draw. Nothing is detached.
Estimator  q(z_i) = Σ_m W_im q(z_i | x_m) over the minibatch of B, likewise each q(z_ij). "mss"
           (stratified): W_ii = 1/N and W_im = (N - 1) / (N (B - 1)), whose mean over minibatches
           that hold x_i is q(z_i). "mws" (weighted): W_im = 1/(N B), with the gradients of W_im =
           1/B; it moves MI by ln N, TC by (J - 1) ln N and DWKL by -J ln N.
Sampling   z ~ N(0, I), x ~ p(x | z), or p's mean with ``mean_only``.
Notes      The minibatch is that of all processes together. The paper's stratified weights put a
           second weight on one example of the batch; those here treat all of them alike and have
           the same mean. The authors' code (vae_quant.py) takes "mws" unless told otherwise, and
           its decoder has a third layer and tanh, where this one mirrors the encoder. The logarithm
           of q̂ is biased, as with every estimate from a minibatch: val/tc is that of a validation
           batch, ``aggregate`` gives the exact terms of a data set.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from zoo.bases import VariationalModule
from zoo.core import Batch, Spec
from zoo.core.likelihood import RowNoise
from zoo.core.options import Count, NonNegative, Positive, Whole
from zoo.nn.coders import Activation, Net
from zoo.nn.gaussian import log_normal, reparameterise, split_kl
from zoo.nn.likelihood_heads import Likelihood
from zoo.registry import Paper, register


def log_weights(estimator: str, b: int, n: int) -> Tensor:
    """ln W_im of a minibatch of b of n training examples, (b, b), float64."""
    if estimator == "mws":
        return torch.full((b, b), -math.log(n * b), dtype=torch.float64)
    if b == 1:
        return torch.zeros(1, 1, dtype=torch.float64)
    w = torch.full((b, b), (n - 1) / (n * (b - 1)), dtype=torch.float64)
    return w.fill_diagonal_(1 / n).log()


@register(
    "beta_tcvae",
    paper=Paper(
        "Chen, Li, Grosse, Duvenaud",
        "Isolating Sources of Disentanglement in Variational Autoencoders",
        2018,
        "1802.04942",
    ),
    about="a VAE whose KL is taken apart, and the total correlation of the code weighs β times as "
    "much",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate"},
    data="factor_grid",
    learns=(("val/elbo", ">", -35.0), ("val/tc", "<", 1.0)),  # with β = 1 it is 2.1 nats
)
class BetaTCVAE(VariationalModule):
    """β-TCVAE.

    Args:
        latent: dimensions J of z.
        net: "mlp" or, for images whose side is 8, 16, 32, ..., "conv".
        width: hidden units of a layer, or maps of the first convolution.
        layers: hidden layers of encoder and of decoder ("mlp").
        activation: of the hidden layers.
        likelihood: "bernoulli" (binary data), "gaussian", "dlogistic" (levels); "auto" chooses by
            the data.
        alpha, beta, gamma: weights of MI, TC and DWKL; with 1, 1, 1 it is the VAE with a sampled
            KL.
        estimator: "mss" or "mws".
        warmup_steps: steps over which β rises from 0.
        draws: draws of z of the evaluated importance bound.
        lr: learning rate.
    """

    watches = ("nelbo", "tc")
    size: Tensor

    def __init__(
        self,
        spec: Spec,
        latent: Count = 6,
        net: Net = "mlp",
        width: Count = 256,
        layers: Count = 2,
        activation: Activation = "relu",
        likelihood: Likelihood = "auto",
        alpha: NonNegative = 1.0,
        beta: NonNegative = 6.0,
        gamma: NonNegative = 1.0,
        estimator: Literal["mss", "mws"] = "mss",
        warmup_steps: Whole = 0,
        draws: Count = 50,
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        self.build(net, latent, width, layers, activation, likelihood, draws)
        self.alpha, self.beta, self.gamma, self.estimator = alpha, beta, gamma, estimator
        self.warmup_steps, self.lr = warmup_steps, lr
        self.register_buffer("size", torch.tensor(0))  # N

    def initialise_from(self, batch: Batch) -> None:
        self.size.fill_(batch.n)

    # -- loss -------------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        q = self.posterior(x)
        eps, u = self.evaluation_noise(x, 1, self.noise)
        z = reparameterise(*q, eps)
        recon = self.log_likelihood_of_draws(x, z, u)[0].mean()
        everyone = (self.everyone(q[0], gradients=True), self.everyone(q[1], gradients=True))
        mi, tc, dwkl = (
            t.mean() for t in self.split(z[0], q, everyone, self.noise.rank, self.noise.world)
        )
        beta = self.beta * self.ramp(self.warmup_steps)
        loss = self.alpha * mi + beta * tc + self.gamma * dwkl - recon
        return {
            "loss": loss,
            "nelbo": mi + tc + dwkl - recon,
            "recon": recon,
            "mi": mi,
            "tc": tc,
            "dwkl": dwkl,
        }

    def split(
        self,
        z: Tensor,
        q: tuple[Tensor, Tensor],
        batch: tuple[Tensor, Tensor],
        rank: int = 0,
        world: int = 1,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """MI, TC and DWKL at draws z of q, (B,) each; ``batch`` are μ and log σ² of the minibatch,
        z being rows rank, rank + world, ...
        """
        b = len(batch[0])
        log_w = log_weights(self.estimator, b, max(int(self.size), b))[rank::world].to(z)
        return split_kl(z, log_normal(z, *q).sum(1), *batch, log_w)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The VAE's terms, and the three parts of the KL with q(z) estimated from this batch."""
        x = batch["x"]
        q = self.posterior(x)
        z = reparameterise(*q, RowNoise(x, generator).normal(len(x), self.latent))
        mi, tc, dwkl = self.split(z, q, q)
        return super().evaluate(batch, generator) | {"mi": mi, "tc": tc, "dwkl": dwkl}
