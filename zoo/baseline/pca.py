"""Probabilistic PCA: one linear-gaussian latent layer, whose maximum-likelihood estimate is an
eigendecomposition.

Paper      Tipping and Bishop. Probabilistic Principal Component Analysis. Journal of the Royal
           Statistical Society B 61, 1999. (Pearson 1901. EM: Roweis, NIPS 1998.)
Model      y = μ + W z + ε, z ~ N(0, I_q), ε ~ N(0, σ² I); so y ~ N(μ, C), C = W Wᵀ + σ² I.
Objective  The likelihood. With eigenvalues λ_1 >= ... >= λ_D of the covariance S (1/N, not
           1/(N-1)):
               σ² = mean of λ_{q+1..D},   W = U_q (Λ_q - σ² I)^½,   mean log p at its maximum = -½
               (D ln 2π + ln|C| + D).
           "em" reaches the same C by iterations: M = WᵀW + σ² I,
               W' = S W (σ² I + M⁻¹ WᵀS W)⁻¹,   σ²' = tr(S - S W M⁻¹ W'ᵀ) / D.
Sampling   μ + W z + ε.
Notes      Images are dequantised, y = (x + u)/L. The expected log-likelihood depends on u through
           its moments alone, so the noise is integrated out: S gains 1/(12 L²) on its diagonal. One
           step is one iteration; "eigen" needs one and repeats itself after it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.bases import DensityEstimator
from zoo.core import Batch, Spec
from zoo.core.options import Count
from zoo.nn.gaussian import given_known
from zoo.nn.prior import Source, path
from zoo.nn.small import full
from zoo.registry import Paper, register


def closed_form(s: Tensor, q: int) -> tuple[Tensor, Tensor]:
    """W, (D, q), and σ² of the covariance S, (D, D); each column's largest entry is positive."""
    values, vectors = torch.linalg.eigh(s)
    values, u = values.flip(0), vectors.flip(1)[:, :q]
    u = u * u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
    sigma2 = values[q:].mean()
    return u * (values[:q] - sigma2).clamp(min=0).sqrt(), sigma2


def em_step(s: Tensor, w: Tensor, sigma2: Tensor) -> tuple[Tensor, Tensor]:
    """W and σ² after one E and M step of Tipping and Bishop, which meet the data in S W alone."""
    eye = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
    m_inverse = torch.linalg.inv(w.T @ w + sigma2 * eye)
    sw = s @ w
    new = sw @ torch.linalg.inv(sigma2 * eye + m_inverse @ w.T @ sw)
    return new, (s.trace() - (sw @ m_inverse @ new.T).trace()) / len(s)


