"""How rates and momenta change while a game is played."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def goodfellow(
    optimisers: Mapping[str, Optimizer],
    decay: float,
    momenta: tuple[float, float],
    cycles: int,
    steps_of: Callable[[str], int],
) -> dict[str, LRScheduler]:
    """``DecayAndMomentum`` of every player.

    Args:
        momenta: the first and the last. cycles: until the last is reached. steps_of: a player's
            steps in a cycle, k for the discriminator.

    >>> import torch
    >>> sgd = torch.optim.SGD([torch.zeros(1)], 0.1, momentum=0.5)
    >>> schedule = goodfellow({"g": sgd}, 2.0, (0.5, 0.7), 2, lambda player: 1)["g"]
    >>> sgd.step()
    >>> schedule.step()
    >>> sgd.param_groups[0]["lr"], sgd.param_groups[0]["momentum"]  # halved, and half of the way
    (0.05, 0.6)
    """
    return {
        p: DecayAndMomentum(o, decay, *momenta, cycles * steps_of(p)) for p, o in optimisers.items()
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
        self.decay, self.first, self.last = decay, first, last
        self.steps, self.lowest = steps, lowest
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        momentum = self.first + (self.last - self.first) * min(
            self.last_epoch / max(self.steps, 1), 1.0
        )
        for group in self.optimizer.param_groups:
            group["momentum"] = momentum
        return [max(rate * self.decay**-self.last_epoch, self.lowest) for rate in self.base_lrs]
