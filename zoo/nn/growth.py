"""Networks that grow with the images they see (Karras et al. 2018, arXiv:1710.10196, section 2):
the schedule, and the discriminator that grows.

A level is a resolution: 0 the base grid (4x4, for sides that are powers of two), each further one
twice its size. A new level is faded in: its share α rises from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blur import blur, halved
from zoo.nn.equalised import EqualisedConv2d, EqualisedLinear
from zoo.nn.minibatch import minibatch_std
from zoo.nn.small import doublings, logits


@dataclass(frozen=True)
class Growth:
    """Which level is trained, and with what share, as a function of the images shown so far.

    Args:
        levels: how many there are. fade: images over which a new level is faded in. steady: images
            for which it is trained after that, and the first level at first; the last one has the
            rest of the run.
        first: the level at which the growth begins.

    >>> growth = Growth(levels=3, fade=100, steady=50)
    >>> [growth.at(n) for n in (0, 49, 50, 75, 150, 199, 225, 1000)]
    [(0, 1.0), (0, 1.0), (1, 0.0), (1, 0.25), (1, 1.0), (1, 1.0), (2, 0.25), (2, 1.0)]
    """

    levels: int
    fade: int
    steady: int
    first: int = 0

    def at(self, images: int) -> tuple[int, float]:
        """The level and α."""
        if images < self.steady or self.first == self.levels - 1:
            return self.first, 1.0
        grown, inside = divmod(images - self.steady, self.fade + self.steady)
        level = self.first + 1 + grown
        if level >= self.levels:
            return self.levels - 1, 1.0
        return level, min(inside / self.fade, 1.0) if self.fade else 1.0


def levels_of(height: int, breadth: int) -> int:
    """How many levels images of this size have.

    >>> levels_of(16, 16), levels_of(1024, 1024)
    (3, 9)
    """
    return doublings(height, breadth) + 1


def maps_of(levels: int, width: int, widest: int) -> list[int]:
    """Feature maps of each level: ``width`` at the last, twice as many at each one before, at most
    ``widest``.

    >>> maps_of(9, 16, 512)  # of the paper
    [512, 512, 512, 512, 256, 128, 64, 32, 16]
    """
    return [min(width << (levels - 1 - i), widest) for i in range(levels)]


def blended(new: Tensor, old: Tensor, alpha: float) -> Tensor:
    """α new + (1 - α) old."""
    return alpha * new + (1 - alpha) * old


class GrowingDiscriminator(nn.Module):
    """Images of a level, (B, C, H, W) -> logits, (B,).

    At each level: images to maps by a 1x1 convolution; then two 3x3 convolutions and halving, down
    to the base grid; there the minibatch's standard deviation, a 3x3 convolution and two linear
    layers. Leaky ReLU 0.2, equalised rates, no norm.

    Args:
        shape: of the last level's images. maps: of each level, the base grid's first.
        group: rows over which the minibatch's deviation is taken; 1 leaves it out.
        filtered: blur before halving. first: the first level of which it sees images.
    """

    def __init__(
        self,
        shape: Sequence[int],
        maps: Sequence[int],
        group: int = 4,
        filtered: bool = False,
        first: int = 0,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.group, self.filtered = group, filtered
        cells = (height >> (len(maps) - 1)) * (breadth >> (len(maps) - 1))
        self.from_image = nn.ModuleList(
            EqualisedConv2d(channels, m, 1) if i >= first else nn.Identity()
            for i, m in enumerate(maps)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList([EqualisedConv2d(m, m, 3), EqualisedConv2d(m, n, 3)])
            for n, m in zip(maps[:-1], maps[1:], strict=True)
        )
        self.last = EqualisedConv2d(maps[0] + (group > 1), maps[0], 3)
        self.hidden = EqualisedLinear(cells * maps[0], maps[0])
        self.end = EqualisedLinear(maps[0], 1, gain=1.0)
        self.height = height

    def level(self, x: Tensor) -> int:
        """The level of images of this size."""
        return len(self.blocks) - (self.height // x.shape[2]).bit_length() + 1

    def features(self, x: Tensor, alpha: float = 1.0) -> Tensor:
        """The last hidden activation, (B, maps)."""
        level = self.level(x)
        h = F.leaky_relu(self.from_image[level](x), 0.2)
        for i in range(level, 0, -1):
            h = self.half(i, h)
            if i == level and alpha < 1:
                old = F.leaky_relu(self.from_image[i - 1](halved(x)), 0.2)
                h = blended(h, old, alpha)
        if self.group > 1:
            h = minibatch_std(h, self.group)
        h = F.leaky_relu(self.last(h), 0.2)
        return F.leaky_relu(self.hidden(h.flatten(1)), 0.2)

    def half(self, level: int, h: Tensor) -> Tensor:
        """A level's maps to those of the level before."""
        for conv in self.blocks[level - 1].children():
            h = F.leaky_relu(conv(h), 0.2)
        return halved(blur(h) if self.filtered else h)

    def forward(self, x: Tensor, alpha: float = 1.0) -> Tensor:
        return logits(self.end(self.features(x, alpha)))
