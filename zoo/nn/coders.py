"""Encoders and decoders of latent-variable models: a pair of mirrored networks, fully connected or
convolutional.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
}
Activation = Literal["relu", "tanh", "elu", "softplus", "leaky_relu"]
Net = Literal["mlp", "conv"]


def mlp(
    a: int, b: int, width: int = 200, layers: int = 2, activation: str = "relu"
) -> nn.Sequential:
    """(B, a) to (B, b) through ``layers`` hidden layers of ``width`` units.

    >>> mlp(3, 5, width=8, layers=2)
    Sequential(
      (0): Linear(in_features=3, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=8, bias=True)
      (3): ReLU()
      (4): Linear(in_features=8, out_features=5, bias=True)
    )
    """
    steps: list[nn.Module] = []
    for i in range(layers):
        steps += [nn.Linear(width if i else a, width), ACTIVATIONS[activation]()]
    return nn.Sequential(*steps, nn.Linear(width if layers else a, b))


def mlp_coders(
    shape: tuple[int, ...],
    code: int,
    latent: int,
    params: int,
    width: int,
    layers: int,
    activation: str,
) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder (B, *shape) to (B, code) and decoder (B, latent) to (B, params, *shape), with equal
    hidden layers.

    >>> import torch
    >>> encoder, decoder = mlp_coders((1, 4, 4), 6, 3, 2, 8, 1, "relu")
    >>> encoder(torch.zeros(5, 1, 4, 4)).shape, decoder(torch.zeros(5, 3)).shape
    (torch.Size([5, 6]), torch.Size([5, 2, 1, 4, 4]))
    """
    dim = math.prod(shape)
    encoder = nn.Sequential(nn.Flatten(), *mlp(dim, code, width, layers, activation))
    return encoder, nn.Sequential(
        *mlp(latent, params * dim, width, layers, activation), nn.Unflatten(1, (params, *shape))
    )


def conv_coders(
    shape: tuple[int, ...], code: int, latent: int, params: int, width: int, activation: str
) -> tuple[nn.Sequential, nn.Sequential]:
    """4x4 convolutions of stride 2 with width, 2 width, ... maps down to 4x4, and their mirror;
    sides of 8, 16, 32, ...

    >>> import torch
    >>> encoder, decoder = conv_coders((1, 8, 8), 6, 3, 2, 4, "relu")
    >>> encoder(torch.zeros(5, 1, 8, 8)).shape, decoder(torch.zeros(5, 3)).shape
    (torch.Size([5, 6]), torch.Size([5, 2, 1, 8, 8]))
    """
    c, size, _ = shape
    maps = [width * 2**i for i in range((size // 4).bit_length() - 1)]
    down: list[nn.Module] = []
    for a, b in zip([c, *maps[:-1]], maps, strict=True):
        down += [nn.Conv2d(a, b, 4, 2, 1), ACTIVATIONS[activation]()]
    up: list[nn.Module] = []
    for a, b in zip(maps[::-1], [*maps[-2::-1], params * c], strict=True):
        up += [ACTIVATIONS[activation](), nn.ConvTranspose2d(a, b, 4, 2, 1)]
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(16 * maps[-1], code))
    start = [nn.Linear(latent, 16 * maps[-1]), nn.Unflatten(1, (maps[-1], 4, 4))]
    return encoder, nn.Sequential(*start, *up, nn.Unflatten(1, (params, c)))
