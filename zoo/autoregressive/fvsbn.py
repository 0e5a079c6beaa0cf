"""FVSBN: fully visible sigmoid belief network, or logistic autoregression.

Paper      Neal. Connectionist Learning of Belief Networks. Artificial Intelligence 56, 1992: a
           belief network all of whose units are visible. As a density model of images: Frey,
           Hinton, Dayan, NIPS 1995.
Model      P(x_d = 1 | x_<d) = sigmoid(b_d + Σ_{k<d} W_dk x_k): a logistic regression of each pixel
           on those before it; W is strictly lower triangular in the order. For L levels, a softmax
           with one matrix for each level, on one-hot inputs.
Objective  -log P(x) + (λ/2) |W|², in nats; convex, so with λ > 0 the optimum is one point. The bias
           is not decayed.
Sampling   Ancestral. The logits are accumulators: once x_d is drawn, W[:, d] x_d is added to all
           later ones, O(D²) in total.
Notes      Starts at the independent model: W = 0, b the logits of the smoothed pixel means.
           ``solver="lbfgs"`` is for full batches. Labels are further inputs, known before all
           pixels.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import AutoregressiveModule
from zoo.bases.autoregressive import Stream
from zoo.core import Batch, Label, Spec
from zoo.core.options import NonNegative, Positive
from zoo.registry import Paper, register

MAX_WEIGHTS = 2**26  # beyond, another model is the better choice


@register(
    "fvsbn",
    paper=Paper(
        "Neal", "Connectionist Learning of Belief Networks", 1992, "Artificial Intelligence 56"
    ),
    about="a logistic regression of every pixel on the pixels before it",
    taxonomy="explicit tractable",
    likelihood="exact_mass",
    can={"sample", "log_prob", "inpaint"},
    data="digits",
    learns=("val/nll_nats", "<", 19.3),
)
class FVSBN(AutoregressiveModule):
    """Fully visible sigmoid belief network.

    Args:
        shuffled: a random order of the dimensions, drawn once, instead of the raster order.
        conditional: model P(x | label).
        l2: λ, the weight decay of W in the loss.
        solver: "adam", or "lbfgs" on full batches.
        lr: learning rate; of "lbfgs" the first step's length.
    """

    rank: Tensor
    mask: Tensor
    independent: Tensor

    def __init__(
        self,
        spec: Spec,
        shuffled: bool = False,
        conditional: bool = False,
        l2: NonNegative = 1e-4,
        solver: Literal["adam", "lbfgs"] = "adam",
        lr: Positive = 5e-3,
    ) -> None:
        super().__init__(spec)
        spec.require("fvsbn", levels=True)
        if conditional:
            spec.require("fvsbn with conditional=true", y=Label)
        levels = spec.levels or 0
        self.inputs = 1 if levels == 2 else levels  # of each dimension, and as many outputs
        if (spec.dim * self.inputs) ** 2 > MAX_WEIGHTS:
            raise ValueError(
                f"fvsbn needs {(spec.dim * self.inputs) ** 2:,} weights for {spec}; choose "
                f"smaller or binarised images"
            )
        self.conditional, self.l2, self.solver, self.lr = conditional, l2, solver, lr
        # of each dimension
        rank = torch.randperm(spec.dim) if shuffled else super().order.argsort()
        self.register_buffer("rank", rank)
        place = self.rank.repeat_interleave(self.inputs)
        self.register_buffer("mask", place[:, None] > place[None, :])
        self.W = nn.Parameter(torch.zeros(spec.dim * self.inputs, spec.dim * self.inputs))
        self.b = nn.Parameter(torch.zeros(spec.dim * self.inputs))
        self.B: nn.Embedding | None = None
        if conditional:
            zeros = torch.zeros(spec.num_classes, len(self.b))
            self.B = nn.Embedding.from_pretrained(zeros, freeze=False)
        # b of independent pixels, to compare with
        self.register_buffer("independent", torch.zeros_like(self.b))

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """b at the smoothed marginals of the data: the model starts as the independent one."""
        v = self.features(batch["x"]).view(batch.n, -1)
        mean = (v.sum(0) + 0.5) / (len(v) + (1 if self.inputs == 1 else 0.5 * self.inputs))
        self.independent.copy_(mean.logit() if self.inputs == 1 else mean.log())
        self.b.copy_(self.independent)

    @property
    def order(self) -> Tensor:
        return self.rank.argsort()

    # -- likelihood -------------------------------------------------------------------------------
    def features(self, x: Tensor) -> Tensor:
        """The inputs of each dimension: its value of 0 or 1, or one-hot levels, (B, D, inputs)."""
        v = x.flatten(1)
        return v[..., None] if self.inputs == 1 else F.one_hot(v.long(), self.inputs).to(v.dtype)

    def conditionals(self, x: Tensor, *, y: Tensor | None = None) -> Tensor:
        logits = F.linear(self.features(x).flatten(1), self.W * self.mask, self.b)
        if self.B is not None:
            logits = logits + self.B(self.need_labels(y))
        return logits.view(len(x), self.spec.dim, self.inputs)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        told: dict[str, Any] = self.told_in(batch)
        nll = -self.log_prob(batch["x"], **told).mean()
        decay = 0.5 * self.l2 * (self.W * self.mask).square().sum()
        return {"loss": nll + decay, "nll_nats": nll}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Nats gained over independent pixels."""
        x = batch["x"]
        told: dict[str, Any] = self.told_in(batch)
        marginals = self.independent.view(1, -1, self.inputs).expand(len(x), -1, -1)
        alone = self.log_conditionals(marginals, x.flatten(1)).sum(1)
        return {"gain_over_independent": self.log_prob(x, **told) - alone}

    # -- use --------------------------------------------------------------------------------------
    def stream(self, n: int, *, y: Tensor | None = None) -> Stream:
        weight = (self.W * self.mask).T.view(self.spec.dim, self.inputs, -1)
        if self.B is None:
            logits = self.b.expand(n, -1).clone()
        else:
            logits = self.b + self.B(self.need_labels(y))
        for d in self.order.tolist():
            value = yield logits[:, d * self.inputs : (d + 1) * self.inputs]
            if self.inputs == 1:
                logits.addr_(value, weight[d, 0])
            else:
                logits += weight[d][value.long()]

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.solver == "lbfgs":
            return torch.optim.LBFGS(self.parameters(), self.lr, line_search_fn="strong_wolfe")
        return torch.optim.Adam(self.parameters(), self.lr)
