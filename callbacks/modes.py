"""How many components of a toy mixture the samples reach."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback

from callbacks.report import can, log_scalars
from zoo.core.ema import averaged
from zoo.core.sampling import classes_in_turn, draw
from zoo.metrics.modes import mode_coverage


class ModeCoverage(Callback):
    """``val/modes``, ``val/hq`` and ``val/hq_strict`` at every validation, for data that publish
    their ``centres``; else silent.

    For a model conditioned on the class there is also ``val/own_mode``, the share of samples
    nearest to the centre of their own label; labels come in turn.

    Every process draws the same samples, so all agree without talking.

    Args:
        n: samples. radius: what is near a centre. least: samples near it that a component must
            receive. seed: of the samples.
    """

    def __init__(self, n: int = 2500, radius: float = 0.3, least: int = 20, seed: int = 0) -> None:
        self.n, self.radius, self.least, self.seed = n, radius, least, seed

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        data = trainer.datamodule
        centres = getattr(data, "centres", None)
        if (
            trainer.sanity_checking
            or centres is None
            or module.spec.is_image
            or not can(module, "sample")
        ):
            return
        y = classes_in_turn(module, self.n)
        with torch.inference_mode(False), averaged(trainer, module):
            x = draw(module, self.n, self.seed, y=y)
        values = mode_coverage(x, centres, data.std, self.radius, self.least)
        if y is not None:
            values["own_mode"] = (
                (torch.cdist(x, centres.to(x)).argmin(1).cpu() == y).double().mean()
            )
        log_scalars(trainer, module, {f"val/{k}": float(v) for k, v in values.items()})
