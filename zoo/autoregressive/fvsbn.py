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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core import AutoregressiveModule, DataSpec
from zoo.core.autoregressive import Stream
from zoo.core.module import Batch
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
        spec: DataSpec,
        shuffled: bool = False,
        conditional: bool = False,
        l2: float = 1e-4,
        solver: str = "adam",
        lr: float = 5e-3,
    ) -> None:
        super().__init__(spec)
        if spec.levels is None:
            raise ValueError(
                f"fvsbn models discrete data, got {spec}; choose data with levels, or a flow such "
                f"as realnvp"
            )
        if conditional and not spec.num_classes:
            raise ValueError(
                f"fvsbn: conditional=True needs labelled data, got {spec}; choose digits, or "
                f"conditional=False"
            )
        if solver not in ("adam", "lbfgs"):
            raise ValueError(f"fvsbn: solver is adam or lbfgs, got {solver!r}")
        self.inputs = (
            1 if spec.levels == 2 else spec.levels
        )  # of each dimension, and as many outputs
        if (spec.dim * self.inputs) ** 2 > MAX_WEIGHTS:
            raise ValueError(
                f"fvsbn needs {(spec.dim * self.inputs) ** 2:,} weights for {spec}; choose "
                f"smaller or binarised images"
            )
        self.conditional, self.l2, self.solver, self.lr = conditional, l2, solver, lr
        self.register_buffer(
            "rank", torch.randperm(spec.dim) if shuffled else super().order.argsort()
        )  # of each dimension
        place = self.rank.repeat_interleave(self.inputs)
        self.register_buffer("mask", place[:, None] > place[None, :])
        self.W = nn.Parameter(torch.zeros(spec.dim * self.inputs, spec.dim * self.inputs))
        self.b = nn.Parameter(torch.zeros(spec.dim * self.inputs))
        self.B = (
            nn.Embedding.from_pretrained(torch.zeros(spec.num_classes, len(self.b)), freeze=False)
            if conditional
            else None
        )
        self.register_buffer(
            "independent", torch.zeros_like(self.b)
        )  # b of independent pixels, to compare with

    @torch.no_grad()
    def initialise_from(self, x: Tensor) -> None:
        """b at the smoothed marginals of the data: the model starts as the independent one."""
        v = self.features(x).view(len(x), -1)
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

    def conditionals(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logits = F.linear(self.features(x).flatten(1), self.W * self.mask, self.b)
        if self.B is not None:
            logits = logits + self.B(self.labels(y))
        return logits.view(len(x), self.spec.dim, self.inputs)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        nll = -self.log_prob(batch["x"], batch.get("y")).mean()
        return {"loss": nll + 0.5 * self.l2 * (self.W * self.mask).square().sum(), "nll_nats": nll}

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Nats gained over independent pixels."""
        x = batch["x"]
        alone = self.log_conditionals(
            self.independent.view(1, -1, self.inputs).expand(len(x), -1, -1), x.flatten(1)
        ).sum(1)
        return {"gain_over_independent": self.log_prob(x, batch.get("y")) - alone}

    # -- use --------------------------------------------------------------------------------------
    def stream(self, n: int, y: Tensor | None) -> Stream:
        weight = (self.W * self.mask).T.view(self.spec.dim, self.inputs, -1)
        logits = self.b.expand(n, -1).clone() if self.B is None else self.b + self.B(self.labels(y))
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
