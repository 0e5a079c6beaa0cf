"""The loop of models that are estimated, not descended: closed forms, EM, Lloyd. One training step
is one iteration over all the data.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zoo.bases.likelihood import DensityModule
from zoo.core.batch import Batch
from zoo.core.likelihood import dequantise, quantise
from zoo.core.module import GenerativeModule
from zoo.core.noise import seeded
from zoo.core.spec import Spec


class EstimatorModule(GenerativeModule):
    """Base of the models without gradients. Subclasses define ``start`` and ``iterate``, which set
    parameters and buffers in place.

    Every process holds all training examples and does the same iteration, so there is nothing to
    exchange; the minibatches only tell the time. An iteration after convergence changes nothing, so
    ``max_steps`` is a limit and costs no accuracy.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.automatic_optimization = False
        self._rows: Tensor | None = None
        self._labels: Tensor | None = None

    # -- what a model defines ---------------------------------------------------------------------
    def prepared(self, x: Tensor) -> Tensor:
        """Examples (N, *shape) as the estimator reads them, (N, D) in float64: images in [0, 1],
        vectors as they are.
        """
        return self.spec.to_unit(x.double()).flatten(1)

    def start(self, rows: Tensor, y: Tensor | None = None) -> None:
        """First values, once before a run that starts from scratch.

        Args:
            rows: all training examples as ``prepared`` gives them. y: their labels, (N,), where
                there are any.
        """

    def iterate(self, rows: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """One iteration over all training examples; returns named scalars of the new values, logged
        as ``train/NAME``.
        """
        raise NotImplementedError

    # -- what the loop does -----------------------------------------------------------------------
    def on_train_start(self) -> None:
        trainer: Any = self.trainer
        if not hasattr(trainer.datamodule, "examples"):
            raise ValueError(
                f"{self.model_name} reads all training examples at once; train it on a data module "
                "of the zoo"
            )
        batch = trainer.datamodule.examples()
        with torch.no_grad():
            self._rows = self.prepared(batch["x"].to(self.device))
            self._labels = batch["y"].to(self.device) if "y" in batch else None
            if trainer.global_step == 0:
                self.start(self._rows, self._labels)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        assert self._rows is not None
        with torch.no_grad():
            terms = self.iterate(self._rows, self._labels)
        clock: Any = self.optimizers()
        clock.step()
        self.report(terms, self.trainer.global_step)

    def on_train_end(self) -> None:
        self._rows = self._labels = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # It moves nothing: its steps are the trainer's clock.
        return torch.optim.SGD(self.parameters(), lr=0.0)


class DensityEstimator(EstimatorModule, DensityModule):
    """Estimators of a density on R^D. Images are dequantised with noise that is drawn once for the
    run, so that EM is monotone.
    """

    def prepared(self, x: Tensor) -> Tensor:
        if self.spec.levels is None:
            return x.flatten(1).double()
        u = torch.rand(
            x.shape, generator=seeded(int(self.noise_seed), "dequantisation"), dtype=torch.float64
        )
        return dequantise(x.double(), self.spec.levels, u.to(x.device))[0].flatten(1)

    def middle(self, x: Tensor) -> Tensor:
        """Examples without noise, (B, D): vectors as they are, a level as the middle of its
        interval.
        """
        v = x.flatten(1)
        return v if self.spec.levels is None else (v + 0.5) / self.spec.levels

    def data_units(self, y: Tensor) -> Tensor:
        """Back from (B, D) to examples: images in levels."""
        x = y if self.spec.levels is None else quantise(y, self.spec.levels)
        return x.view(len(y), *self.spec.shape)

    def nll(self, rows: Tensor) -> Tensor:
        """Mean of -log p over rows, in nats; for images with the constant D ln L, as
        ``val/nll_nats``.
        """
        constant = 0.0 if self.spec.levels is None else self.spec.dim * math.log(self.spec.levels)
        return constant - self.log_density(rows).mean()
