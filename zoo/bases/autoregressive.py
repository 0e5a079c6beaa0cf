"""Autoregressive models: P(x) = Π_d P(x_d | x_<d), drawn one dimension after the other, with or
without a cache.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.bases.likelihood import LikelihoodModule
from zoo.core.batch import Batch
from zoo.core.likelihood import bits_per_dim, log_frequencies
from zoo.core.spec import Image

Stream = Generator[Tensor, Tensor, None]
Told = Mapping[str, Tensor]
MAX_ROWS = 1024  # completions that are drawn together


class AutoregressiveModule(LikelihoodModule):
    """Base of the models of integer levels whose conditionals come from one pass. Subclasses define

    - ``conditionals(x)``: the parameters of all D conditionals, (B, D, P). P = 1 is the logit of
      a binary dimension, P = L the logits of L levels; models of other distributions override
      ``log_conditionals`` and ``invert``;
    - ``stream(n)``: the same conditionals one dimension at a time, each hidden value computed
      once. It is a Python generator: it yields the parameters (n, P) of the next dimension of
      ``order`` and is sent that dimension's values (n,).

    Each dimension of a sample consumes one uniform number, so both ways of drawing give the same
    integers from the same seed. Both take what the model is told by name: those with the option
    ``conditional`` the class, as ``y``.
    """

    conditional = False  # whether it models P(x | y)

    @property
    def told(self) -> tuple[str, ...]:
        return ("y",) if self.conditional else ()

    @property
    def order(self) -> Tensor:
        """Flat (c, h, w) indices of the dimensions in the order of generation, (D,). Here: pixels
        in raster order, and the channels of a pixel one after the other."""
        if not self.spec.has(x=Image):
            return torch.arange(self.spec.dim)
        c, h, w = self.spec.shape
        return torch.arange(self.spec.dim).view(c, h, w).permute(1, 2, 0).flatten()

    @property
    def uniforms(self) -> int:
        """Uniform numbers that a sample consumes."""
        return self.spec.dim

    def conditionals(self, x: Tensor, **told: Tensor) -> Tensor:
        """Parameters of P(x_d | x_<d) for every d in one pass, (B, D, P), from data in the units of
        ``spec``.
        """
        raise NotImplementedError

    def stream(self, n: int, **told: Tensor) -> Stream:
        """The conditionals of n images in the making; here by a full pass for each dimension."""
        x = torch.zeros(n, *self.spec.shape, device=self.device, dtype=self.float_dtype)
        for d in self.order.tolist():
            value = yield self.conditionals(x, **told)[:, d]
            x.view(n, -1)[:, d] = value

    def one_hot(self, y: Tensor | None) -> Tensor | None:
        """One-hot labels as maps of one pixel, (B, classes, 1, 1); None for a model without
        labels.
        """
        if not self.conditional:
            return None
        labels = F.one_hot(self.need_labels(y), self.spec.num_classes)
        return labels.to(self.float_dtype)[:, :, None, None]

    def marginals(self, x: Tensor, outputs: int) -> Tensor:
        """Parameters (D, P) of independent dimensions with the smoothed frequencies of the levels
        of x.
        """
        log_p = log_frequencies(x, self.spec.levels or 0)
        return log_p[:, 1:] - log_p[:, :1] if outputs == 1 else log_p

    # -- one conditional --------------------------------------------------------------------------
    def log_conditionals(self, params: Tensor, x: Tensor) -> Tensor:
        """log P(x_d | x_<d), shape (...), of values x (...) under parameters (..., P)."""
        if params.shape[-1] == 1:
            return -F.binary_cross_entropy_with_logits(params[..., 0], x, reduction="none")
        return params.log_softmax(-1).gather(-1, x.long()[..., None])[..., 0]

    def invert(self, params: Tensor, u: Tensor) -> Tensor:
        """Values (n,) from parameters (n, P) and uniform numbers (n,), by the inverse distribution
        function.
        """
        if params.shape[-1] == 1:
            return (u < torch.sigmoid(params[:, 0])).to(params.dtype)
        cdf = params.softmax(-1).cumsum(-1)[:, :-1]
        return (u[:, None] >= cdf).sum(-1).to(params.dtype)

    # -- likelihood -------------------------------------------------------------------------------
    def log_prob(
        self, x: Tensor, *, generator: torch.Generator | None = None, **told: Tensor
    ) -> Tensor:
        return self.log_conditionals(self.conditionals(x, **told), x.flatten(1)).sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        told: dict[str, Any] = self.told_in(batch)
        log_prob = self.log_prob(batch["x"], **told)
        bits = bits_per_dim(log_prob, self.spec.dim).mean()
        return {"loss": bits, "bits_per_dim": bits}

    # -- use --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        cache: bool = True,
        temperature: float = 1.0,
        **told: Tensor,
    ) -> Tensor:
        """n draws, (n, *shape).

        Args:
            cache: draw from ``stream``; otherwise by a full pass for each dimension. temperature:
                divides the logits.
        """
        if temperature <= 0 or (temperature != 1 and self.spec.levels is None):
            raise ValueError(
                f"temperature is positive, and 1 for real values, got {temperature} on "
                f"{self.spec}; choose another"
            )
        x, _ = self.generate(self.draw_uniforms(n, generator), told, cache, temperature)
        return x.view(n, *self.spec.shape)

    def draw_uniforms(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """The numbers that n samples consume, (uniforms, n)."""
        return torch.rand(
            self.uniforms, n, generator=generator, device=self.device, dtype=self.float_dtype
        )

    def generate(
        self,
        u: Tensor,
        told: Told,
        cache: bool = True,
        temperature: float = 1.0,
        *,
        given: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x (n, D) from uniform numbers u (uniforms, n) and what the model is told of each, and the
        log-weights, as ``ancestral`` has it.
        """
        n = u.shape[1]
        stream = self.stream(n, **told) if cache else AutoregressiveModule.stream(self, n, **told)
        return self.ancestral(stream, self.order, u, given, known, temperature)

    def ancestral(
        self,
        stream: Stream,
        order: Tensor,
        u: Tensor,
        given: Tensor | None,
        known: Tensor | None,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Go through the dimensions in order, drawing each, or where ``known`` taking it from
        ``given``, both (n, D).

        Returns:
            x, (n, D), and Σ log P(x_d | x_<d) over the known dimensions, (n,).
        """
        x = u.new_zeros(u.shape[1], self.spec.dim)
        log_weight = u.new_zeros(u.shape[1])
        params = next(stream)
        for step, d in enumerate(order.tolist()):
            x[:, d] = self.invert(params / temperature if temperature != 1 else params, u[step])
            if given is not None and known is not None:
                x[:, d] = torch.where(known[:, d], given[:, d], x[:, d])
                log_weight = log_weight + torch.where(
                    known[:, d], self.log_conditionals(params, x[:, d]), 0
                )
            if step + 1 < len(order):
                params = stream.send(x[:, d])
        stream.close()
        return x, log_weight

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        known: Tensor,
        *,
        generator: torch.Generator | None = None,
        candidates: int = 32,
        **told: Tensor,
    ) -> Tensor:
        """Draw the dimensions where ``known`` is False, given the others.

        Exact where in the order no known dimension follows an unknown one. Otherwise ``candidates``
        completions, each blind to what is known further on, are drawn for each image, and one of
        them is taken with probability proportional to P of the known dimensions given the earlier
        ones: importance resampling, exact in the limit of many candidates.

        Args:
            x: (B, *shape), read where known. known: booleans that broadcast to x.
        """
        shown, given = known.expand_as(x).flatten(1), x.flatten(1).to(self.float_dtype)
        k = 1 if self.leads(shown) else candidates
        rows = max(MAX_ROWS // k, 1)
        if len(x) > rows:
            shown_of = known.expand_as(x)
            parts = []
            for start in range(0, len(x), rows):
                part = slice(start, start + rows)
                parts.append(
                    self.inpaint(
                        x[part],
                        shown_of[part],
                        generator=generator,
                        candidates=candidates,
                        **{name: value[part] for name, value in told.items()},
                    )
                )
            return torch.cat(parts)
        shown, given = shown.repeat_interleave(k, 0), given.repeat_interleave(k, 0)
        u = self.draw_uniforms(len(given), generator)
        each = {name: value.repeat_interleave(k, 0) for name, value in told.items()}
        drawn, log_weight = self.generate(u, each, given=given, known=shown)
        share = log_weight.view(len(x), k).softmax(1).cumsum(1)[:, :-1]
        level = torch.rand(
            len(x), 1, generator=generator, device=self.device, dtype=self.float_dtype
        )
        choice = (level >= share).sum(1)
        return drawn.view(len(x), k, -1)[torch.arange(len(x), device=x.device), choice].view_as(x)

    def leads(self, known: Tensor) -> bool:
        """Do the known dimensions, (B, D), come first in the order in every row?"""
        ordered = known[:, self.order.to(known.device)]
        return bool((ordered[:, :-1] | ~ordered[:, 1:]).all())


class MixtureOfOrders(AutoregressiveModule):
    """Base of the models of several orders: P(x) = (1/K) Σ_k P_k(x), the mean of probabilities,
    which again sums to one.

    Subclasses define ``orders`` = K, ``order_of(k)``, and take k as the second argument of
    ``conditionals`` and ``stream``.
    """

    orders = 1

    def order_of(self, k: int) -> Tensor:
        """Flat indices of the dimensions in the k-th order, (D,)."""
        raise NotImplementedError

    @property
    def order(self) -> Tensor:
        """The first of the orders."""
        return self.order_of(0)

    @property
    def uniforms(self) -> int:
        return self.spec.dim + 1  # the last chooses the order

    def conditionals(self, x: Tensor, k: int = 0, **told: Tensor) -> Tensor:
        raise NotImplementedError

    def stream(self, n: int, k: int = 0, **told: Tensor) -> Stream:
        x = torch.zeros(n, *self.spec.shape, device=self.device, dtype=self.float_dtype)
        for d in self.order_of(k).tolist():
            x.view(n, -1)[:, d] = yield self.conditionals(x, k, **told)[:, d]

    def log_prob_of(self, x: Tensor, k: int, **told: Tensor) -> Tensor:
        """log P_k(x), nats, (B,)."""
        return self.log_conditionals(self.conditionals(x, k, **told), x.flatten(1)).sum(1)

    def log_prob(
        self, x: Tensor, *, generator: torch.Generator | None = None, **told: Tensor
    ) -> Tensor:
        each = torch.stack([self.log_prob_of(x, k, **told) for k in range(self.orders)])
        return each.logsumexp(0) - math.log(len(each))

    def generate(
        self,
        u: Tensor,
        told: Told,
        cache: bool = True,
        temperature: float = 1.0,
        *,
        given: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Each row in an order of its own, which the last uniform number chooses."""
        stream = self.stream if cache else functools.partial(MixtureOfOrders.stream, self)
        which = (u[-1] * self.orders).long()
        x, log_weight = u.new_zeros(u.shape[1], self.spec.dim), u.new_zeros(u.shape[1])
        for k in which.unique().tolist():
            rows = which == k
            clamped, shown = (None if t is None else t[rows] for t in (given, known))
            own = {name: value[rows] for name, value in told.items()}
            part = stream(int(rows.sum()), k, **own)
            x[rows], log_weight[rows] = self.ancestral(
                part, self.order_of(k), u[:, rows], clamped, shown, temperature
            )
        return x, log_weight

    def leads(self, known: Tensor) -> bool:
        return self.orders == 1 and super().leads(known)
