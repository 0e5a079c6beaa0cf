"""The same draws through a training."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from callbacks.report import Observer, save_picture, score_field
from zoo.core.draw import draw_fields, tell
from zoo.core.ema import averaged
from zoo.core.moment import Moment
from zoo.core.options import Count, Range, Whole
from zoo.show.paint import DRAWN, Shades, rgb
from zoo.show.sheets import Panel, about, sheet


class Film(Observer):
    """At the end of a run ``samples/film_001000.png``: the same draws, one a column, at ``rows``
    moments from before the first step to the last, one a row; of a game that grows or has stages
    each row says where it stood.

    Every process draws, the first one writes. The rows are in the checkpoint, so that a resumed run
    ends with the film of one that was never stopped.

    Args:
        enabled: whether it is done. rows: moments. n: images a row. seed: of the noise.
    """

    name = "film"

    def __init__(
        self,
        enabled: bool = False,
        rows: Annotated[int, Range(2)] = 8,
        n: Count = 8,
        seed: Whole = 0,
    ) -> None:
        self.enabled, self.rows, self.n, self.seed = enabled, rows, n, seed
        self.shot: dict[int, tuple[str, Tensor]] = {}  # by step: what the row says, and its bytes

    def unserved(self, trainer: Any, module: Any) -> str:
        if trainer.max_steps < 1:
            return "its rows are parts of --trainer.max_steps, which is not given"
        return score_field(trainer, module)[1]

    def state_dict(self) -> dict[str, Any]:
        return {"shot": self.shot} if self.shot else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.shot = dict(state_dict["shot"])

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._shoot(trainer, module)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._shoot(trainer, module)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        if not self.shot or not self.serves(trainer, module):
            return
        words, cells = zip(*(self.shot[step] for step in sorted(self.shot)), strict=True)
        field = score_field(trainer, module)[0]
        heading = f"{field}: the same draws in each column, as training goes on"
        panel = Panel(torch.cat(cells), self.n, heading, DRAWN, [*words], path="both")
        with averaged(trainer, module) as smooth:
            moment = Moment(trainer.global_step, smooth)
        said = about(module, moment, f"seed {self.seed}")
        title = f"Samples of {module.model_name} through its training"
        file = f"film_{trainer.global_step:06d}.png"
        save_picture(trainer, "film", file, lambda: sheet(title, said, [[panel]]))

    # -- parts ------------------------------------------------------------------------------------
    def _shoot(self, trainer: Any, module: Any) -> None:
        if not self.enabled:  # of every step
            return
        step, parts = trainer.global_step, self.rows - 1
        due = {trainer.max_steps * i // parts for i in range(parts + 1)}
        if step not in due or step in self.shot or not self.serves(trainer, module):
            return
        field = score_field(trainer, module)[0]
        with self.spared(trainer, "a row of the film"), averaged(trainer, module):
            told = tell(module, self.n, trainer.datamodule)
            x = draw_fields(module, self.n, self.seed, told=told)[field]
            words = " · ".join(filter(None, (f"step {step:,}", getattr(module, "stands", ""))))
            self.shot[step] = words, rgb(x, Shades(module.spec[field], x))
