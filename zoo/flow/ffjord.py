"""FFJORD: free-form continuous dynamics.

Paper      Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud. FFJORD: Free-form Continuous Dynamics
           for Scalable Reversible Generative Models. ICLR 2019. arXiv:1810.01367.
Model      dh/dt = f(h, t), h(0) = v, z = h(T) ~ N(0, I). Vectors: layers (W h + b) σ(w_g t + b_g) +
           w_h t with tanh between them, v = x. Images: v = logit(α + (1 - 2α) y); convolutions that
           see t as one more channel, softplus between them; a scale is ``blocks`` such flows, a
           squeeze (C, H, W) -> (4C, H/2, W/2), ``blocks`` more, and half of the channels leave for
           z; the last scale, of fewer than 8 pixels a side, has ``blocks`` flows alone.
Objective  -log p(y) = -log N(z; 0, I) - ∫₀ᵀ Tr(∂f/∂h) dt - log|det logit|. Up to ``exact``
           dimensions Tr is exact, in evaluation up to 64; beyond it is eᵀ (∂f/∂h) e, E e eᵀ = I
           (Hutchinson), with e drawn once for a solve, the mean of ``probes`` of them in
           evaluation. ``kinetic`` ∫‖f‖² dt and ``jacobian`` ∫‖∂f/∂h‖² dt are added to the loss
           (Finlay et al. 2020), for images by dimension.
Sampling   z ~ N(0, I), integrated from T to 0.
Notes      The derivative of f in the directions e is carried along with f, layer by layer: nothing
           is differentiated inside the solver, so a density can be had under no_grad, and training
           differentiates once. RK4 with ``steps`` steps is the default, and treats each row alone;
           dopri5 (the paper's) chooses its steps for the whole batch. Evaluation takes twice the
           steps, or a tenth of the tolerance. T = 1, or learned with ``learn_time``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchdiffeq import odeint, odeint_adjoint

from zoo.bases import FlowModule
from zoo.core import Batch, Image, Spec
from zoo.core.likelihood import (
    bits_per_dim,
    dequantise,
    inverse_logit_transform,
    logit_transform,
    quantise,
    row_noise,
)
from zoo.core.options import Count, NonNegative, Positive, Range, Whole
from zoo.registry import Paper, register

EXACT_EVALUATION = 64  # dimensions up to which evaluation computes the whole trace


class ConcatSquash(nn.Module):
    """(W h + b) σ(w_g t + b_g) + w_h t."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(1, outputs)
        self.shift = nn.Linear(1, outputs, bias=False)

    def forward(self, t: Tensor, h: Tensor, dh: Tensor | None) -> tuple[Tensor, Tensor | None]:
        gate = torch.sigmoid(self.gate(t.view(1)))
        d = None if dh is None else F.linear(dh, self.linear.weight) * gate
        return self.linear(h) * gate + self.shift(t.view(1)), d


