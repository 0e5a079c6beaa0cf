"""Models trained by one loss; of those, the ones that assign a likelihood, and densities on R^D."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.core.batch import Batch
from zoo.core.likelihood import bits_per_dim, dequantise, row_noise
from zoo.core.module import GenerativeModule
from zoo.core.spec import Image


class LossModule(GenerativeModule):
    """Base of the models trained by one loss."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalars of one minibatch, of which "loss" is minimised."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each optimiser step."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.start_noise("train")
        terms = self.loss(batch)
        self.report(terms, self.trainer.global_step + 1)
        return terms["loss"]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.after_step()


class LikelihoodModule(LossModule):
    """Base of the models of a likelihood, trained as a rule by its negative logarithm.

    ``log_prob(x)`` (or ``elbo(x)`` where only a bound is to be had) returns nats, (B,), one value
    an example, never averaged. A model that is told fields takes each as a keyword argument.
    """

    stubs = frozenset({"log_prob"})
    watches: ClassVar[tuple[str, ...]] = ("nll_nats", "bits_per_dim")

    def log_prob(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Log-likelihood in nats, (B,), of data in the units of ``spec``; ``likelihood_kind`` says
        what the number is.

        Args:
            generator: source of randomness where the value is a Monte Carlo estimate.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no log_prob (likelihood: {self.likelihood_kind})"
        )

    @property
    def likelihood_kind(self) -> str:
        """One of ``KINDS``; travels with every number. Models whose kind depends on the data
        override it.
        """
        return self.entry.likelihood if self.entry is not None else "none"

    def need_levels_of_images(self) -> None:
        """Raise a ``ValueError`` for images of real values, for models of levels and of vectors."""
        if self.spec.has(x=Image) and self.spec.levels is None:
            raise ValueError(
                f"{self.model_name} models images with levels, or vectors, got {self.spec}; choose "
                "data with levels"
            )

    def need_labels(self, y: Tensor | None) -> Tensor:
        """y itself, for models that are told the class only with some option.

        Raises:
            ValueError: there is none.
        """
        if y is None:
            raise ValueError(f"{self.model_name} models P(x | y): pass the labels, y=(B,)")
        return y


class DensityModule(LikelihoodModule):
    """Base of the models of a density on R^D, trained by maximum likelihood. Subclasses define
    ``log_density``.

    Images are dequantised, y = (x + u)/L; then ``log_prob`` is a lower bound of log P(x), one draw
    of u in training, the mean of ``draws`` draws elsewhere. The loss is in bits per dimension with
    all its constants for images, in nats for vectors.
    """

    draws = 4

    def log_density(self, y: Tensor) -> Tensor:
        """log p(y) in nats, (B,), of y in [0, 1)^D for images, of the vectors themselves
        otherwise.
        """
        raise NotImplementedError

    @property
    def likelihood_kind(self) -> str:
        return "exact_density" if self.spec.levels is None else "dequantised_bound"

    def log_prob(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        if self.spec.levels is None:
            return self.log_density(x)
        u = row_noise(torch.rand, x, (self.draws, *self.spec.shape), generator)
        return torch.stack([self.bound(x, u[:, s]) for s in range(self.draws)]).mean(0)

    def bound(self, x: Tensor, u: Tensor) -> Tensor:
        """log p((x + u)/L) - D ln L, (B,), of images x and uniform u."""
        assert self.spec.levels is not None
        v, constant = dequantise(x, self.spec.levels, u)
        return self.log_density(v) + constant

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["x"]
        if self.spec.levels is None:
            nll = -self.log_density(x).mean()
            return {"loss": nll, "nll_nats": nll}
        bits = bits_per_dim(self.bound(x, self.noise.uniform(*x.shape)), self.spec.dim).mean()
        return {"loss": bits, "bits_per_dim": bits}
