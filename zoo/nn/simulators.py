"""Simulators: what is easy to draw from and has no density that one could write down."""

from __future__ import annotations

import torch
from torch import Tensor

EVERY = 0.2  # time between two observations
SMALL = 20.0  # a population whose growth counts half
STEPS = 2  # of the equation between them, in the data and in the model of them


def lotka_volterra(
    rates: Tensor, noise: Tensor, start: tuple[float, float] = (50.0, 100.0)
) -> Tensor:
    """Populations of predators X and prey Y, (..., T, 2), at times 0.2, 0.4, ...: the chemical
    Langevin equation by Euler and Maruyama of the four reactions (Wilkinson 2011)

        X is born at rate θ₁ X Y,  X dies at θ₂ X,  Y is born at θ₃ Y,  Y is eaten at θ₄ X Y.

    Args:
        rates: θ > 0, (..., 4). noise: standard normal, (..., T, steps, 4): steps of the equation
            between two observations.

    >>> still = torch.zeros(30, 2, 4)  # without noise, at the fixed point X = θ₃/θ₄, Y = θ₂/θ₁
    >>> path = lotka_volterra(torch.tensor([0.01, 0.5, 1.0, 0.01]), still, (100.0, 50.0))
    >>> path.shape, path[-1]
    (torch.Size([30, 2]), tensor([100.,  50.]))
    """
    dt = EVERY / noise.shape[-2]
    x, y = (torch.full_like(rates[..., 0], v) for v in start)
    observed = []
    for t in range(noise.shape[-3]):
        for s in range(noise.shape[-2]):
            # (..., 4)
            expected = dt * rates * torch.stack([x * y, x, y, x * y], -1)
            born_x, dead_x, born_y, dead_y = (
                expected + expected.sqrt() * noise[..., t, s, :]
            ).unbind(-1)
            x = (x + born_x - dead_x).clamp(0, 1e4)
            y = (y + born_y - dead_y).clamp(0, 1e4)
        observed.append(torch.stack([x, y], -1))
    return torch.stack(observed, -2)


def unexpected_growth(logs: Tensor, rates: Tensor) -> Tensor:
    """How far populations grow otherwise than rates expect, (..., 8): for predators and prey the
    mean over time of e, of e z, of e² and of (e z)², with

        e = (Δ log x / 0.2 - the rates' growth) x / (x + 20),  z the other population in hundreds,

    x and z midway between two observations; the rates' growth is θ₁ Y - θ₂ and θ₃ - θ₄ X.

    Args:
        logs: log(1 + x), (..., T, 2). rates: θ, (..., 4).

    >>> still = torch.tensor([100.0, 50.0]).log1p().expand(30, 2)  # of the fixed point
    >>> unexpected_growth(still, torch.tensor([0.01, 0.5, 1.0, 0.01])).abs().max() < 1e-5
    tensor(True)
    """
    growth, x = logs.diff(dim=-2) / EVERY, logs.expm1()
    x = (x[..., 1:, :] + x[..., :-1, :]) / 2
    other, (a, b, c, d) = x.flip(-1), rates[..., None, :].unbind(-1)
    expected = torch.stack([a * other[..., 0] - b, c - d * other[..., 1]], -1)
    e = (growth - expected) * x / (x + SMALL)
    parts = [e, e * other / 100, e.square(), (e * other / 100).square()]
    return torch.cat([v.mean(-2) for v in parts], -1)
