"""Learning rates that fall to zero as the run's budget ends, be it steps or time."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Timer

from callbacks.report import Optioned
from zoo.core.options import Dropped


class LinearDecay(Optioned):
    """Every rate stays until a share of the budget is spent, then falls linearly to 0 at its end.

    The budget is ``--trainer.max_steps`` or ``--trainer.max_time``, whichever is nearer its end.
    Where time decides, the rates follow the clock, so that no run repeats another to the bit. The
    rate of the start stands in the optimiser as ``initial_lr``, and with it in checkpoints.

    Args:
        hold: share of the budget before the rates begin to fall.
    """

    name = "linear_decay"

    def __init__(self, hold: Dropped = 0.0) -> None:
        self.hold = hold

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if trainer.lr_scheduler_configs:
            raise ValueError(
                f"linear_decay: {module.model_name} has a schedule of its own, and both would set "
                "its rates; leave callbacks.LinearDecay out of --trainer.callbacks"
            )
        if not self.spent(trainer):
            raise ValueError(
                f"linear_decay: max_steps={trainer.max_steps} without max_time is a run without an "
                "end; say --trainer.max_steps=N or --trainer.max_time=D:H:M:S"
            )

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        left = max(1 - max(self.spent(trainer)), 0.0)
        factor = min(left / (1 - self.hold), 1.0)
        for optimiser in trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def spent(self, trainer: Any) -> list[float]:
        """Shares of the steps and of the time that may be had, the same in every process."""
        shares = [trainer.global_step / trainer.max_steps] if trainer.max_steps > 0 else []
        for timer in (c for c in trainer.callbacks if isinstance(c, Timer)):
            gone, left = timer.time_elapsed(), timer.time_remaining()
            if left is not None:
                shares.append(trainer.strategy.broadcast(gone / (gone + left)))
        return shares
