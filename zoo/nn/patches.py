"""Discriminators of patches (Isola et al. 2017, section 3.2.2): each logit judges a part of an
image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.small import full

Norm = Callable[[int], nn.Module]  # of so many maps


def by_batch(width: int) -> nn.Module:
    """Batch norm by the batch at hand, at use too."""
    return nn.BatchNorm2d(width, track_running_stats=False)


def by_image(width: int) -> nn.Module:
    """What that is for a batch of one: instance norm with gains."""
    return nn.InstanceNorm2d(width, affine=True)


NORMS: dict[str, Norm] = {"batch": by_batch, "instance": by_image}


class PatchDiscriminator(nn.Module):
    """Images, (B, C, H, W), of one or several tensors side by side -> logits, (B, h, w).

    4x4 convolutions: ``layers`` of stride 2, one more of stride 1, and the logits'; leaky ReLU 0.2,
    a norm, before which there are no biases, after all but the first and the last. A logit sees
    16, 34 or 70 pixels to each side for 1, 2 or 3 layers.

    Args:
        channels: of all inputs together. width: filters of the first layer, doubled up to eight
            times. norm: makes each norm. bias: of the last layer; a critic of whose values only
        differences count has none.

    >>> net = PatchDiscriminator(4, 8, layers=1)
    >>> net(torch.zeros(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 6, 6])
    """

    def __init__(
        self,
        channels: int,
        width: int,
        layers: int = 3,
        norm: Norm = by_image,
        bias: bool = True,
    ) -> None:
        super().__init__()
        widths = [min(width << i, 8 * width) for i in range(layers + 1)]
        net: list[nn.Module] = []
        for i, (a, b) in enumerate(zip([channels, *widths[:-1]], widths, strict=True)):
            net.append(nn.Conv2d(a, b, 4, 2 if i < layers else 1, 1, bias=not i))
            net += [norm(b)] if i else []
            net.append(nn.LeakyReLU(0.2))
        self.maps = widths[-1]
        self.net = nn.Sequential(*net, nn.Conv2d(self.maps, 1, 4, 1, 1, bias=bias))

    def forward(self, *images: Tensor) -> Tensor:
        return full(self.net(torch.cat(images, 1))).squeeze(1)


class PyramidDiscriminator(PatchDiscriminator):
    """The same, whose logits see the whole too (Zhang, Sindagi, Patel 2017, section III-C): maps of
    the last layer are averaged over a grid of 1, 2, 4 and 8 cells to a side, reduced to one map
    each, and put beside them.
    """

    GRIDS = (1, 2, 4, 8)

    def __init__(self, channels: int, width: int, layers: int = 3, norm: Norm = by_image) -> None:
        super().__init__(channels, width, layers, norm)
        self.net = self.net[:-1]
        self.reduced = nn.ModuleList(nn.Conv2d(self.maps, 1, 1) for _ in self.GRIDS)
        self.last = nn.Conv2d(self.maps + len(self.GRIDS), 1, 4, 1, 1)

    def forward(self, *images: Tensor) -> Tensor:
        maps = self.net(torch.cat(images, 1))
        beside = [
            F.interpolate(F.leaky_relu(conv(F.adaptive_avg_pool2d(maps, n)), 0.2), maps.shape[2:])
            for n, conv in zip(self.GRIDS, self.reduced, strict=True)
        ]
        return full(self.last(torch.cat([maps, *beside], 1))).squeeze(1)


def check_patches(model: str, height: int, breadth: int, layers: int) -> None:
    """A clear error for images of which no patch is judged.

    >>> check_patches("pix2pix", 16, 16, 3)
    Traceback (most recent call last):
    ValueError: pix2pix: 3 layers of the discriminator leave nothing of 16x16; set layers to 2
    """
    side = min(height, breadth)
    if side >> layers < 3:  # two convolutions of 4x4 take 2 away
        most = max((n for n in range(layers) if side >> n > 2), default=0)
        raise ValueError(
            f"{model}: {layers} layers of the discriminator leave nothing of {height}x{breadth}; "
            f"set layers to {most}"
        )
