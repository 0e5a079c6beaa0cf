"""Stops a run at the first non-finite loss, before a checkpoint is written, and says which term it
was.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from callbacks.report import Optioned
from zoo.core import checkpoint
from zoo.core.lightning import last_step
from zoo.core.module import NonFiniteLoss
from zoo.core.options import Count


class NaNGuard(Optioned):
    """Looks at the scalars of the training step just done. Lightning runs checkpoint callbacks
    after all others, so none saves it; ``Checkpoints`` looks at the weights whenever it saves.

    Args:
        every_n_steps: generator steps between looks on a GPU, where each look waits for the device
            (the run's last step is always looked at). Elsewhere every step.
    """

    name = "nan_guard"

    def __init__(self, every_n_steps: Count = 10) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        terms, step = getattr(module, "terms", {}), trainer.global_step
        seldom = module.device.type == "cuda" and step % self.every_n_steps
        if not terms or (seldom and not last_step(trainer)):
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
        return (
            f"step {trainer.global_step}: {', '.join(odd) or 'a term of another process'} is not "
            f"finite"
            + (f" (the others: {', '.join(rest)})" if rest else "")
            + f". Lower the learning rate or clip gradients{last_good(trainer)}"
        )


def spoilt(tensors: Mapping[str, Tensor]) -> str:
    """The first name whose tensor has an entry that is not finite; "" if none has."""
    floating = {
        k: v.detach()
        for k, v in tensors.items()
        if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex())
    }
    if not floating:
        return ""
    device = next(iter(floating.values())).device  # it is asked once
    finite = torch.stack([v.isfinite().all().to(device) for v in floating.values()]).tolist()
    return next((k for k, good in zip(floating, finite, strict=True) if not good), "")


def last_good(trainer: Any) -> str:
    """Where to go on from: ``last.ckpt``, if it is there and its parameters are finite; else ""."""
    path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    try:
        saved = checkpoint.read(path)["state_dict"]
    except (ValueError, OSError):
        return ""
    if spoilt({k: saved[k] for k, _ in trainer.lightning_module.named_parameters() if k in saved}):
        return ""
    return f"; the last good state is {path} (--ckpt_path={path})"
