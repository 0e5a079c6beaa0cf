"""How near what a model makes of a source is to what was wanted of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from callbacks.report import Observer, can, log_scalars
from zoo.core.batch import Batch
from zoo.core.column import Answers
from zoo.core.draw import draw_fields
from zoo.core.ema import averaged
from zoo.core.options import Count, Whole
from zoo.core.spec import Image
from zoo.metrics import Extractor, choose
from zoo.metrics.circular import circular_correlation
from zoo.metrics.targets import answers, l1, psnr, reached, ssim

MEASURES = {"psnr": psnr, "ssim": ssim, "l1": l1}


class Targets(Observer):
    """At every validation of a model that translates images, for data that know the answer: the
    field itself where the data are pairs, else ``oracle_NAME``. ``val/psnr`` (dB), ``val/ssim`` and
    ``val/l1``, means over images in [0, 1]; the same of each trivial answer
    (``zoo.metrics.targets``): ``val/psnr_copy``, ``val/psnr_mean``, for super-resolution
    ``val/psnr_bicubic``; and against the best of these ``val/psnr_gain`` and ``val/ssim_gain``, how
    much is added, and ``val/l1_share``, what part is left of its error. Of labelled sources also
    ``val/class_kept``, the share of what was made that is of its source's class to a classifier,
    which was trained on true answers and never saw a sample, ``val/class_kept_copy``, and of the
    wanted images themselves ``val/class_kept_true``.

    Where the data say what belongs to an image of two domains, also ``val/mode_coverage``, the
    share of what was wanted that is the nearest to something made; and of each angle that they can
    read off it, ``val/NAME_correlation``, the absolute circular correlation of that of what was
    made and that of what was wanted: turned and mirrored ones are as good.

    Every process draws the same images, so all agree without talking.

    Args:
        n: of the first validation rows. seed: of the model's noise.
    """

    name = "targets"

    def __init__(self, n: Count = 512, seed: Whole = 0) -> None:
        self.n, self.seed = n, seed
        self._mean: tuple[Any, Tensor] | None = None
        self._judge: tuple[Any, Any] = None, None

    def concerns(self, module: Any) -> bool:
        return can(module, "translate") and can(module, "sample")

    def unserved(self, trainer: Any, module: Any) -> str:
        data = trainer.datamodule
        if not hasattr(data, "examples"):
            return "the data module shows no examples"
        told, made = ends(module)
        if not told:
            return "it is told no image, or makes none"
        if wanted(data.examples(1, "val"), made) is None:
            return f"the data do not know what {made} belongs to a row of {told}"
        return ""

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking and self.serves(trainer, module):
            with self.spared(trainer, "the targets"):
                log_scalars(trainer, module, self._compared(trainer, module))

    def _compared(self, trainer: Any, module: Any) -> dict[str, float]:
        data, (told, made) = trainer.datamodule, ends(module)
        rows = data.examples(self.n, "val")
        field: Any = module.spec[made]
        with torch.inference_mode(False), torch.no_grad(), averaged(trainer, module):
            given = {k: rows[k] for k in module.told}
            drawn = draw_fields(module, rows.n, self.seed, told=given)[made].cpu()
        truth, source = wanted(rows, made), module.spec[told].to_unit(rows[told])
        assert truth is not None
        tried = {"": field.to_unit(drawn), **answers(source, self._mean_of(data, made, field))}
        found = {
            (name, who): float(measure(x.float(), field.to_unit(truth).float()).mean())
            for name, measure in MEASURES.items()
            for who, x in tried.items()
        }
        values = {f"{k}_{who}".rstrip("_"): v for (k, who), v in found.items()}
        best = {
            k: pick(found[k, who] for who in tried if who)
            for k, pick in (("psnr", max), ("ssim", max), ("l1", min))
        }
        values |= {f"{k}_gain": values[k] - best[k] for k in ("psnr", "ssim")}
        values["l1_share"] = values["l1"] / max(best["l1"], 1e-12)
        if f"oracle_{made}" in rows:
            values["mode_coverage"] = float(reached(tried[""], field.to_unit(truth)))
        for name, angle in getattr(data, "angles", {}).items():
            turned = circular_correlation(angle(tried[""]), angle(field.to_unit(truth)))
            values[f"{name}_correlation"] = float(turned.abs())
        if "y" in rows and data.spec.num_classes:
            judge = self._classifier(data, made)
            judged = {**tried, "true": field.to_unit(truth)}
            for who in [k for k in ("", "copy", "true") if k in judged]:
                of = judge(field.from_unit(judged[who]), field)[1].argmax(1).cpu()
                values[f"class_kept_{who}".rstrip("_")] = float((of == rows["y"]).double().mean())
        return {f"val/{k}": v for k, v in values.items()}

    def _classifier(self, data: Any, made: str) -> Extractor:
        """Of true answers by the class of their sources."""
        if self._judge[0] is not data:
            domain = data if made == "x" else Answers(data)  # as it is, a network may be kept
            self._judge = data, choose("datanet", domain, progress=False)
        return self._judge[1]

    def _mean_of(self, data: Any, made: str, field: Any) -> Tensor:
        """The mean training image of a field, in [0, 1]."""
        if self._mean is None or self._mean[0] is not data:
            self._mean = data, field.to_unit(data.examples()[made].float()).mean(0)
        return self._mean[1]


def ends(module: Any) -> tuple[str, str]:
    """The first field of images that a model is told, and the first that it makes; "" for none."""
    told, made = (
        next((k for k in names if isinstance(module.spec[k], Image)), "")
        for names in (module.told, module.makes)
    )
    return (told, made) if told and made else ("", "")


def wanted(rows: Batch, made: str) -> Tensor | None:
    """What a model should have made of validation rows, where the data know."""
    return rows.get(f"oracle_{made}", rows.get("x") if made == "x" else None)
