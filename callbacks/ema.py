"""Averaged weights for evaluation, beside the trained ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from callbacks.report import Optioned
from zoo.core.ema import Average
from zoo.core.options import Decay, Positive, Whole


class EMA(Optioned):
    """Exponential moving average of one player's parameters, updated once per generator step.

    The other callbacks evaluate with it (``zoo.core.ema.averaged``); training never sees it. A
    checkpoint holds the trained weights in ``state_dict`` as ever, and the averages under ``ema``.
    Buffers are not averaged: an evaluation uses the current ones. (Lightning's WeightAveraging
    averages every player and their controllers' buffers, and ends the run with the averages as
    weights.)

    Args:
        decay: share of the old average kept at each step; 0 turns averaging off.
        player: whose parameters; by default "g" where there is one, else the player whose steps are
            the clock. Models without players average all parameters.
        start: until this generator step the average is a copy of the weights.
        halflife_images: if set, the decay is instead such that the weight of the past halves every
            so many training images.
        ramp: keep at most (1 + n)/(10 + n) of the past at the n-th average (TensorFlow's
            num_updates), so that a short run is not judged by its initial weights.
    """

    name = "ema"

    def __init__(
        self,
        decay: Decay = 0.999,
        player: str | None = None,
        start: Whole = 0,
        halflife_images: Positive | None = None,
        ramp: bool = True,
    ) -> None:
        self.decay, self.player, self.start, self.halflife_images, self.ramp = (
            decay,
            player,
            start,
            halflife_images,
            ramp,
        )
        self.average: Average | None = None
        self._stored: dict[str, Any] | None = None
        self._step, self._images = 0, 0.0

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        if stage == "fit" or (self.average is not None and not self.average.belongs_to(module)):
            self.average = None
        self._stored = None
        self._parameters(module)  # a wrong player fails before the first step

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if (
            self.average is None and self.decay
        ):  # not earlier: the model may initialise itself from the data
            self._begin(module)
            self._step, self._images = trainer.global_step, 0.0
        if self.halflife_images:
            minibatches = max(module.batches_per_step(trainer.global_step), 1)
            self._images += batch.n / minibatches * trainer.world_size

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.current_average(trainer, module)

    def current_average(self, trainer: Any, module: Any) -> Average | None:
        """The average including the latest step, whichever callback asks first; None before
        training.
        """
        if self.average is None and self._stored is not None:  # validation of a checkpoint
            self._begin(module)
            self._step = trainer.global_step
        elif self.average is not None and trainer.training and trainer.global_step != self._step:
            began = getattr(
                module, "began_at", 0
            )  # a stage that starts from new weights: its first average is a copy of them
            self.average.update(
                self._share(trainer.global_step - max(self.start, began + 1 if began else 0))
            )
            self._step, self._images = trainer.global_step, 0.0
        return self.average

    def describe(self, module: Any) -> dict[str, Any]:
        """What a protocol says about the averages."""
        halving = (
            {"halflife_images": self.halflife_images}
            if self.halflife_images
            else {"decay": self.decay}
        )
        return {
            "player": self._player(module) or "all",
            **halving,
            "start": self.start,
            "ramp": self.ramp,
        }

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            checkpoint["ema"] = {name: value.clone() for name, value in self.average.values.items()}

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        self._stored = checkpoint.get("ema") if self.decay else None
        self.average = None

    # -- parts ------------------------------------------------------------------------------------
    def _begin(self, module: Any) -> None:
        self.average = Average(self._parameters(module))
        if self._stored is not None:
            self.average.load(self._stored)
            self._stored = None

    def _share(self, n: int) -> float:
        """Of the old average kept at the n-th step of averaging."""
        if n <= 0:
            return 0.0
        share = 0.5 ** (self._images / self.halflife_images) if self.halflife_images else self.decay
        return min(share, (1 + n) / (10 + n)) if self.ramp else share

    def _player(self, module: Any) -> str | None:
        if not hasattr(module, "players"):
            return None
        players = module.players()
        player = self.player or ("g" if "g" in players else module.phases()[-1].player)
        if player not in players:
            raise ValueError(
                f"ema.player={player!r} is not a player of this model; choose one of "
                f"{', '.join(players)}"
            )
        return player

    def _parameters(self, module: Any) -> dict[str, nn.Parameter]:
        player = self._player(module)
        if player is None:
            return dict(module.named_parameters())
        mine = {id(p) for p in module.parameters_of(player)}
        return {name: p for name, p in module.named_parameters() if id(p) in mine}
