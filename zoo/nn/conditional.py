"""How a class or a code reaches a network: by the gains and shifts of a batch norm (de Vries et al.
2017; Dumoulin et al. 2017), and by a projection (Miyato and Koyama 2018, arXiv:1802.05637).
"""

from __future__ import annotations

from torch import Tensor, nn


class ConditionalBatchNorm(nn.Module):
    """(1 + gain(c)) · x̂ + shift(c), x̂ normalised over the batch; gain and shift are linear in the
    condition c, (B, D), without a bias.

    >>> import torch
    >>> norm, x = ConditionalBatchNorm(3, 5), torch.randn(4, 3, 2, 2)
    >>> plain = nn.BatchNorm2d(3, affine=False)(x)
    >>> bool(torch.equal(norm(x, torch.zeros(4, 5)), plain))
    True
    """

    def __init__(self, maps: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(maps, affine=False)
        self.gain = nn.Linear(condition, maps, bias=False)
        self.shift = nn.Linear(condition, maps, bias=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gain, shift = self.gain(c)[:, :, None, None], self.shift(c)[:, :, None, None]
        return (1 + gain) * self.norm(x) + shift


class ProjectionHead(nn.Module):
    """w · h + b + ⟨V_y, h⟩ of features h, (B, D), and classes y: (B, 1).

    >>> import torch
    >>> ProjectionHead(4, classes=3)(torch.randn(2, 4), torch.tensor([0, 2])).shape
    torch.Size([2, 1])
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.classes = nn.Embedding(classes, features)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        return self.linear(h) + (self.classes(y) * h).sum(1, keepdim=True)
