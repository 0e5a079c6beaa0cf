"""The generators of de-raining (Zhang, Sindagi, Patel 2017): one that keeps every map at the
image's size, and one of dense blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _layer(conv: nn.Module, width: int, act: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(width), act)


class FullSize(nn.Module):
    """The first version's, (B, inputs, H, W) -> (B, outputs, H, W) in (-1, 1), of any H and W.

    Six 3x3 convolutions, each with batch norm and PReLU, of K, K, K, K, K/2 and few filters, and
    six transposed ones the other way, with ReLU; the maps of the fourth and the second are added to
    those of the second and the fourth on the way back; tanh.

    Args:
        width: K. narrow: filters of the sixth convolution.
    """

    def __init__(self, inputs: int, outputs: int, width: int, narrow: int = 1) -> None:
        super().__init__()
        widths = [width] * 4 + [max(width // 2, 1), narrow]
        there = zip([inputs, *widths[:-1]], widths, strict=True)
        self.there = nn.ModuleList(
            _layer(nn.Conv2d(a, b, 3, padding=1, bias=False), b, nn.PReLU()) for a, b in there
        )
        back = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.back = nn.ModuleList(
            _layer(nn.ConvTranspose2d(a, b, 3, padding=1, bias=False), b, nn.ReLU())
            for a, b in back
        )
        self.last = nn.ConvTranspose2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        kept: dict[int, Tensor] = {}
        for i, layer in enumerate(self.there, 1):
            x = kept[i] = layer(x)
        for i, layer in enumerate(self.back, 1):
            x = layer(x)
            if i in (2, 4):
                x = x + kept[6 - i]
        return self.last(x).tanh()


class Dense(nn.Module):
    """A dense block (Huang et al. 2017): 4 convolutions, each of all maps before it, whose maps are
    added to the list; (B, inputs, H, W) -> (B, ``width``, H, W).

    >>> Dense(4, 12)(torch.zeros(2, 4, 5, 3)).shape
    torch.Size([2, 12, 5, 3])
    """

    LAYERS = 4

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers, wide = nn.ModuleList(), inputs
        for i in range(self.LAYERS):
            each = (outputs - wide) // (self.LAYERS - i)
            self.layers.append(_layer(nn.Conv2d(wide, each, 3, 1, 1), each, nn.LeakyReLU(0.2)))
            wide += each

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class DenseCoder(nn.Module):
    """The final version's, (B, inputs, H, W) -> (B, outputs, H, W) in (-1, 1); H and W multiples of
    8.

    A convolution and a pool, dense blocks with a transition after each, 1x1 and a pool on the way
    down, 1x1 and nearest neighbours on the way up, 1x1 alone between; maps of one size are put side
    by side; tanh. Widths are those of the paper times ``width`` / 64.
    """

    # In, out of a block, out of its transition, and its change of size; of ``width`` 64.
    BLOCKS = (
        (64, 256, 128, -1),
        (128, 512, 256, -1),
        (256, 1024, 512, 0),
        (512, 768, 128, 0),
        (384, 640, 120, 1),
        (248, 384, 64, 1),
        (128, 192, 64, 1),
        (64, 128, 16, 0),
    )
    BESIDE = {4: 1, 5: 0, 6: -1}  # block: what it is given beside, the transition of a block

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        super().__init__()

        def of(n: int) -> int:
            return max(n * width // 64, 1)

        self.first = _layer(nn.Conv2d(inputs, of(64), 3, padding=1), of(64), nn.LeakyReLU(0.2))
        self.dense, self.transitions, out = nn.ModuleList(), nn.ModuleList(), [of(64)]
        for i, (_, b, c, _) in enumerate(self.BLOCKS):
            a = out[-1] + (out[self.BESIDE[i] + 1] if i in self.BESIDE else 0)
            block = Dense(a, max(of(b), a + Dense.LAYERS))
            self.dense.append(block)
            self.transitions.append(nn.Conv2d(max(of(b), a + Dense.LAYERS), of(c), 1))
            out.append(of(c))
        self.last = nn.Conv2d(out[-1], outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.first(x), 2)
        out = [x]
        for i, (dense, transition) in enumerate(zip(self.dense, self.transitions, strict=True)):
            if i in self.BESIDE:
                x = torch.cat([x, out[self.BESIDE[i] + 1]], 1)
            x, change = transition(dense(x)), self.BLOCKS[i][-1]
            if change < 0:
                x = F.max_pool2d(x, 2)
            elif change:
                x = F.interpolate(x, scale_factor=2.0)
            out.append(x)
        return self.last(x).tanh()
