"""NADE: neural autoregressive distribution estimator, in a fixed order, orderless and deep, or of
real values (RNADE).

Paper      Uria, Côté, Gregor, Murray, Larochelle. Neural Autoregressive Distribution Estimation.
           JMLR 17, 2016. arXiv:1605.02226. (NADE: AISTATS 2011. Orderless and deep: ICML 2014,
           arXiv:1310.1757. RNADE: NIPS 2013, arXiv:1306.0186.)
Model      a_1 = c, h_d = sigmoid(a_d), logit of x_{o_d} = V[o_d]·h_d + b[o_d], a_{d+1} = a_d +
           W[o_d] x_{o_d}: one hidden layer whose weights all conditionals share, so that D of them
           cost O(DH). For L levels the output is a softmax. Orderless: one network for every order.
           It reads x·m and the mask m (weights W and U), has ReLU layers, and predicts every
           dimension that m hides. RNADE: mixtures of K Gaussians with π softmax, μ linear, σ exp;
           h_d = ReLU(ρ_d a_d), ρ learned.
Objective  -log P(x) = -Σ_d log P(x_{o_d} | x_{o_<d}). Orderless: for a uniform order o and number
           d' of visible dimensions of each example, D/(D-d') Σ_{hidden i} -log P(x_i | x·m, m),
           whose expectation is the mean of -log P_o(x) over all orders. RNADE's gradient of μ is
           multiplied by σ (section 4.1), or narrow components throw it about.
Sampling   Ancestral, with a kept, O(DH) in total; layers above the first are computed anew for each
           dimension.
Notes      log P of an orderless model is that of K stored orders: logsumexp_k log P_k(x) - ln K.
           ``inpaint`` of an orderless model takes an order with the known dimensions first, and is
           exact for it. ``chunk`` dimensions are computed at once, their running sums by a
           triangular matrix product.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.bases.autoregressive import MixtureOfOrders, Stream
from zoo.core import Batch, Spec
from zoo.core.options import Count, NonNegative, Positive
from zoo.nn.gaussian import log_normal
from zoo.registry import Paper, register


@register(
    "nade",
    paper=Paper(
        "Uria, Côté, Gregor, Murray, Larochelle",
        "Neural Autoregressive Distribution Estimation",
        2016,
        "1605.02226",
    ),
    about="one hidden layer shared by all conditionals, updated from pixel to pixel; orderless "
    "and real-valued variants",
    taxonomy="explicit tractable",
    likelihood="exact_mass",
    can={"sample", "log_prob", "inpaint"},
    data="digits",
    learns=("val/nll_nats", "<", 18.6),
)
class NADE(MixtureOfOrders):
    """Neural autoregressive distribution estimator; of mixtures of Gaussians (RNADE) where the data
    are real vectors.

    Args:
        hidden: H, units of each hidden layer.
        orderless: train one network for all orders; otherwise in one fixed order.
        layers: hidden layers; more than one needs ``orderless``.
        shuffled: the fixed order is random, drawn once, instead of raster.
        orders: K, the stored orders of an orderless model's likelihood.
        components: Gaussians of each conditional of real vectors.
        init: standard deviation of the initial weights.
        chunk: dimensions computed together; 1 is the paper's loop, more is quicker until the cache
            is full.
        optimiser: "adam" or "sgd". lr: learning rate.
    """

    orders_of: Tensor

    def __init__(
        self,
        spec: Spec,
        hidden: Count = 64,
        orderless: bool = False,
        layers: Count = 1,
        shuffled: bool = False,
        orders: Count = 8,
        components: Count = 8,
        init: NonNegative = 0.05,
        chunk: Count = 16,
        optimiser: Literal["adam", "sgd"] = "adam",
        lr: Positive = 3e-3,
    ) -> None:
        super().__init__(spec)
        self.need_levels_of_images()
        if layers > 1 and not orderless:
            raise ValueError(
                f"nade: layers={layers} needs orderless=True: a deep network's conditionals share "
                f"no running sum"
            )
        if orderless and spec.levels is None:
            raise ValueError(
                f"nade: orderless=True is for data with levels, got {spec}; real vectors take a "
                "fixed order"
            )
        self.orderless, self.chunk, self.optimiser, self.lr = orderless, chunk, optimiser, lr
        self.orders = orders if orderless else 1
        self.outputs = (
            3 * components if spec.levels is None else 1 if spec.levels == 2 else spec.levels
        )
        d, h = spec.dim, hidden
        self.W = nn.Parameter(init * torch.randn(d, h))
        self.c = nn.Parameter(torch.zeros(h))
        self.V = nn.Parameter(init * torch.randn(d, self.outputs, h))
        self.b = nn.Parameter(torch.zeros(d, self.outputs))
        self.U = nn.Parameter(init * torch.randn(d, h)) if orderless else None
        self.rho = nn.Parameter(torch.ones(d)) if spec.levels is None else None
        self.deeper = nn.ModuleList(nn.Linear(h, h) for _ in range(layers - 1))
        stored = [
            torch.randperm(d) if orderless or shuffled else super(MixtureOfOrders, self).order
            for _ in range(self.orders)
        ]
        self.register_buffer("orders_of", torch.stack(stored))

    @property
    def likelihood_kind(self) -> str:
        return "exact_density" if self.spec.levels is None else "exact_mass"

    @torch.no_grad()
    def initialise_from(self, batch: Batch) -> None:
        """Output biases at the data's smoothed marginals, or spread over the range of real
        values.
        """
        if self.spec.levels is not None:
            self.b.copy_(self.marginals(batch["x"], self.outputs))
            return
        v = batch["x"].flatten(1)
        shares = torch.linspace(0.02, 0.98, self.outputs // 3, device=v.device, dtype=v.dtype)
        mu = v.quantile(shares, 0).T
        log_sigma = (v.std(0)[:, None] / mu.shape[1]).log().expand_as(mu)
        self.b.copy_(torch.cat([torch.zeros_like(mu), mu, log_sigma], 1))

    # -- the network ------------------------------------------------------------------------------
    def order_of(self, k: int) -> Tensor:
        return self.orders_of[k]

    def inputs(self, x: Tensor) -> Tensor:
        """(B, D): binary values as they are, levels on [0, 1], real values as they are."""
        return (x if self.spec.levels is None else self.spec.to_unit(x)).flatten(1)

    def hidden(self, a: Tensor, steps: slice) -> Tensor:
        """Hidden units from the running sums a (steps, B, H)."""
        if self.rho is not None:
            return F.relu(self.rho[steps, None, None] * a)
        if not self.orderless:
            return torch.sigmoid(a)
        h = F.relu(a)
        for layer in self.deeper:
            h = F.relu(layer(h))
        return h

    def conditionals(self, x: Tensor, k: int = 0) -> Tensor:
        """Parameters of all D conditionals in the k-th order, (B, D, P)."""
        return self.conditionals_in(self.orders_of[k], x)

    def conditionals_in(self, order: Tensor, x: Tensor) -> Tensor:
        v, k = self.inputs(x)[:, order], self.chunk
        # Each is split once, so that its gradient is put together once.
        chunks = zip(v.split(k, 1), *(t[order].split(k) for t in (self.W, self.V)), strict=True)
        a, parts, start = self.c.expand(len(x), -1), [], 0
        for values, w, out in chunks:
            steps = slice(start, start + len(w))
            earlier = values.new_ones(len(w), len(w)).tril(-1)  # what a dimension sees of its chunk
            sums = ((values * earlier[:, None]) @ w).add_(a)  # (chunk, B, H)
            a = torch.addmm(a, values, w)
            if self.U is not None:
                u = self.U[order[steps]]
                sums, a = sums + (earlier @ u)[:, None], a + u.sum(0)
            h = self.hidden(sums, steps)
            parts.append(h @ out.mT)  # (chunk, B, P)
            start += len(w)
        return torch.cat(parts).transpose(0, 1)[:, order.argsort()] + self.b

    def log_conditionals(self, params: Tensor, x: Tensor) -> Tensor:
        if self.rho is None:
            return super().log_conditionals(params, x)
        logits, mu, log_sigma = params.chunk(3, -1)
        scale = log_sigma.exp().detach()
        mu = scale * mu + (mu - scale * mu).detach()  # the value of μ, σ times its gradient
        return (logits.log_softmax(-1) + log_normal(x[..., None], mu, 2 * log_sigma)).logsumexp(-1)

    def invert(self, params: Tensor, u: Tensor) -> Tensor:
        """A component from the leading part of u, a normal deviate from what remains of it."""
        if self.rho is None:
            return super().invert(params, u)
        logits, mu, log_sigma = params.chunk(3, -1)
        p = logits.softmax(-1)
        cdf = p.cumsum(-1)
        which = (u[:, None] >= cdf[:, :-1]).sum(-1, keepdim=True)
        p, cdf, mu, log_sigma = (t.gather(1, which)[:, 0] for t in (p, cdf, mu, log_sigma))
        return mu + log_sigma.exp() * torch.special.ndtri(((u - cdf + p) / p).clamp(1e-6, 1 - 1e-6))

    # -- likelihood -------------------------------------------------------------------------------
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        if not self.orderless:
            nll = -self.log_prob(x).mean()
            return {"loss": nll, "nll_nats": nll}
        rank = self.noise.uniform(len(x), self.spec.dim).argsort(1)
        visible = self.noise.integers(len(x), high=self.spec.dim)
        nll = self.orderless_loss(x, rank < visible[:, None]).mean()
        return {"loss": nll, "nll_nats": nll}

    def orderless_loss(self, x: Tensor, visible: Tensor) -> Tensor:
        """D/(D - d') Σ_{hidden i} -log P(x_i | visible), (B,), of a mask (B, D) with d' visible
        dimensions.
        """
        assert self.U is not None
        m = visible.to(self.c.dtype)
        h = self.hidden((self.inputs(x) * m) @ self.W + m @ self.U + self.c, slice(None))
        params = torch.einsum("bh,dph->bdp", h, self.V) + self.b
        nll = -self.log_conditionals(params, x.flatten(1)) * (1 - m)
        return self.spec.dim / (1 - m).sum(1) * nll.sum(1)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The mean over the orders, each taken alone, of an orderless model."""
        if not self.orderless:
            return {}
        each = [-self.log_prob_of(batch["x"], k) for k in range(self.orders)]
        return {"nll_mean_order": torch.stack(each).mean(0)}

    # -- use --------------------------------------------------------------------------------------
    def stream(self, n: int, k: int = 0) -> Stream:
        return self.stream_in(self.orders_of[k], n)

    def stream_in(self, order: Tensor, n: int) -> Stream:
        a = self.c.expand(1, n, -1).clone()
        for step, d in enumerate(order.tolist()):
            h = self.hidden(a, slice(step, step + 1))[0]
            value = yield torch.addmm(self.b[d], h, self.V[d].T)
            a[0].addr_(self.inputs(value[:, None])[:, 0], self.W[d])
            if self.U is not None:
                a += self.U[d]

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        known: Tensor,
        *,
        generator: torch.Generator | None = None,
        candidates: int = 32,
    ) -> Tensor:
        """As for every autoregressive model; an orderless one takes, for each set of known
        dimensions, an order that has them first.
        """
        if not self.orderless:
            return super().inpaint(x, known, generator=generator, candidates=candidates)
        shown, given = known.expand_as(x).flatten(1), x.flatten(1).to(self.float_dtype)
        u = torch.rand(
            self.spec.dim, len(x), generator=generator, device=self.device, dtype=self.float_dtype
        )
        shuffled = torch.rand(self.spec.dim, generator=generator, device=self.device).argsort()
        out = torch.empty_like(given)
        masks, which = shown.unique(dim=0, return_inverse=True)
        for i, mask in enumerate(masks):
            rows = which == i
            order = torch.cat([shuffled[mask[shuffled]], shuffled[~mask[shuffled]]])
            stream = self.stream_in(order, int(rows.sum()))
            out[rows] = self.ancestral(stream, order, u[:, rows], given[rows], shown[rows])[0]
        return out.view_as(x)

    # -- optimisers -------------------------------------------------------------------------------
    def configure_optimizers(self) -> torch.optim.Optimizer:
        kind = torch.optim.SGD if self.optimiser == "sgd" else torch.optim.Adam
        return kind(self.parameters(), self.lr)
