"""Averaged weights: what the EMA callback keeps, and the context in which the other callbacks
evaluate with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Exponential moving average of named parameters, kept in float32 or finer.

    Args:
        parameters: by their full names in the model; the average starts as a copy of them.
    """

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.parameters = parameters
        self.values = {
            k: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for k, p in parameters.items()
        }
        self._inside = False

    def belongs_to(self, module: nn.Module) -> bool:
        return {id(p) for p in self.parameters.values()} <= {id(p) for p in module.parameters()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """v <- decay v + (1 - decay) p; decay 0 copies."""
        values = [*self.values.values()]
        current = [
            p.detach().to(v.dtype) for p, v in zip(self.parameters.values(), values, strict=True)
        ]
        if decay == 0:
            for v, p in zip(values, current, strict=True):
                v.copy_(p)
        elif values:
            get_ema_multi_avg_fn(decay)(values, current, 0)

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        if set(values) != set(self.values):
            odd = sorted(set(values) ^ set(self.values))[:3]
            raise ValueError(
                f"the checkpoint averages other parameters than this run ({', '.join(odd)}, ...); "
                f"keep EMA's player"
            )
        for name, value in values.items():
            self.values[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averages inside, and afterwards its own weights again, bit for
        bit.
        """
        if self._inside:
            yield
            return
        kept = [p.detach().clone() for p in self.parameters.values()]
        self._inside = True
        try:
            self._put(self.values.values())
            yield
        finally:
            self._put(kept)
            self._inside = False

    @torch.no_grad()
    def _put(self, values: Any) -> None:
        for p, v in zip(self.parameters.values(), values, strict=True):
            p.data.copy_(v)


def average_of(trainer: Any, module: nn.Module) -> Average | None:
    """The up-to-date average that one of the trainer's callbacks keeps, None without such a
    callback.
    """
    for callback in getattr(trainer, "callbacks", []):
        if hasattr(callback, "current_average"):
            return callback.current_average(trainer, module)
    return None


@contextmanager
def averaged(trainer: Any, module: nn.Module) -> Iterator[bool]:
    """Evaluate with the averaged weights where the run keeps them; yields whether it does."""
    average = average_of(trainer, module)
    if average is None:
        yield False
    else:
        with average.applied():
            yield True
