"""NICE: non-linear independent components estimation.

Paper      Dinh, Krueger, Bengio. NICE: Non-linear Independent Components Estimation. ICLR 2015
           (workshop). arXiv:1410.8516.
Model      z = exp(s) ⊙ h(v): h a stack of additive couplings on the even coordinates I₁ and the odd
           ones I₂, which swap their roles,
               h_I₁ = v_I₁,   h_I₂ = v_I₂ + m(v_I₁)   (volume is preserved),
           m an MLP with ReLU, s a learned diagonal scaling; the z_d are independent, logistic or
           gaussian. v = y - 1/2 of dequantised images y = (x + u)/L; vectors are taken as they are.
Objective  -log p(y) = -Σ_d log p(z_d) - Σ_d s_d, in bits per dimension for images (Σ includes D ln
           L), in nats for vectors.
Sampling   z from the prior, divided by exp(s), the couplings undone last to first; x = floor(L y).
Inpainting Section 5.2: gradient ascent of log p(y) on the missing pixels y_H from uniform noise,
           projected to [0, 1],
               y_H <- y_H + α_i (∂ log p / ∂ y_H + ε),  ε ~ N(0, I),
               α_i = inpaint_step · 10/(100 + i).
Logs       val/nll_density = -log p(y) in nats, without the D ln L: the number of the paper's table
           (there with the other sign).
Notes      s starts at 3 for images, about -ln of a pixel's standard deviation: from zero, a run
           spends most of its time growing it. The last layers of m start at zero. ``inpaint_step``
           = 1 is the paper's α_i = 10/(100 + i), which needs thousands of steps.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases import FlowModule
from zoo.core import Batch, Spec
from zoo.core.likelihood import quantise
from zoo.core.options import Count, Decay, Positive
from zoo.nn.prior import Source
from zoo.registry import Paper, register


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """m: ``layers`` hidden layers with ReLU and a zero end, so that a coupling starts as the
    identity.
    """
    steps: list[nn.Module] = []
    for i in range(layers):
        steps += [nn.Linear(hidden if i else inputs, hidden), nn.ReLU()]
    end = nn.Linear(hidden, outputs)
    nn.init.zeros_(end.weight)
    nn.init.zeros_(end.bias)
    return nn.Sequential(*steps, end)


def log_logistic(z: Tensor) -> Tensor:
    """log p(z_d) of the standard logistic distribution, elementwise."""
    return -F.softplus(z) - F.softplus(-z)


@register(
    "nice",
    paper=Paper(
        "Dinh, Krueger, Bengio",
        "NICE: Non-linear Independent Components Estimation",
        2015,
        "1410.8516",
    ),
    about="additive couplings, which keep volume, and one diagonal scaling",
    taxonomy="explicit tractable",
    likelihood="dequantised_bound",
    can={"sample", "log_prob", "encode", "decode", "reconstruct", "interpolate", "inpaint"},
    data="digits",
    learns=("val/bits_per_dim", "<", 2.93),
)
class NICE(FlowModule):
    """NICE.

    Args:
        hidden: units of each hidden layer of m.
        layers: hidden layers of m.
        couplings: additive couplings; from three on, every z_d depends on every coordinate.
        prior: of z_d, "logistic" or "gaussian".
        inpaint_steps: steps of gradient ascent in ``inpaint``. inpaint_step: their size in units of
            the paper's.
        draws: draws of u in the evaluated bound.
        lr: Adam's learning rate. beta2, eps: Adam's.
    """

    couplings: Any  # a ModuleList of Sequentials

    def __init__(
        self,
        spec: Spec,
        hidden: Count = 200,
        layers: Count = 3,
        couplings: Count = 4,
        prior: Literal["logistic", "gaussian"] = "logistic",
        inpaint_steps: Count = 500,
        inpaint_step: Positive = 0.01,
        draws: Count = 4,
        lr: Positive = 1e-3,
        beta2: Decay = 0.999,
        eps: Positive = 1e-8,
    ) -> None:
        super().__init__(spec)
        self.need_levels_of_images()
        if spec.dim < 2:
            raise ValueError(
                f"nice's couplings need at least two dimensions, got {spec}; choose other data"
            )
        self.prior, self.draws = prior, draws
        self.inpaint_steps, self.inpaint_step = inpaint_steps, inpaint_step
        self.lr, self.beta2, self.eps = lr, beta2, eps
        even, odd = (spec.dim + 1) // 2, spec.dim // 2
        sides = [(even, odd) if i % 2 == 0 else (odd, even) for i in range(couplings)]
        self.couplings = nn.ModuleList(mlp(a, hidden, layers, b) for a, b in sides)
        # exp(-3): a pixel's deviation, roughly
        self.s = nn.Parameter(torch.full((spec.dim,), 0.0 if spec.levels is None else 3.0))

    # -- the flow ---------------------------------------------------------------------------------
    def forward_flow(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(v), (B, D), and log|det dz/dv| = Σ s_d, (B,)."""
        h = v.flatten(1)
        a, b = h[:, 0::2], h[:, 1::2]
        for i, m in enumerate(self.couplings):
            a, b = (a, b + m(a)) if i % 2 == 0 else (a + m(b), b)
        return self._interleave(a, b) * self.s.exp(), self.s.sum().expand(len(v))

    def inverse_flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """v = f⁻¹(z), (B, *shape), and log|det dv/dz|, (B,)."""
        h = z * (-self.s).exp()
        a, b = h[:, 0::2], h[:, 1::2]
        for i, m in reversed([*enumerate(self.couplings)]):
            a, b = (a, b - m(a)) if i % 2 == 0 else (a - m(b), b)
        return self._interleave(a, b).view(-1, *self.spec.shape), -self.s.sum().expand(len(z))

    @staticmethod
    def _interleave(a: Tensor, b: Tensor) -> Tensor:
        """The even coordinates a and the odd ones b in their places."""
        if a.shape[1] == b.shape[1]:
            return torch.stack([a, b], 2).flatten(1)
        return torch.cat([torch.stack([a[:, :-1], b], 2).flatten(1), a[:, -1:]], 1)

    def preprocess(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y - 0.5, y.new_zeros(len(y))

    def postprocess(self, v: Tensor) -> Tensor:
        return v + 0.5

    def log_base(self, z: Tensor) -> Tensor:
        return log_logistic(z).sum(1) if self.prior == "logistic" else super().log_base(z)

    def draw_codes(self, n: int, source: Source) -> Tensor:
        if self.prior == "gaussian":
            return super().draw_codes(n, source)
        return torch.logit(source.uniform(n, self.spec.dim), eps=1e-7)

    # -- likelihood -------------------------------------------------------------------------------
    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        terms = super().evaluate(batch, generator)
        if self.spec.levels is not None:
            bits = terms["prior_bpd"] + terms["logdet_per_dim"] - math.log2(self.spec.levels)
            terms["nll_density"] = bits * self.spec.dim * math.log(2)
        return terms

    # -- use --------------------------------------------------------------------------------------
    def spectrum(self) -> Tensor:
        """exp(-s_d) from the most important component to the least, (D,)."""
        return (-self.s).exp().sort(descending=True).values

    @torch.no_grad()
    def inpaint(
        self, x: Tensor, known: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """A likely completion of the dimensions where ``known`` is False, (B, *shape): gradient
        ascent with decaying noise.
        """
        levels = self.spec.levels
        y = x if levels is None else (x + 0.5) / levels
        known = known.expand_as(x)
        draw = torch.randn if levels is None else torch.rand
        start = draw(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        y = torch.where(known, y, start)
        for i in range(self.inpaint_steps):
            with torch.enable_grad():
                y.requires_grad_()
                (gradient,) = torch.autograd.grad(self.log_density(y).sum(), y)
            eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            moved = y + self.inpaint_step * 10 / (100 + i) * (gradient + eps)
            y = torch.where(known, y, moved if levels is None else moved.clamp(0, 1)).detach()
        return torch.where(known, x, y if levels is None else quantise(y, levels))

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr, betas=(0.9, self.beta2), eps=self.eps)
