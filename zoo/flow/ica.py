"""ICA: independent component analysis by maximum likelihood, linear and nonlinear.

Paper      Bell, Sejnowski. An information-maximization approach to blind separation and blind
           deconvolution. Neural Computation 7(6), 1995; as maximum likelihood: Cardoso 1997;
           natural gradient: Amari et al. 1996; adaptive prior: after Lee et al. 1999.
Model      s = W (x - μ), W a square matrix, μ the data's mean (fixed); the s_i are independent:
           logistic, laplace, gaussian or Student t with learned degrees of freedom. With ``layers``
           = K > 0 the map is nonlinear: K times a matrix W_k and a sinh-arcsinh function with
           learned δ_i > 0 and ε_i, g(t) = sinh(δ (asinh t + ε)), then W.
Objective  -log p(x) = -Σ_i log p(s_i) - ln|det W| - Σ_k (ln|det W_k| + Σ_i ln g'_k(t_i)),
           ln g'(t) = ln δ + ln cosh(δ (asinh t + ε)) - ½ ln(1 + t²). Nats for vectors; bits per
           dimension of dequantised images.
Natural    ``optimiser="natural_gradient"``: W <- W + lr (I - E φ(s) sᵀ) W with φ = -d log p/ds; it
           is the gradient times WᵀW.
Adaptive   ``adaptive_prior``: a component whose running kurtosis is negative has the sub-gaussian
           prior ½ N(-1, 1) + ½ N(1, 1).
Sampling   s from the prior, x = μ + W⁻¹ s (and the layers undone).
Notes      W, or the first W_k, starts as the whitening matrix of the data, the others as the
           identity; g starts as the identity. Only the linear model with non-gaussian sources is
           identifiable (up to order, sign and scale): ``amari_index`` measures it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import FlowModule
from zoo.bases.flow import standard_normal
from zoo.core import Batch, Spec
from zoo.core.options import Count, Positive, Whole
from zoo.nn.prior import Source
from zoo.nn.small import full
from zoo.registry import Paper, register


def amari_index(q: Tensor) -> Tensor:
    """Distance of Q = W A from a scaled permutation, 0 (separated) to 1, for D >= 2 (Amari et al.
    1996, normalised).
    """
    q, d = q.abs(), len(q)
    rows, columns = q / q.amax(1, keepdim=True), q / q.amax(0, keepdim=True)
    return (rows.sum() + columns.sum() - 2 * d) / (2 * d * (d - 1))


def log_cosh(t: Tensor) -> Tensor:
    return t.abs() + F.softplus(-2 * t.abs()) - math.log(2)


def sinh_arcsinh(t: Tensor, delta: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """g(t) and ln g'(t), elementwise."""
    a = delta * (t.asinh() + eps)
    return a.sinh(), delta.log() + log_cosh(a) - 0.5 * torch.log1p(t.square())


