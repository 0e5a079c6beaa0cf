"""VAE: variational auto-encoder, with the importance-weighted bound.

Paper      Kingma, Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114.
           Importance-weighted bound and objective: Burda, Grosse, Salakhutdinov. Importance
           Weighted Autoencoders. ICLR 2016. arXiv:1509.00519.
Model      z ~ N(0, I), x ~ p(x | z), q(z | x) = N(μ(x), σ²(x)). p(x | z) is Bernoulli for binary
           data, a discretised logistic for grey levels, Gaussian for real vectors; all are
           likelihoods, in nats summed over dimensions.
Objective  -ELBO = -E_q log p(x | z) + KL(q(z | x) ‖ N(0, I)), one draw z = μ + σ ε, the KL in
           closed form. Nothing is detached. "iwae": -E [logsumexp_k log w_k - ln K], log w = log
           p(x | z) + log p(z) - log q(z | x), over K = ``k`` draws.
Bounds     ``elbo`` <= ``importance_bound`` <= log p(x); the second, with K draws, is evaluated as
           val/iw_nll.
Sampling   z ~ N(0, I), x ~ p(x | z), or p's mean with ``mean_only``. Reconstruction: the mean of
           p(x | μ(x)).
Notes      log σ² is bounded softly by 10 tanh(·/10). ``warmup_steps`` raises the KL's weight from 0
           to 1 and ``free_bits`` keeps that many nats of each latent dimension's batch mean free;
           logged and evaluated bounds never contain either. The default is two hidden layers of
           ReLU units with Adam, where the paper has one layer of tanh units with Adagrad; its sums
           start at 0.1, as TensorFlow's do, since from 0 the first step is the whole rate for every
           weight.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.bases import VariationalModule
from zoo.core import Batch, Spec
from zoo.core.options import Count, NonNegative, Positive, Whole
from zoo.nn.coders import Activation, Net
from zoo.nn.likelihood_heads import Bernoulli, Likelihood
from zoo.registry import Paper, register


@register(
    "vae",
    paper=Paper("Kingma, Welling", "Auto-Encoding Variational Bayes", 2014, "1312.6114"),
    about="an encoder and a decoder trained together on the evidence lower bound",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(("val/elbo", ">", -20.0), ("val/iw_nll", "<", 19.7)),
)
class VAE(VariationalModule):
    """Variational auto-encoder.

    Args:
        latent: dimensions of z.
        net: "mlp" or, for images whose side is 8, 16, 32, ..., "conv".
        width: hidden units of a layer, or maps of the first convolution.
        layers: hidden layers of encoder and of decoder ("mlp").
        activation: "relu" or "tanh".
        likelihood: "bernoulli" (binary data), "gaussian", "dlogistic" (levels); "auto" chooses by
            the data.
        objective: "elbo", or "iwae" on ``k`` draws.
        k: draws of z for each example in training.
        kl_mc: sample the KL instead of its closed form.
        warmup_steps: steps over which the KL's weight rises from 0 to 1.
        free_bits: nats of each latent dimension that cost nothing.
        draws: draws of z of the evaluated importance bound.
        init: of the weights, "default" (torch's), or "xavier" with the output biases at the
            frequencies of binary data ("mlp"). On MNIST a quicker start without ``warmup_steps``,
            no difference with it (docs/benchmarks.md).
        optimiser: "adam" or the paper's "adagrad".
        lr: learning rate.
    """

    watches = ("nelbo", "kl")

    def __init__(
        self,
        spec: Spec,
        latent: Count = 8,
        net: Net = "mlp",
        width: Count = 200,
        layers: Count = 2,
        activation: Activation = "relu",
        likelihood: Likelihood = "auto",
        objective: Literal["elbo", "iwae"] = "elbo",
        k: Count = 1,
        kl_mc: bool = False,
        warmup_steps: Whole = 0,
        free_bits: NonNegative = 0.0,
        draws: Count = 50,
        init: Literal["default", "xavier"] = "default",
        optimiser: Literal["adam", "adagrad"] = "adam",
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        if init == "xavier" and net != "mlp":
            raise ValueError(f"vae: init=xavier is for net=mlp, got net={net}")
        if objective == "iwae" and (warmup_steps or free_bits or kl_mc):
            raise ValueError(
                "vae: objective=iwae has no KL term: leave warmup_steps, free_bits and kl_mc at "
                "their defaults"
            )
        self.build(net, latent, width, layers, activation, likelihood, draws)
        self.init = init
        if init == "xavier":
            for layer in self.linear_layers():
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.objective, self.k, self.kl_mc = objective, k, kl_mc
        self.warmup_steps, self.free_bits = warmup_steps, free_bits
        self.optimiser, self.lr = optimiser, lr

    def linear_layers(self) -> list[nn.Linear]:
        return [m for m in (*self.encoder, *self.decoder) if isinstance(m, nn.Linear)]

    def initialise_from(self, batch: Batch) -> None:
        if self.init == "xavier" and isinstance(self.head, Bernoulli):
            ones = batch["x"].flatten(1).sum(0, dtype=torch.float64)
            self.linear_layers()[-1].bias.copy_(torch.logit((ones + 0.5) / (batch.n + 1)))

    # -- loss -------------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        q = self.posterior(x)
        recon, ratio = self.weigh_at(x, q, *self.evaluation_noise(x, self.k, self.noise))
        if self.objective == "iwae":
            bound = ((recon - ratio.sum(-1)).logsumexp(0) - math.log(self.k)).mean()
            return {"loss": -bound, "iw_nll": -bound, "recon": recon.mean()}
        each = ratio.mean(0) if self.kl_mc else self.kl(q)
        kl = each.mean(0)  # of each latent dimension, over the batch
        nelbo = kl.sum() - recon.mean()
        cost = kl.clamp(min=self.free_bits) if self.free_bits else kl
        return {
            "loss": self.beta() * cost.sum() - recon.mean(),
            "nelbo": nelbo,
            "recon": recon.mean(),
            "kl": kl.sum(),
        }

    def beta(self) -> float:
        """The KL's weight, a function of the training step."""
        return self.ramp(self.warmup_steps)
