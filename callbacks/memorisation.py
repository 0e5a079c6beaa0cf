"""Is it new? At the end of a run, samples beside their nearest training images, and how near they
are.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback
from PIL import Image
from torch import Tensor

from callbacks.fidelity import Fidelity
from callbacks.report import can, conditions_on, log_scalars, save_picture, write_protocol
from zoo.core.ema import averaged
from zoo.core.pictures import below
from zoo.core.sampling import classes_in_turn, draw
from zoo.metrics.extractors import choose
from zoo.metrics.neighbours import TrainingSet, pixel_features


class Memorisation(Callback):
    """At the end of a run of an image model that samples: ``samples/neighbours_STEP.png``, each
    sample followed by its nearest training images and their distances, by pixels and by features,
    and the values ``val/nn_ratio_X``, ``val/nn_rate_X`` and ``val/nn_auc_X`` for X = pixels and the
    extractor (zoo.metrics.neighbours: fresh data have 1, .01 and .5; a model that copies has 0, 1
    and 1).

    Args:
        enabled: whether it is done. n: samples shown. k: neighbours of each. n_fake: samples behind
            the numbers.
        extractor: "inception", "datanet", "auto", or "pixels" for no second search; that of
            ``fidelity`` by default. seed: of the samples.
    """

    def __init__(
        self,
        enabled: bool = True,
        n: int = 10,
        k: int = 5,
        n_fake: int = 256,
        extractor: str | None = None,
        seed: int = 0,
    ) -> None:
        if min(n, k) < 1 or n_fake < n:
            raise ValueError(
                f"memorisation takes n and k of at least 1 and n_fake of at least n, got {n}, "
                f"{k}, {n_fake}"
            )
        if extractor not in (None, "auto", "inception", "datanet", "pixels"):
            raise ValueError(
                f"memorisation.extractor is auto, inception, datanet or pixels, got {extractor!r}"
            )
        self.enabled, self.n, self.k, self.n_fake, self.extractor, self.seed = (
            enabled,
            n,
            k,
            n_fake,
            extractor,
            seed,
        )
        self._done = -1

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        self._done = -1

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        last = trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
        if last and not trainer.sanity_checking and self._applies(trainer, module):
            log_scalars(trainer, module, self._search(trainer, module))

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """For runs that end without a validation, such as those of ``--trainer.max_time``."""
        if self._done != trainer.global_step and self._applies(trainer, module):
            values = self._search(trainer, module)
            for logger in trainer.loggers:
                logger.log_metrics(
                    {**values, "step": float(trainer.global_step)}, step=trainer.global_step
                )

    # -- parts ------------------------------------------------------------------------------------
    def _applies(self, trainer: Any, module: Any) -> bool:
        data = hasattr(trainer.datamodule, "examples") and module.spec.is_image
        return (
            self.enabled
            and data
            and can(module, "sample")
            and conditions_on(module) in ("", "class")
        )

    @torch.inference_mode(False)
    @torch.no_grad()
    def _search(self, trainer: Any, module: Any) -> dict[str, float]:
        """Write the picture; the values, equal on all processes, which search together."""
        self._done, data = trainer.global_step, trainer.datamodule
        fidelity = next((c for c in trainer.callbacks if isinstance(c, Fidelity)), None)
        name = self.extractor or (fidelity.extractor if fidelity else "auto")
        found = spaces(
            name, data, fidelity.inception_weights if fidelity else None, trainer.is_global_zero
        )
        with averaged(trainer, module):
            x = samples(module, self.n_fake, self.seed)
        values, picture = panel(
            x, found, data, self.n, self.k, trainer.global_rank, trainer.world_size
        )
        write_protocol(
            trainer,
            {
                "memorisation": {
                    "spaces": [*found],
                    "n_fake": self.n_fake,
                    "seed": self.seed,
                    "held_out": "val",
                }
            },
        )
        save_picture(
            trainer, "neighbours", f"neighbours_{trainer.global_step:06d}.png", picture.copy
        )
        return {f"val/nn_{k}_{space}": v for space, of in values.items() for k, v in of.items()}


def spaces(
    extractor: str, data: Any, inception_weights: str | None = None, progress: bool = True
) -> dict[str, Any]:
    """Features of images by name: pixels, and unless that is "pixels" those of an extractor."""
    found: dict[str, Any] = {"pixels": pixel_features}
    if extractor != "pixels":
        net = choose(extractor, data, inception_weights=inception_weights, progress=progress)
        found[net.name] = lambda x, spec: net(x, spec)[0]
    return found


def samples(module: Any, n: int, seed: int) -> Tensor:
    """n samples, of all classes in turn where the model asks for one."""
    y = classes_in_turn(module, n)
    return draw(module, n, seed, y=y).cpu()


def panel(
    x: Tensor, spaces: dict[str, Any], data: Any, n: int, k: int = 5, rank: int = 0, world: int = 1
) -> tuple[dict[str, dict[str, float]], Image.Image]:
    """Samples x (Q, *shape) against the training images: by space what
    ``zoo.metrics.neighbours.copying`` says of them, and the first n of them, each with its k
    nearest training images."""
    values, sheets = {}, []
    for name, features in spaces.items():
        training = TrainingSet(data, features, rank, world)
        values[name], far, index = training.search(x, k)
        sheets.append(
            training.picture(x[:n], far[:n], index[:n], f"nearest training images by {name}")
        )
    return values, below(*sheets)
