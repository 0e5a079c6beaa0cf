"""Kernel density estimate: a small gaussian on every training example (Parzen windows).

Paper      Parzen. On Estimation of a Probability Density Function and Mode. Annals of Mathematical
           Statistics 33, 1962. (Rosenblatt 1956.)
Model      p(y) = (1/N) Σ_n N(y; y_n, h² I).
Objective  Only the bandwidth is estimated. "loo": the mean over n of log (1/(N-1)) Σ_{m≠n} N(y_n;
           y_m, h² I). "cv": the log-likelihood of a held-out tenth of the training data under the
           other nine. Each is a likelihood of one shared variance, so EM raises it:
               r_nm = P(kernel m | y_n),   h² <- Σ_nm r_nm |y_n - y_m|² / (N D),
           one iteration a training step, h kept within [0.01, 1] standard deviations.
           "silverman": h_d = std_d (4 / ((D+2) N))^(1/(D+4)), a rule of thumb for one to four
           dimensions.
Sampling   A training example plus h ε. So a good-looking sample says nothing about generalisation.
Notes      Choosing h by the likelihood of the training examples themselves would send it to zero:
           each sits on its own kernel. In 64 dimensions the estimate loses to a single full
           gaussian; it is here to be beaten. Images are dequantised, once and for all.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from zoo.bases import DensityEstimator
from zoo.core import Batch, Label, Spec
from zoo.core.noise import seeded
from zoo.core.options import Range
from zoo.registry import Paper, register

CHUNK = 256  # rows whose distances to all kernels are held at once


def log_kernels(y: Tensor, points: Tensor, h: Tensor) -> Tensor:
    """log N(y_n; point_m, diag h²) in nats, (B, M) float64.

    Args:
        y: (B, D). points: (M, D). h: (D,).
    """
    h = h.double()
    distances = torch.cdist(y.double() / h, points.double() / h)
    return -0.5 * (distances.square() + len(h) * math.log(2 * math.pi)) - h.log().sum()


@register(
    "kde",
    paper=Paper(
        "Parzen",
        "On Estimation of a Probability Density Function and Mode",
        1962,
        "Annals of Mathematical Statistics 33",
    ),
    about="a gaussian window on every training example",
    taxonomy="explicit tractable",
    likelihood="dequantised_bound",
    can={"sample", "log_prob", "inpaint", "classify"},
    data="digits",
    learns=("val/bits_per_dim", "<", 3.45),
)
class KDE(DensityEstimator):
    """Kernel density estimate.

    Args:
        bandwidth: how h is chosen: "loo", "cv" or "silverman".
        max_points: training examples kept; a random subset where there are more.
    """

    watches = ("loo_nll_nats",)
    points: Tensor
    point_labels: Tensor
    std: Tensor

    def __init__(
        self,
        spec: Spec,
        bandwidth: Literal["loo", "cv", "silverman"] = "loo",
        max_points: Annotated[int, Range(10)] = 10_000,
    ) -> None:
        super().__init__(spec)
        self.bandwidth, self.max_points = bandwidth, max_points
        self.h = nn.Parameter(torch.ones(spec.dim))
        # As many as there are examples, once there are any.
        self.register_buffer("points", torch.rand(1, spec.dim))
        self.register_buffer("point_labels", torch.zeros(1, dtype=torch.long))
        self.register_buffer("std", torch.ones(()))

    # -- estimation -------------------------------------------------------------------------------
    @torch.no_grad()
    def start(self, rows: Tensor, y: Tensor | None = None) -> None:
        if len(rows) < 10:
            raise ValueError(
                f"kde chooses its bandwidth from at least 10 examples, got {len(rows)}"
            )
        order = torch.randperm(len(rows), generator=seeded(int(self.noise_seed), "points"))
        order = order[: self.max_points].to(rows.device)
        self.points = rows[order].to(self.float_dtype)
        self.point_labels = torch.zeros_like(order) if y is None else y[order]
        n, d = self.points.shape
        self.std.copy_(rows.var(0).mean().sqrt())
        if self.bandwidth == "silverman":
            self.h.copy_(rows.std(0) * (4 / ((d + 2) * n)) ** (1 / (d + 4)))
        else:
            self.h.copy_(self.std / 4)

    @torch.no_grad()
    def iterate(self, rows: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        if self.bandwidth != "silverman":
            h = self._squared_distance().sqrt().clamp(0.01 * self.std, self.std)
            self.h.copy_(h.expand_as(self.h))
        nats = 0.0 if self.spec.levels is None else self.spec.dim * math.log(self.spec.levels)
        return {"loo_nll_nats": nats - self.leave_one_out().mean(), "bandwidth": self.h.mean()}

    def _squared_distance(self) -> Tensor:
        """Σ_nm r_nm |y_n - y_m|² / (N D) under the present h: the M step."""
        n, d = self.points.shape
        queries, kernels = torch.arange(n, device=self.device), torch.arange(n, device=self.device)
        if self.bandwidth == "cv":
            queries, kernels = queries[: n // 10], kernels[n // 10 :]
        total = self.points.new_zeros((), dtype=torch.float64)
        for part in queries.split(CHUNK):
            joint = log_kernels(self.points[part], self.points[kernels], self.h)
            if self.bandwidth == "loo":
                joint[torch.arange(len(part)), part] = -math.inf
            distances = torch.cdist(self.points[part].double(), self.points[kernels].double())
            total += (joint.softmax(1) * distances.square()).sum()
        return total / (len(queries) * d)

    def leave_one_out(self) -> Tensor:
        """log p(y_n) under all kernels but its own, (N,)."""
        n = len(self.points)
        values = []
        for part in torch.arange(n, device=self.device).split(CHUNK):
            joint = log_kernels(self.points[part], self.points, self.h)
            joint[torch.arange(len(part)), part] = -math.inf
            values.append(joint.logsumexp(1) - math.log(n - 1))
        return torch.cat(values)

    # -- likelihood -------------------------------------------------------------------------------
    def log_density(self, y: Tensor) -> Tensor:
        rows = y.flatten(1).split(CHUNK)
        parts = [log_kernels(v, self.points, self.h).logsumexp(1) for v in rows]
        return (torch.cat(parts) - math.log(len(self.points))).to(y.dtype)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The bandwidth, the distance to the nearest kernel and, for labelled data, the
        accuracy.
        """
        y = self.middle(batch["x"])
        values = {
            "bandwidth": self.h.mean().expand(len(y)),
            "nearest": torch.cdist(y.double(), self.points.double()).min(1).values,
        }
        if "y" in batch and self.spec.num_classes:
            values["accuracy"] = (self.classify(batch["x"]).argmax(1) == batch["y"]).double()
        return values

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        which = torch.randint(len(self.points), (n,), generator=generator, device=self.device)
        return self.data_units(self._draw(which, generator))

    def _draw(self, which: Tensor, generator: torch.Generator | None) -> Tensor:
        eps = torch.randn(
            len(which),
            self.spec.dim,
            generator=generator,
            device=self.device,
            dtype=self.float_dtype,
        )
        return self.points[which] + self.h * eps

    def classify(self, x: Tensor) -> Tensor:
        """P(label | y), (B, num_classes): the labels' shares of the density at y, levels taken at
        their middle.
        """
        self.spec.require("kde.classify", y=Label)
        share = log_kernels(self.middle(x), self.points, self.h).softmax(1)
        empty = share.new_zeros(len(x), self.spec.num_classes)
        return empty.index_add_(1, self.point_labels, share).to(x.dtype)

    @torch.no_grad()
    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the dimensions where ``known`` is False given the others: a kernel by its likeness
        there, then its noise elsewhere.
        """
        y, keep = self.middle(x), known.expand_as(x).flatten(1)
        rest = torch.where(keep, y, 0)[:, None] - keep[:, None] * self.points  # (B, N, D)
        likeness = (-0.5 * (rest / self.h).square().sum(2)).softmax(1)
        which = torch.multinomial(likeness, 1, generator=generator)[:, 0]
        return torch.where(known, x, self.data_units(self._draw(which, generator)))

    # -- checkpoints ------------------------------------------------------------------------------
    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("points", "point_labels"):  # as many as the checkpoint holds
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name], device=self.device))
        super()._load_from_state_dict(state, prefix, *rest)
