"""One bar for the whole run, in generator steps."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from callbacks import patience


class Progress(TQDMProgressBar):
    """Lightning's bar, named after the model, refreshed every 20 steps, sooner where these take
    their time, without a bar for each validation.
    """

    shown = 0.0  # when it was refreshed

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)

    @property
    def train_description(self) -> str:
        module: Any = self.trainer.lightning_module
        entry = getattr(module, "entry", None)
        return entry.name if entry is not None else type(module).__name__

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        bar, name, start = self.train_progress_bar, self.train_description, 0
        total: float | None = trainer.num_training_batches
        if trainer.max_epochs not in (None, -1):
            name += f", epoch {trainer.current_epoch}"
        elif trainer.max_steps > 0:  # a resumed run goes on where it was in the whole
            total = trainer.max_steps * trainer.accumulate_grad_batches
            start = trainer.global_step * trainer.accumulate_grad_batches
        bar.set_description(name, refresh=False)
        bar.reset(None if total == float("inf") else total)
        bar.n = bar.initial = start
        bar.refresh()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        bar, now = self.train_progress_bar, time.monotonic()
        if bar.n != batch_idx + 1 and now - self.shown > patience.SECONDS:
            bar.n = batch_idx + 1
            bar.set_postfix(self.get_metrics(trainer, module))
        if bar.n == batch_idx + 1:
            self.shown = now

    def init_train_tqdm(self) -> Tqdm:
        return Tqdm(
            desc=self.train_description,
            position=2 * self.process_position,
            disable=self.is_disabled,
            leave=True,
            dynamic_ncols=True,
            file=_Screen(sys.stdout),
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        return {
            k.removeprefix("train/"): v
            for k, v in super().get_metrics(trainer, module).items()
            if k != "v_num"
        }


class _Screen:
    """A terminal or pipe that may be closed while the run goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
