"""Latent-variable models p(x) = ∫ p(x | z) p(z) dz with an inference network q(z | x): their
bounds, and the use of codes.

A model says in ``weigh`` what K draws of z weigh; the evidence lower bound, the importance-weighted
bound and the validation terms follow for all of them. Without more it is the mean-field gaussian
model: q(z | x) = N(μ(x), σ²(x)), p(z) = N(0, I).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zoo.bases.likelihood import LikelihoodModule
from zoo.core.batch import Batch
from zoo.core.likelihood import RowNoise
from zoo.core.module import GenerativeModule
from zoo.core.spec import Image
from zoo.nn.coders import conv_coders, mlp_coders
from zoo.nn.gaussian import kl_standard, log_normal, reparameterise, soft_clamp, split_kl
from zoo.nn.likelihood_heads import Head, make_head
from zoo.nn.prior import Draw, Source, path


class Variational(GenerativeModule):
    """Base of the models with an inference network, whatever loop trains them. What a model is told
    goes by name through all of its methods.

    Attributes:
        head: p(x | z) (zoo.nn.likelihood_heads). encoder: (B, *shape) in [-1, 1] to (B, 2 latent).
            decoder: (B, latent) to (B, head.params, *shape). latent: dimensions of z. draws: of z,
                in the importance bound of a validation.
    """

    gaussian = True  # whether q(z | x) is the N(μ, σ²) of ``posterior``
    head: Head
    encoder: Any
    decoder: Any
    latent: int
    draws: int = 50

    def build(
        self,
        net: str,
        latent: int,
        width: int,
        layers: int,
        activation: str,
        likelihood: str,
        draws: int,
        code: int = 0,
    ) -> None:
        """Make head, encoder and decoder of the common options; the encoder ends in ``code``
        numbers, or 2 latent.
        """
        self.latent, self.draws = latent, draws
        self.head = make_head(likelihood, self.spec.levels)
        sizes = (self.spec.shape, code or 2 * latent, latent, self.head.params)
        if net == "conv":
            sides = tuple(2**i for i in range(3, 11))
            self.spec.require(f"{self.model_name} with net=conv", x=Image, square=True, size=sides)
            self.encoder, self.decoder = conv_coders(*sizes, width, activation)
        else:
            self.encoder, self.decoder = mlp_coders(*sizes, width, layers, activation)

    @property
    def likelihood_kind(self) -> str:
        return "lower_bound"

    # -- what a model may replace -----------------------------------------------------------------
    def posterior(self, x: Tensor, **told: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q(z | x), (B, latent) each."""
        mu, log_var = self.encoder(self.spec.to_signed(x)).chunk(2, 1)
        return mu, soft_clamp(log_var)

    def log_likelihood(
        self, x: Tensor, z: Tensor, u: Tensor | None = None, **told: Tensor
    ) -> Tensor:
        """log p(x | z) in nats, (B,), of the rows z, (B, latent); u is the dequantisation noise of
        a head that asks for it.
        """
        return self.head.log_prob(self.decoder(z), x, u)

    def weigh(self, x: Tensor, k: int, source: Source, **told: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x | z), (K, B), and log q(z | x) - log p(z) of each group of latents, (K, B,
        groups), at K draws of z from q.

        Every draw is taken from ``source``. The groups (here each latent dimension) only matter to
        free bits; their sum counts.
        """
        q = self.posterior(x, **told)
        return self.weigh_at(x, q, *self.evaluation_noise(x, k, source), **told)

    def kl(self, q: tuple[Tensor, Tensor]) -> Tensor:
        """KL(q(z | x) ‖ p(z)) of each latent dimension in closed form, (B, latent)."""
        return kl_standard(*q)

    def bound_terms(self, x: Tensor, source: Source, **told: Tensor) -> tuple[Tensor, Tensor]:
        """E_q log p(x | z) from one draw of z, and KL(q(z | x) ‖ p(z)), nats, (B,) each. Replace it
        where the KL has no closed form: with ``sampled_terms``, which takes both from one draw."""
        q = self.posterior(x, **told)
        recon, _ = self.weigh_at(x, q, *self.evaluation_noise(x, 1, source), **told)
        return recon[0], self.kl(q).sum(1)

    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of p(z), (n, latent)."""
        return source.normal(n, self.latent)

    # -- bounds -----------------------------------------------------------------------------------
    def weigh_at(
        self,
        x: Tensor,
        q: tuple[Tensor, Tensor],
        eps: Tensor,
        u: Tensor | None = None,
        **told: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """``weigh`` at z = μ + σ ε.

        Args:
            q: μ and log σ², (B, latent). eps: (K, B, latent). u: (K, B, *shape) for a dequantised
                likelihood.
        """
        z = reparameterise(*q, eps)
        return self.log_likelihood_of_draws(x, z, u, **told), log_normal(z, *q) - log_normal(z)

    def log_likelihood_of_draws(
        self, x: Tensor, z: Tensor, u: Tensor | None = None, **told: Tensor
    ) -> Tensor:
        """log p(x | z), (K, B), of K draws of z for each row of x, (K, B, latent)."""
        k = len(z)
        rows, noise = x.expand(k, *x.shape).flatten(0, 1), None if u is None else u.flatten(0, 1)
        each = {name: v.expand(k, *v.shape).flatten(0, 1) for name, v in told.items()}
        return self.log_likelihood(rows, z.flatten(0, 1), noise, **each).view(z.shape[:2])

    def evaluation_noise(self, x: Tensor, k: int, source: Source) -> tuple[Tensor, Tensor | None]:
        """ε (K, B, latent) and, for a dequantised likelihood, u (K, B, *shape)."""
        eps = source.normal(len(x), k, self.latent).transpose(0, 1)
        return eps, self.dequantising(x, k, source)

    def dequantising(self, x: Tensor, k: int, source: Source) -> Tensor | None:
        """u, (K, B, *shape), for a head that asks for it."""
        if not self.head.dequantises:
            return None
        return source.uniform(len(x), k, *self.spec.shape).transpose(0, 1)

    def sampled_terms(self, x: Tensor, source: Source, **told: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x | z) and log q(z | x) - log p(z) at one draw of z, (B,) each."""
        recon, ratio = self.weigh(x, 1, source, **told)
        return recon[0], ratio[0].sum(-1)

    def kl_of_each(self, x: Tensor, **told: Tensor) -> Tensor | None:
        """KL(q(z_j | x) ‖ p(z_j)) in nats of each latent dimension, (B, latent); None where
        ``bound_terms`` is replaced, which is where there is no closed form of it.
        """
        if type(self).bound_terms is not Variational.bound_terms:
            return None
        return self.kl(self.posterior(x, **told))

    def elbo(
        self, x: Tensor, *, generator: torch.Generator | None = None, **told: Tensor
    ) -> Tensor:
        """Evidence lower bound in nats, (B,), from one draw of z."""
        recon, kl = self.bound_terms(x, RowNoise(x, generator), **told)
        return recon - kl

    def importance_bound(
        self,
        x: Tensor,
        samples: int = 500,
        generator: torch.Generator | None = None,
        chunk: int = 50,
        **told: Tensor,
    ) -> Tensor:
        """logsumexp_k log w_k - ln K, w = p(x | z) p(z) / q(z | x), nats, (B,), from K =
        ``samples`` draws of z, ``chunk`` at a time.
        """
        source, total = RowNoise(x, generator), None
        for start in range(0, samples, chunk):
            recon, ratio = self.weigh(x, min(chunk, samples - start), source, **told)
            part = (recon - ratio.sum(-1)).logsumexp(0)
            total = part if total is None else torch.logaddexp(total, part)
        assert total is not None, "samples is at least 1"
        return total - math.log(samples)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The two terms of the bound, and -``importance_bound`` as "iw_nll"."""
        x = batch["x"]
        told: dict[str, Any] = self.told_in(batch)
        recon, kl = self.bound_terms(x, RowNoise(x, generator), **told)
        bound = self.importance_bound(x, self.draws, generator, **told)
        return {"recon": recon, "kl": kl, "iw_nll": -bound}

    @torch.no_grad()
    def aggregate(
        self, x: Tensor, generator: torch.Generator | None = None, chunk: int = 256
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mutual information, total correlation and dimension-wise KL
        (``zoo.nn.gaussian.split_kl``) at one draw of z for each row, (N,) each, with q(z) exactly
        the mean of q(z | x) over the N rows of x: of a whole data set, not of a batch."""
        q = self.posterior(x)
        z = reparameterise(*q, RowNoise(x, generator).normal(len(x), self.latent))
        own = log_normal(z, *q).sum(1)
        parts = [
            split_kl(a, b, *q, -math.log(len(x)))
            for a, b in zip(z.split(chunk), own.split(chunk), strict=True)
        ]
        mi, tc, dwkl = (torch.cat(p) for p in zip(*parts, strict=True))
        return mi, tc, dwkl

    def ramp(self, steps: int) -> float:
        """A weight that rises from 0 to 1 over the first ``steps`` training steps: a function of
        the step, so resuming continues it.
        """
        if not steps or self.step is None:
            return 1.0
        return min(1.0, self.step / steps)

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        mean_only: bool = False,
    ) -> Tensor:
        """z ~ p(z), x ~ p(x | z), (n, *shape); with ``mean_only`` the mean of p(x | z)."""
        z = self.draw_codes(n, Draw(generator, self.device, self.float_dtype))
        out = self.decoder(z)
        return self.head.mean(out) if mean_only else self.head.sample(out, generator)

    def encode(self, x: Tensor) -> Tensor:
        """μ(x), (B, latent)."""
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z) in the units of ``spec``: the likelier value of a binary pixel."""
        return self.head.mean(self.decoder(z))

    def from_codes(self, z: Tensor) -> Tensor:
        """``decode``: codes of the prior and of the encoder live in one space."""
        return self.decode(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | μ(x))."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape), decoded along the line from the code of a to that of b."""
        z = path("uniform", self.encode(a), self.encode(b), frames)
        return self.decode(z.flatten(0, 1)).unflatten(0, (len(a), frames))


class VariationalModule(Variational, LikelihoodModule):
    """Base of the models with an inference network that one loss trains, as a rule with Adam.

    Attributes:
        optimiser: "adam", or "adagrad", whose sums start at 0.1 as TensorFlow's did. lr: its rate.
    """

    optimiser: str = "adam"
    lr: float

    def configure_optimizers(self) -> Any:
        if self.optimiser == "adagrad":
            return torch.optim.Adagrad(self.parameters(), self.lr, initial_accumulator_value=0.1)
        return torch.optim.Adam(self.parameters(), self.lr)
