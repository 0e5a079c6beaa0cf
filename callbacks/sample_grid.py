"""Pictures of what the model makes, from the same noise at every step, beside the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback
from PIL import Image
from torch import Tensor

from callbacks.report import by_class, can, conditions_on, save_picture
from zoo.core.ema import averaged
from zoo.core.pictures import beside, completions, grid, outside, scatter
from zoo.core.sampling import complete, draw, given, undisturbed


class SampleGrid(Callback):
    """Writes ``samples/step_000500.png`` (generated left, data right) every ``every_n_steps``
    generator steps and at the end, and sends it to the loggers. Models that reconstruct also give
    ``samples/reconstructions_000500.png``: rows of data, each above its reconstructions; models
    that inpaint, ``samples/completions_000500.png``: rows of data, each above its upper half and
    two completions of it. Class-conditional models have one class a row. Vectors are plotted over
    the data.

    Every process draws, the first one writes: a model is free to communicate while it samples.

    Args:
        every_n_steps: generator steps between pictures. n: images in one grid. seed: of the noise,
            the same at every step.
        real: show data beside the samples. points: samples in the plot of a model of vectors.
    """

    def __init__(
        self,
        every_n_steps: int = 500,
        n: int = 64,
        seed: int = 0,
        real: bool = True,
        points: int = 2000,
    ) -> None:
        if every_n_steps < 1 or n < 1 or points < 1:
            raise ValueError(
                f"sample_grid takes every_n_steps, n and points of at least 1, got "
                f"{every_n_steps}, {n}, {points}"
            )
        self.every_n_steps, self.n, self.seed, self.real, self.points = (
            every_n_steps,
            n,
            seed,
            real,
            points,
        )
        self._done, self._failed = -1, False

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        self._done = -1

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._show(trainer, module)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self._show(trainer, module)

    # -- parts ------------------------------------------------------------------------------------
    def _show(self, trainer: Any, module: Any) -> None:
        if self._done == trainer.global_step:
            return
        self._done = trainer.global_step
        data = trainer.datamodule if hasattr(trainer.datamodule, "examples") else None
        conditioned = conditions_on(module)
        with averaged(trainer, module):
            if can(module, "sample") and conditioned in ("", "class"):
                self._write(
                    trainer, "samples", f"step_{self._done:06d}.png", self._samples(module, data)
                )
            if can(module, "reconstruct") and module.spec.is_image and data is not None:
                self._write(
                    trainer,
                    "reconstructions",
                    f"reconstructions_{self._done:06d}.png",
                    self._reconstructions(module, data),
                )
            if (
                can(module, "inpaint")
                and module.spec.is_image
                and data is not None
                and conditioned in ("", "class")
            ):
                self._write(
                    trainer,
                    "completions",
                    f"completions_{self._done:06d}.png",
                    self._completions(module, data),
                )

    def _samples(self, module: Any, data: Any) -> Callable[[], Image.Image]:
        spec = module.spec
        if not spec.is_image:
            x = draw(module, self.points, self.seed)
            real = data.examples(self.points)["x"] if data is not None and self.real else None
            return lambda: scatter(x, real)
        y, columns = _class_rows(self.n, spec.num_classes) if by_class(module) else (None, None)
        x = draw(module, self.n if y is None else len(y), self.seed, y=y)
        real = self._real(data, y, len(x)) if data is not None and self.real else None
        if real is None:
            return lambda: grid(x, spec, columns)
        return lambda: beside(grid(x, spec, columns), grid(real, spec, columns))

    @staticmethod
    def _real(data: Any, y: Tensor | None, n: int) -> Tensor:
        """The first training images, or for given labels the first of each class, as often as it is
        wanted.
        """
        if y is None:
            return data.examples(n)["x"]
        batch = data.examples(min(20 * n, len(data.split("train")["x"])))
        rows = []
        for label in y.unique_consecutive().tolist():
            of_class = (batch["y"] == label).nonzero()[:, 0]
            wanted = int((y == label).sum())
            if len(of_class) == 0:  # a class too rare to be met: an empty row
                rows.append(torch.zeros(wanted, *batch["x"].shape[1:], dtype=batch["x"].dtype))
            else:
                rows.append(batch["x"][of_class[torch.arange(wanted) % len(of_class)]])
        return torch.cat(rows)

    def _completions(self, module: Any, data: Any) -> Callable[[], Image.Image]:
        batch = data.examples(min(self.n, 8), split="val")
        x, known = batch["x"], outside("bottom", *module.spec.shape[1:])
        drawn = [
            complete(module, x, known, seed=self.seed + i, y=batch.get("y")).cpu() for i in range(2)
        ]
        return lambda: completions(x, known, drawn, module.spec, len(x))

    def _reconstructions(self, module: Any, data: Any) -> Callable[[], Image.Image]:
        rows, columns = reconstructed(
            module, data.examples(min(self.n, 32), split="val"), self.seed
        )
        return lambda: grid(rows, module.spec, columns)

    def _write(self, trainer: Any, key: str, name: str, picture: Callable[[], Image.Image]) -> None:
        if not save_picture(trainer, key, name, picture, quiet=self._failed):
            self._failed = True


def reconstructed(module: Any, batch: dict[str, Tensor], seed: int = 0) -> tuple[Tensor, int]:
    """The images of a batch in rows, each above the row of their reconstructions, and the row's
    length.
    """
    x = batch["x"].to(module.device, module.float_dtype)
    with undisturbed(module):
        torch.manual_seed(seed)
        again = module.reconstruct(x, **given(module, module.reconstruct, batch.get("y")))
    columns = min(8, len(x))
    rows = [
        part for pair in zip(x.split(columns), again.split(columns), strict=True) for part in pair
    ]
    if len(x) % columns:  # the last pair of rows is not full
        rows = rows[:-2]
    return torch.cat([r.to(x.dtype) for r in rows]), columns


def _class_rows(n: int, classes: int) -> tuple[Tensor, int]:
    """Labels of about n images with one class a row, and the row's length; of many classes only the
    first √n.
    """
    shown = classes if classes <= n else max(int(n**0.5), 1)
    columns = max(n // shown, 1)
    return torch.arange(shown).repeat_interleave(columns), columns
