"""One bar for the whole run, in generator steps."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class Progress(TQDMProgressBar):
    """Lightning's bar, named after the model, refreshed every 20 steps, without a bar for each
    validation.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, module)
        entry = getattr(module, "entry", None)
        name = entry.name if entry is not None else type(module).__name__
        single = trainer.max_epochs in (None, -1)
        self.train_progress_bar.set_description(
            name if single else f"{name}, epoch {trainer.current_epoch}"
        )

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
