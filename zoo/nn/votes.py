"""Names for the categories of a model that sees no labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Votes(nn.Module):
    """Which labels the recent training rows of each category had. A category is named by the most
    frequent one, so that no held-out label has a say in the accuracy of a clustering.

    Args:
        categories: how many the model has. labels: how many the data have. memory: what earlier
            votes count, a minibatch of votes later.

    >>> votes = Votes(2, 3)
    >>> votes.add(torch.tensor([0, 0, 1]), torch.tensor([2, 2, 0]), lambda counts: counts)
    >>> votes.names(), round(votes.nmi().item(), 3)
    (tensor([2, 0]), 1.0)
    """

    counts: Tensor

    def __init__(self, categories: int, labels: int, memory: float = 0.95) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("counts", torch.zeros(categories, labels))

    @torch.no_grad()
    def add(
        self,
        category: Tensor,
        y: Tensor,
        reduce: Callable[[Tensor], Tensor],
        among: Tensor | None = None,
    ) -> None:
        """Let a minibatch vote: rows' categories and labels, (B,) each.

        Args:
            reduce: the mean over processes. among: which rows have a vote, booleans (B,); None for
                all.
        """
        categories, labels = self.counts.shape
        rows = F.one_hot(y, labels) if among is None else F.one_hot(y, labels) * among[:, None]
        new = reduce(
            (F.one_hot(category, categories).T @ rows).to(self.counts.dtype) / len(y)
        )  # a share: the mean of processes is theirs
        share = 1.0 if among is None else reduce(among.to(self.counts.dtype).mean())
        self.counts.mul_(self.memory**share).add_(new)  # rows without a vote make nobody forget

    def names(self) -> Tensor:
        """The label of each category, (categories,)."""
        return self.counts.argmax(1)

    def nmi(self) -> Tensor:
        """I(category; label) over the mean of their entropies, in the recent rows; 0 where either
        is constant.
        """
        p = self.counts.double() / self.counts.sum().clamp(min=1e-30)
        rows, columns, both = (torch.special.entr(v).sum() for v in (p.sum(1), p.sum(0), p))
        return ((rows + columns - both) / (0.5 * (rows + columns)).clamp(min=1e-12)).to(
            self.counts.dtype
        )
