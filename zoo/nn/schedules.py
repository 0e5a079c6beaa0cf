"""How rates and momenta change while a game is played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def goodfellow(
    optimisers: Mapping[str, Optimizer],
    decay: float,
    momenta: tuple[float, float],
    steps: int,
    k: int,
) -> dict[str, LRScheduler]:
    """``DecayAndMomentum`` of both players.

    Args:
        momenta: the first and the last. steps: of the generator until the last is reached; the
            discriminator makes k in each.
    """
    return {
        p: DecayAndMomentum(o, decay, *momenta, k * steps if p == "d" else steps)
        for p, o in optimisers.items()
    }


class DecayAndMomentum(LRScheduler):
    """Goodfellow et al.'s SGD: the rate divided by ``decay`` at each step down to ``lowest``, the
    momentum rising linearly.

    Args:
        first, last: the momentum at the start, and from step ``steps`` on.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decay: float,
        first: float,
        last: float,
        steps: int,
        lowest: float = 1e-6,
    ) -> None:
        self.decay, self.first, self.last, self.steps, self.lowest = (
            decay,
            first,
            last,
            steps,
            lowest,
        )
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        momentum = self.first + (self.last - self.first) * min(
            self.last_epoch / max(self.steps, 1), 1.0
        )
        for group in self.optimizer.param_groups:
            group["momentum"] = momentum
        return [max(rate * self.decay**-self.last_epoch, self.lowest) for rate in self.base_lrs]
