"""What the tests share: a bare trainer, small data, and a game played by hand."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything

from zoo.data.base import Split, ZooDataModule


def fit(model: LightningModule, data: LightningDataModule, steps: int, **options: Any) -> Trainer:
    """Train without logger, bar or checkpoints for ``steps`` generator steps, and return the trainer."""
    ckpt_path = options.pop("ckpt_path", None)
    trainer = Trainer(
        **{
            "max_steps": steps, "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "limit_val_batches": 0,
            "check_val_every_n_epoch": None, "val_check_interval": 10**9, "use_distributed_sampler": False, **options,
        }
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


class Given(ZooDataModule):
    """A data module over given tensors; the same rows serve as train, val and test."""

    def __init__(self, spec: Any, x: torch.Tensor, y: torch.Tensor | None = None, batch_size: int = 4, **options: Any) -> None:
        super().__init__(batch_size, **options)
        self._spec, self._x, self._y = spec, x, y

    @property
    def spec(self) -> Any:
        return self._spec

    def load(self) -> dict[str, Split]:
        split = {"x": self._x} if self._y is None else {"x": self._x, "y": self._y}
        return {"train": split, "val": split, "test": split}


def seeded(seed: int = 0) -> None:
    seed_everything(seed, verbose=False)
