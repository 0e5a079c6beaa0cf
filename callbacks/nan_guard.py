"""Stops a run at the first non-finite loss, before a checkpoint is written, and says which term it
was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from zoo.core.module import NonFiniteLoss


class NaNGuard(Callback):
    """Looks at the scalars of the training step just done. Lightning runs checkpoint callbacks
    after all others, so none saves it.

    Args:
        every_n_steps: generator steps between looks on a GPU, where each look waits for the device
            (the run's last step is always looked at). Elsewhere every step.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        if every_n_steps < 1:
            raise ValueError(f"nan_guard.every_n_steps is at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        terms, step = getattr(module, "terms", {}), trainer.global_step
        last = step >= trainer.max_steps > 0
        if not terms or (module.device.type == "cuda" and step % self.every_n_steps and not last):
            return
        values = torch.stack([v.detach().float().sum() for v in terms.values()])
        bad = (~values.isfinite()).any().float()
        if trainer.world_size > 1:  # all stop together, or the others would wait for ever
            bad = trainer.strategy.reduce(bad, reduce_op="sum")
        if bad:
            raise NonFiniteLoss(self._message(trainer, {k: float(v) for k, v in terms.items()}))

    @staticmethod
    def _message(trainer: Any, terms: dict[str, float]) -> str:
        odd = [f"{k}={v}" for k, v in terms.items() if not torch.isfinite(torch.tensor(v))]
        rest = [f"{k}={v:.4g}" for k, v in terms.items() if torch.isfinite(torch.tensor(v))]
        good = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        resume = f"; the last good state is {good} (--ckpt_path={good})" if good.is_file() else ""
        return (
            f"step {trainer.global_step}: {', '.join(odd) or 'a term of another process'} is not "
            f"finite"
            + (f" (the others: {', '.join(rest)})" if rest else "")
            + f". Lower the learning rate or clip gradients{resume}"
        )
