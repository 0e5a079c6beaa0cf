"""Weight clipping (Arjovsky et al. 2017, algorithm 1)."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def clip_weights(net: nn.Module, c: float) -> None:
    """Clamp every parameter of a network, biases and gains too, to [-c, c], in place.

    >>> net = nn.Linear(2, 1)
    >>> _ = nn.init.constant_(net.weight, -3.0)
    >>> clip_weights(net, 0.5)
    >>> net.weight.tolist()
    [[-0.5, -0.5]]
    """
    for p in net.parameters():
        p.clamp_(-c, c)
