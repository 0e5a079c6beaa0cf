"""FactorVAE: a VAE whose code is made factorial by a network that tells codes from shuffled codes.

Paper      Kim, Mnih. Disentangling by Factorising. ICML 2018. arXiv:1802.05983.
Model      z ~ N(0, I), x ~ p(x | z), q(z | x) = N(μ(x), σ²(x)): the VAE's. D(z) is the log-odds
           that z is a code of q(z) = E_x q(z | x) and not of Π_j q(z_j); draws of the latter are
           codes whose dimensions were permuted over the minibatch, each by itself.
Objective  G, encoder and decoder:  -E_q log p(x | z) + KL(q(z | x) ‖ N(0, I)) + γ E D(z); E D(z)
           estimates the total correlation KL(q(z) ‖ Π_j q(z_j)). It reaches the encoder through z;
           D is held.
           D:  ½ E softplus(-D(z)) + ½ E softplus(D(z')), z codes and z' shuffled codes of other
           examples; both detached.
Bounds     ``elbo`` is the VAE's, γ = 0.
Sampling   z ~ N(0, I), x ~ p(x | z), or p's mean with ``mean_only``.
Notes      D's two class logits of the paper count by their difference only, which is D(z). Each
           player has a fresh minibatch, and D plays first: the halves of its minibatch give z and
           z'. The paper takes for z the codes of the VAE's step, with as many z'. Codes of all
           processes are shuffled together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core import AdversarialModule, DataSpec, LoopOptions, Phase
from zoo.core.likelihood import RowNoise
from zoo.core.module import Batch
from zoo.core.variational import Variational
from zoo.nn.coders import mlp
from zoo.nn.gaussian import reparameterise
from zoo.registry import Paper, register


def permute_dims(z: Tensor, u: Tensor) -> Tensor:
    """Each column of z, (B, J), in an order of its own: that of the uniform numbers u, (B, J)."""
    return z.gather(0, u.argsort(0))


@register(
    "factor_vae",
    paper=Paper("Kim, Mnih", "Disentangling by Factorising", 2018, "1802.05983"),
    about="a VAE that is charged for the total correlation of its code, as a discriminator "
    "estimates it",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate"},
    data="factor_grid",
    learns=(("val/elbo", ">", -35.0), ("val/tc", "<", 0.15)),  # without the charge 0.34
    waive={"accumulation_equals_one_batch": "codes are shuffled within a micro-batch"},
)
class FactorVAE(Variational, AdversarialModule):
    """FactorVAE.

    Args:
        latent: dimensions of z.
        net: "mlp" or, for images whose side is 8, 16, 32, ..., "conv".
        width: hidden units of a layer, or maps of the first convolution.
        layers: hidden layers of encoder and of decoder ("mlp").
        activation: of the hidden layers.
        likelihood: "bernoulli" (binary data), "gaussian", "dlogistic" (levels); "auto" chooses by
            the data.
        gamma: weight γ of the total correlation.
        width_d: hidden units of a layer of D. layers_d: its hidden layers.
        draws: draws of z of the evaluated importance bound.
        lr: learning rate of encoder and decoder. lr_d: of D.
        loop: options of the adversarial loop.
    """

    def __init__(
        self,
        spec: DataSpec,
        latent: int = 6,
        net: str = "mlp",
        width: int = 256,
        layers: int = 2,
        activation: str = "relu",
        likelihood: str = "auto",
        gamma: float = 10.0,
        width_d: int = 256,
        layers_d: int = 3,
        draws: int = 50,
        lr: float = 1e-3,
        lr_d: float = 1e-3,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        if gamma < 0 or min(width_d, layers_d) < 1:
            raise ValueError(
                f"factor_vae: gamma >= 0, width_d and layers_d >= 1, got {gamma}, {width_d}, "
                f"{layers_d}"
            )
        self.build(net, latent, width, layers, activation, likelihood, draws)
        self.discriminator = mlp(latent, 1, width_d, layers_d, "leaky_relu")
        self.gamma, self.lr, self.lr_d = gamma, lr, lr_d

    # -- losses -----------------------------------------------------------------------------------
    def log_odds(self, z: Tensor) -> Tensor:
        """D(z), (B,)."""
        return self.discriminator(z)[:, 0]

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        if len(x) < 2:
            raise ValueError(
                "factor_vae: the discriminator needs minibatches of at least 2 rows; raise "
                "--data.batch_size"
            )
        with torch.no_grad():
            codes, others = reparameterise(
                *self.posterior(x), self.noise.normal(len(x), self.latent)
            ).split([len(x) - len(x) // 2, len(x) // 2])
            u = self.noise.uniform(len(others), self.latent)
            shuffled = permute_dims(self.everyone(others), self.everyone(u))[
                self.noise.rank :: self.noise.world
            ]
        joint, product = self.log_odds(codes), self.log_odds(shuffled)
        right = ((joint > 0).to(joint.dtype).mean() + (product < 0).to(joint.dtype).mean()) / 2
        return {
            "loss": (F.softplus(-joint).mean() + F.softplus(product).mean()) / 2,
            "accuracy": right,
        }

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        q = self.posterior(x)
        eps, u = self.evaluation_noise(x, 1, self.noise)
        z = reparameterise(*q, eps)
        recon = self.log_likelihood_of_draws(x, z, u)[0].mean()
        kl, tc = self.kl(q).mean(0).sum(), self.log_odds(z[0]).mean()
        nelbo = kl - recon
        return {"loss": nelbo + self.gamma * tc, "nelbo": nelbo, "recon": recon, "kl": kl, "tc": tc}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The VAE's terms, and D's estimate of the total correlation."""
        x = batch["x"]
        z = reparameterise(*self.posterior(x), RowNoise(x, generator).normal(len(x), self.latent))
        return super().evaluate(batch, generator) | {"tc": self.log_odds(z)}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module | list[nn.Module]]:
        return {"d": self.discriminator, "g": [self.encoder, self.decoder]}

    def phases(self) -> list[Phase]:
        return [Phase("d", self.discriminator_loss), Phase("g", self.generator_loss)]

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "d": torch.optim.Adam(self.parameters_of("d"), self.lr_d, (0.5, 0.9)),
            "g": torch.optim.Adam(self.parameters_of("g"), self.lr),
        }
