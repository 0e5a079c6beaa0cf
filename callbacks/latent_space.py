"""Pictures of the latent space, and of what else is done with codes, at the end of a run."""

from __future__ import annotations

from itertools import chain
from typing import Any

from callbacks.report import Observer, save_picture
from zoo.core.ema import averaged
from zoo.core.latent import Codes, codes_of
from zoo.core.moment import Moment
from zoo.core.options import Whole
from zoo.core.spec import Image
from zoo.show.codes import every_picture
from zoo.show.styles import TOOLS, pictures


class LatentSpace(Observer):
    """At the end of a run of an image model with latent codes: its interpolations, traversals and
    manifold in ``samples/``; mixed styles, ways through two spaces, truncations, a pyramid or
    strokes where it has them.

    Every process decodes, the first one writes.

    Args:
        enabled: whether it is done. seed: of drawn codes.
    """

    name = "latent_space"

    def __init__(self, enabled: bool = True, seed: Whole = 0) -> None:
        self.enabled, self.seed = enabled, seed

    def unserved(self, trainer: Any, module: Any) -> str:
        if not hasattr(trainer.datamodule, "examples"):
            return "the data module shows no examples"
        if not module.spec.has(x=Image):
            return f"codes are drawn as images, and these data are {module.spec}"
        if any(hasattr(module, needed) for needed, *_ in TOOLS.values()):
            return ""
        try:
            Codes(module)
        except ValueError as error:
            return str(error)
        return ""

    def on_train_end(self, trainer: Any, module: Any) -> None:
        if not self.serves(trainer, module):
            return
        failed = False
        what, data = "pictures of the latent space", trainer.datamodule
        with self.spared(trainer, what), averaged(trainer, module) as smooth:
            moment = Moment(trainer.global_step, smooth)
            shown = pictures(module, data, seed=self.seed, moment=moment)
            if codes_of(module) is not None:
                shown = chain(every_picture(module, data, seed=self.seed, moment=moment), shown)
            for name, picture in shown:
                file = f"{name}_{trainer.global_step:06d}.png"
                saved = save_picture(trainer, name, file, picture.copy, quiet=failed)
                failed = failed or not saved
