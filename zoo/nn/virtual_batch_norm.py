"""Virtual batch norm (Salimans et al. 2016, arXiv:1606.03498, section 3.5): statistics of a fixed
reference batch and the row itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.nn.small import full


class VirtualBatchNorm(nn.Module):
    """(n + B, C, ...) -> the same: the first n rows are the reference, normalised by their own mean
    and variance; each of the others by those of the reference and itself, the row weighing 1/(n +
    1).

    Args:
        channels: C. n: rows of the reference batch.

    >>> VirtualBatchNorm(1, 2)(torch.tensor([[-1.0], [1.0], [0.0]])).flatten().round().tolist()
    [-1.0, 1.0, 0.0]
    """

    def __init__(self, channels: int, n: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.n, self.eps = n, eps
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )

    def forward(self, h: Tensor) -> Tensor:
        n, flat = self.n, h.flatten(2) if h.ndim > 2 else h[..., None]  # (n + B, C, places)
        flat = full(flat)
        var, mean = torch.var_mean(flat[:n], (0, 2), correction=0)  # (C,), of the reference
        own_var, own_mean = torch.var_mean(flat[n:], 2, correction=0)  # (B, C)
        apart = own_mean - mean
        means = torch.cat([mean.expand(n, -1), mean + apart / (n + 1)])
        variances = torch.cat(
            [var.expand(n, -1), (n * var + own_var) / (n + 1) + n * (apart / (n + 1)).square()]
        )
        scale = self.weight * (variances + self.eps).rsqrt()
        return (
            (scale[..., None] * (flat - means[..., None]) + self.bias[:, None])
            .to(h.dtype)
            .view_as(h)
        )


class Referenced(nn.Module):
    """A network of codes whose batch norms became virtual ones: it sees a fixed batch of codes
    before its own, and drops what came of it.

    Args:
        net: with ``BatchNorm`` layers, which are replaced. z: the reference codes, (n, latent); a
            buffer.
    """

    z: Tensor

    def __init__(self, net: nn.Module, z: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("z", z)
        for parent in [*net.modules()]:
            for name, child in [*parent.named_children()]:
                if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    setattr(parent, name, VirtualBatchNorm(child.num_features, len(z), child.eps))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(torch.cat([self.z, z]))[len(self.z) :]