@register(
    "pca",
    paper=Paper(
        "Tipping, Bishop",
        "Probabilistic Principal Component Analysis",
        1999,
        "Journal of the Royal Statistical Society B 61",
    ),
    about="a linear-gaussian latent layer in closed form",
    taxonomy="explicit tractable",
    likelihood="dequantised_bound",
    can={"sample", "log_prob", "encode", "decode", "reconstruct", "interpolate", "inpaint"},
    data="digits",
    learns=("val/bits_per_dim", "<", 3.55),
)
class PCA(DensityEstimator):
    """Probabilistic principal component analysis.

    Args:
        latent: q, dimensions of z, fewer than the data have; by default 20, or D - 1 where D is 20
            or less.
        algorithm: "eigen" (closed form) or "em".
    """

    def __init__(
        self,
        spec: Spec,
        latent: Count | None = None,
        algorithm: Literal["eigen", "em"] = "eigen",
    ) -> None:
        super().__init__(spec)
        if spec.dim < 2:
            raise ValueError(f"pca needs at least two dimensions, got {spec}; choose other data")
        if latent is None:
            latent = min(20, spec.dim - 1)
        if latent >= spec.dim:
            raise ValueError(
                f"pca's latent={latent} should lie between 1 and D - 1 = {spec.dim - 1} for "
                f"{spec}; lower --model.latent"
            )
        self.algorithm = algorithm
        self.mu = nn.Parameter(torch.full((spec.dim,), 0.0 if spec.levels is None else 0.5))
        self.W = nn.Parameter(0.1 * torch.randn(spec.dim, latent))
        self.sigma2 = nn.Parameter(torch.ones(()))

    # -- estimation -------------------------------------------------------------------------------
    def prepared(self, x: Tensor) -> Tensor:
        return self.middle(x.double())

    @torch.no_grad()
    def iterate(self, rows: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        mu = rows.mean(0)
        s = (rows - mu).T @ (rows - mu) / len(rows)
        if self.spec.levels is not None:
            s.diagonal().add_(1 / (12 * self.spec.levels**2))  # the variance of u/L
        if self.algorithm == "eigen":
            w, sigma2 = closed_form(s, self.W.shape[1])
        else:
            w, sigma2 = em_step(s, self.W.double(), self.sigma2.double())
        if not sigma2 > 1e-12 * s.trace():
            raise ValueError(
                f"pca's noise vanishes: the data lie in {self.W.shape[1]} dimensions or fewer; "
                f"lower --model.latent"
            )
        for parameter, value in ((self.mu, mu), (self.W, w), (self.sigma2, sigma2)):
            parameter.copy_(value)
        c = w @ w.T + sigma2 * torch.eye(len(w), dtype=w.dtype, device=w.device)
        constant = 0.0 if self.spec.levels is None else self.spec.dim * math.log(self.spec.levels)
        log_det, maha = torch.linalg.slogdet(c)[1], torch.linalg.solve(c, s).trace()
        nll = 0.5 * (len(c) * math.log(2 * math.pi) + log_det + maha) + constant
        return {
            "nll_nats": nll,
            "sigma2": sigma2,
            "explained_variance_ratio": 1 - len(c) * sigma2 / s.trace(),
        }

    # -- likelihood -------------------------------------------------------------------------------
    def log_density(self, y: Tensor) -> Tensor:
        mu, W, sigma2 = self._exact()
        r = full(y.flatten(1)) - mu
        d, q = W.shape
        m = self._m()
        wr = r @ W
        maha = (r.square().sum(1) - (wr * torch.linalg.solve(m, wr.T).T).sum(1)) / sigma2
        log_det = torch.linalg.slogdet(m)[1] + (d - q) * sigma2.log()  # |C| = |M| σ^2(D-q)
        return -0.5 * (d * math.log(2 * math.pi) + log_det + maha)

    def _m(self) -> Tensor:
        """M = WᵀW + σ² I, (q, q)."""
        _, W, sigma2 = self._exact()
        return W.T @ W + sigma2 * torch.eye(W.shape[1], dtype=W.dtype, device=W.device)

    def _exact(self) -> tuple[Tensor, Tensor, Tensor]:
        """μ, W and σ² in single precision or better, as linear algebra needs them."""
        return full(self.mu), full(self.W), full(self.sigma2)

    @property
    def covariance(self) -> Tensor:
        """C, (D, D)."""
        eye = torch.eye(len(self.W), dtype=self.W.dtype, device=self.W.device)
        return self.W @ self.W.T + self.sigma2 * eye

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Squared error per dimension of y against μ + W E[z | y]."""
        y = self.middle(batch["x"])
        return {"recon_mse": (y - self.mean_given(self.encode(batch["x"]))).square().mean(1)}

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.data_units(self._draw(n, generator))

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        d, q = self.W.shape
        both = torch.randn(
            n, q + d, generator=generator, device=self.device, dtype=self.float_dtype
        )
        z, eps = both.split([q, d], 1)
        return self.mean_given(z) + self.sigma2.sqrt() * eps

    def mean_given(self, z: Tensor) -> Tensor:
        """μ + W z, (B, D)."""
        return self.mu + z @ self.W.T

    def encode(self, x: Tensor) -> Tensor:
        """E[z | y] = M⁻¹ Wᵀ(y - μ), (B, q)."""
        mu, W, _ = self._exact()
        return torch.linalg.solve(self._m(), W.T @ (full(self.middle(x)) - mu).T).T.to(self.W.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """μ + W z in the units of ``spec``."""
        return self.data_units(self.mean_given(z))

    def draw_codes(self, n: int, source: Source) -> Tensor:
        """z ~ N(0, I), (n, q)."""
        return source.normal(n, self.W.shape[1])

    def from_codes(self, z: Tensor) -> Tensor:
        return self.decode(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def filters(self) -> dict[str, Tensor]:
        """The principal axes, (q, *shape), that of the largest variance first."""
        axes = torch.linalg.svd(full(self.W).double(), full_matrices=False).U.T
        return {"components: principal axes": axes.reshape(-1, *self.spec.shape)}

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """(B, frames, *shape), decoded along the line between the codes."""
        z = path("uniform", self.encode(a), self.encode(b), frames)
        return self.decode(z.flatten(0, 1)).unflatten(0, (len(a), frames))

    @torch.no_grad()
    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the dimensions where ``known`` is False given the others: a gaussian conditional,
        levels taken at their middle.
        """
        drawn = self._draw(len(x), generator)
        filled = given_known(drawn, self.middle(x), known.flatten(1), self.covariance)
        return torch.where(known, x, self.data_units(filled))
