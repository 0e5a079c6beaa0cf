"""Is it new? At the end of a run, samples beside their nearest training images, and how near they
are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from callbacks.fidelity import Fidelity, Named
from callbacks.report import Observer, log_scalars, save_picture, score_field, write_protocol
from zoo.core.column import column
from zoo.core.draw import draw_fields, tell
from zoo.core.ema import averaged
from zoo.core.moment import Moment
from zoo.core.options import Count, Whole
from zoo.show.neighbours import panel, spaces


class Memorisation(Observer):
    """At the end of a run of a model that makes images: ``samples/neighbours_STEP.png``, each
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

    name = "memorisation"

    def __init__(
        self,
        enabled: bool = True,
        n: Count = 10,
        k: Count = 5,
        n_fake: Count = 256,
        extractor: Named | None = None,
        seed: Whole = 0,
    ) -> None:
        if n_fake < n:
            raise ValueError(f"memorisation: n_fake is at least n={n}, got {n_fake}")
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
        if last and not trainer.sanity_checking and self.serves(trainer, module):
            with self.spared(trainer, "the nearest training images"):
                log_scalars(trainer, module, self._search(trainer, module))

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """For runs that end without a validation, such as those of ``--trainer.max_time``."""
        if self._done != trainer.global_step and self.serves(trainer, module):
            with self.spared(trainer, "the nearest training images"):
                values = self._search(trainer, module)
                for logger in trainer.loggers:
                    logger.log_metrics(
                        {**values, "step": float(trainer.global_step)}, step=trainer.global_step
                    )

    # -- parts ------------------------------------------------------------------------------------
    def unserved(self, trainer: Any, module: Any) -> str:
        return score_field(trainer, module)[1]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _search(self, trainer: Any, module: Any) -> dict[str, float]:
        """Write the picture; the values, equal on all processes, which search together."""
        self._done = trainer.global_step
        field, _ = score_field(trainer, module)
        data = column(trainer.datamodule, field)
        fidelity = next((c for c in trainer.callbacks if isinstance(c, Fidelity)), None)
        name = self.extractor or (fidelity.extractor if fidelity else "auto")
        weights = fidelity.inception_weights if fidelity else None
        try:
            found = spaces(name, data, weights, trainer.is_global_zero)
        except ValueError as error:
            self.say(f"the search by features ({name}) left out: {error}")
            found = spaces("pixels", data)
        k, size = self.k, data.count("train")
        if k > size:
            k = size
            self.say(f"{k} neighbours of each sample, which are all of the training images")
        with averaged(trainer, module) as smooth:
            x = samples(module, self.n_fake, self.seed, trainer.datamodule, field)
        rank, world = trainer.global_rank, trainer.world_size
        moment = Moment(trainer.global_step, smooth)
        values, picture = panel(module, x, found, data, self.n, k, rank, world, moment)
        about = {"spaces": [*found], "n_fake": self.n_fake, "seed": self.seed, "held_out": "val"}
        write_protocol(trainer, {"memorisation": about})
        file = f"neighbours_{trainer.global_step:06d}.png"
        save_picture(trainer, "neighbours", file, picture.copy)
        named = {f"val/nn_{k}_{space}": v for space, of in values.items() for k, v in of.items()}
        return self.numbers(named, "most of the held-out images are in the training set themselves")


def samples(module: Any, n: int, seed: int, data: Any = None, field: str = "x") -> Tensor:
    """n samples of a field, of all classes in turn where the model asks for one, and told rows of
    the validation data otherwise.
    """
    return draw_fields(module, n, seed, told=tell(module, n, data))[field].cpu()
