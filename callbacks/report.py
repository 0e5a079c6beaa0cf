"""What the callbacks share: scalars on the generator's clock, pictures for the loggers, the
protocol of the run's numbers.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image as Picture

from callbacks.patience import waiting
from zoo.core.because import because
from zoo.core.files import written_whole
from zoo.core.module import defines, exactly
from zoo.core.options import bound, check_options
from zoo.core.spec import Image
from zoo.show.sheets import save


def can(module: Any, capability: str) -> bool:
    """Whether a model declares a capability; one that is not registered, whether it defines the
    method.
    """
    entry = getattr(module, "entry", None)
    if entry is not None:
        return capability in entry.can
    return defines(type(module), capability)


def name_of(module: Any) -> str:
    """The registry name, or the class's."""
    entry = getattr(module, "entry", None)
    return entry.name if entry is not None else type(module).__name__


class Optioned(Callback):
    """A callback whose options are what their types say.

    Attributes:
        name: its options' prefix on the command line.
    """

    name: ClassVar[str] = ""
    _said: set[str]

    def __new__(cls, *args: Any, **kwargs: Any):
        made = super().__new__(cls)
        made._said = set()
        if args or kwargs:  # copy and pickle call without arguments
            check_options(cls.name, cls.__init__, bound(cls, made, args, kwargs))
        return made

    def say(self, text: str) -> None:
        """One line, once."""
        if text not in self._said:
            self._said.add(text)
            rank_zero_info(f"{self.name}: {text}")


class Observer(Optioned):
    """Base of the callbacks that look at a model: one that cannot serve a model says so once, in
    one line, and leaves it alone; one that fails says so and lets the training go on.

    Attributes:
        enabled: whether it is wanted.
    """

    enabled: bool = True

    def unserved(self, trainer: Any, module: Any) -> str:
        """Why this callback has nothing for this model and data; "" if it has."""
        return ""

    def concerns(self, module: Any) -> bool:
        """Whether a model is of the kind that it is for; no others hear of it."""
        return True

    def serves(self, trainer: Any, module: Any) -> bool:
        """Whether it is wanted, and can."""
        wanted = self.enabled and self.concerns(module)
        return wanted and not self.unserved(trainer, module)

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        wanted = self.enabled and self.concerns(module)
        if wanted and (why := self.unserved(trainer, module)):
            rank_zero_info(f"{self.name}: nothing here for {name_of(module)}: {why}")

    @contextmanager
    def spared(self, trainer: Any, what: str) -> Iterator[None]:
        """What fails inside costs a run in training this one evaluation, and a line that says so.

        An error is an error outside of training, and on several processes, of which the others
        would wait for the one that failed.
        """
        try:
            with waiting(what):
                yield
        except Exception as error:
            if trainer.state.fn != TrainerFn.FITTING or trainer.world_size > 1:
                raise
            if os.environ.get("ZOO_DEBUG"):
                traceback.print_exc()
            self.say(
                f"{what} left out, {because(error)}; training goes on (ZOO_DEBUG=1 shows where)"
            )

    def numbers(self, values: dict[str, float], why: str) -> dict[str, float]:
        """Those values that are numbers; one line says which are not."""
        if missing := [k for k, v in values.items() if math.isnan(v)]:
            self.say(f"{', '.join(missing)} left out: {why}")
        return {k: v for k, v in values.items() if k not in missing}


def image_fields(module: Any) -> list[str]:
    """The fields of images that a model makes."""
    return [k for k in module.makes if isinstance(module.spec[k], Image)]


def score_field(trainer: Any, module: Any) -> tuple[str, str]:
    """The first field of images that a model makes, by which its samples are scored and searched,
    and why there is none.
    """
    if not can(module, "sample"):
        return "", "it cannot sample"
    if not hasattr(trainer.datamodule, "examples"):
        return "", "the data module shows no examples"
    images = image_fields(module)
    if not images:
        kinds = ", ".join(f"{k} {module.spec[k]}" for k in module.makes)
        return "", f"samples are scored as images, and it makes {kinds}"
    return images[0], ""


def log_scalars(trainer: Trainer, module: LightningModule, values: dict[str, float]) -> None:
    """Log at the end of a validation or test epoch, with generator steps as the x-axis. All
    processes call it with equal values.
    """
    if values:
        module.log_dict({k: float(v) for k, v in values.items()}, batch_size=1, sync_dist=True)
        module.log("step", exactly(trainer.global_step, module), batch_size=1, sync_dist=True)


def log_image(trainer: Trainer, key: str, path: Path, caption: str = "") -> None:
    """Send a picture to every logger that takes pictures, at the current generator step, with its
    caption to those that take one. Call it on the first process only.
    """
    for logger in trainer.loggers:
        if not hasattr(logger, "log_image"):
            continue
        taken = inspect.signature(logger.log_image).parameters.values()
        captioned = any(p.name == "caption" or p.kind is p.VAR_KEYWORD for p in taken)
        more = {"caption": [caption]} if captioned and caption else {}
        logger.log_image(key=key, images=[str(path)], step=trainer.global_step, **more)


def save_picture(
    trainer: Trainer, key: str, name: str, picture: Callable[[], Picture.Image], quiet: bool = False
) -> bool:
    """On the first process, draw the picture, write it to RUN/samples/NAME and log it. A full disk
    or a logger that takes no picture is no reason to lose a run: a warning, unless ``quiet``, and
    False."""
    if not trainer.is_global_zero:
        return True
    path = Path(trainer.default_root_dir) / "samples" / name
    try:
        drawn = picture()
        with written_whole(path) as file:
            save(drawn, file)
        words = (drawn.info.get("title"), drawn.info.get("said"))
        log_image(trainer, key, path, " · ".join(text for text in words if text))
    except Exception as error:  # a logger's may be of any type
        if not quiet:
            rank_zero_warn(
                f"{path} cannot be written or logged ({because(error)}); training goes on without "
                f"pictures"
            )
        return False
    return True


def write_protocol(trainer: Trainer, said: dict[str, Any]) -> None:
    """Add to RUN/protocol.json and, under the same names, to the config of a W&B run: how the run's
    numbers were measured.

    All processes may call it; the first one writes.
    """
    if not trainer.is_global_zero:
        return
    path = Path(trainer.default_root_dir) / "protocol.json"
    try:
        known = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError):
        known = {}
    known = {**(known if isinstance(known, dict) else {}), **said}
    if not known:
        return
    try:
        with written_whole(path) as file:
            file.write((json.dumps(known, indent=2) + "\n").encode())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"protocol": known}, allow_val_change=True)
    except Exception as error:  # a logger's may be of any type
        rank_zero_warn(f"the protocol cannot be written to {path} or logged ({because(error)})")


def versions() -> dict[str, str]:
    """Versions of the libraries that a number depends on."""
    return {
        "zoo": sys.modules["zoo"].__version__,
        **{p: version(p) for p in ("torch", "torchmetrics", "torch-fidelity", "scikit-learn")},
    }
