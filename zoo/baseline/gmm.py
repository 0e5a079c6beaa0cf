"""Gaussian mixture, fitted by expectation maximisation.

Paper      Dempster, Laird, Rubin. Maximum Likelihood from Incomplete Data via the EM Algorithm.
           Journal of the Royal Statistical Society B 39, 1977.
Model      p(y) = Σ_k π_k N(y; μ_k, Σ_k), Σ_k spherical, diagonal, full, or one full matrix for all
           ("tied").
Objective  log p(y) = logsumexp_k [ln π_k - ½ (D ln 2π + ln|Σ_k| + (y-μ_k)ᵀ Σ_k⁻¹ (y-μ_k))], raised
           by turns:
               E  r_nk = P(k | y_n);
               M  N_k = Σ_n r_nk, π_k = N_k/N, μ_k = Σ_n r_nk y_n / N_k, Σ_k = Σ_n r_nk
                  (y_n-μ_k)(y_n-μ_k)ᵀ / N_k + ρ I.
           One training step is one such iteration over all the data; train/nll_nats is that of the
           values it ends with.
Sampling   k ~ π, y = μ_k + L_k ε with Σ_k = L_k L_kᵀ.
Notes      The first responsibilities are the clusters of scikit-learn's k-means, the best of five.
           The ridge ρ bounds the likelihood where a component shrinks to a point; up to ρ the train
           likelihood never falls. A component with N_k < N/1000 moves to the worst explained
           example (``train/reseeds``). A component's labels are counted, for ``classify``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import DensityEstimator
from zoo.core import Batch, Label, Spec, threads
from zoo.core.noise import mix
from zoo.core.options import Count, Positive
from zoo.nn.gaussian import given_known, log_marginal
from zoo.registry import Paper, register

CHUNK = 1024  # rows at a time, which bounds memory


def log_components(y: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
    """log N(y; μ_k, Σ_k) in nats, (B, K).

    Args:
        y: (B, D). mu: (K, D). scale: standard deviations (K, D) or (K, 1), or Cholesky factors (K,
            D, D) or (1, D, D).
    """
    rest = y[:, None] - mu  # (B, K, D)
    if scale.ndim == 3:
        columns = rest.permute(1, 2, 0)
        white = torch.linalg.solve_triangular(scale, columns, upper=False)  # (K, D, B)
        maha, log_det = white.square().sum(1).T, scale.diagonal(dim1=1, dim2=2).log().sum(1)
    else:
        maha, log_det = (rest / scale).square().sum(2), scale.expand_as(mu).log().sum(1)
    return -0.5 * (maha + mu.shape[1] * math.log(2 * math.pi)) - log_det


def maximise(y: Tensor, r: Tensor, kind: str, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """π, μ and scales of responsibilities r, (N, K); moments are taken about the mean of the data,
    where they lose the fewest digits.
    """
    n_k = r.sum(0).clamp(min=1e-12)
    centre = y.mean(0)
    v = y - centre
    mu = r.T @ v / n_k[:, None]
    if kind in ("full", "tied"):
        moments = [(r[:, k, None] * v).T @ v / n_k[k] for k in range(len(n_k))]
        cov = torch.stack([m - torch.outer(c, c) for m, c in zip(moments, mu, strict=True)])
        if kind == "tied":
            cov = torch.einsum("k,kde->de", n_k / len(y), cov)[None]
        eye = torch.eye(len(centre), dtype=y.dtype, device=y.device)
        scale = torch.linalg.cholesky(cov + ridge * eye)
    else:
        var = (r.T @ v.square() / n_k[:, None] - mu.square()).clamp(min=0)
        scale = ((var.mean(1, keepdim=True) if kind == "spherical" else var) + ridge).sqrt()
    return n_k / len(y), mu + centre, scale


@register(
    "gmm",
    paper=Paper(
        "Dempster, Laird, Rubin",
        "Maximum Likelihood from Incomplete Data via the EM Algorithm",
        1977,
        "Journal of the Royal Statistical Society B 39",
    ),
    about="a mixture of gaussians by EM",
    taxonomy="explicit tractable",
    likelihood="dequantised_bound",
    can={"sample", "log_prob", "encode", "reconstruct", "inpaint", "classify"},
    data="digits",
    learns=("val/bits_per_dim", "<", 2.85),
)
class GMM(DensityEstimator):
    """Gaussian mixture.

    Args:
        components: K.
        covariance: "spherical", "diag", "full" or "tied".
        ridge: ρ, added to every variance, in squared units of the data (images lie in [0, 1)).
    """

    label_counts: Tensor

    def __init__(
        self,
        spec: Spec,
        components: Count = 20,
        covariance: Literal["spherical", "diag", "full", "tied"] = "diag",
        ridge: Positive = 1e-4,
    ) -> None:
        super().__init__(spec)
        self.covariance, self.ridge = covariance, ridge
        k, d = components, spec.dim
        scale = torch.ones(k, 1 if covariance == "spherical" else d)
        self.pi = nn.Parameter(torch.full((k,), 1 / k))
        self.mu = nn.Parameter(torch.rand(k, d))
        if covariance in ("full", "tied"):
            scale = torch.eye(d).repeat(1 if covariance == "tied" else k, 1, 1)
        self.scale = nn.Parameter(scale)
        # expected count of each label in each component
        self.register_buffer("label_counts", torch.zeros(k, spec.num_classes))

    # -- estimation -------------------------------------------------------------------------------
    @torch.no_grad()
    def start(self, rows: Tensor, y: Tensor | None = None) -> None:
        from sklearn.cluster import KMeans

        k = len(self.pi)
        if len(rows) < k:
            raise ValueError(
                f"gmm has {k} components for {len(rows)} examples; lower --model.components"
            )
        seed = mix(int(self.noise_seed), "seeding") % 2**32
        with threads.as_torch():
            found = KMeans(k, n_init=5, random_state=seed).fit(rows.cpu().numpy()).labels_
        r = F.one_hot(torch.from_numpy(found).long(), k).to(rows)
        self._set(maximise(rows, r, self.covariance, self.ridge))

    @torch.no_grad()
    def iterate(self, rows: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        self._set(maximise(rows, self.responsibilities(rows), self.covariance, self.ridge))
        dead = self.pi < 1e-3
        if dead.any():
            self.mu[dead] = rows[self.log_density(rows).argsort()[: int(dead.sum())]].to(self.mu)
            self.pi[dead] = 1 / len(self.pi)
            self.pi.div_(self.pi.sum())
            if self.covariance != "tied":
                self.scale[dead] = self.scale[~dead].mean(0)
        if y is not None:
            one_hot = F.one_hot(y, self.spec.num_classes).to(rows)
            self.label_counts.copy_(self.responsibilities(rows).T @ one_hot)
        return {
            "nll_nats": self.nll(rows),
            "effective_components": self.effective,
            "reseeds": dead.sum(),
        }

    def _set(self, values: tuple[Tensor, Tensor, Tensor]) -> None:
        for parameter, value in zip((self.pi, self.mu, self.scale), values, strict=True):
            parameter.copy_(value)

    @property
    def effective(self) -> Tensor:
        """exp of the entropy of π: how many components share the data."""
        return torch.special.entr(self.pi).sum().exp()

    # -- likelihood -------------------------------------------------------------------------------
    def log_joint(self, y: Tensor) -> Tensor:
        """ln π_k + log N(y; μ_k, Σ_k), (B, K) float64, of y in [0, 1)^D for images."""
        mu, scale = self.mu.double(), self.scale.double()
        values = [log_components(v.double(), mu, scale) for v in y.flatten(1).split(CHUNK)]
        return torch.cat(values) + self.pi.double().log()

    def log_density(self, y: Tensor) -> Tensor:
        return self.log_joint(y).logsumexp(1).to(y.dtype)

    def responsibilities(self, y: Tensor) -> Tensor:
        """P(k | y), (B, K) float64."""
        return self.log_joint(y).softmax(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Effective components and, for labelled data, how often the likeliest label is the right
        one.
        """
        values = {"effective_components": self.effective.expand(len(batch["x"]))}
        if "y" in batch and self.spec.num_classes:
            values["accuracy"] = (self.classify(batch["x"]).argmax(1) == batch["y"]).double()
        return values

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        k = torch.multinomial(self.pi, n, replacement=True, generator=generator)
        return self.data_units(self._draw(k, generator))

    def _draw(self, k: Tensor, generator: torch.Generator | None) -> Tensor:
        """A draw of N(μ_k, Σ_k) for each of the components k, (B, D)."""
        eps = torch.randn(
            len(k), self.spec.dim, generator=generator, device=self.device, dtype=self.float_dtype
        )
        if self.covariance == "tied":
            return self.mu[k] + eps @ self.scale[0].T
        if self.covariance == "full":
            return self.mu[k] + torch.einsum("bde,be->bd", self.scale[k], eps)
        return self.mu[k] + self.scale[k] * eps

    def encode(self, x: Tensor) -> Tensor:
        """P(k | y), (B, K), levels taken at the middle of their interval."""
        return self.responsibilities(self.middle(x)).to(x.dtype)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Σ_k P(k | y) μ_k in the units of ``spec``."""
        return self.data_units(self.encode(x) @ self.mu)

    def classify(self, x: Tensor) -> Tensor:
        """P(label | y) = Σ_k P(k | y) P(label | k), (B, num_classes), from the labels counted in
        training plus one of each.
        """
        self.spec.require("gmm.classify", y=Label)
        counted = self.label_counts + 1
        return self.encode(x) @ (counted / counted.sum(1, keepdim=True))

    @torch.no_grad()
    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the dimensions where ``known`` is False given the others: a component, then its
        gaussian conditional.
        """
        y, known_rows = self.middle(x), known.flatten(1)
        covariances = [self._covariance(k) for k in range(len(self.pi))]
        pairs = zip(self.mu, covariances, strict=True)
        each = torch.stack([log_marginal(y, known_rows, mu, c) for mu, c in pairs], 1)
        joint = each + self.pi.log()
        which = torch.multinomial(joint.softmax(1), 1, generator=generator)[:, 0]
        filled = self._draw(which, generator)
        for k in which.unique().tolist():
            of = which == k
            filled[of] = given_known(filled[of], y[of], known_rows.expand_as(y)[of], covariances[k])
        return torch.where(known, x, self.data_units(filled))

    def _covariance(self, k: int) -> Tensor:
        if self.scale.ndim == 3:
            root = self.scale[0 if self.covariance == "tied" else k]
            return root @ root.T
        return self.scale[k].expand(self.spec.dim).square().diag()
