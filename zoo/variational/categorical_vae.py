"""Categorical VAE: discrete latent variables trained through the Gumbel-softmax (Concrete)
relaxation.

Paper      Jang, Gu, Poole. Categorical Reparameterization with Gumbel-Softmax. ICLR 2017.
           arXiv:1611.01144. The same relaxation: Maddison, Mnih, Teh. The Concrete Distribution.
           ICLR 2017. arXiv:1611.00712. Continuous codes beside: Dupont. Learning Disentangled Joint
           Continuous and Discrete Representations. NeurIPS 2018. arXiv:1804.00104.
Model      z: ``variables`` one-hot vectors of ``classes``, p(z) uniform, q(z | x) = Π
           Cat(softmax(logits(x))), p(x | z) a decoder of the one-hots. With ``continuous`` > 0 as
           many gaussian dimensions stand beside them (JointVAE).
Objective  -log p(x | y) + KL with y = softmax((logits + g) / τ), g = -ln(-ln u): a relaxed draw,
           whose gradient reaches the encoder. kl="categorical": the KL of the discrete q to the
           uniform, Σ q ln q + ln K, in closed form (Jang). kl="concrete": of the relaxed densities
           at y, which makes the relaxed bound a bound of the relaxed model (Maddison).
           straight_through=True decodes one-hot(argmax y) and takes y's gradient. JointVAE: -log p
           + γ |KL_z - C_z| + γ |KL_c - C_c|, the capacities rising linearly.
Bounds     ``elbo`` and ``importance_bound`` draw true one-hots; the relaxed number is
           train/relaxed_nelbo and depends on τ.
Sampling   Every variable uniform, x ~ p(x | z). Reconstruction: of the likeliest one-hots.
Notes      τ = max(τ_min, exp(-r step)), a function of the step. Codes are the one-hots side by
           side, then the continuous dimensions; ``interpolate`` crosses the simplex between two of
           them. C_c never exceeds Σ ln K, all that the variables can carry.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases import VariationalModule
from zoo.core import Batch, Spec
from zoo.core.options import Count, NonNegative, Positive, Range, Whole
from zoo.nn.coders import Activation, Net
from zoo.nn.gaussian import kl_standard, log_normal, reparameterise, soft_clamp
from zoo.nn.likelihood_heads import Likelihood
from zoo.nn.prior import Source
from zoo.registry import Paper, register


def gumbel(u: Tensor) -> Tensor:
    """-ln(-ln u) of uniform u, which is kept off 0 and 1."""
    tiny = torch.finfo(u.dtype).tiny
    return -torch.log(-torch.log(u.clamp(tiny, 1 - torch.finfo(u.dtype).eps)))


def one_hot(logits: Tensor) -> Tensor:
    """One at the largest entry of the last dimension, of the same shape and type."""
    return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)


def relax(logits: Tensor, g: Tensor, tau: float, straight_through: bool = False) -> Tensor:
    """softmax((logits + g) / τ) along the last dimension; straight through: its one-hot, with its
    gradient.
    """
    y = ((logits + g) / tau).softmax(-1)
    return one_hot(y) + y - y.detach() if straight_through else y


def log_concrete(log_y: Tensor, logits: Tensor, tau: float) -> Tensor:
    """Log-density of the ExpConcrete distribution at ``log_y`` (Maddison et al. 2017, equation 24),
    without the last dimension.
    """
    k, score = logits.shape[-1], logits - tau * log_y
    return math.lgamma(k) + (k - 1) * math.log(tau) + score.sum(-1) - k * score.logsumexp(-1)


def kl_uniform(logits: Tensor) -> Tensor:
    """KL(Cat(softmax(logits)) ‖ uniform) = Σ q ln q + ln K, without the last dimension."""
    log_q = logits.log_softmax(-1)
    return (log_q.exp() * log_q).sum(-1) + math.log(logits.shape[-1])


@register(
    "categorical_vae",
    paper=Paper(
        "Jang, Gu, Poole", "Categorical Reparameterization with Gumbel-Softmax", 2017, "1611.01144"
    ),
    about="a VAE with one-hot codes, trained through relaxed draws and judged by true ones",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(("val/elbo", ">", -21.5), ("val/iw_nll", "<", 20.5)),
)
class CategoricalVAE(VariationalModule):
    """VAE with categorical latent variables.

    Args:
        variables: one-hot variables. classes: values of each. continuous: gaussian dimensions
            beside them (JointVAE).
        net: "mlp" or "conv". width: hidden units, or maps of the first convolution. layers: hidden
            layers ("mlp").
        activation: of the hidden layers. likelihood: "bernoulli", "gaussian", "dlogistic" or
            "auto".
        kl: "categorical" or "concrete". straight_through: decode one-hots in training too.
        tau_min: lowest temperature. tau_rate: r of τ = exp(-r step). tau_prior: temperature of the
            relaxed prior (kl="concrete").
        gamma: weight of |KL - C| (``continuous`` > 0). capacity: largest C_z and C_c, nats.
            capacity_steps: steps until then.
        draws: of z in the evaluated importance bound. lr: learning rate.
    """

    watches = ("relaxed_nelbo", "kl")

    def __init__(
        self,
        spec: Spec,
        variables: Count = 10,
        classes: Annotated[int, Range(2)] = 8,
        continuous: Whole = 0,
        net: Net = "mlp",
        width: Count = 200,
        layers: Count = 2,
        activation: Activation = "relu",
        likelihood: Likelihood = "auto",
        kl: Literal["categorical", "concrete"] = "categorical",
        straight_through: bool = False,
        tau_min: Positive = 0.5,
        tau_rate: NonNegative = 5e-4,
        tau_prior: Positive = 0.5,
        gamma: NonNegative = 30.0,
        capacity: NonNegative = 5.0,
        capacity_steps: Count = 1500,
        draws: Count = 50,
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        if kl == "concrete" and (continuous or straight_through):
            raise ValueError(
                "categorical_vae: kl=concrete is the density of relaxed draws: leave continuous "
                "and straight_through out"
            )
        self.variables, self.classes, self.continuous = variables, classes, continuous
        self.kl_kind, self.straight_through, self.lr = kl, straight_through, lr
        self.tau_min, self.tau_rate, self.tau_prior = tau_min, tau_rate, tau_prior
        self.gamma, self.capacity, self.capacity_steps = gamma, capacity, capacity_steps
        discrete = variables * classes
        self.build(
            net,
            discrete + continuous,
            width,
            layers,
            activation,
            likelihood,
            draws,
            code=discrete + 2 * continuous,
        )

    # -- likelihood -------------------------------------------------------------------------------
    gaussian = False

    def posteriors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, variables, classes), and μ and log σ² (B, continuous) of q(z | x)."""
        sizes = [self.variables * self.classes, self.continuous, self.continuous]
        logits, mu, log_var = self.encoder(self.spec.to_signed(x)).split(sizes, 1)
        return logits.unflatten(1, (self.variables, self.classes)), mu, soft_clamp(log_var)

    def weigh(self, x: Tensor, k: int, source: Source) -> tuple[Tensor, Tensor]:
        logits, mu, log_var = self.posteriors(x)
        uniform = source.uniform(len(x), k, self.variables, self.classes).transpose(0, 1)
        z = one_hot(logits + gumbel(uniform))
        ratio = (z * logits.log_softmax(-1)).sum(-1) + math.log(self.classes)
        eps = source.normal(len(x), k, self.continuous).transpose(0, 1)
        c = reparameterise(mu, log_var, eps)
        u = self.dequantising(x, k, source)
        recon = self.log_likelihood_of_draws(x, torch.cat([z.flatten(2), c], 2), u)
        return recon, torch.cat([ratio, log_normal(c, mu, log_var) - log_normal(c)], 2)

    def bound_terms(self, x: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        logits, mu, log_var = self.posteriors(x)
        kl = kl_uniform(logits).sum(1) + kl_standard(mu, log_var).sum(1)
        return self.weigh(x, 1, source)[0][0], kl

    # -- loss -------------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, tau = batch["x"], self.tau()
        logits, mu, log_var = self.posteriors(x)
        g = gumbel(self.noise.uniform(*logits.shape))
        z = relax(logits, g, tau, self.straight_through)
        c = reparameterise(mu, log_var, self.noise.normal(*mu.shape))
        u = self.noise.uniform(*x.shape) if self.head.dequantises else None
        recon = self.log_likelihood(x, torch.cat([z.flatten(1), c], 1), u).mean()
        if self.kl_kind == "concrete":
            log_y = ((logits + g) / tau).log_softmax(-1)
            log_p = log_concrete(log_y, torch.zeros_like(logits), self.tau_prior)
            kl_c = (log_concrete(log_y, logits, tau) - log_p).sum(1).mean()
        else:
            kl_c = kl_uniform(logits).sum(1).mean()
        kl_z = kl_standard(mu, log_var).sum(1).mean()
        cost = kl_c
        if self.continuous:
            c_z, c_c = self.capacities()
            cost = self.gamma * ((kl_z - c_z).abs() + (kl_c - c_c).abs())
        relaxed = kl_c + kl_z - recon
        return {
            "loss": cost - recon,
            "relaxed_nelbo": relaxed,
            "recon": recon,
            "kl": kl_c + kl_z,
            "tau": torch.tensor(tau),
        }

    def tau(self) -> float:
        """Temperature of the relaxation, a function of the training step."""
        return max(self.tau_min, math.exp(-self.tau_rate * (self.step or 0)))

    def capacities(self) -> tuple[float, float]:
        """C_z and C_c in nats, functions of the training step."""
        c = self.capacity * self.ramp(self.capacity_steps)
        return c, min(c, self.variables * math.log(self.classes))

    # -- use --------------------------------------------------------------------------------------
    def draw_codes(self, n: int, source: Source) -> Tensor:
        # The largest of equal draws is uniform.
        z = one_hot(source.uniform(n, self.variables, self.classes)).flatten(1)
        return torch.cat([z, source.normal(n, self.continuous)], 1)

    def encode(self, x: Tensor) -> Tensor:
        """The likeliest one-hots, then μ of the continuous dimensions, (B, variables · classes +
        continuous).
        """
        logits, mu, _ = self.posteriors(x)
        return torch.cat([one_hot(logits).flatten(1), mu], 1)

    def switched(self, z: Tensor, variable: int) -> Tensor:
        """Codes with one variable set to each of its values in turn, (B, classes, latent)."""
        parts = z[:, None].repeat(1, self.classes, 1)
        own = slice(variable * self.classes, (variable + 1) * self.classes)
        parts[:, :, own] = torch.eye(self.classes).to(z)
        return parts
