"""The only file that touches private names of Lightning; a test pins it to the version it was read
in.

Whatever else the zoo needs of Lightning is public.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import lightning.fabric  # noqa: F401 - it sets what is set anew below
import torch

if not torch.cuda.is_available():
    # Lightning lets torch ask the driver's library each time that it wants to know, as each step of
    # an optimiser does; where there is no GPU, the runtime's answer costs a hundredth.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


class Clock:
    """The optimisers of one training step under manual optimisation, all silent but for one tick.

    Lightning counts every ``LightningOptimizer.step`` as a global step; a cycle of many is to count
    one. Silenced optimisers step as ever and are not counted.

    Args:
        optimisers: of all players. ticking: the one whose last step counts.
    """

    def __init__(self, optimisers: Iterable[Any], ticking: Any) -> None:
        self._ticking = ticking
        self._hooks = (ticking._on_before_step, ticking._on_after_step)
        for optimiser in optimisers:
            optimiser._on_before_step = optimiser._on_after_step = _silent

    def tick(self) -> None:
        """Count the next step."""
        self._ticking._on_before_step, self._ticking._on_after_step = self._hooks


def attached(module: Any) -> bool:
    """Whether a module is in a trainer's hands; ``module.trainer`` raises where it is not."""
    return module._trainer is not None


def stop_after_this_step(trainer: Any) -> None:
    """As a signal to terminate would: the trainer saves, stops and says so."""
    trainer._signal_connector.received_sigterm = True


def validation_follows(trainer: Any) -> bool:
    """Whether the training step just done is followed by a validation. Asked in
    ``on_train_batch_end``.
    """
    loop = trainer.fit_loop
    due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
    return due or (last_step(trainer) and trainer.enable_validation)


def last_step(trainer: Any) -> bool:
    """Whether the training step just done is the last by ``max_steps`` or ``max_epochs``."""
    by_steps = 0 < trainer.max_steps <= trainer.global_step
    epochs = trainer.max_epochs or -1
    return by_steps or (trainer.is_last_batch and 0 < epochs <= trainer.current_epoch + 1)


def validate_now(trainer: Any) -> None:
    """A validation within ``fit``, before its first step."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    loop.reset_restart_stage()
    trainer.validating = True
    loop.run()
    trainer.training = True


def let_in(trainer: Any, max_steps: int) -> None:
    """Set ``max_steps``. A trainer whose steps are done calls no hook at all; with one step more,
    until ``on_train_start``, it does what belongs to the end of a run.
    """
    trainer.fit_loop.epoch_loop.max_steps = max_steps


def _silent() -> None:
    pass
