"""How well the two fields of a sample belong together, where the data know what would."""

from __future__ import annotations

from typing import Any

import torch

from callbacks.report import Observer, can, log_scalars
from zoo.core.column import Answers, Column
from zoo.core.draw import draw_fields, tell
from zoo.core.ema import averaged
from zoo.core.options import Count, Whole
from zoo.metrics import Extractor, choose


class PairAgreement(Observer):
    """At every validation of a model that makes a and b, for data that publish ``oracle(a)``, what
    an image of domain a would be in b: ``val/pair_agree``, the share of pixels of oracle(a) and b
    that are on the same side of the middle level; ``val/pair_random``, the same of each a with the
    b of the next sample, who have nothing to do with each other; and, of labelled data,
    ``val/pair_labels``, the share of samples whose a and b are of one class to two classifiers,
    each trained on its domain.

    Every process draws the same samples, so all agree without talking.

    Args:
        n: samples. seed: of the samples.
    """

    name = "pair_agreement"

    def __init__(self, n: Count = 1024, seed: Whole = 0) -> None:
        self.n, self.seed = n, seed
        self._judges: tuple[Any, list[Extractor]] = None, []

    def concerns(self, module: Any) -> bool:
        return {"a", "b"} <= {*module.makes} and can(module, "sample")

    def unserved(self, trainer: Any, module: Any) -> str:
        if not hasattr(trainer.datamodule, "oracle"):
            return "the data do not publish what b belongs to an a"
        return ""

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking and self.serves(trainer, module):
            with self.spared(trainer, "the agreement of pairs"):
                log_scalars(trainer, module, self._compared(trainer, module))

    def _compared(self, trainer: Any, module: Any) -> dict[str, float]:
        data = trainer.datamodule
        told = tell(module, self.n, data)
        with torch.inference_mode(False), torch.no_grad():
            with averaged(trainer, module):
                made = draw_fields(module, self.n, self.seed, told=told).to("cpu")
            a, b = made["a"], made["b"]
            levels = module.spec["b"].levels or 2
            wanted, found = data.oracle(a) >= levels / 2, b >= levels / 2
            values = {
                "pair_agree": float((wanted == found).double().mean()),
                "pair_random": float((wanted == found.roll(1, 0)).double().mean()),
            }
            if "y" in Column(data, "a").spec:
                of_a, of_b = (
                    judge(v, data.spec[k])[1].argmax(1)
                    for judge, k, v in zip(self._classifiers(data), "ab", (a, b), strict=True)
                )
                values["pair_labels"] = float((of_a == of_b).double().mean())
        return {f"val/{k}": v for k, v in values.items()}

    def _classifiers(self, data: Any) -> list[Extractor]:
        """Of a and of b: the second is taught by changed images of a, whose classes are known."""
        if self._judges[0] is not data:
            domains = Column(data, "a"), Answers(data)
            self._judges = data, [choose("datanet", d, progress=False) for d in domains]
        return self._judges[1]
