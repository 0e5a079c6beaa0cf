"""VAE: variational auto-encoder, with the importance-weighted bound.

Paper      Kingma, Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114. Importance-weighted bound and objective: Burda,
           Grosse, Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016. arXiv:1509.00519.
Model      z ~ N(0, I), x ~ p(x | z), q(z | x) = N(μ(x), σ²(x)). p(x | z) is Bernoulli for binary data, a discretised logistic for grey
           levels, Gaussian for real vectors; all are likelihoods, in nats summed over dimensions.
Objective  -ELBO = -E_q log p(x | z) + KL(q(z | x) ‖ N(0, I)), one draw z = μ + σ ε, the KL in closed form. Nothing is detached.
           "iwae": -E [logsumexp_k log w_k - ln K], log w = log p(x | z) + log p(z) - log q(z | x), over K = ``k`` draws.
Bounds     ``elbo`` <= ``importance_bound`` <= log p(x); the second, with K draws, is evaluated as val/iw_nll.
Sampling   z ~ N(0, I), x ~ p(x | z), or p's mean with ``mean_only``. Reconstruction: the mean of p(x | μ(x)).
Notes      log σ² is bounded softly by 10 tanh(·/10). ``warmup_steps`` raises the KL's weight from 0 to 1 and ``free_bits`` keeps that
           many nats of each latent dimension's batch mean free; logged and evaluated bounds never contain either. The default is
           two hidden layers of ReLU units with Adam, where the paper has one layer of tanh units with Adagrad.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.core import DataSpec, LikelihoodModule
from zoo.core.likelihood import row_noise
from zoo.core.module import Batch
from zoo.nn.gaussian import kl_standard, log_normal, reparameterise, soft_clamp
from zoo.nn.likelihood_heads import make_head
from zoo.registry import Paper, register

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp_nets(spec: DataSpec, latent: int, width: int, layers: int, activation: str, params: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder to (μ, log σ²) and decoder to (params, *shape), with equal hidden layers."""

    def mlp(a: int, b: int) -> list[nn.Module]:
        steps: list[nn.Module] = []
        for i in range(layers):
            steps += [nn.Linear(width if i else a, width), ACTIVATIONS[activation]()]
        return [*steps, nn.Linear(width, b)]

    encoder = nn.Sequential(nn.Flatten(), *mlp(spec.dim, 2 * latent))
    return encoder, nn.Sequential(*mlp(latent, params * spec.dim), nn.Unflatten(1, (params, *spec.shape)))


