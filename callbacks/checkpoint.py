"""Checkpoints that can be trusted: last and best, written atomically, on the generator's clock."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from zoo.core.lightning import stop_after_this_step

# What "best" means, by the first of these that validation has logged; a name ending in _ is a
# prefix.
PREFERENCES = (
    ("val/nll_nats", "min"),
    ("val/elbo", "max"),
    ("val/fid", "min"),
    ("val/fid_", "min"),
    ("val/hq", "max"),
    ("val/loss", "min"),
)

# steps between two looks at whether any process was told to stop, where a look waits for the GPU
LISTEN = 20


class Checkpoints(Checkpoint):
    """Keeps ``checkpoints/last.ckpt`` and ``checkpoints/best.ckpt`` of the run folder.

    ``last`` is written every ``every_n_steps`` generator steps, at the end, and when the job is
    told to stop (SIGTERM), never after a non-finite loss. ``best`` follows a validation metric.
    (Lightning's ModelCheckpoint warns about and defers saves under manual optimisation, and would
    save the state that a NaN has spoilt.)

    Args:
        every_n_steps: generator steps between saves of ``last``.
        monitor: a logged metric, or "auto": the likelihood, else the first Fréchet distance, else
            the share of good samples.
        mode: "min" or "max" for an explicit ``monitor``.
    """

    def __init__(self, every_n_steps: int = 500, monitor: str = "auto", mode: str = "min") -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"checkpoints.every_n_steps is at least 1, got {every_n_steps}")
        if mode not in ("min", "max"):
            raise ValueError(f"checkpoints.mode is min or max, got {mode!r}")
        self.every_n_steps, self.monitor, self.mode = every_n_steps, monitor, mode
        self.best_score: float | None = None
        self.best_metric = ""
        self._saved_at = -1
        self._told = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        # Lightning broadcasts from inside its signal handler; a signal that finds the processes at
        # different steps makes them wait
        # for each other for ever. So with several, the handler only takes note, and they agree
        # after a step.
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self._note(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, device = trainer.global_step, trainer.strategy.root_device
        if trainer.world_size > 1 and (device.type == "cpu" or step % LISTEN == 0):
            told = trainer.strategy.reduce(
                torch.tensor(float(self._told), device=device), reduce_op="sum"
            )
            if told > 0:
                stop_after_this_step(trainer)
        if step != self._saved_at and (
            step % self.every_n_steps == 0 or step >= trainer.max_steps > 0
        ):
            self._save(trainer, "last.ckpt")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        name, mode = self._monitored(trainer.callback_metrics)
        if not name:
            return
        score = float(trainer.callback_metrics[name])
        better = self.best_score is None or (
            score < self.best_score if mode == "min" else score > self.best_score
        )
        if better and torch.isfinite(torch.tensor(score)):
            self.best_score, self.best_metric = score, name
            self._save(trainer, "best.ckpt")
            if (
                self._saved_at == trainer.global_step
            ):  # this step's last.ckpt was written before the score was known
                self._save(trainer, "last.ckpt")

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, SIGTERMException) and trainer.global_step != self._saved_at:
            self._save(trainer, "last.ckpt")
            rank_zero_info(
                f"told to stop at step {trainer.global_step}: saved "
                f"{self._folder(trainer) / 'last.ckpt'}"
            )

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.global_step != self._saved_at:
            self._save(trainer, "last.ckpt")

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_metric": self.best_metric}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_score, self.best_metric = state["best_score"], state["best_metric"]

    def _note(self, trainer: Trainer) -> None:
        if trainer.strategy.launcher is not None and not self._told:
            trainer.strategy.launcher.kill(
                signal.SIGTERM
            )  # pass it on to the processes that Lightning started
        self._told = True

    def _save(self, trainer: Any, name: str) -> None:
        if trainer.fast_dev_run:
            return
        trainer.save_checkpoint(self._folder(trainer) / name)
        if name == "last.ckpt":
            self._saved_at = trainer.global_step

    def _folder(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"

    def _monitored(self, metrics: dict[str, Any]) -> tuple[str, str]:
        if self.monitor != "auto":
            return (self.monitor if self.monitor in metrics else "", self.mode)
        if self.best_metric in metrics:
            wanted = self.best_metric
            return wanted, next(
                m
                for n, m in PREFERENCES
                if wanted == n or (n.endswith("_") and wanted.startswith(n))
            )
        for wanted, mode in PREFERENCES:
            found = sorted(
                m for m in metrics if m == wanted or (wanted.endswith("_") and m.startswith(wanted))
            )
            found.sort(key=lambda m: m.endswith("_pixels"))  # a learned extractor before raw pixels
            if found:
                return found[0], mode
        return "", ""
