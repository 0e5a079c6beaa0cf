"""Features that say how near a row is to the others: minibatch discrimination (Salimans et al.
2016, arXiv:1606.03498, section 3.2), and minibatch standard deviation (Karras et al. 2018,
arXiv:1710.10196, section 3).
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


def minibatch_std(h: Tensor, group: int = 4) -> Tensor:
    """h, (B, C, H, W), with one more map, (B, C + 1, H, W): in groups of rows that follow one
    another, the standard deviation of each value over the group, its mean over all values, the same
    at every place of the group's rows. In no less than single precision.

    Args:
        group: rows of a group, at most B; a last one that is not full is filled with the first rows
            of the batch.

    >>> minibatch_std(torch.tensor([0.0, 2.0, 5.0, 5.0]).view(4, 1, 1, 1), group=2)[:, 1].flatten()
    tensor([1.0000e+00, 1.0000e+00, 1.0000e-04, 1.0000e-04])
    """
    n, size = len(h), min(group, len(h))
    at = torch.arange(-(-n // size) * size, device=h.device) % n
    groups = full(h)[at].unflatten(0, (-1, size))  # (groups, size, C, H, W)
    std = (groups.var(1, correction=0) + 1e-8).sqrt().flatten(1).mean(1)
    one = std.repeat_interleave(size)[:n].to(h.dtype).view(n, 1, 1, 1)
    return torch.cat([h, one.expand(n, 1, *h.shape[2:])], 1)
