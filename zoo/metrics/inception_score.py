"""IS: the inception score, from any classifier's probabilities.

Salimans et al. Improved Techniques for Training GANs. 2016. arXiv:1606.03498.

    IS = exp E_x KL(p(y|x) ‖ p(y)), p(y) the mean over the same split; 1 <= IS <= number of classes.

Small splits lower it, and it does not see diversity within a class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.metrics.base import KeptRows


def inception_score(p: Tensor, splits: int = 10, seed: int | None = 0) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation over the splits; with one split the deviation is 0.

    Args:
        p: class probabilities, (n, classes). splits: contiguous parts. seed: of a shuffle before
            splitting; None keeps the order.

    >>> sure, unsure = torch.eye(4).repeat(5, 1), torch.full((20, 4), 0.25)
    >>> [round(float(inception_score(p, splits=1)[0]), 4) for p in (sure, unsure)]
    [4.0, 1.0]
    """
    if not 1 <= splits <= len(p):
        raise ValueError(f"the inception score takes 1 to n splits, got {splits} for {len(p)} rows")
    p = p.double()
    if seed is not None:
        p = p[torch.randperm(len(p), generator=torch.Generator().manual_seed(seed)).to(p.device)]
    scores = []
    for part in p.tensor_split(splits):
        marginal = part.mean(0)
        scores.append(
            (torch.xlogy(part, part).sum(1).mean() - torch.xlogy(marginal, marginal).sum()).exp()
        )
    values = torch.stack(scores)
    return values.mean(), values.std(correction=0)


def classes_present(p: Tensor, share: float = 0.02) -> Tensor:
    """Number of classes that are the most probable one of at least ``share`` of the rows.

    >>> int(classes_present(torch.eye(4)[[0, 1, 1, 1]], share=0.3))
    1
    """
    counts = torch.bincount(p.argmax(1), minlength=p.shape[1])
    return (counts >= share * len(p)).sum()


class InceptionScore(KeptRows):
    """IS and the number of classes present, of the generated images' class probabilities.

    Args:
        classes: columns of the probabilities. splits, seed: see ``inception_score``. share: see
            ``classes_present``.
    """

    def __init__(
        self, classes: int, splits: int = 10, seed: int = 0, share: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(classes, **kwargs)
        self.splits, self.seed, self.share = splits, seed, share

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and population standard deviation of the score over the splits, and the number of
        classes present.
        """
        p = self.kept("fake")
        return *inception_score(p, self.splits, self.seed), classes_present(p, self.share)
