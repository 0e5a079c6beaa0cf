"""Stochastic gradient Hamiltonian Monte Carlo, as an optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class SGHMC(Optimizer):
    """Samples weights θ from exp(-U(θ)/T), U the potential of all data, where the loss that is
    differentiated is U (Chen, Fox, Guestrin 2014, unit mass):

        v ← (1 - α) v - η ∇U(θ) + N(0, 2 α η T),    θ ← θ + v.

    With T = 0 that is gradient descent with momentum 1 - α. The first ``warm_up`` steps are Adam's,
    and leave no velocity behind.

    Args:
        params: the weights.
        eta: η, or a function that gives it, for where it follows from a number of rows not known
            yet.
        alpha: α, the friction. temperature: T.
        source: the noise of a step by its number, counted from 0: a generator on the weights'
            device, equal on all processes.
        warm_up: steps of Adam. lr, betas: Adam's rate and decays.

    >>> theta = torch.ones(1, requires_grad=True)
    >>> chain = SGHMC([theta], 0.5, 0.1, 0.0, lambda step: torch.Generator())
    >>> theta.square().sum().backward()
    >>> chain.step(); theta.item()
    0.0
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        eta: float | Callable[[], float],
        alpha: float,
        temperature: float,
        source: Callable[[int], torch.Generator],
        *,
        warm_up: int = 0,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        super().__init__(params, {"lr": lr, "steps": 0})
        self.eta = eta if callable(eta) else lambda: eta
        self.alpha, self.temperature, self.source = alpha, temperature, source
        self.warm_up, self.betas = warm_up, betas

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            step, group["steps"] = group["steps"], group["steps"] + 1
            moved = [p for p in group["params"] if p.grad is not None]
            if step < self.warm_up:
                for p in moved:
                    self._adam(p, step + 1, group["lr"])
            else:
                self._sample(moved, step)
        return loss

    def _adam(self, p: Tensor, t: int, lr: float) -> None:
        (b1, b2), state, grad = self.betas, self.state[p], p.grad
        if not state:
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        state["mean"].lerp_(grad, 1 - b1)
        state["square"].mul_(b2).addcmul_(grad, grad, value=1 - b2)
        deviation = (state["square"] / (1 - b2**t)).sqrt_().add_(1e-8)
        p.addcdiv_(state["mean"], deviation, value=-lr / (1 - b1**t))

    def _sample(self, params: list[Tensor], step: int) -> None:
        eta, g = self.eta(), self.source(step)
        sigma = (2 * self.alpha * eta * self.temperature) ** 0.5
        for p in params:
            state = self.state[p]
            if "v" not in state:
                state.clear()
                state["v"] = torch.zeros_like(p)
            xi = torch.randn(p.shape, generator=g, device=p.device, dtype=p.dtype)
            state["v"].mul_(1 - self.alpha).add_(p.grad, alpha=-eta).add_(xi, alpha=sigma)
            p.add_(state["v"])
