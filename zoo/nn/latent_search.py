"""Search in a latent space: the code of least cost for each row, by Adam from several starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def latent_search(
    cost: Callable[[Tensor], Tensor],
    starts: Tensor,
    steps: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> tuple[Tensor, Tensor]:
    """The codes after ``steps`` steps, (B, latent), and their costs, (B,): of each row that start
    which ended best.

    What is differentiated is the sum over rows, and Adam moves each number by itself, so a row
    finds the same code whatever its companions are. Nothing but the codes changes.

    Args:
        cost: of codes (B, latent), one value a row, (B,), that depends on this row alone.
        starts: (restarts, B, latent). lr, betas: Adam's.

    >>> target = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    >>> far = lambda z: (z - target).square().sum(1)
    >>> z, left = latent_search(far, torch.zeros(1, 2, 2), steps=300, lr=0.1)
    >>> bool((z - target).abs().max() < 0.01), left.shape
    (True, torch.Size([2]))
    """
    found = []
    for start in starts:
        z = start.detach().clone().requires_grad_()
        adam = torch.optim.Adam([z], lr, betas)
        with torch.enable_grad():
            for _ in range(steps):
                (z.grad,) = torch.autograd.grad(cost(z).sum(), z)
                adam.step()
        with torch.no_grad():
            found.append((z.detach(), cost(z).detach()))
    codes, costs = (torch.stack(values) for values in zip(*found, strict=True))
    best = costs.argmin(0)
    rows = torch.arange(len(best), device=best.device)
    return codes[best, rows], costs[best, rows]