def conv_nets(spec: DataSpec, latent: int, width: int, activation: str, params: int) -> tuple[nn.Sequential, nn.Sequential]:
    """4x4 convolutions of stride 2 with width, 2 width, ... maps down to 4x4, and their mirror."""
    c, size, _ = spec.shape
    maps = [width * 2**i for i in range((size // 4).bit_length() - 1)]
    down: list[nn.Module] = []
    for a, b in zip([c, *maps[:-1]], maps, strict=True):
        down += [nn.Conv2d(a, b, 4, 2, 1), ACTIVATIONS[activation]()]
    up: list[nn.Module] = []
    for a, b in zip(maps[::-1], [*maps[-2::-1], params * c], strict=True):
        up += [ACTIVATIONS[activation](), nn.ConvTranspose2d(a, b, 4, 2, 1)]
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(16 * maps[-1], 2 * latent))
    start = [nn.Linear(latent, 16 * maps[-1]), nn.Unflatten(1, (maps[-1], 4, 4))]
    return encoder, nn.Sequential(*start, *up, nn.Unflatten(1, (params, c)))


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
class VAE(LikelihoodModule):
    """Variational auto-encoder.

    Args:
        latent: dimensions of z.
        net: "mlp" or, for images whose side is 8, 16, 32, ..., "conv".
        width: hidden units of a layer, or maps of the first convolution.
        layers: hidden layers of encoder and of decoder ("mlp").
        activation: "relu" or "tanh".
        likelihood: "bernoulli" (binary data), "gaussian", "dlogistic" (levels); "auto" chooses by the data.
        objective: "elbo", or "iwae" on ``k`` draws.
        k: draws of z for each example in training.
        kl_mc: sample the KL instead of its closed form.
        warmup_steps: steps over which the KL's weight rises from 0 to 1.
        free_bits: nats of each latent dimension that cost nothing.
        draws: draws of z of the evaluated importance bound.
        optimiser: "adam" or the paper's "adagrad".
        lr: learning rate.
    """

    def __init__(
        self,
        spec: DataSpec,
        latent: int = 8,
        net: str = "mlp",
        width: int = 200,
        layers: int = 2,
        activation: str = "relu",
        likelihood: str = "auto",
        objective: str = "elbo",
        k: int = 1,
        kl_mc: bool = False,
        warmup_steps: int = 0,
        free_bits: float = 0.0,
        draws: int = 50,
        optimiser: str = "adam",
        lr: float = 1e-3,
    ) -> None:
        super().__init__(spec)
        for name, value, allowed in (
            ("net", net, ("mlp", "conv")), ("activation", activation, (*ACTIVATIONS,)),
            ("objective", objective, ("elbo", "iwae")), ("optimiser", optimiser, ("adam", "adagrad")),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"{name} is {' or '.join(allowed)}, got {value!r}")
        if min(latent, width, layers, k, draws) < 1:
            raise ValueError(f"latent, width, layers, k and draws are at least 1, got {latent}, {width}, {layers}, {k}, {draws}")
        if objective == "iwae" and (warmup_steps or free_bits or kl_mc):
            raise ValueError("objective=iwae has no KL term: leave warmup_steps, free_bits and kl_mc at their defaults")
        self.head = make_head(likelihood, spec.levels)
        if net == "conv":
            spec.require("vae with net=conv", image=True, square=True, size=tuple(2**i for i in range(3, 11)))
            self.encoder, self.decoder = conv_nets(spec, latent, width, activation, self.head.params)
        else:
            self.encoder, self.decoder = mlp_nets(spec, latent, width, layers, activation, self.head.params)
        self.latent, self.objective, self.k, self.kl_mc, self.draws = latent, objective, k, kl_mc, draws
        self.warmup_steps, self.free_bits, self.optimiser, self.lr = warmup_steps, free_bits, optimiser, lr

    # -- likelihood ----------------------------------------------------------------------------------------------------
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q(z | x), (B, latent) each."""
        mu, log_var = self.encoder(self.spec.to_signed(x)).chunk(2, 1)
        return mu, soft_clamp(log_var)

    def log_likelihood(self, x: Tensor, z: Tensor, u: Tensor | None) -> Tensor:
        """log p(x | z), (B,)."""
        return self.head.log_prob(self.decoder(z), x, u)

    def terms_at(self, x: Tensor, q: tuple[Tensor, Tensor], eps: Tensor, u: Tensor | None) -> tuple[Tensor, Tensor]:
        """log p(x | z), (K, B), and log q(z | x) - log p(z) of each latent dimension, (K, B, latent), at z = μ + σ ε.

        Args:
            q: μ and log σ², (B, latent). eps: (K, B, latent). u: (K, B, *shape) for a dequantised likelihood.
        """
        z = reparameterise(*q, eps)
        rows = x.expand(len(eps), *x.shape).flatten(0, 1)
        recon = self.log_likelihood(rows, z.flatten(0, 1), None if u is None else u.flatten(0, 1))
        return recon.view(eps.shape[:2]), log_normal(z, *q) - log_normal(z)

    def elbo(self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """ELBO in nats, (B,), from one draw of z."""
        recon, kl = self._elbo_terms(x, generator)
        return recon - kl

    def _elbo_terms(self, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        q = self.posterior(x)
        return self.terms_at(x, q, *self._evaluation_noise(x, 1, generator))[0][0], kl_standard(*q).sum(1)

    def importance_bound(self, x: Tensor, samples: int = 500, generator: torch.Generator | None = None, chunk: int = 50) -> Tensor:
        """logsumexp_k log w_k - ln K, w = p(x | z) p(z) / q(z | x), nats, (B,), from K = ``samples`` draws of z, ``chunk`` at a time."""
        q = self.posterior(x)
        eps, u = self._evaluation_noise(x, samples, generator)
        parts = []
        for start in range(0, samples, chunk):
            part = slice(start, start + chunk)
            recon, ratio = self.terms_at(x, q, eps[part], None if u is None else u[part])
            parts.append((recon - ratio.sum(-1)).logsumexp(0))
        return torch.stack(parts).logsumexp(0) - math.log(samples)

    def _evaluation_noise(self, x: Tensor, k: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """ε (K, B, latent) and, for a dequantised likelihood, u (K, B, *shape)."""
        eps = row_noise(torch.randn, x, (k, self.latent), generator).transpose(0, 1)
        return eps, row_noise(torch.rand, x, (k, *self.spec.shape), generator).transpose(0, 1) if self.head.dequantises else None

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        recon, kl = self._elbo_terms(batch["x"], generator)
        return {"recon": recon, "kl": kl, "iw_nll": -self.importance_bound(batch["x"], self.draws, generator)}

    # -- loss ----------------------------------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        eps = self.noise.normal(len(x), self.k, self.latent).transpose(0, 1)
        u = self.noise.uniform(len(x), self.k, *self.spec.shape).transpose(0, 1) if self.head.dequantises else None
        q = self.posterior(x)
        recon, ratio = self.terms_at(x, q, eps, u)
        if self.objective == "iwae":
            bound = ((recon - ratio.sum(-1)).logsumexp(0) - math.log(self.k)).mean()
            return {"loss": -bound, "iw_nll": -bound, "recon": recon.mean()}
        kl = (ratio.mean(0) if self.kl_mc else kl_standard(*q)).mean(0)  # of each latent dimension, over the batch
        nelbo = kl.sum() - recon.mean()
        cost = kl.clamp(min=self.free_bits) if self.free_bits else kl
        return {"loss": self.beta() * cost.sum() - recon.mean(), "nelbo": nelbo, "recon": recon.mean(), "kl": kl.sum()}

    def beta(self) -> float:
        """The KL's weight, a function of the training step."""
        if not self.warmup_steps or self._trainer is None:
            return 1.0
        return min(1.0, self.trainer.global_step / self.warmup_steps)

    # -- use -----------------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, y: Tensor | None = None, generator: torch.Generator | None = None, mean_only: bool = False) -> Tensor:
        out = self.decoder(torch.randn(n, self.latent, generator=generator, device=self.device, dtype=self.float_dtype))
        return self.head.mean(out) if mean_only else self.head.sample(out, generator)

    def encode(self, x: Tensor) -> Tensor:
        """μ(x), (B, latent)."""
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z) in the units of ``spec``: the likelier value of a binary pixel."""
        return self.head.mean(self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape), decoded along the line from μ(a) to μ(b)."""
        za, zb = self.encode(a)[:, None], self.encode(b)[:, None]
        t = torch.linspace(0, 1, frames, device=za.device, dtype=za.dtype)[:, None]
        return self.decode(((1 - t) * za + t * zb).flatten(0, 1)).view(len(a), frames, *self.spec.shape)

    # -- optimisers ----------------------------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        kind = torch.optim.Adam if self.optimiser == "adam" else torch.optim.Adagrad
        return kind(self.parameters(), self.lr)
