"""Likelihood units and preprocessing, once for every family: nats, bits per dimension, dequantisation, logit transform."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.module import Batch, GenerativeModule

KINDS = {
    "exact_mass": "log P(x), a probability mass; sums to one over all images",
    "exact_density": "log p(x), a density on R^D",
    "dequantised_bound": "E_u log p((x+u)/L) - D ln L, a lower bound of log P(x)",
    "lower_bound": "a variational lower bound of log P(x)",
    "estimate": "the unnormalised part exact, the partition function estimated by AIS",
    "none": "the model assigns no likelihood",
}


def bits_per_dim(log_prob: Tensor, dim: int) -> Tensor:
    """-log_prob / (D ln 2): nats of one example to bits per dimension, the only conversion of the project.

    Args:
        log_prob: nats, any shape. dim: D, the number of scalars of one example (sub-pixels count).
    """
    return -log_prob / (dim * math.log(2))


def dequantise(x: Tensor, levels: int, u: Tensor) -> tuple[Tensor, float]:
    """Integer levels to y = (x + u)/L in [0, 1).

    Args:
        x: (B, *shape) levels. u: noise of the same shape, uniform on [0, 1).

    Returns:
        y, and the constant -D ln L which turns log p(y) into a lower bound of log P(x).
    """
    return (x + u) / levels, -x[0].numel() * math.log(levels)


def logit_transform(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """p = α + (1 - 2α) y, y' = ln p - ln(1 - p) (Dinh et al. 2017 as their code has it; the printed α + (1-α) y overflows at white).

    Returns:
        y' and log|dy'/dy| summed over dimensions, (B,).
    """
    p = alpha + (1 - 2 * alpha) * y
    v = torch.log(p) - torch.log1p(-p)
    log_det = math.log(1 - 2 * alpha) + F.softplus(v) + F.softplus(-v)
    return v, log_det.flatten(1).sum(1)


def inverse_logit_transform(v: Tensor, alpha: float) -> Tensor:
    """y in [0, 1 - 1e-6] from y'."""
    return ((torch.sigmoid(v) - alpha) / (1 - 2 * alpha)).clamp(0, 1 - 1e-6)


class LikelihoodModule(GenerativeModule):
    """Base of the models trained by one loss, as a rule the negative log-likelihood.

    ``log_prob(x)`` (or ``elbo(x)`` where only a bound is to be had) returns nats, (B,), one value an example, never averaged.
    """

    def log_prob(self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Log-likelihood in nats, (B,), of data in the units of ``spec``; ``likelihood_kind`` says what the number is.

        Args:
            generator: source of randomness where the value is a Monte Carlo estimate.
        """
        raise NotImplementedError(f"{type(self).__name__} has no log_prob (likelihood: {self.likelihood_kind})")

    @property
    def likelihood_kind(self) -> str:
        """One of ``KINDS``; travels with every number. Models whose kind depends on the data override it."""
        return self.entry.likelihood if self.entry is not None else "none"

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
