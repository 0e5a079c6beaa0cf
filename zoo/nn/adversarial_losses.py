"""The generator's losses and the divergence bound of Goodfellow et al. 2014, from logits s with D =
σ(s); one value for each logit.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F


def non_saturating(logits: Tensor) -> Tensor:
    """-log D(G(z)); its slope -σ(-s) stays near -1 however sure D is (section 3)."""
    return F.softplus(-logits)


def minimax(logits: Tensor) -> Tensor:
    """log(1 - D(G(z))); its slope -σ(s) vanishes where D is sure (equation 1)."""
    return -F.softplus(logits)


GENERATOR_LOSSES = {"nonsat": non_saturating, "minimax": minimax}


def check_generator_loss(name: str) -> None:
    if name not in GENERATOR_LOSSES:
        raise ValueError(f"g_loss is one of {', '.join(GENERATOR_LOSSES)}, got {name!r}")


def jsd_bound(loss_d: Tensor) -> Tensor:
    """(log 4 - L_D)/2, nats, at most log 2: a lower bound of the Jensen-Shannon divergence for any
    discriminator.
    """
    return (math.log(4.0) - loss_d) / 2
