"""GMVAE: a VAE whose prior is a mixture, so that its codes fall into clusters; and the VampPrior.

Paper      Dilokthanakul, Mediano, Garnelo, Lee, Salimbeni, Arulkumaran, Shanahan. Deep Unsupervised
           Clustering with Gaussian Mixture Variational Autoencoders. 2016. arXiv:1611.02648.
           VampPrior: Tomczak, Welling. VAE with a VampPrior. AISTATS 2018. arXiv:1705.07120.
Model      x ~ p(x | z), q(z | x) diagonal gaussian, and by ``prior``
           "mog":   p(z) = Σ_k π_k N(z; μ_k, s_k²), all learned;
           "gmvae": w ~ N(0, I), k uniform, p(z | w, k) = N(μ_k(w), σ_k²(w)) by a network, and q(w |
           x) (the paper's model);
           "vamp":  p(z) = 1/K Σ_k q(z | u_k), u_k learned pseudo-inputs in data space.
Objective  -E_q [log p(x | z) + log p(z | w) - log q(z | x)] + KL(q(w | x) ‖ N(0, I)) from one draw,
           log p(z | w) = logsumexp_k (ln π_k + log N_k): with the exact p(k | z, w) the terms of k
           collapse to it. objective="split" is the paper's equation 3, which has Σ_k p(k | z, w)
           KL(q(z | x) ‖ p(z | w, k)) + KL(p(k | z, w) ‖ π) instead, the last free below ``lam``
           nats of the batch mean (without which the clusters merge).
Bounds     ``elbo`` and ``importance_bound`` are of the exact form whatever the objective.
Sampling   k ~ π (or given), w ~ N(0, I), z ~ N(μ_k, σ_k²), x ~ p(x | z).
Notes      A mixture has no closed KL: it is sampled. Labels touch nothing; ``responsibilities`` are
           of clusters, whose order means nothing. The means start as draws of N(0, I),
           pseudo-inputs as training images. The split objective's free nats are of the mean over a
           process's own rows.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import VariationalModule
from zoo.core import Batch, Spec
from zoo.core.noise import seeded
from zoo.core.options import Count, NonNegative, Positive, Whole
from zoo.nn.coders import Activation, Net, mlp
from zoo.nn.gaussian import kl_normal, kl_standard, log_normal, reparameterise, soft_clamp
from zoo.nn.likelihood_heads import Likelihood
from zoo.nn.prior import Draw, Source
from zoo.registry import Paper, register


@register(
    "gmvae",
    paper=Paper(
        "Dilokthanakul, Mediano, Garnelo, Lee, Salimbeni, Arulkumaran, Shanahan",
        "Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders",
        2016,
        "1611.02648",
    ),
    about="a VAE with a mixture for its prior, which clusters; also the VampPrior",
    taxonomy="explicit variational",
    likelihood="lower_bound",
    can={"sample", "elbo", "encode", "decode", "reconstruct", "interpolate"},
    data="digits",
    learns=(("val/elbo", ">", -18.8), ("val/iw_nll", "<", 17.9)),
)
class GMVAE(VariationalModule):
    """VAE with a mixture prior.

    Args:
        prior: "mog", "gmvae" or "vamp". components: K. latent: dimensions of z. noise_latent: of w
            ("gmvae").
        net: "mlp" or "conv". width: hidden units, or maps of the first convolution. layers: hidden
            layers ("mlp").
        activation: of the hidden layers. likelihood: "bernoulli", "gaussian", "dlogistic" or
            "auto".
        objective: "exact" or "split" (not for "vamp"). lam: free nats of the split objective's term
            of k.
        warmup_steps: steps over which the prior's weight rises from 0 to 1.
        draws: of z in the evaluated importance bound. lr: learning rate.
    """

    watches = ("nelbo", "kl")

    def __init__(
        self,
        spec: Spec,
        prior: Literal["mog", "gmvae", "vamp"] = "mog",
        components: Count = 10,
        latent: Count = 8,
        noise_latent: Count = 4,
        net: Net = "mlp",
        width: Count = 200,
        layers: Count = 2,
        activation: Activation = "relu",
        likelihood: Likelihood = "auto",
        objective: Literal["exact", "split"] = "exact",
        lam: NonNegative = 0.5,
        warmup_steps: Whole = 0,
        draws: Count = 50,
        lr: Positive = 1e-3,
    ) -> None:
        super().__init__(spec)
        if prior == "vamp" and objective == "split":
            raise ValueError(
                f"gmvae: objective=split is for prior=mog and prior=gmvae, got prior={prior}; "
                "take one of these, or objective=exact"
            )
        self.prior, self.components = prior, components
        self.noise_latent = noise_latent if prior == "gmvae" else 0
        self.objective, self.lam, self.warmup_steps, self.lr = objective, lam, warmup_steps, lr
        code = 2 * (latent + self.noise_latent)
        self.build(net, latent, width, layers, activation, likelihood, draws, code)
        if prior == "mog":
            self.weights = nn.Parameter(torch.zeros(components))
            self.means = nn.Parameter(torch.randn(components, latent))
            self.log_vars = nn.Parameter(torch.zeros(components, latent))
        elif prior == "gmvae":
            self.mixer = mlp(noise_latent, 2 * components * latent, width, 1, activation)
        else:
            self.inputs = nn.Parameter(torch.rand(components, *spec.shape))

    def initialise_from(self, batch: Batch) -> None:
        if self.prior == "vamp":
            source = seeded(int(self.noise_seed), "pseudo-inputs")
            rows = torch.randint(batch.n, (self.components,), generator=source)
            self.inputs.copy_(self.spec.to_unit(batch["x"][rows]))

    # -- prior ------------------------------------------------------------------------------------
    def mixture(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ln π (K,), and means and log-variances of the components, (K, latent) or for "gmvae"
        (..., K, latent), given w (..., noise).
        """
        k = self.components
        uniform = torch.full((k,), -math.log(k), device=w.device, dtype=w.dtype)
        if self.prior == "mog":
            return self.weights.log_softmax(0), self.means, soft_clamp(self.log_vars)
        if self.prior == "gmvae":
            mu, log_var = self.mixer(w).unflatten(-1, (k, 2 * self.latent)).chunk(2, -1)
            return uniform, mu, soft_clamp(log_var)
        u: Tensor = self.inputs
        if self.spec.levels is not None:
            u = F.hardtanh(u, 0, 1) * (self.spec.levels - 1)
        return uniform, *self.posterior(u)

    def log_joint(self, z: Tensor, w: Tensor) -> Tensor:
        """ln π_k + log N(z; μ_k(w), σ_k²(w)), (..., K), of z (..., latent)."""
        log_pi, mu, log_var = self.mixture(w)
        return log_pi + log_normal(z[..., None, :], mu, log_var).sum(-1)

    def responsibilities(self, x: Tensor) -> Tensor:
        """P(k | z, w) at the posterior's means, (B, K): a soft clustering."""
        mu, _ = self.both(x)
        return self.log_joint(*self.split(mu)).softmax(-1)

    # -- likelihood -------------------------------------------------------------------------------
    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q(z, w | x), (B, latent + noise_latent)."""
        return super().posterior(x)

    def split(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """z and w of a code of both."""
        z, w = code.split([self.latent, self.noise_latent], -1)
        return z, w

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_var = self.both(x)
        return mu[:, : self.latent], log_var[:, : self.latent]

    def weigh(self, x: Tensor, k: int, source: Source) -> tuple[Tensor, Tensor]:
        q = self.both(x)
        code, u = self.draw(x, q, k, source)
        z, w = self.split(code)
        log_q, log_q_w = self.split(log_normal(code, *q))
        ratio = (log_q.sum(-1) - self.log_joint(z, w).logsumexp(-1))[..., None]
        ratios = torch.cat([ratio, log_q_w - log_normal(w)], -1)
        return self.log_likelihood_of_draws(x, z, u), ratios

    def draw(
        self, x: Tensor, q: tuple[Tensor, Tensor], k: int, source: Source
    ) -> tuple[Tensor, Tensor | None]:
        """K draws of (z, w), (K, B, latent + noise_latent), and the dequantisation noise where it
        is needed.
        """
        eps = source.normal(len(x), k, self.latent + self.noise_latent).transpose(0, 1)
        u = self.dequantising(x, k, source)
        return reparameterise(*q, eps), u

    def bound_terms(self, x: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        return self.sampled_terms(x, source)

    # -- loss -------------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        q = self.both(x)
        (code,), u = self.draw(x, q, 1, self.noise)
        z, w = self.split(code)
        recon = self.log_likelihood(x, z, None if u is None else u[0]).mean()
        (mu, mu_w), (log_var, log_var_w) = self.split(q[0]), self.split(q[1])
        kl_w = kl_standard(mu_w, log_var_w).sum(1).mean()
        joint = self.log_joint(z, w)
        kl_z = (log_normal(z, mu, log_var).sum(1) - joint.logsumexp(1)).mean()
        p = joint.softmax(1)
        use = p.mean(0)
        terms = {
            "nelbo": kl_z + kl_w - recon,
            "recon": recon,
            "kl": kl_z + kl_w,
            "mix_entropy": torch.special.entr(use).sum(),
        }
        cost = kl_z + kl_w
        if self.objective == "split":
            log_pi, m, log_s = self.mixture(w)
            within = (p * kl_normal(mu[:, None], log_var[:, None], m, log_s).sum(-1)).sum(1).mean()
            between = (p * (joint.log_softmax(1) - log_pi)).sum(1).mean()
            cost = within + kl_w + between.clamp(min=self.lam)
            terms |= {"kl_within": within, "kl_clusters": between}
        return {"loss": self.ramp(self.warmup_steps) * cost - recon, **terms}

    # -- use --------------------------------------------------------------------------------------
    def draw_codes(self, n: int, source: Source, component: int | None = None) -> Tensor:
        """n codes z of the prior, or of one of its components, (n, latent)."""
        w, eps = source.normal(n, self.noise_latent), source.normal(n, self.latent)
        r = source.uniform(n, 1)
        log_pi, mu, log_var = self.mixture(w)
        edges = log_pi.exp().cumsum(0)[:-1]
        k = torch.bucketize(r[:, 0], edges, right=True)
        if component is not None:
            k = torch.full_like(k, component)
        if mu.ndim == 3:
            own = k[:, None, None].expand(n, 1, self.latent)
            mu, log_var = mu.gather(1, own)[:, 0], log_var.gather(1, own)[:, 0]
        else:
            mu, log_var = mu[k], log_var[k]
        return reparameterise(mu, log_var, eps)

    @torch.no_grad()
    def sample_component(self, k: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n samples of cluster k, (n, *shape)."""
        if not 0 <= k < self.components:
            raise ValueError(f"gmvae: a component is one of 0..{self.components - 1}, got {k}")
        z = self.draw_codes(n, Draw(generator, self.device, self.float_dtype), component=k)
        return self.head.sample(self.decoder(z), generator)
