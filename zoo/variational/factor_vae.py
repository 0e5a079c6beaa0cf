"""FactorVAE: a VAE whose code is made factorial by a network that tells codes from shuffled codes.

Paper      Kim, Mnih. Disentangling by Factorising. ICML 2018. arXiv:1802.05983.
Model      z ~ N(0, I), x ~ p(x | z), q(z | x) = N(μ(x), σ²(x)): the VAE's. D(z) is the log-odds
           that z is a code of q(z) = E_x q(z | x) and not of Π_j q(z_j); draws of the latter are
           codes whose dimensions were permuted over the minibatch, each by itself.
Objective  G, encoder and decoder:
               -E_q log p(x | z) + KL(q(z | x) ‖ N(0, I)) + γ E D(z).
               E D(z) estimates the total correlation KL(q(z) ‖ Π_j q(z_j)). It reaches the encoder
               through z; D is held.
           D:  ½ E softplus(-D(z)) + ½ E softplus(D(z')), z codes and z' shuffled codes of other
               examples; both detached.
Bounds     ``elbo`` is the VAE's, γ = 0.
Sampling   z ~ N(0, I), x ~ p(x | z), or p's mean with ``mean_only``.
Notes      D's two class logits of the paper count by their difference only, which is D(z). Each
           player has a fresh minibatch, and D plays first: the halves of its minibatch give z and
           z'. net="conv" doubles its maps from layer to layer and ends in the code; the paper's
           encoder of dSprites has 32, 32, 64 and 64 maps and a layer of 128 units more (table 1, as
           remembered), its decoder the mirror. The paper takes for z the codes of the VAE's step,
           with as many z'. Codes of all processes are shuffled together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import (
    AdversarialModule,
    Adversary,
    LoopOptions,
    Loss,
    Phase,
    Terms,
    Variational,
)
from zoo.core import Batch, Spec
from zoo.core.likelihood import RowNoise
from zoo.core.options import Count, NonNegative, Positive
from zoo.nn.coders import Activation, Net, mlp
from zoo.nn.gaussian import reparameterise
from zoo.nn.likelihood_heads import Likelihood
from zoo.registry import Paper, register


def permute_dims(z: Tensor, u: Tensor) -> Tensor:
    """Each column of z, (B, J), in an order of its own: that of the uniform numbers u, (B, J)."""
    return z.gather(0, u.argsort(0))


# D's ½ of both is taken in its loss; the encoder is charged E D(z), the total correlation.
LOG_ODDS = Loss(real=lambda s: F.softplus(-s), fake=F.softplus, maker=lambda s: s)


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

    watches = ("nelbo", "tc")

    def __init__(
        self,
        spec: Spec,
        latent: Count = 6,
        net: Net = "mlp",
        width: Count = 256,
        layers: Count = 2,
        activation: Activation = "relu",
        likelihood: Likelihood = "auto",
        gamma: NonNegative = 10.0,
        width_d: Count = 256,
        layers_d: Count = 3,
        draws: Count = 50,
        lr: Positive = 1e-3,
        lr_d: Positive = 1e-3,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        self.build(net, latent, width, layers, activation, likelihood, draws)
        d = nn.Sequential(mlp(latent, 1, width_d, layers_d, "leaky_relu"), nn.Flatten(0))
        alone = {"separate_batches": "its networks have no batch statistics"}
        self.d = Adversary(self, d, LOG_ODDS, inputs=[(latent,)], without=alone)
        self.gamma, self.lr, self.lr_d = gamma, lr, lr_d

    # -- losses -----------------------------------------------------------------------------------
    def discriminator_loss(self, batch: Batch) -> Terms:
        x, n = batch["x"], batch.n
        if n < 2:
            raise ValueError(
                "factor_vae: the discriminator needs minibatches of at least 2 rows, got "
                f"{n}; raise --data.batch_size"
            )
        with torch.no_grad():
            eps = self.noise.normal(n, self.latent)
            codes, others = reparameterise(*self.posterior(x), eps).split([n - n // 2, n // 2])
            u = self.noise.uniform(len(others), self.latent)
            shuffled = permute_dims(self.everyone(others), self.everyone(u))
            shuffled = shuffled[self.noise.rank :: self.noise.world]
        joint, product = self.d.both((codes,), (shuffled,))
        right_joint = (joint > 0).to(joint.dtype).mean()
        right_product = (product < 0).to(joint.dtype).mean()
        right = (right_joint + right_product) / 2
        terms = {"loss": self.d.cost(joint, product) / 2, "accuracy": right}
        return self.d.regularised(terms, codes)

    def generator_loss(self, batch: Batch) -> Terms:
        x = batch["x"]
        q = self.posterior(x)
        eps, u = self.evaluation_noise(x, 1, self.noise)
        z = reparameterise(*q, eps)
        recon = self.log_likelihood_of_draws(x, z, u)[0].mean()
        kl, tc = self.kl(q).mean(0).sum(), self.d.fool(z[0])
        nelbo = kl - recon
        return {"loss": nelbo + self.gamma * tc, "nelbo": nelbo, "recon": recon, "kl": kl, "tc": tc}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """The VAE's terms, and D's estimate of the total correlation."""
        x = batch["x"]
        z = reparameterise(*self.posterior(x), RowNoise(x, generator).normal(batch.n, self.latent))
        return super().evaluate(batch, generator) | {"tc": self.d(z)}

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, nn.Module | list[nn.Module]]:
        return {"d": self.d, "g": [self.encoder, self.decoder]}

    def phases(self) -> list[Phase]:
        return [
            Phase("d", self.discriminator_loss, critic=True),
            Phase("g", self.generator_loss),
        ]

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "d": torch.optim.Adam(self.parameters_of("d"), self.lr_d, (0.5, 0.9)),
            "g": torch.optim.Adam(self.parameters_of("g"), self.lr),
        }
