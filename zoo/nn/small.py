"""The networks most GANs of the zoo train by default: MLPs for vectors, strided convolutions of
Radford et al. 2016 for images.

With ``width=128, kernel=5`` at 64x64 the convolutional pair is the DCGAN paper's. Every
discriminator gives logits, in no less than single precision whatever the autocast, and has
``features(x)``: its last hidden activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

NORMS = ("none", "batch", "layer")
Net = TypeVar("Net", bound=nn.Module)


def generator(
    latent: int,
    shape: Sequence[int],
    width: int | None = None,
    kernel: int = 4,
    norm: str = "batch",
) -> nn.Module:
    """The default generator for data of this shape: images (C, H, W) in (-1, 1), vectors (D,)
    unbounded.

    Args:
        width: hidden units for vectors (default 128), filters before the image (default 32).
            kernel, norm: of the image network.

    >>> z = torch.zeros(2, 8)
    >>> generator(8, (1, 16, 16), width=4)(z).shape, generator(8, (2,))(z).shape
    (torch.Size([2, 1, 16, 16]), torch.Size([2, 2]))
    """
    if len(shape) == 1:
        return MLPGenerator(latent, shape, width or 128)
    return ConvGenerator(latent, shape, width or 32, kernel, norm)


def discriminator(
    shape: Sequence[int],
    width: int | None = None,
    kernel: int = 4,
    norm: str = "none",
    outputs: int = 1,
    bias: bool = True,
) -> nn.Module:
    """The default discriminator or critic for data of this shape.

    Args:
        norm: none, batch or layer, of both kinds of network. bias: of the last layer; a critic of
            whose values only differences count has none.

    >>> discriminator((1, 16, 16), width=4)(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2])
    """
    if len(shape) == 1:
        return MLPDiscriminator(shape, width or 128, norm=norm, outputs=outputs, bias=bias)
    return ConvDiscriminator(shape, width or 32, kernel, norm, outputs, bias)


class MLPGenerator(nn.Module):
    """z, (B, latent) -> (B, *shape): linear layers with leaky ReLU; a linear end for vectors, tanh
    for images.
    """

    def __init__(self, latent: int, shape: Sequence[int], width: int = 128, depth: int = 2) -> None:
        super().__init__()
        dim = torch.Size(shape).numel()
        layers = [
            m
            for i in range(depth)
            for m in (nn.Linear(width if i else latent, width), nn.LeakyReLU(0.2))
        ]
        end = [nn.Tanh()] if len(shape) == 3 else []
        self.net = nn.Sequential(
            *layers, nn.Linear(width, dim), *end, nn.Unflatten(1, tuple(shape))
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


class MLPDiscriminator(nn.Module):
    """x, (B, *shape) -> logits, (B,), or (B, outputs) for more than one."""

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 2,
        norm: str = "none",
        outputs: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        dim = torch.Size(shape).numel()
        layers: list[nn.Module] = [nn.Flatten()]
        for i in range(depth):
            layers += [
                nn.Linear(width if i else dim, width),
                *_norm(norm if i else "none", width, 1),
                nn.LeakyReLU(0.2),
            ]
        self.hidden = nn.Sequential(*layers)
        self.end = nn.Linear(width, outputs, bias=bias)

    def features(self, x: Tensor) -> Tensor:
        """(B, width)."""
        return self.hidden(x)

    def forward(self, x: Tensor) -> Tensor:
        return logits(self.end(self.hidden(x)))


class ConvGenerator(nn.Module):
    """z, (B, latent) -> images, (B, C, H, W), in (-1, 1): projection to the base grid, then
    transposed convolutions of stride 2.

    For m doublings there are width·2^(m-1), ..., width filters; ReLU (after the norm) everywhere
    but at the tanh end.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        width: int = 32,
        kernel: int = 4,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        m, pad = doublings(height, breadth), _padding(kernel)
        filters = [width * 2**i for i in reversed(range(m))]
        biased = norm == "none"  # a norm's shift replaces the bias
        base = (height >> m, breadth >> m)
        layers = [
            nn.Unflatten(1, (latent, 1, 1)),
            nn.ConvTranspose2d(latent, filters[0], base, bias=biased),
        ]
        for a, b in zip(filters[:-1], filters[1:], strict=True):
            layers += [
                *_norm(norm, a),
                nn.ReLU(),
                nn.ConvTranspose2d(a, b, kernel, 2, pad, kernel % 2, bias=biased),
            ]
        layers += [
            *_norm(norm, width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, kernel, 2, pad, kernel % 2),
            nn.Tanh(),
        ]
        self.net = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


