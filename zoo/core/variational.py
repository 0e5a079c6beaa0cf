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

from zoo.core.likelihood import LikelihoodModule, RowNoise
from zoo.core.module import Batch, GenerativeModule
from zoo.nn.coders import ACTIVATIONS, NETS, conv_coders, mlp_coders
from zoo.nn.gaussian import kl_standard, log_normal, reparameterise, soft_clamp, split_kl
from zoo.nn.likelihood_heads import Head, make_head
from zoo.nn.prior import Draw, Source, path


class Variational(GenerativeModule):
    """Base of the models with an inference network, whatever loop trains them.

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
        """Check the common options and make head, encoder and decoder; the encoder ends in ``code``
        numbers, or 2 latent.
        """
        name = self.model_name
        for option, value, allowed in (
            ("net", net, NETS),
            ("activation", activation, (*ACTIVATIONS,)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: {option} is {' or '.join(allowed)}, got {value!r}")
        if min(latent, width, layers, draws) < 1:
            raise ValueError(
                f"{name}: latent, width, layers and draws are at least 1, got {latent}, {width}, "
                f"{layers}, {draws}"
            )
        self.latent, self.draws, self.head = latent, draws, make_head(likelihood, self.spec.levels)
        if net == "conv":
            self.spec.require(
                f"{name} with net=conv",
                image=True,
                square=True,
                size=tuple(2**i for i in range(3, 11)),
            )
            made = conv_coders(
                self.spec.shape, code or 2 * latent, latent, self.head.params, width, activation
            )
        else:
            made = mlp_coders(
                self.spec.shape,
                code or 2 * latent,
                latent,
                self.head.params,
                width,
                layers,
                activation,
            )
        self.encoder, self.decoder = made

    @property
    def likelihood_kind(self) -> str:
        return "lower_bound"

    # -- what a model may replace -----------------------------------------------------------------
    def posterior(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q(z | x), (B, latent) each."""
        mu, log_var = self.encoder(self.spec.to_signed(x)).chunk(2, 1)
        return mu, soft_clamp(log_var)

    def log_likelihood(
        self, x: Tensor, z: Tensor, u: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        """log p(x | z) in nats, (B,), of the rows z, (B, latent); u is the dequantisation noise of
        a head that asks for it.
        """
        return self.head.log_prob(self.decoder(z), x, u)

    def weigh(
        self, x: Tensor, k: int, source: Source, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p(x | z), (K, B), and log q(z | x) - log p(z) of each group of latents, (K, B,
        groups), at K draws of z from q.

        Every draw is taken from ``source``. The groups (here each latent dimension) only matter to
        free bits; their sum counts.
        """
        return self.weigh_at(x, self.posterior(x, y), *self.evaluation_noise(x, k, source), y)

    def kl(self, q: tuple[Tensor, Tensor]) -> Tensor:
        """KL(q(z | x) ‖ p(z)) of each latent dimension in closed form, (B, latent)."""
        return kl_standard(*q)

    def bound_terms(
        self, x: Tensor, source: Source, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """E_q log p(x | z) from one draw of z, and KL(q(z | x) ‖ p(z)), nats, (B,) each. Replace it
        where the KL has no closed form: with ``sampled_terms``, which takes both from one draw."""
        q = self.posterior(x, y)
        return self.weigh_at(x, q, *self.evaluation_noise(x, 1, source), y)[0][0], self.kl(q).sum(1)

    def draw_codes(self, n: int, source: Source, y: Tensor | None = None) -> Tensor:
        """n codes of p(z), (n, latent)."""
        return source.normal(n, self.latent)

    # -- bounds -----------------------------------------------------------------------------------
    def weigh_at(
        self,
        x: Tensor,
        q: tuple[Tensor, Tensor],
        eps: Tensor,
        u: Tensor | None = None,
        y: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``weigh`` at z = μ + σ ε.

        Args:
            q: μ and log σ², (B, latent). eps: (K, B, latent). u: (K, B, *shape) for a dequantised
                likelihood.
        """
        z = reparameterise(*q, eps)
        return self.log_likelihood_of_draws(x, z, u, y), log_normal(z, *q) - log_normal(z)

    def log_likelihood_of_draws(
        self, x: Tensor, z: Tensor, u: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        """log p(x | z), (K, B), of K draws of z for each row of x, (K, B, latent)."""
        k = len(z)
        rows, labels = x.expand(k, *x.shape).flatten(0, 1), None if y is None else y.repeat(k)
        return self.log_likelihood(
            rows, z.flatten(0, 1), None if u is None else u.flatten(0, 1), labels
        ).view(z.shape[:2])

    def evaluation_noise(self, x: Tensor, k: int, source: Source) -> tuple[Tensor, Tensor | None]:
        """ε (K, B, latent) and, for a dequantised likelihood, u (K, B, *shape)."""
        return source.normal(len(x), k, self.latent).transpose(0, 1), self.dequantising(
            x, k, source
        )

    def dequantising(self, x: Tensor, k: int, source: Source) -> Tensor | None:
        """u, (K, B, *shape), for a head that asks for it."""
        return (
            source.uniform(len(x), k, *self.spec.shape).transpose(0, 1)
            if self.head.dequantises
            else None
        )

    def sampled_terms(
        self, x: Tensor, source: Source, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p(x | z) and log q(z | x) - log p(z) at one draw of z, (B,) each."""
        recon, ratio = self.weigh(x, 1, source, y)
        return recon[0], ratio[0].sum(-1)

    def elbo(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Evidence lower bound in nats, (B,), from one draw of z."""
        recon, kl = self.bound_terms(x, RowNoise(x, generator), y)
        return recon - kl

    def importance_bound(
        self,
        x: Tensor,
        samples: int = 500,
        generator: torch.Generator | None = None,
        chunk: int = 50,
        y: Tensor | None = None,
    ) -> Tensor:
        """logsumexp_k log w_k - ln K, w = p(x | z) p(z) / q(z | x), nats, (B,), from K =
        ``samples`` draws of z, ``chunk`` at a time.
        """
        source, total = RowNoise(x, generator), None
        for start in range(0, samples, chunk):
            recon, ratio = self.weigh(x, min(chunk, samples - start), source, y)
            part = (recon - ratio.sum(-1)).logsumexp(0)
            total = part if total is None else torch.logaddexp(total, part)
        assert total is not None, "samples is at least 1"
        return total - math.log(samples)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The two terms of the bound, and -``importance_bound`` as "iw_nll"."""
        x, y = batch["x"], self.labels(batch)
        recon, kl = self.bound_terms(x, RowNoise(x, generator), y)
        return {
            "recon": recon,
            "kl": kl,
            "iw_nll": -self.importance_bound(x, self.draws, generator, y=y),
        }

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

    def labels(self, batch: Batch) -> Tensor | None:
        """The labels of a batch if the model is conditioned on the class, else None: they do not
        touch it.
        """
        return batch["y"] if self.conditions_on == "class" else None

    def ramp(self, steps: int) -> float:
        """A weight that rises from 0 to 1 over the first ``steps`` training steps: a function of
        the step, so resuming continues it.
        """
        if not steps or self._trainer is None:
            return 1.0
        return min(1.0, self.trainer.global_step / steps)

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
        mean_only: bool = False,
    ) -> Tensor:
        """z ~ p(z), x ~ p(x | z), (n, *shape); with ``mean_only`` the mean of p(x | z)."""
        out = self.decoder(self.draw_codes(n, Draw(generator, self.device, self.float_dtype), y))
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

    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape), decoded along the line from the code of a to that of b."""
        return self.decode(
            path("uniform", self.encode(a), self.encode(b), frames).flatten(0, 1)
        ).unflatten(0, (len(a), frames))


class VariationalModule(Variational, LikelihoodModule):
    """Base of the models with an inference network that one loss trains."""
