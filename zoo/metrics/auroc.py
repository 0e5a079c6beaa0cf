"""Area under the ROC curve."""

from __future__ import annotations

from torch import Tensor


def auroc(scores: Tensor, positive: Tensor) -> Tensor:
    """How often a positive row scores higher than another, ties counting half: 1 is a perfect
    detector, 0.5 chance. NaN without rows of both kinds.

    Whatever the scores' range is: torchmetrics takes numbers beyond [0, 1] for logits, whose
    sigmoids tie.

    Args:
        scores: (N,). positive: (N,) booleans.

    >>> import torch
    >>> auroc(torch.tensor([900.0, 800.0, 700.0]), torch.tensor([True, False, True])).item()
    0.5
    """
    above = scores[positive][:, None] - scores[~positive]
    return ((above > 0).double() + 0.5 * (above == 0).double()).mean()
