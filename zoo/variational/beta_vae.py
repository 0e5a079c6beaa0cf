"""β-VAE: a VAE whose code is pressed towards the factorised prior, with the capacity schedule.

Paper      Higgins, Matthey, Pal, Burgess, Glorot, Botvinick, Mohamed, Lerchner. beta-VAE: Learning
           Basic Visual Concepts with a Constrained Variational Framework. ICLR 2017. Capacity:
           Burgess, Higgins, Pal, Matthey, Watters, Desjardins, Lerchner. Understanding
           disentangling in β-VAE. 2018. arXiv:1804.03599.
Model      z ~ N(0, I), x ~ p(x | z), q(z | x) = N(μ(x), σ²(x)): the VAE's.
Objective  "beta":      -E_q log p(x | z) + β KL(q(z | x) ‖ N(0, I)).
           "capacity":  -E_q log p(x | z) + γ |KL - C(t)|, C(t) = C_max min(1, t / T_C); KL is the
           mean over the whole batch, and the absolute value is taken of that. C lets the code's
           information grow from nothing, γ holds it there.
Bounds     ``elbo`` and all evaluated terms are the VAE's, β = 1: the training objective is not a
           likelihood.
Sampling   z ~ N(0, I), x ~ p(x | z), or p's mean with ``mean_only``.
Notes      Everything is summed over pixels and latent dimensions; a loss that averages over both
           (the papers' β_norm) has another β. Adagrad's sums start at 0.1, as in TensorFlow, which
           the authors used (as remembered): from 0 its first step is the whole rate for every
           weight. Encoder and decoder mirror each other with one
           activation; Higgins et al. give their decoder one layer more, and tanh. The mean in |KL -
           C(t)| is taken over all processes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from zoo.bases import VariationalModule
from zoo.core import Batch, Spec
from zoo.core.options import Count, NonNegative, Positive
from zoo.nn.coders import Activation, Net
from zoo.nn.likelihood_heads import Likelihood
from zoo.registry import Paper, register


@register(
    "beta_vae",
    paper=Paper(
        "Higgins, Matthey, Pal, Burgess, Glorot, Botvinick, Mohamed, Lerchner",
        "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework",
        2017,
        "ICLR 2017",
    ),
    about="a VAE whose KL weighs β times as much, or is held at a rising capacity",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate"},
    data="factor_grid",
    learns=(("val/elbo", ">", -35.0), ("val/kl", "<", 5.0)),  # with β = 1 the KL is 8.0 nats
)
class BetaVAE(VariationalModule):
    """β-VAE.

    Args:
        latent: dimensions of z.
        net: "mlp" or, for images whose side is 8, 16, 32, ..., "conv".
        width: hidden units of a layer, or maps of the first convolution.
        layers: hidden layers of encoder and of decoder ("mlp").
        activation: of the hidden layers.
        likelihood: "bernoulli" (binary data), "gaussian", "dlogistic" (levels); "auto" chooses by
            the data.
        mode: "beta" or "capacity".
        beta: the KL's weight β ("beta").
        gamma: the weight γ of the KL's distance to C(t) ("capacity").
        capacity: C_max in nats. capacity_steps: T_C, the steps over which C(t) rises to it.
        draws: draws of z of the evaluated importance bound.
        optimiser: "adam", or "adagrad" as in the first paper.
        lr: learning rate.
    """

    watches = ("recon", "kl")

    def __init__(
        self,
        spec: Spec,
        latent: Count = 6,
        net: Net = "mlp",
        width: Count = 256,
        layers: Count = 2,
        activation: Activation = "relu",
        likelihood: Likelihood = "auto",
        mode: Literal["beta", "capacity"] = "beta",
        beta: NonNegative = 4.0,
        gamma: NonNegative = 30.0,
        capacity: NonNegative = 12.0,
        capacity_steps: Count = 1400,
        draws: Count = 50,
        optimiser: Literal["adam", "adagrad"] = "adam",
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        self.build(net, latent, width, layers, activation, likelihood, draws)
        self.mode, self.beta, self.gamma = mode, beta, gamma
        self.capacity, self.capacity_steps = capacity, capacity_steps
        self.optimiser, self.lr = optimiser, lr

    # -- loss -------------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        q = self.posterior(x)
        recon = self.weigh_at(x, q, *self.evaluation_noise(x, 1, self.noise))[0].mean()
        kl = self.kl(q).mean(0).sum()
        terms = {"nelbo": kl - recon, "recon": recon, "kl": kl}
        if self.mode == "beta":
            return {"loss": self.beta * kl - recon, **terms}
        c = self.capacity * self.ramp(self.capacity_steps)
        return {
            "loss": self.gamma * (self.shared_mean(kl) - c).abs() - recon,
            **terms,
            "capacity": torch.as_tensor(c),
        }
