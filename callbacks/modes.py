"""How many components of a toy mixture the samples reach."""

from __future__ import annotations

from typing import Any

import torch

from callbacks.report import Observer, can, log_scalars
from zoo.core.draw import draw, tell
from zoo.core.ema import averaged
from zoo.core.options import Count, Positive, Whole
from zoo.core.spec import Vector
from zoo.metrics.modes import mode_coverage


class ModeCoverage(Observer):
    """``val/modes``, ``val/hq`` and ``val/hq_strict`` at every validation, for data that publish
    their ``centres``.

    For a model that is told the class there is also ``val/own_mode``, the share of samples nearest
    to the centre of their own label; labels come in turn.

    Every process draws the same samples, so all agree without talking.

    Args:
        n: samples. radius: what is near a centre. least: samples near it that a component must
            receive. seed: of the samples.
    """

    name = "mode_coverage"

    def __init__(
        self, n: Count = 2500, radius: Positive = 0.3, least: Count = 20, seed: Whole = 0
    ) -> None:
        self.n, self.radius, self.least, self.seed = n, radius, least, seed

    def unserved(self, trainer: Any, module: Any) -> str:
        if getattr(trainer.datamodule, "centres", None) is None:
            return "the data publish no centres of modes"
        if not module.spec.has(x=Vector):
            return f"modes are counted of points, and these data are {module.spec}"
        return "" if can(module, "sample") else "it cannot sample"

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking and self.serves(trainer, module):
            with self.spared(trainer, "the modes"):
                self._count(trainer, module)

    def _count(self, trainer: Any, module: Any) -> None:
        data = trainer.datamodule
        told = tell(module, self.n, data)
        with torch.inference_mode(False), averaged(trainer, module):
            x = draw(module, self.n, self.seed, told=told)
        values = mode_coverage(x, data.centres, data.std, self.radius, self.least)
        if "y" in told:
            nearest = torch.cdist(x.double(), data.centres.to(x.device).double()).argmin(1).cpu()
            values["own_mode"] = (nearest == told["y"]).double().mean()
        log_scalars(trainer, module, {f"val/{k}": float(v) for k, v in values.items()})
