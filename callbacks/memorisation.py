"""Is it new? At the end of a run, samples beside their nearest training images, and how near they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.fidelity import Fidelity
from callbacks.report import by_class, can, conditions_on, log_image, log_scalars, write_protocol
from zoo.core.ema import averaged
from zoo.core.pictures import below
from zoo.core.sampling import draw
from zoo.metrics.extractors import choose
from zoo.metrics.neighbours import TrainingSet, pixel_features


class Memorisation(Callback):
    """At the end of a run of an image model that samples: ``samples/neighbours_STEP.png``, each sample followed by its nearest training
    images and their distances, by pixels and by features, and the values ``val/nn_ratio_X``, ``val/nn_rate_X`` and ``val/nn_auc_X`` for
    X = pixels and the extractor (zoo.metrics.neighbours: fresh data have 1, .01 and .5; a model that copies has 0, 1 and 1).

    Args:
        enabled: whether it is done. n: samples shown. k: neighbours of each. n_fake: samples behind the numbers.
        extractor: "inception", "datanet", "auto", or "pixels" for no second search; that of ``fidelity`` by default. seed: of the samples.
    """

    def __init__(
        self, enabled: bool = True, n: int = 10, k: int = 5, n_fake: int = 256, extractor: str | None = None, seed: int = 0
    ) -> None:
        if min(n, k) < 1 or n_fake < n:
            raise ValueError(f"memorisation takes n and k of at least 1 and n_fake of at least n, got {n}, {k}, {n_fake}")
        if extractor not in (None, "auto", "inception", "datanet", "pixels"):
            raise ValueError(f"memorisation.extractor is auto, inception, datanet or pixels, got {extractor!r}")
        self.enabled, self.n, self.k, self.n_fake, self.extractor, self.seed = enabled, n, k, n_fake, extractor, seed
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
                logger.log_metrics({**values, "step": float(trainer.global_step)}, step=trainer.global_step)

    # -- parts ---------------------------------------------------------------------------------------------------------
    def _applies(self, trainer: Any, module: Any) -> bool:
        data = hasattr(trainer.datamodule, "examples") and module.spec.is_image
        return self.enabled and data and can(module, "sample") and conditions_on(module) in ("", "class")

    @torch.inference_mode(False)
    @torch.no_grad()
    def _search(self, trainer: Any, module: Any) -> dict[str, float]:
        """Write the picture; the values, equal on all processes, which search together."""
        self._done, data = trainer.global_step, trainer.datamodule
        y = torch.arange(self.n_fake) % module.spec.num_classes if by_class(module) else None
        with averaged(trainer, module):
            x = draw(module, self.n_fake, self.seed, y=y).cpu()
        values: dict[str, float] = {}
        sheets, names = [], []
        for name, features in self._spaces(trainer, data).items():
            training = TrainingSet(data, features, trainer.global_rank, trainer.world_size)
            found, far, index = training.search(x, self.k)
            values |= {f"val/nn_{k}_{name}": v for k, v in found.items()}
            sheets.append(training.picture(x[: self.n], far[: self.n], index[: self.n], f"nearest training images by {name}"))
            names.append(name)
        write_protocol(trainer, {"memorisation": {"spaces": names, "n_fake": self.n_fake, "seed": self.seed, "held_out": "val"}})
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "samples" / f"neighbours_{trainer.global_step:06d}.png"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                below(*sheets).save(path)
                log_image(trainer, "neighbours", path)
            except OSError as error:
                rank_zero_warn(f"{path} cannot be written ({error})")
        return values

    def _spaces(self, trainer: Any, data: Any) -> dict[str, Any]:
        """Features of images by name."""
        fidelity = next((c for c in trainer.callbacks if isinstance(c, Fidelity)), None)
        name = self.extractor or (fidelity.extractor if fidelity else "auto")
        spaces: dict[str, Any] = {"pixels": pixel_features}
        if name != "pixels":
            weights = fidelity.inception_weights if fidelity else None
            extractor = choose(name, data, inception_weights=weights, progress=trainer.is_global_zero)
            spaces[extractor.name] = lambda x, spec: extractor(x, spec)[0]
        return spaces
