"""Standing statistics: batch norm's mean and variance taken anew from several passes, in place of
running averages of networks that have moved since (Brock et al. 2019, arXiv:1809.11096, appendix
B).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def standing(net: nn.Module, passes: int, forward: Callable[[int], object]) -> Iterator[None]:
    """Inside, the batch norms of a network have the plain means over so many passes of what each
    minibatch measured; afterwards their own statistics and modes again, bit for bit.

    Args:
        passes: how many; 0 changes nothing. forward: pass number i through the network.

    >>> norm = nn.BatchNorm1d(1)
    >>> with standing(norm, 2, lambda i: norm(torch.tensor([[0.0], [4.0 * i]]))):
    ...     norm.running_mean, norm.training
    (tensor([1.]), False)
    >>> norm.running_mean, norm.training
    (tensor([0.]), True)
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not passes or not norms:
        yield
        return
    own = [{k: b.clone() for k, b in m.named_buffers(recurse=False)} for m in norms]
    modes = [(m, m.training) for m in net.modules()]
    momenta = [m.momentum for m in norms]
    try:
        net.eval()  # spectral norms do not iterate
        for m in norms:
            m.reset_running_stats()
            m.momentum = None  # a plain mean over the passes
            m.train()
        with torch.no_grad():
            for i in range(passes):
                forward(i)
        for m in norms:
            m.eval()
        yield
    finally:
        for m, momentum, buffers in zip(norms, momenta, own, strict=True):
            m.momentum = momentum
            for name, value in buffers.items():
                m.get_buffer(name).copy_(value)
        for module, training in modes:
            module.training = training
