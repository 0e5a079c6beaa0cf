"""The U-Net of image translation (Ronneberger et al. 2015; as in Isola et al. 2017, section 3.2.1):
an encoder, a decoder, and a skip between any two layers of one size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.patches import Norm, by_image
from zoo.nn.prior import Source


def dropped(h: Tensor, share: float, source: Source | None) -> Tensor:
    """h with this share of its values 0 and the rest larger, drawn from ``source``; h for none."""
    if source is None or not share:
        return h
    kept = source.uniform(*h.shape) >= share
    return h * kept.to(h.dtype) / (1 - share)


class UNet(nn.Module):
    """x, (B, inputs, H, W) -> (B, outputs, H, W) in (-1, 1).

    All convolutions are 4x4 of stride 2. Down: leaky ReLU 0.2 before each but the first, a norm
    after each but the first and the last. Up: ReLU, transposed convolution, norm, dropout in the
    first ``noisy`` ones after the innermost, then the skip beside it; tanh at the end.

    Args:
        widths: filters of each level of the encoder; the sides are multiples of 2 to their number.
        dropout: share of values dropped. noisy: levels of the decoder that have it. skips: whether
            there are any. norm: makes each norm.

    >>> UNet(1, 3, (4, 8, 8))(torch.zeros(2, 1, 16, 8)).shape
    torch.Size([2, 3, 16, 8])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: tuple[int, ...],
        dropout: float = 0.0,
        noisy: int = 0,
        skips: bool = True,
        norm: Norm = by_image,
    ) -> None:
        super().__init__()
        self.dropout, self.noisy, self.skips = dropout, noisy, skips
        last = len(widths) - 1
        down = zip((inputs, *widths[:-1]), widths, strict=True)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2, 1, bias=i in (0, last)) for i, (a, b) in enumerate(down)
        )
        self.down_norms = nn.ModuleList(
            norm(b) if 0 < i < last else nn.Identity() for i, b in enumerate(widths)
        )
        backwards = widths[::-1]
        beside = [0, *(w if skips else 0 for w in backwards[1:])]
        into = [w + s for w, s in zip(backwards, beside, strict=True)]
        after = (*backwards[1:], outputs)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, 2, 1, bias=i == last)
            for i, (a, b) in enumerate(zip(into, after, strict=True))
        )
        self.up_norms = nn.ModuleList(norm(b) for b in backwards[1:])

    def forward(self, x: Tensor, source: Source | None = None) -> Tensor:
        """Args: source: of the dropout; none is without."""
        h, passed = x, list[Tensor]()
        for i, (conv, norm) in enumerate(zip(self.down, self.down_norms, strict=True)):
            h = norm(conv(F.leaky_relu(h, 0.2) if i else h))
            passed.append(h)
        for i, (conv, norm) in enumerate(zip(self.up, self.up_norms, strict=False)):
            h = norm(conv(F.relu(h)))
            if 1 <= i <= self.noisy:
                h = dropped(h, self.dropout, source)
            h = torch.cat([h, passed[-2 - i]], 1) if self.skips else h
        return torch.tanh(self.up[-1](F.relu(h)))
