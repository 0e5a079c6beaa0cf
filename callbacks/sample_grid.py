"""Pictures of what the model makes, from the same noise at every step, beside the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image as Picture

from callbacks.report import Observer, can, save_picture
from zoo.core.ema import averaged
from zoo.core.moment import Moment
from zoo.core.options import Count, Whole
from zoo.core.spec import Image
from zoo.show.samples import completion_sheet, reconstruction_sheet, sample_sheet


class SampleGrid(Observer):
    """Writes ``samples/step_000500.png`` every ``every_n_steps`` generator steps and at the end,
    and sends it to the loggers: images left, data right (of a model that is told the class one
    class a row); vectors over the data; of any other kind of data a table, told | made | data.

    Models that reconstruct images also give ``samples/reconstructions_000500.png``: rows of data,
    each above its reconstructions; models that inpaint images, ``samples/completions_000500.png``:
    rows of data, each above its upper half and two completions of it.

    Every process draws, the first one writes: a model is free to communicate while it samples.

    Args:
        every_n_steps: generator steps between pictures. n: images in one grid. seed: of the noise,
            the same at every step.
        real: show data beside the samples. points: samples in the plot of a model of vectors.
    """

    name = "sample_grid"

    def __init__(
        self,
        every_n_steps: Count = 500,
        n: Count = 64,
        seed: Whole = 0,
        real: bool = True,
        points: Count = 2000,
    ) -> None:
        self.every_n_steps, self.n, self.seed = every_n_steps, n, seed
        self.real, self.points = real, points
        self._done, self._failed = -1, False

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        self._done = -1

    def unserved(self, trainer: Any, module: Any) -> str:
        kinds = ("sample", "reconstruct", "inpaint")
        if not any(can(module, kind) for kind in kinds):
            return "it can neither sample nor reconstruct nor inpaint"
        if not hasattr(trainer.datamodule, "examples") and (
            module.told or not can(module, "sample")
        ):
            return "the data module shows no examples"
        return ""

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._show(trainer, module)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self._show(trainer, module)

    # -- parts ------------------------------------------------------------------------------------
    def _show(self, trainer: Any, module: Any) -> None:
        if self._done == trainer.global_step or not self.serves(trainer, module):
            return
        self._done = trainer.global_step
        data: Any = trainer.datamodule if hasattr(trainer.datamodule, "examples") else None
        images = data is not None and module.spec.has(x=Image)
        sheets: dict[str, Callable[[Moment], Picture.Image]] = {}
        if can(module, "sample"):
            sheets["samples"] = lambda moment: sample_sheet(
                module, data, self.n, self.seed, self.real, self.points, moment
            )
        if can(module, "reconstruct") and images:
            sheets["reconstructions"] = lambda moment: reconstruction_sheet(
                module, data.examples(min(self.n, 32), split="val"), self.seed, moment
            )
        if can(module, "inpaint") and images:
            sheets["completions"] = lambda moment: completion_sheet(
                module, data, min(self.n, 8), self.seed, moment
            )
        for key, sheet in sheets.items():
            what = f"the picture of {key}"
            with self.spared(trainer, what), averaged(trainer, module) as smooth:
                self._write(trainer, key, sheet(Moment(self._done, smooth)))

    def _write(self, trainer: Any, key: str, picture: Picture.Image) -> None:
        name = f"{'step' if key == 'samples' else key}_{self._done:06d}.png"
        if not save_picture(trainer, key, name, picture.copy, quiet=self._failed):
            self._failed = True