def sinh_arcsinh_inverse(v: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
    return (v.asinh() / delta - eps).sinh()


def log_prior(kind: str, s: Tensor, df: Tensor | None = None) -> Tensor:
    """log p(s_i), elementwise; ``bimodal`` is the sub-gaussian ½ N(-1, 1) + ½ N(1, 1), ``df`` the
    degrees of freedom of student.
    """
    if kind == "logistic":
        return -F.softplus(s) - F.softplus(-s)
    if kind == "laplace":
        return -s.abs() - math.log(2)
    if kind == "gaussian":
        return -0.5 * (s.square() + math.log(2 * math.pi))
    if kind == "bimodal":
        return -0.5 * (s.square() + 1 + math.log(2 * math.pi)) + log_cosh(s)
    assert df is not None
    constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * torch.log(math.pi * df)
    return constant - (df + 1) / 2 * torch.log1p(s.square() / df)


def draw_sources(kind: str, u: Tensor, v: Tensor, df: Tensor | None = None) -> Tensor:
    """s_i from two independent uniform numbers."""
    u = u.clamp(1e-7, 1 - 1e-7)
    if kind == "logistic":
        return torch.logit(u)
    if kind == "laplace":
        return -(2 * u - 1).sign() * torch.log1p(-(2 * u - 1).abs())
    if kind == "student":  # Bailey 1994; its limit for df -> ∞ is the gaussian below
        assert df is not None
        return (df * torch.expm1(-2 / df * u.log())).sqrt() * torch.cos(2 * math.pi * v)
    gaussian = math.sqrt(2) * torch.erfinv(2 * u - 1)
    return gaussian if kind == "gaussian" else gaussian + (v < 0.5).to(u.dtype) * 2 - 1


@register(
    "ica",
    paper=Paper(
        "Bell, Sejnowski",
        "An information-maximization approach to blind separation and blind deconvolution",
        1995,
        "Neural Computation 7(6)",
    ),
    about="independent sources behind one matrix, or behind matrices and elementwise "
    "nonlinearities",
    taxonomy="explicit tractable",
    likelihood="exact_density",
    can={"sample", "log_prob", "encode", "decode", "reconstruct", "interpolate"},
    data="sources",
    learns=("val/nll_nats", "<", 6.975),
)
class ICA(FlowModule):
    """Independent component analysis.

    Args:
        layers: K nonlinear layers before W; 0 is linear ICA.
        prior: of the sources: logistic, laplace, gaussian, or student.
        adaptive_prior: with the logistic prior, choose a sub-gaussian one for components of
            negative kurtosis.
        optimiser: adam, sgd (the paper's), or natural_gradient (linear only).
        draws: draws of u in the evaluated bound of images.
        lr: learning rate.
    """

    mu: Tensor
    kurtosis: Tensor
    matrices: Any  # ParameterLists
    log_delta: Any
    eps: Any

    def __init__(
        self,
        spec: Spec,
        layers: Whole = 0,
        prior: Literal["logistic", "laplace", "gaussian", "student"] = "logistic",
        adaptive_prior: bool = False,
        optimiser: Literal["adam", "sgd", "natural_gradient"] = "adam",
        draws: Count = 4,
        lr: Positive = 1e-2,
    ) -> None:
        super().__init__(spec)
        self.need_levels_of_images()
        if adaptive_prior and prior != "logistic":
            raise ValueError(
                f"ica: adaptive_prior chooses between the logistic and a sub-gaussian prior, got "
                f"prior={prior!r}; leave one out"
            )
        if optimiser == "natural_gradient" and layers:
            raise ValueError(
                f"ica: the natural gradient is that of the linear model, got layers={layers}; use "
                f"adam, or layers=0"
            )
        self.prior, self.adaptive_prior = prior, adaptive_prior
        self.optimiser, self.draws, self.lr = optimiser, draws, lr
        d = spec.dim
        # W_1, ..., W_K, W
        self.matrices = nn.ParameterList(torch.eye(d) for _ in range(layers + 1))
        self.log_delta = nn.ParameterList(torch.zeros(d) for _ in range(layers))
        self.eps = nn.ParameterList(torch.zeros(d) for _ in range(layers))
        self.log_df = nn.Parameter(torch.full((d,), math.log(5.0))) if prior == "student" else None
        self.register_buffer("mu", torch.zeros(d))
        self.register_buffer("kurtosis", torch.zeros(d))  # running E s⁴/(E s²)² - 3

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """μ and the whitening matrix Σ^-½ of the data; uniform u adds 1/12 to the variance of a
        level.
        """
        v, levels = batch["x"].flatten(1).double(), self.spec.levels
        scale, extra = (1.0, 0.0) if levels is None else (1.0 / levels, 1 / 12)
        self.mu.copy_((v.mean(0) + (0 if levels is None else 0.5)) * scale)
        covariance = torch.cov(v.T).view(self.spec.dim, -1)
        eye = torch.eye(self.spec.dim, device=v.device)
        values, vectors = torch.linalg.eigh(covariance + extra * eye)
        self.matrices[0].copy_(vectors / (values.clamp(min=1e-8).sqrt() * scale) @ vectors.T)

    # -- the flow ---------------------------------------------------------------------------------
    def forward_flow(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """s, (B, D), and log|det ds/dv|, (B,)."""
        h, log_det = v.flatten(1) - self.mu, v.new_zeros(len(v))
        for i, w in enumerate(self.matrices):
            h, log_det = h @ w.T, log_det + torch.linalg.slogdet(full(w))[1]
            if i < len(self.eps):
                h, term = sinh_arcsinh(h, self.log_delta[i].exp(), self.eps[i])
                log_det = log_det + term.sum(1)
        return h, log_det

    def inverse_flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """v, (B, *shape), and log|det dv/ds|, (B,)."""
        h, log_det = z, z.new_zeros(len(z))
        for i, w in reversed([*enumerate(self.matrices)]):
            if i < len(self.eps):
                h = sinh_arcsinh_inverse(h, self.log_delta[i].exp(), self.eps[i])
                log_det = log_det - sinh_arcsinh(h, self.log_delta[i].exp(), self.eps[i])[1].sum(1)
            h, w = torch.linalg.solve(full(w), full(h).T).T, full(w)
            log_det = log_det - torch.linalg.slogdet(w)[1]
        return (h + self.mu).view(-1, *self.spec.shape), log_det

    # -- the prior --------------------------------------------------------------------------------
    def log_base(self, z: Tensor) -> Tensor:
        if self.prior == "gaussian":
            return standard_normal(z)
        each = log_prior(self.prior, z, None if self.log_df is None else self.log_df.exp())
        if self.adaptive_prior:
            each = torch.where(self.kurtosis < 0, log_prior("bimodal", z), each)
        return each.sum(1)

    def draw_codes(self, n: int, source: Source) -> Tensor:
        u, v = source.uniform(n, 2, self.spec.dim).unbind(1)
        s = draw_sources(self.prior, u, v, None if self.log_df is None else self.log_df.exp())
        if not self.adaptive_prior:
            return s
        return torch.where(self.kurtosis < 0, draw_sources("bimodal", u, v), s)

    # -- likelihood -------------------------------------------------------------------------------
    def log_density(self, y: Tensor) -> Tensor:
        z, log_det = self.to_code(y)
        if self.training and self.adaptive_prior:
            self._moments = torch.stack([z.detach().square().mean(0), z.detach().pow(4).mean(0)])
        return self.log_base(z) + log_det

    def after_step(self) -> None:
        if self.adaptive_prior:
            second, fourth = self.reduce(self._moments)
            self.kurtosis.lerp_(fourth / second.square() - 3, 0.05)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        terms = super().evaluate(batch, generator)
        if len(self.matrices) == 1:
            terms["cond_number"] = torch.linalg.cond(full(self.matrices[0])).expand(len(batch["x"]))
        return terms

    @torch.no_grad()
    def filters(self) -> dict[str, Tensor]:
        """What s answers to, rows of W (or W_1), and what it stands for, columns of its inverse,
        each (D, *shape); the loudest component, with the longest column, first.
        """
        w = full(self.matrices[0]).double()
        basis = torch.linalg.inv(w).T
        order = basis.norm(dim=1).argsort(descending=True)
        names = "filters: rows of W", "basis: columns of the inverse of W"
        return {
            name: m[order].view(-1, *self.spec.shape)
            for name, m in zip(names, (w, basis), strict=True)
        }

    # -- optimisers -------------------------------------------------------------------------------
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.optimiser == "natural_gradient":
            w = self.matrices[0]
            assert w.grad is not None
            w.grad = w.grad @ w.detach().T @ w.detach()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        kind = torch.optim.Adam if self.optimiser == "adam" else torch.optim.SGD
        return kind(self.parameters(), self.lr)
