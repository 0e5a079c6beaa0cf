"""Learning from a part of the labels, the same part for every model that does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.batch import Batch
from zoo.core.module import GenerativeModule


def evenly(y: Tensor, n: int) -> Tensor:
    """The first rows of each class of y, (N,), as many of one as of another: n in all, in order. A
    class that ends before leaves its share to the others.

    >>> evenly(torch.tensor([0, 0, 0, 1, 0, 1]), 4).tolist()
    [0, 1, 3, 5]
    """
    before = F.one_hot(y).cumsum(0).gather(1, y[:, None])[:, 0]  # of a row's class, up to it
    return before.argsort(stable=True)[:n].sort().values


class FewLabels(GenerativeModule):
    """Mixin of models that read the labels of ``labels`` training rows, equally many of each class,
    the first ones by ``index``, and every row without its label.

    Attributes:
        labels: how many; None is all of them.
        size: N, the number of training rows, int64; a buffer, known once a run has begun.
        chosen: the ``index`` of the rows whose labels are read, int64; likewise.
    """

    labels: int | None
    size: Tensor
    chosen: Tensor

    def use_labels(self, labels: int | None) -> None:
        """For the constructor."""
        self.labels = labels
        self.register_buffer("size", torch.ones((), dtype=torch.long))
        self.register_buffer("chosen", torch.arange(labels or 0))

    def initialise_from(self, batch: Batch) -> None:
        self.size.fill_(batch.n)
        if self.labels is not None and "y" in batch:
            rows = evenly(batch["y"], self.labels)
            self.chosen[: len(rows)] = rows

    def labelled(self, batch: Batch) -> Tensor:
        """Which rows' labels may be read, (B,)."""
        if self.labels is None:
            return torch.ones_like(batch["index"], dtype=torch.bool)
        return torch.isin(batch["index"], self.chosen)

    def label_cost(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of a minibatch's labelled rows, nats: its mean over all rows, of which a
        labelled one stands for N/labels. However many labelled rows a minibatch holds, its
        expectation is their mean in the data; minibatches of several processes add up to one.
        """
        # Above N, every row is labelled.
        weight = 1.0 if self.labels is None else max(1.0, float(self.size) / self.labels)
        cost = F.cross_entropy(logits, batch["y"], reduction="none")
        return weight * (cost * self.labelled(batch)).mean()