class ConvDiscriminator(nn.Module):
    """Images, (B, C, H, W) -> logits, (B,), or (B, outputs) for more than one: convolutions of
    stride 2 down to the base grid.

    Filters width, 2·width, ...; leaky ReLU 0.2 after each; no norm on the first layer, ``norm`` on
    the others.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 32,
        kernel: int = 4,
        norm: str = "none",
        outputs: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        m, pad = doublings(height, breadth), _padding(kernel)
        stages = [nn.Sequential(nn.Conv2d(channels, width, kernel, 2, pad), nn.LeakyReLU(0.2))]
        for i in range(1, m):
            a, b = width << (i - 1), width << i
            stages.append(
                nn.Sequential(
                    nn.Conv2d(a, b, kernel, 2, pad, bias=norm == "none"),
                    *_norm(norm, b),
                    nn.LeakyReLU(0.2),
                )
            )
        self.stages = nn.ModuleList(stages)
        self.end = nn.Conv2d(width << (m - 1), outputs, (height >> m, breadth >> m), bias=bias)

    def activations(self, x: Tensor) -> list[Tensor]:
        """The activation after each convolution but the last, shallow first."""
        hidden = []
        for stage in self.stages:
            hidden.append(x := stage(x))
        return hidden

    def features(self, x: Tensor) -> Tensor:
        """(B, filters, H/2^m, W/2^m); 1,024 values for one 16x16 image at the default width."""
        return self.activations(x)[-1]

    def forward(self, x: Tensor) -> Tensor:
        return logits(self.end(self.features(x)).flatten(1))


def doublings(height: int, breadth: int) -> int:
    """How often an image is halved until its shorter side has 4 to 7 pixels (or one is odd): 1 at
    8, 2 at 16 and 28, 4 at 64.

    >>> [doublings(side, side) for side in (8, 16, 28, 64)]
    [1, 2, 2, 4]
    """
    if height % 4 or breadth % 4 or min(height, breadth) < 8:
        raise ValueError(
            f"the convolutional networks take images whose height and width are multiples of 4 "
            f"and at least 8, got {height}x{breadth}; "
            "resize the images, e.g. --data.size=32"
        )
    m = 0
    while min(height, breadth) >> (m + 1) >= 4 and not (height >> m) % 2 and not (breadth >> m) % 2:
        m += 1
    return m


def initialise(net: Net, biases: bool = False) -> Net:
    """Radford et al. 2016, section 3: convolution weights N(0, 0.02²); gains of batch and instance
    norms N(1, 0.02²), shifts 0.

    Args:
        biases: whether those of convolutions are 0, as in image translation (Isola et al. 2017).

    >>> net = initialise(nn.Sequential(nn.BatchNorm2d(100)))
    >>> net[0].bias.abs().max().item(), 0.01 < net[0].weight.std().item() < 0.03
    (0.0, True)
    """
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if biases and m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, (nn.BatchNorm2d, nn.InstanceNorm2d)) and m.affine:
            nn.init.normal_(m.weight, 1.0, 0.02)
            nn.init.zeros_(m.bias)
    return net


def begun(init: str, generator: nn.Module, discriminator: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The two networks with torch's own first weights ("default") or DCGAN's ("dcgan").

    >>> begun("glorot", nn.Identity(), nn.Identity())
    Traceback (most recent call last):
    ValueError: init is default or dcgan, got 'glorot'
    """
    if init not in ("default", "dcgan"):
        raise ValueError(f"init is default or dcgan, got {init!r}")
    return (
        (initialise(generator), initialise(discriminator))
        if init == "dcgan"
        else (generator, discriminator)
    )


def uniform(net: Net, bound: float) -> Net:
    """Linear weights U(-bound, bound), biases 0.

    >>> bool(uniform(nn.Linear(8, 8), 0.05).weight.abs().max() <= 0.05)
    True
    """
    for m in net.modules():
        if isinstance(m, nn.Linear):
            nn.init.uniform_(m.weight, -bound, bound)
            nn.init.zeros_(m.bias)
    return net


def trunk(shape: Sequence[int], width: int | None = None) -> tuple[nn.Module, int]:
    """The hidden layers of ``discriminator``, for heads of one's own, and how many values they give
    for an example.

    >>> layers, size = trunk((2,), width=6)
    >>> layers(torch.zeros(3, 2)).shape, size
    (torch.Size([3, 6]), 6)
    """
    net = discriminator(shape, width)
    if isinstance(net, ConvDiscriminator):
        return nn.Sequential(*net.stages), net.end.weight[0].numel()
    assert isinstance(net, MLPDiscriminator)
    return net.hidden, net.end.in_features


def full(v: Tensor) -> Tensor:
    """v in no less than single precision, whatever the autocast made of it.

    >>> full(torch.zeros(2).bfloat16()).dtype, full(torch.zeros(2).double()).dtype
    (torch.float32, torch.float64)
    """
    return v.to(torch.promote_types(v.dtype, torch.float32))


def logits(v: Tensor) -> Tensor:
    """The end of a discriminator, (B, outputs), in full precision; (B,) for one output.

    >>> logits(torch.zeros(4, 1)).shape, logits(torch.zeros(4, 3)).shape
    (torch.Size([4]), torch.Size([4, 3]))
    """
    v = full(v)
    return v.squeeze(1) if v.shape[1] == 1 else v


def _norm(kind: str, width: int, dims: int = 2) -> list[nn.Module]:
    """No layer or one. The layer norm of images is taken over channels and pixels with a gain for
    each channel.
    """
    if kind not in NORMS:
        raise ValueError(f"norm is one of {', '.join(NORMS)}, got {kind!r}")
    if kind == "none":
        return []
    if kind == "batch":
        return [nn.BatchNorm2d(width) if dims == 2 else nn.BatchNorm1d(width)]
    return [nn.GroupNorm(1, width) if dims == 2 else nn.LayerNorm(width)]


def _padding(kernel: int) -> int:
    if kernel not in (4, 5):
        raise ValueError(f"kernel is 4 or 5, got {kernel}")
    return kernel // 2 if kernel % 2 else 1
