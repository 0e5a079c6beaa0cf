"""Learning from a part of the labels, the same part for every model that does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.module import Batch, GenerativeModule


class FewLabels(GenerativeModule):
    """Mixin of models that read the labels of the training rows with ``index`` < ``labels``, and
    every row without its label.

    Attributes:
        labels: how many; None is all of them.
        rows: N, the number of training rows, int64; a buffer, known once a run has begun.
    """

    labels: int | None
    rows: Tensor

    def use_labels(self, labels: int | None) -> None:
        """For the constructor."""
        if labels is not None and labels < 1:
            raise ValueError(
                f"{self.model_name}'s labels is at least 1, or null for all, got {labels}"
            )
        self.labels = labels
        self.register_buffer("rows", torch.ones((), dtype=torch.long))

    def initialise_from(self, x: Tensor) -> None:
        self.rows.fill_(len(x))

    def labelled(self, batch: Batch) -> Tensor:
        """Which rows' labels may be read, (B,)."""
        return (
            torch.ones_like(batch["index"], dtype=torch.bool)
            if self.labels is None
            else batch["index"] < self.labels
        )

    def label_cost(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of a minibatch's labelled rows, nats: its mean over all rows, of which a
        labelled one stands for N/labels. However many labelled rows a minibatch holds, its
        expectation is their mean in the data; minibatches of several processes add up to one."""
        weight = (
            1.0 if self.labels is None else max(1.0, float(self.rows) / self.labels)
        )  # above N, every row is labelled
        return (
            weight
            * (F.cross_entropy(logits, batch["y"], reduction="none") * self.labelled(batch)).mean()
        )
