"""Minibatch discrimination (Salimans et al. 2016, arXiv:1606.03498, section 3.2): features that say
how near a row is to the others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.nn.small import full


class MinibatchDiscrimination(nn.Module):
    """f, (B, A) -> o, (B, kernels): o_b(x_i) = Σ_{j≠i} exp(-‖M_{i,b} - M_{j,b}‖₁), M_i = f_i T, T
    of A x kernels x dims.

    The paper's sum has the constant 1 of j = i besides.

    Args:
        inputs: A. kernels: rows of M_i. dims: columns of M_i.

    >>> MinibatchDiscrimination(6, kernels=2)(torch.zeros(3, 6)).tolist()  # two equal rows beside
    [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    """

    def __init__(self, inputs: int, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        self.t = nn.Parameter(0.05 * torch.randn(inputs, kernels, dims))

    def forward(self, f: Tensor, gather: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """
        Args:
            gather: all rows, of every process, from one's own; None where those are all.
        """
        own = f @ self.t.flatten(1)
        m, rows = (
            v.unflatten(1, self.t.shape[1:]).transpose(0, 1)
            for v in (own, own if gather is None else gather(own))
        )
        apart = torch.cdist(full(m), full(rows), p=1)
        return ((-apart).exp().sum(2).T - 1).to(self.t.dtype)
