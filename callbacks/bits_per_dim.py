"""Likelihoods over the validation and test data, in nats and bits per dimension, and the model's
own validation terms.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from callbacks.report import Observer, can, log_scalars, name_of, write_protocol
from zoo.core.batch import Batch
from zoo.core.draw import given, undisturbed
from zoo.core.ema import averaged
from zoo.core.likelihood import bits_per_dim
from zoo.core.module import GenerativeModule
from zoo.core.noise import mix
from zoo.core.options import Whole
from zoo.core.spec import Image, Video, Volume

PIXELS = (Image, Video, Volume)  # whose likelihood is also told in bits per dimension


class BitsPerDim(Observer):
    """Means over all rows of all processes, summed in float64, so unequal batches weigh what they
    hold.

    - ``val/nll_nats`` of a model with ``log_prob``; ``val/elbo`` (nats) of one with ``elbo``;
    - ``val/bits_per_dim`` of images, from the one or else the other; what kind of number it is
      (exact, a bound, an estimate) stands in the run's protocol.json and W&B config as
      ``likelihood_kind``;
    - ``val/NAME`` for every NAME of the model's ``evaluate``.

    In test runs the names begin with ``test/``. A random estimate draws from a state set by the
    seed and the batch's row numbers: repeating it gives the same value. Models whose noise belongs
    to the row (``zoo.core.likelihood.row_noise``) give the same value on any number of processes;
    with others, batches that hold other rows draw other noise.

    Args:
        require: refuse a model that has no likelihood. seed: of random estimates.
    """

    name = "bits_per_dim"

    def __init__(self, require: bool = False, seed: Whole = 0) -> None:
        self.require, self.seed = require, seed
        self._sums: dict[str, list[float]] = {}
        self._whole = True

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        if self.require and self._kind(module) == "none":
            name = name_of(module)
            raise ValueError(
                f"{name} assigns no likelihood, so there are no bits per dimension; judge it by "
                f"its "
                "samples (--bits_per_dim.require=false) or choose a model of an explicit family "
                "(python -m zoo.ls)"
            )

    def unserved(self, trainer: Any, module: Any) -> str:
        terms = type(module).evaluate is not GenerativeModule.evaluate
        if self._kind(module) == "none" and not terms:
            return "it assigns no likelihood and has no validation terms of its own"
        return ""

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        self._sums, self._whole = {}, True

    def on_validation_batch_end(
        self,
        trainer: Any,
        module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or not self._whole:
            return
        self._whole = False  # a mean of some of the rows would be another number
        with self.spared(trainer, "the likelihood"):
            self._add(trainer, module, batch, batch_idx)
            self._whole = True

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        self._log(trainer, module, "val")

    def on_test_epoch_start(self, trainer: Any, module: Any) -> None:
        self.on_validation_epoch_start(trainer, module)

    def on_test_batch_end(
        self,
        trainer: Any,
        module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.on_validation_batch_end(trainer, module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: Any, module: Any) -> None:
        self._log(trainer, module, "test")

    # -- parts ------------------------------------------------------------------------------------
    @staticmethod
    def _kind(module: Any) -> str:
        if not (can(module, "log_prob") or can(module, "elbo")):
            return "none"
        return getattr(module, "likelihood_kind", module.entry.likelihood)

    def _add(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Add a batch's terms to the sums."""
        with torch.inference_mode(False), averaged(trainer, module), undisturbed(module):
            # A model may differentiate with respect to its input.
            batch = Batch({k: v.clone() for k, v in batch.items()})
            rows = batch["index"].tolist() if "index" in batch else [batch_idx, trainer.global_rank]
            torch.manual_seed(mix(self.seed, "likelihood", *rows))
            for name, values in self._terms(module, batch).items():
                total = self._sums.setdefault(name, [0.0, 0.0])
                total[0] += float(values.detach().cpu().double().sum())
                total[1] += len(values)

    @staticmethod
    def _terms(module: Any, batch: Batch) -> dict[str, Tensor]:
        """Values of each row by name."""
        terms = {}
        if can(module, "log_prob"):
            told = given(module, module.log_prob, batch)
            terms["nll_nats"] = -module.log_prob(batch["x"], **told)
        if can(module, "elbo"):
            terms["elbo"] = module.elbo(batch["x"], **given(module, module.elbo, batch))
        if type(module).evaluate is not GenerativeModule.evaluate:
            terms |= module.evaluate(batch)
        for name, values in terms.items():
            if values.shape != (batch.n,):
                raise ValueError(
                    f"{type(module).__name__}: {name} should be one value for each of {batch.n} "
                    f"rows, got {tuple(values.shape)}"
                )
        return terms

    def _log(self, trainer: Any, module: Any, stage: str) -> None:
        if trainer.sanity_checking or not self._whole:
            return
        shares: list[Any] = [self._sums]
        if trainer.world_size > 1:  # all processes, those without rows included
            shares = [None] * trainer.world_size
            dist.all_gather_object(shares, self._sums)
        means = {}
        for name in dict.fromkeys(name for share in shares for name in share):
            parts = [share[name] for share in shares if name in share]
            means[name] = sum(p[0] for p in parts) / sum(p[1] for p in parts)
        if ("nll_nats" in means or "elbo" in means) and module.spec.has(x=PIXELS):
            log_prob = -means["nll_nats"] if "nll_nats" in means else means["elbo"]
            nats = torch.tensor(log_prob, dtype=torch.float64)
            means["bits_per_dim"] = float(bits_per_dim(nats, module.spec.dim))
        values = {f"{stage}/{k}": v for k, v in means.items()}
        why = "not a number for some of the rows"
        log_scalars(trainer, module, self.numbers(values, why))
        if self._kind(module) != "none":
            write_protocol(trainer, {"likelihood_kind": self._kind(module)})
