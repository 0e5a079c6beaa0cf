"""Observation models p(x | z) that decoders end in: Bernoulli, Gaussian, discretised logistic.

A head reads ``params`` numbers for each scalar of the data, a tensor (B, params, *shape), and data
in integer levels (or real values).

    head = make_head("bernoulli", levels=2)
    head.log_prob(out, x, u)        # nats, (B,)
    head.mean(out)                  # the picture to show, in the units of the data
    head.sample(out, generator)     # a draw, in the units of the data
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.gaussian import log_normal

HEADS = ("bernoulli", "gaussian", "dlogistic")
Likelihood = Literal["auto", "bernoulli", "gaussian", "dlogistic"]
MIN_LOG_VAR = -7.0  # or the density of a pixel that never changes diverges


class Bernoulli:
    """Binary data from logits: log P = Σ x ln π + (1 - x) ln(1 - π)."""

    params, dequantises = 1, False

    def log_prob(self, out: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        logits = out[:, 0]
        return (x * logits - F.softplus(logits)).flatten(1).sum(1)

    def mean(self, out: Tensor) -> Tensor:
        return (out[:, 0] > 0).to(out.dtype)

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (_rand(out[:, 0], generator) < torch.sigmoid(out[:, 0])).to(out.dtype)


class Gaussian:
    """Mean and log-variance of each scalar. Images are dequantised, v = 2(x + u)/L - 1, and
    log_prob is the lower bound log p(v) - D ln(L/2) of log P(x); real values (``levels`` None) have
    their density."""

    params = 2

    def __init__(self, levels: int | None) -> None:
        self.levels, self.dequantises = levels, levels is not None

    def log_prob(self, out: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        mu, log_var = self._split(out)
        if self.levels is None:
            return log_normal(x, mu, log_var).flatten(1).sum(1)
        if u is None:
            raise ValueError(
                "a gaussian likelihood of levels needs the dequantisation noise u, uniform on [0, "
                "1)"
            )
        v = 2 * (x + u) / self.levels - 1
        return (log_normal(v, mu, log_var) - math.log(self.levels / 2)).flatten(1).sum(1)

    def mean(self, out: Tensor) -> Tensor:
        return self._levels(self._split(out)[0])

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mu, log_var = self._split(out)
        eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        return self._levels(mu + (0.5 * log_var).exp() * eps)

    def _split(self, out: Tensor) -> tuple[Tensor, Tensor]:
        return out[:, 0], out[:, 1].clamp(min=MIN_LOG_VAR)

    def _levels(self, v: Tensor) -> Tensor:
        return (
            v
            if self.levels is None
            else ((v + 1) / 2 * self.levels).floor().clamp(0, self.levels - 1)
        )


class DiscretisedLogistic:
    """P(k) = σ((x_k - m + δ)/s) - σ((x_k - m - δ)/s) with x_k = 2k/(L-1) - 1, δ = 1/(L-1), the end
    levels taking the tails: a mass, which sums to one exactly. Parameters: m and log s."""

    params, dequantises = 2, False

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def log_prob(self, out: Tensor, x: Tensor, u: Tensor | None = None) -> Tensor:
        return self.log_mass(out[:, 0], self._log_scale(out), x).flatten(1).sum(1)

    def log_mass(self, m: Tensor, log_s: Tensor, x: Tensor) -> Tensor:
        """log P(x), elementwise."""
        delta, inverse = 1 / (self.levels - 1), (-log_s).exp()
        centred = 2 * delta * x - 1 - m
        upper, lower = (centred + delta) * inverse, (centred - delta) * inverse
        inner = (
            F.logsigmoid(upper)
            + F.logsigmoid(-lower)
            + torch.log(-torch.expm1(-(2 * delta * inverse).clamp(min=1e-30)))
        )
        return torch.where(
            x <= 0,
            F.logsigmoid(upper),
            torch.where(x >= self.levels - 1, F.logsigmoid(-lower), inner),
        )

    def mean(self, out: Tensor) -> Tensor:
        return self._levels(out[:, 0])

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r = _rand(out[:, 0], generator).clamp(1e-6, 1 - 1e-6)
        return self._levels(out[:, 0] + self._log_scale(out).exp() * torch.logit(r))

    def _log_scale(self, out: Tensor) -> Tensor:
        return out[:, 1].clamp(min=MIN_LOG_VAR)

    def _levels(self, v: Tensor) -> Tensor:
        return ((v + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1)


Head = Bernoulli | Gaussian | DiscretisedLogistic


def make_head(name: str, levels: int | None) -> Head:
    """The head of that name; "auto" is bernoulli for 2 levels, dlogistic for more, gaussian for
    real values.

    Raises:
        ValueError: the head does not fit the data.

    >>> make_head("auto", 2).log_prob(torch.zeros(1, 1, 3), torch.ones(1, 3)).exp()  # 1/2 each
    tensor([0.1250])
    >>> type(make_head("auto", 17)).__name__, type(make_head("auto", None)).__name__
    ('DiscretisedLogistic', 'Gaussian')
    """
    if name == "auto":
        name = "gaussian" if levels is None else "bernoulli" if levels == 2 else "dlogistic"
    if name not in HEADS:
        raise ValueError(
            f"likelihood is auto, {', '.join(HEADS[:-1])} or {HEADS[-1]}, got {name!r}"
        )
    if name == "bernoulli":
        if levels != 2:
            raise ValueError(
                f"a bernoulli likelihood is one of binary data only, got {levels} levels; "
                f"binarise them, or use dlogistic"
            )
        return Bernoulli()
    if name == "gaussian":
        return Gaussian(levels)
    if levels is None:
        raise ValueError("dlogistic models discrete data, got real values; use gaussian")
    return DiscretisedLogistic(levels)


def _rand(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
