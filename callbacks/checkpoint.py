"""Checkpoints that can be trusted: last and best, whole at every moment, and nothing left out."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.best import Best
from callbacks.nan_guard import last_good, spoilt
from callbacks.report import Optioned
from callbacks.stop import Stop, going_on
from zoo.core.files import PART, save_whole
from zoo.core.lightning import (
    last_step,
    let_in,
    stop_after_this_step,
    validate_now,
    validation_follows,
)
from zoo.core.module import NonFiniteLoss
from zoo.core.options import Count

# steps between two looks at whether any process was told to stop, where a look waits for the GPU
LISTEN = 20


class WholeFiles(TorchCheckpointIO):
    """Writes beside the target and replaces it. (Lightning's writes in TMPDIR and moves, which is a
    copy over the old file where that is another file system.)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        save_whole(checkpoint, path)


class Checkpoints(Optioned, Checkpoint):
    """Keeps ``checkpoints/last.ckpt`` and ``checkpoints/best.ckpt`` of the run folder.

    ``last`` is written every ``every_n_steps`` generator steps, before each validation, at the end,
    and when the run is told to stop (Ctrl-C, SIGTERM, a hangup); ``best`` follows a validation
    metric. Neither is written with a parameter that is not finite: that ends the run.

    A checkpoint says whether the validation of its step is still to be done, and whether the run
    was at its end: a resumed run first does what is owed. (Lightning's ModelCheckpoint warns about
    and defers saves under manual optimisation, and would save the state that a NaN has spoilt.)

    Args:
        every_n_steps: generator steps between saves of ``last``.
        monitor: a logged metric, or "auto": the likelihood, else the first Fréchet distance, else
            the share of good samples.
        mode: "min", "max", or "auto" for the metric's own direction.

    Raises:
        NonFiniteLoss: a parameter or buffer is not finite when it is to be saved.
        OSError: the state at the end of the run cannot be written. During the run that is a
            warning.
    """

    name = "checkpoints"

    def __init__(
        self, every_n_steps: Count = 500, monitor: str = "auto", mode: str = "auto"
    ) -> None:
        super().__init__()
        self.every_n_steps, self.best = every_n_steps, Best(monitor, mode)
        self._stop = Stop()
        self._step = self._saved_at = -1
        self._owed = self._ended = False  # of the step at hand: its validation; the run's end
        self._row: dict[str, float] = {}  # of the step, which Lightning logs after it is saved
        self._odd: set[str] = set()  # buffers that are not finite by design, such as masks
        self._max_steps = -1  # where it was raised to let a run in that is done
        self._trouble = ""

    # -- a run begins, and ends -------------------------------------------------------------------
    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        state, step = checkpoint.get("callbacks", {}), checkpoint["global_step"]
        state = state.get(self.state_key, {})
        done = 0 < trainer.max_steps <= step
        self._owed = state.get("owed", False) or (done and not state.get("ended", True))
        if done and self._owed:
            self._max_steps = trainer.max_steps
            let_in(trainer, step + 1)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop.listen(trainer)  # before loaders' workers are made, which take after it

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._stop.listen(trainer)  # Lightning has set a handler of its own for SIGTERM
        self._odd = {n for n, b in module.named_buffers() if spoilt({n: b})}
        self._step, self._ended = trainer.global_step, False
        if trainer.is_global_zero:
            run = Path(trainer.default_root_dir)
            for folder in (run, run / "checkpoints", run / "samples"):
                for part in folder.glob(PART):
                    part.unlink(missing_ok=True)
            for logger in trainer.loggers if self._step else []:
                if hasattr(logger, "resume"):
                    again = self._owed and trainer.enable_validation
                    logger.resume(self._step, self._row, again)
        if self._owed:
            self._do_what_is_owed(trainer)

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self._stop.leave()
        if not isinstance(exception, SIGTERMException):
            return
        told = signal.Signals(self._stop.noted or signal.SIGTERM)
        exception.code = 128 + told  # the exit status, as the shell would say it
        if trainer.global_step != self._saved_at:
            try:
                self._save(trainer, "last.ckpt")
            except NonFiniteLoss as error:
                self._trouble = str(error)
        last = self._folder(trainer) / "last.ckpt"
        how = f"could not be saved ({self._trouble})" if self._trouble else f"saved {last}"
        goes_on = f"; this goes on:\n    {going_on(last)}" if last.is_file() else ""
        rank_zero_info(
            f"{told.name} at step {trainer.global_step}: {how}; the run is in "
            f"{trainer.default_root_dir}{goes_on}"
        )

    def on_train_end(self, trainer: Any, module: LightningModule) -> None:
        self._owed, self._ended = False, True
        self._save(trainer, "last.ckpt")
        if self._trouble:
            last = self._folder(trainer) / "last.ckpt"
            raise OSError(
                f"the end of the run, step {trainer.global_step}, could not be saved: "
                f"{self._trouble}. Make room, or mend the disk"
                + (f", and go on from {last}: {going_on(last)}" if last.is_file() else "")
            )

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._stop.leave()

    # -- a step, a validation ---------------------------------------------------------------------
    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        self._listen(trainer, step)
        if step == self._step:  # a minibatch of an accumulated step
            return
        self._step, self._owed = step, validation_follows(trainer)
        if self._owed or step % self.every_n_steps == 0 or last_step(trainer):
            self._save(trainer, "last.ckpt")

    def on_validation_end(self, trainer: Any, module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if missing := self.best.missing(trainer.callback_metrics):
            rank_zero_warn(missing)
        self._owed, former = False, (self.best.score, self.best.metric)
        if self.best.beaten(trainer.callback_metrics) and not self._save(trainer, "best.ckpt"):
            self.best.score, self.best.metric = former
        if self._saved_at == trainer.global_step and not trainer.should_stop:
            self._save(trainer, "last.ckpt")  # what it knows of the best is new

    # -- state ------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        return {
            "best_score": self.best.score,
            "best_metric": self.best.metric,
            "owed": self._owed,
            "ended": self._ended,
            "row": self._row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best.score, self.best.metric = state["best_score"], state["best_metric"]
        self._row = state.get("row", {})

    # -- parts ------------------------------------------------------------------------------------
    def _do_what_is_owed(self, trainer: Any) -> None:
        """The validation that belongs to the checkpoint's step."""
        if 0 < self._max_steps <= trainer.global_step:
            let_in(trainer, self._max_steps)
        over = 0 < (trainer.max_epochs or -1) <= trainer.current_epoch
        trainer.should_stop = over or 0 < trainer.max_steps <= trainer.global_step
        self._saved_at = trainer.global_step
        if trainer.enable_validation:
            validate_now(trainer)

    def _listen(self, trainer: Any, step: int) -> None:
        """Stop where this process, or any, was told to."""
        told = self._stop.noted
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            if device.type != "cpu" and step % LISTEN:
                return
            word = torch.tensor(float(told), device=device)
            told = int(trainer.strategy.reduce(word, reduce_op="max"))
        if told:
            self._stop.noted = told  # a signal may have come since it was read: only ever set it
            stop_after_this_step(trainer)

    def _save(self, trainer: Any, name: str) -> bool:
        """Whether it is saved. All processes call it; the first one writes. A disk that fails is
        said once, and again when it has changed its mind.
        """
        if trainer.fast_dev_run:
            return True
        self._look(trainer)
        if terms := getattr(trainer.lightning_module, "terms", {}):  # none before the first step
            logged = trainer.global_step % max(trainer.log_every_n_steps, 1) == 0
            self._row = {f"train/{k}": float(v.float()) for k, v in terms.items() if logged}
        path, failed = self._folder(trainer) / name, ""
        try:
            trainer.save_checkpoint(path, weights_only=False)
        except OSError as error:  # of the first process; the others wait at the end of the save
            failed = f"{path}: {error.strerror or error}"
            trainer.strategy.barrier("failed save")
        failed = trainer.strategy.broadcast(failed)
        if failed and not self._trouble and not self._ended:
            rank_zero_warn(
                f"step {trainer.global_step} cannot be saved to {failed}; the former file is kept, "
                f"and training goes on. Make room on the disk, or make it writable"
            )
        if self._trouble and not failed:
            rank_zero_info(f"step {trainer.global_step} is saved to {path} again")
        self._trouble = failed
        if name == "last.ckpt" and not failed:
            self._saved_at = trainer.global_step
        return not failed

    def _look(self, trainer: Any) -> None:
        """Raise a ``NonFiniteLoss`` on all processes where one has a tensor that is not finite."""
        tensors = trainer.lightning_module.state_dict()
        name = spoilt({k: v for k, v in tensors.items() if k not in self._odd})
        bad = bool(name)
        if trainer.world_size > 1:
            word = torch.tensor(float(bad), device=trainer.strategy.root_device)
            bad = bool(trainer.strategy.reduce(word, reduce_op="max"))
        if bad:
            raise NonFiniteLoss(
                f"step {trainer.global_step}: {name or 'a tensor of another process'} is not "
                f"finite, though the losses looked at are; this state is not saved. Lower the "
                f"learning rate or clip gradients{last_good(trainer)}"
            )

    @staticmethod
    def _folder(trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"
