"""Weight-normalised convolutions w = g v/|v| (Salimans and Kingma 2016, arXiv:1602.07868) and their
data-dependent start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

CONSTANT = 1e-3  # a map of no more deviation is constant on the data


class WeightNormed(nn.Module):
    """Base of the weight-normalised convolutions; subclasses say in ``_apply_to`` what w and b do
    to maps.

    Args:
        a: maps in. b: maps out. size: of the kernel. grow: whether the convolution is transposed.
            scale: standard deviation at the start.
    """

    folded: Tensor | None = None  # g v/|v|, where it is wanted often and does not change
    measuring = False  # set g and b from the next input

    def __init__(
        self, a: int, b: int, size: tuple[int, int], grow: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.grow, self.scale = grow, scale
        self.v = nn.Parameter(0.05 * torch.randn(*((a, b) if grow else (b, a)), *size))
        self.g = nn.Parameter(torch.ones(b))
        self.b = nn.Parameter(torch.zeros(b))

    def weight(self) -> Tensor:
        if self.folded is not None:
            return self.folded
        outs = 1 if self.grow else 0
        v = self.direction()
        norm = v.square().sum([d for d in range(4) if d != outs], keepdim=True).sqrt()
        return v / norm * self.g.view(*[1] * outs, -1, *[1] * (3 - outs))

    def direction(self) -> Tensor:
        """v; of a masked convolution what its mask leaves."""
        return self.v

    def forward(self, x: Tensor) -> Tensor:
        out = self._apply_to(x)
        if self.measuring:
            with torch.no_grad():
                std, mean = torch.std_mean(out, (0, 2, 3))
                gain = torch.where(std > CONSTANT, self.scale / std, self.scale)
                self.g.mul_(gain)
                self.b.sub_(mean).mul_(gain)
                out = self._apply_to(x)
        return out

    def _apply_to(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@contextmanager
def measuring(net: nn.Module) -> Iterator[None]:
    """Within, every weight-normalised convolution that a batch passes through is scaled to have
    that batch's outputs at mean 0 and standard deviation ``scale``; of a map that is constant on
    the batch, no more than its gain becomes ``scale``.

    >>> from zoo.nn.shifted_conv import Pointwise
    >>> conv, x = Pointwise(2, 3), torch.randn(50, 2, 4, 4)
    >>> with measuring(conv), torch.no_grad():
    ...     out = conv(x)
    >>> conv(x).std((0, 2, 3)).round(decimals=2).tolist()
    [1.0, 1.0, 1.0]
    """
    convs = [m for m in net.modules() if isinstance(m, WeightNormed)]
    for conv in convs:
        conv.measuring = True
    try:
        yield
    finally:
        for conv in convs:
            conv.measuring = False