class ConcatConv(nn.Module):
    """A 3x3 convolution of the channels and t."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + 1, outputs, 3, padding=1)

    def forward(self, t: Tensor, h: Tensor, dh: Tensor | None) -> tuple[Tensor, Tensor | None]:
        d = None
        if dh is not None:
            d = F.conv2d(dh.flatten(0, 1), self.conv.weight[:, 1:], padding=1)
            d = d.unflatten(0, dh.shape[:2])
        return self.conv(torch.cat([t.expand_as(h[:, :1]), h], 1)), d


class Field(nn.Module):
    """f(h, t), and its derivatives in the directions dh, (S, B, *shape)."""

    layers: Any  # a ModuleList

    def __init__(self, channels: int, width: int, layers: int, image: bool) -> None:
        super().__init__()
        sizes = [channels, *[width] * layers, channels]
        self.layers = nn.ModuleList(
            (ConcatConv if image else ConcatSquash)(a, b)
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.image = image

    def forward(
        self, t: Tensor, h: Tensor, dh: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        for i, layer in enumerate(self.layers):
            if i:
                v = h
                h = F.softplus(v) if self.image else torch.tanh(v)
                if dh is not None:
                    dh = dh * (torch.sigmoid(v) if self.image else 1 - h.square())
            h, dh = layer(t, h, dh)
        return h, dh


class Dynamics(nn.Module):
    """What one solve integrates: h, and with directions dh also the trace, and on demand ‖f‖² and
    ‖∂f/∂h‖².

    Directions are the D unit vectors (``scale`` 1: exact) or S random ones (``scale`` 1/S).
    """

    def __init__(
        self, field: nn.Module, log_time: Tensor, dh: Tensor | None, scale: float, penalties: bool
    ) -> None:
        super().__init__()
        self.field, self.log_time = field, log_time
        self.dh, self.scale, self.penalties = dh, scale, penalties
        self.calls = 0

    def forward(self, t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.calls += 1
        time = self.log_time.exp()  # t runs from 0 to 1
        f, df = self.field(time * t, state[0], self.dh)
        if df is None:
            return (time * f,)
        change = [time * f, time * self.scale * (self.dh * df).flatten(2).sum((0, 2))]
        if self.penalties:
            change += [
                time * f.flatten(1).square().sum(1),
                time * self.scale * df.flatten(2).square().sum((0, 2)),
            ]
        return tuple(change)


@register(
    "ffjord",
    paper=Paper(
        "Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud",
        "FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models",
        2019,
        "1810.01367",
    ),
    about="a neural differential equation whose density follows from the trace of its Jacobian",
    taxonomy="explicit tractable",
    likelihood="exact_density",
    can={"sample", "log_prob", "encode", "decode", "reconstruct", "interpolate"},
    data="toy2d",
    learns=("val/nll_nats", "<", 1.94),
)
class FFJORD(FlowModule):
    """FFJORD.

    Args:
        width: of a hidden layer of f; 64 units for vectors and 32 channels for images by default.
            layers: hidden layers of f.
        blocks: flows in a row, between the changes of shape of images.
        solver: "rk4" with ``steps`` steps, or "dopri5" with the tolerance ``tol``.
        adjoint: gradients by the adjoint equation, in constant memory, instead of through the
            solver.
        learn_time: learn T of each flow.
        exact: dimensions up to which training computes the whole trace.
        noise: of e, "rademacher" or "gaussian". probes: draws of e in evaluation.
        kinetic, jacobian: weights of the regularisers.
        alpha: the logit transform of images.
        draws: draws of u in the evaluated bound of images.
        lr: Adam's learning rate. warmup: steps in which it grows linearly from 0.
    """

    flows: Any  # a ModuleList

    def __init__(
        self,
        spec: Spec,
        width: Count | None = None,
        layers: Count = 2,
        blocks: Count = 1,
        solver: Literal["rk4", "dopri5"] = "rk4",
        steps: Count = 8,
        tol: Positive = 1e-5,
        adjoint: bool = False,
        learn_time: bool = False,
        exact: Whole = 8,
        noise: Literal["rademacher", "gaussian"] = "rademacher",
        probes: Count = 10,
        kinetic: NonNegative = 0.0,
        jacobian: NonNegative = 0.0,
        alpha: Annotated[float, Range(0, 0.5, above=True, below=True)] = 0.05,
        draws: Count = 4,
        lr: Positive = 3e-3,
        warmup: Whole = 0,
    ) -> None:
        super().__init__(spec)
        self.need_levels_of_images()
        image = spec.has(x=Image)
        width = (32 if image else 64) if width is None else width
        self.solver, self.steps, self.tol, self.adjoint = solver, steps, tol, adjoint
        self.exact, self.e, self.probes = exact, noise, probes
        self.kinetic, self.jacobian = kinetic, jacobian
        self.alpha, self.draws, self.lr, self.warmup = alpha, draws, lr, warmup
        c, *sides = spec.shape
        self.plan: list[str] = []  # of the flow: "flow", "squeeze" and "split"
        channels, self.sizes = [], []  # of each flow; dimensions that leave at each split
        while len(sides) == 2 and min(sides) >= 8 and not sides[0] % 2 and not sides[1] % 2:
            channels += [c] * blocks + [4 * c] * blocks
            self.plan += ["flow"] * blocks + ["squeeze"] + ["flow"] * blocks + ["split"]
            c, sides = 2 * c, [s // 2 for s in sides]
            self.sizes.append(c * math.prod(sides))
        self.plan += ["flow"] * blocks
        self.top = (c, *sides)
        self.flows = nn.ModuleList(
            Field(n, width, layers, image) for n in [*channels, *[c] * blocks]
        )
        self.log_time = nn.Parameter(torch.zeros(len(self.flows)), requires_grad=learn_time)
        self.nfe = 0  # evaluations of f in the last solve, of all flows together

    # -- the flow ---------------------------------------------------------------------------------
    def _solve(
        self, i: int, h: Tensor, eps: Tensor | None, trace: bool, backward: bool, penalties: bool
    ) -> list[Tensor]:
        """h at the other end of flow i; with ``trace`` also log|det| and, with ``penalties``, the
        two regularisers, each (B,).
        """
        dh, scale, d = None, 1.0, h[0].numel()
        if trace and eps is None:
            dh = torch.eye(d, device=h.device, dtype=h.dtype)
            dh = dh.view(d, 1, *h.shape[1:]).expand(d, *h.shape)
        elif trace and eps is not None:
            dh, scale = eps[:, :, :d].reshape(len(eps), *h.shape), 1 / len(eps)
        dynamics = Dynamics(self.flows[i], self.log_time[i], dh, scale, penalties)
        state = (h, *(h.new_zeros(len(h)) for _ in range(trace * (1 + 2 * penalties))))
        finer = 1 if self.training else 2
        options: dict[str, Any] = {"max_num_steps": 1000}
        if self.solver == "rk4":
            options = {"step_size": 1 / (finer * self.steps)}
        times = torch.tensor([1.0, 0.0] if backward else [0.0, 1.0], device=h.device, dtype=h.dtype)
        tol = self.tol if self.training else self.tol / 10
        given: dict[str, Any] = {"method": self.solver, "options": options}
        if self.adjoint:
            given["adjoint_params"] = (*self.flows[i].parameters(), dynamics.log_time)
        solve = odeint_adjoint if self.adjoint else odeint
        ends = solve(dynamics, state, times, rtol=tol, atol=tol, **given)
        self.nfe += dynamics.calls
        return [v[-1] for v in ends]

    def _forward(
        self, v: Tensor, eps: Tensor | None = None, trace: bool = True, penalties: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """z, (B, D), and the sums over all flows of log|det| and the regularisers. eps: (S, B, D),
        or None for the exact trace.
        """
        h, sums, parts, i = v, [v.new_zeros(len(v))] * (1 + 2 * penalties), [], 0
        self.nfe = 0
        for step in self.plan:
            if step == "flow":
                h, *terms = self._solve(i, h, eps, trace, False, penalties)
                if trace:
                    sums = [a + b for a, b in zip(sums, terms, strict=True)]
                i += 1
            elif step == "squeeze":
                h = F.pixel_unshuffle(h, 2)
            else:
                h, out = h.chunk(2, 1)
                parts.append(out.flatten(1))
        return torch.cat([*parts, h.flatten(1)], 1), sums

    def _inverse(
        self, z: Tensor, eps: Tensor | None = None, trace: bool = True
    ) -> tuple[Tensor, Tensor]:
        *parts, top = z.split([*self.sizes, math.prod(self.top)], 1)
        h, log_det, i = top.reshape(-1, *self.top), z.new_zeros(len(z)), len(self.flows)
        self.nfe = 0
        for step in reversed(self.plan):
            if step == "flow":
                i -= 1
                h, *terms = self._solve(i, h, eps, trace, True, False)
                log_det = log_det + terms[0] if trace else log_det
            elif step == "squeeze":
                h = F.pixel_shuffle(h, 2)
            else:
                h = torch.cat([h, parts.pop().reshape(h.shape)], 1)
        return h, log_det

    def forward_flow(self, v: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z and log|det dz/dv|. eps: directions (S, B, D) of Hutchinson's estimate; None computes
        the trace.
        """
        z, (log_det,) = self._forward(v, eps)
        return z, log_det

    def inverse_flow(self, z: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """v and log|det dv/dz|."""
        return self._inverse(z, eps)

    def preprocess(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return logit_transform(y, self.alpha)

    def postprocess(self, v: Tensor) -> Tensor:
        return inverse_logit_transform(v, self.alpha)[0]

    def to_code(self, y: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v, term = self.preprocess(y) if self.spec.levels is not None else (y, y.new_zeros(len(y)))
        z, log_det = self.forward_flow(v, eps)
        return z, log_det + term

    # -- likelihood -------------------------------------------------------------------------------
    def directions(self, u: Tensor) -> Tensor:
        """e from uniform numbers, elementwise."""
        if self.e == "rademacher":
            return 2 * (u < 0.5).to(u.dtype) - 1
        return math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-1 + 1e-6, 1 - 1e-6))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, d, levels = batch["x"], self.spec.dim, self.spec.levels
        v: Tensor = x
        constant: float = 0.0
        term: Tensor | float = 0.0
        if levels is not None:
            y, constant = dequantise(x, levels, self.noise.uniform(*x.shape))
            v, term = self.preprocess(y)
        eps = None if d <= self.exact else self.directions(self.noise.uniform(len(x), d))[None]
        z, sums = self._forward(v, eps, penalties=self.kinetic > 0 or self.jacobian > 0)
        log_prob = self.log_base(z) + sums[0] + term + constant
        value = -log_prob.mean() if levels is None else bits_per_dim(log_prob, d).mean()
        terms = {
            "loss": value,
            "nll_nats" if levels is None else "bits_per_dim": value,
            "nfe": torch.tensor(float(self.nfe)),
        }
        penalties = (("kinetic", self.kinetic), ("jacobian", self.jacobian))
        for (name, weight), total in zip(penalties, sums[1:], strict=False):
            terms[name] = total.mean() / (1 if levels is None else d)
            terms["loss"] = terms["loss"] + weight * terms[name]
        return terms

    def _estimate(self, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """E log p(z), and the rest of log p(x), each (B,): means over ``draws`` of u, with one set
        of ``probes`` directions e.
        """
        d, levels = self.spec.dim, self.spec.levels
        draws = 0 if levels is None else self.draws
        probes = 0 if d <= EXACT_EVALUATION else self.probes
        noise = x.new_zeros(len(x), 0, d)
        if draws + probes:
            noise = row_noise(torch.rand, x, (draws + probes, d), generator)
        eps = self.directions(noise[:, draws:]).transpose(0, 1) if probes else None
        prior, rest = x.new_zeros(len(x)), x.new_zeros(len(x))
        for s in range(max(draws, 1)):
            y, constant = x, 0.0
            if levels is not None:
                y, constant = dequantise(x, levels, noise[:, s].view_as(x))
            z, log_det = self.to_code(y, eps)
            prior = prior + self.log_base(z) / max(draws, 1)
            rest = rest + (log_det + constant) / max(draws, 1)
        return prior, rest

    def log_prob(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        prior, rest = self._estimate(x, generator)
        return prior + rest

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Evaluations of f of one solve, and the largest error of f⁻¹(f(v)) in any dimension; for
        images also the two parts of the bits.
        """
        x, d = batch["x"], self.spec.dim
        terms = {}
        if self.spec.levels is not None:
            prior, rest = self._estimate(x, generator)
            terms = {"prior_bpd": bits_per_dim(prior, d), "logdet_per_dim": bits_per_dim(rest, d)}
        v = self._working_scale(x)
        z = self._forward(v, trace=False)[0]
        terms["nfe"] = x.new_full((len(x),), self.nfe)
        terms["inverse_error"] = (self._inverse(z, trace=False)[0] - v).abs().flatten(1).amax(1)
        return terms

    # -- use --------------------------------------------------------------------------------------
    def _working_scale(self, x: Tensor) -> Tensor:
        """v, of the middle of the levels for images."""
        if self.spec.levels is None:
            return x
        y, _ = dequantise(x, self.spec.levels, torch.full_like(x, 0.5))
        return self.preprocess(y)[0]

    def encode(self, x: Tensor) -> Tensor:
        # as ever, but without log-determinants
        return self._forward(self._working_scale(x), trace=False)[0]

    def decode(self, z: Tensor) -> Tensor:
        v = self._inverse(z, trace=False)[0]
        return v if self.spec.levels is None else quantise(self.postprocess(v), self.spec.levels)

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.parameters(), self.lr)
        if not self.warmup:
            return optimiser
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / self.warmup, 1.0)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
