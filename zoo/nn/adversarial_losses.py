"""What several GANs take from Goodfellow et al. 2014: the divergence that D's loss bounds, and how
often D is right.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F


def jsd_bound(loss_d: Tensor) -> Tensor:
    """(log 4 - L_D)/2, nats, at most log 2: a lower bound of the Jensen-Shannon divergence for any
    discriminator, from its loss -E log D(x) - E log(1 - D(G(z))).

    >>> import torch
    >>> round(jsd_bound(torch.tensor(0.0)).item(), 6)  # D is sure, and right
    0.693147
    """
    return (math.log(4.0) - loss_d) / 2


def accuracy(real: Tensor, fake: Tensor, middle: float = 0.0) -> dict[str, Tensor]:
    """``d_acc_real`` and ``d_acc_fake``: shares of D's values on the right side of ``middle``.

    >>> import torch
    >>> said = accuracy(torch.tensor([2.0, -1.0]), torch.tensor([-3.0, -0.5]))
    >>> said["d_acc_real"].item(), said["d_acc_fake"].item()
    (0.5, 1.0)
    """
    right_real, right_fake = (real > middle).float().mean(), (fake < middle).float().mean()
    return {"d_acc_real": right_real, "d_acc_fake": right_fake}


def divergence(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """``jsd_bound`` and ``accuracy`` from D's logits of real and of generated rows."""
    bound = jsd_bound(F.softplus(-real).mean() + F.softplus(fake).mean())
    return {"jsd_bound": bound, **accuracy(real, fake)}
