"""How well a model's scores tell classes that it never saw from those of its training data."""

from __future__ import annotations

from typing import Any

import torch

from callbacks.report import Observer, can, log_scalars
from zoo.core.draw import undisturbed
from zoo.core.ema import averaged
from zoo.core.options import Count
from zoo.metrics.auroc import auroc
from zoo.show.anomalies import strangers


class Anomaly(Observer):
    """``val/auroc`` at every validation of a model with ``score`` that remembers which classes it
    was trained on (``seen``): how often an image of a class it never saw scores higher than one of
    the others. Of a model whose ``scores`` has parts, also ``val/auroc_PART``.

    Every process scores the same images, so all agree without talking.

    Args:
        n: of the first validation images.
    """

    name = "anomaly"

    def __init__(self, n: Count = 1000) -> None:
        self.n = n

    def concerns(self, module: Any) -> bool:
        return can(module, "score")

    def unserved(self, trainer: Any, module: Any) -> str:
        if not hasattr(trainer.datamodule, "examples"):
            return "the data module shows no examples"
        if not len(getattr(module, "seen", ())) or "y" not in module.spec:
            return "there are no classes, so none that it never saw"
        return ""

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking and self.serves(trainer, module):
            with self.spared(trainer, "the anomalies"):
                self._tell_apart(trainer, module)

    def _tell_apart(self, trainer: Any, module: Any) -> None:
        batch = trainer.datamodule.examples(self.n, "val")
        strange = strangers(module, batch.get("y"))
        if strange is None:
            self.say("no class is left out of training (--data.left_out=[0]): nothing is strange")
            return
        with torch.inference_mode(False), averaged(trainer, module), undisturbed(module):
            x = batch["x"].to(module.device, module.float_dtype)
            parts = hasattr(module, "scores")
            found = module.scores(x) if parts else {"score": module.score(x)}
        values = {name: float(auroc(v.cpu(), strange)) for name, v in found.items()}
        values = {f"val/auroc_{k}".removesuffix("_score"): v for k, v in values.items()}
        log_scalars(trainer, module, values)
