"""Networks of games over pairs of an example and its code: D(x, z), and what makes the pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.nn.small import logits


class JointDiscriminator(nn.Module):
    """Examples (B, *shape) and codes (B, latent) -> logits, (B,), or (B, outputs): both in one
    vector through two hidden layers with leaky ReLU 0.2 and dropout.

    Args:
        dropout: of both inputs' values, and of hidden units.

    >>> net = JointDiscriminator((1, 8, 8), latent=3, width=4)
    >>> net(torch.zeros(5, 1, 8, 8), torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        width: int = 128,
        outputs: int = 1,
        dropout: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        super().__init__()
        before, inside = dropout
        layers: list[nn.Module] = [nn.Dropout(before)] if before else []
        for inputs in (torch.Size(shape).numel() + latent, width):
            layers += [nn.Linear(inputs, width), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout(inside)] if inside else []
        self.hidden, self.end = nn.Sequential(*layers), nn.Linear(width, outputs)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return logits(self.end(self.hidden(torch.cat([x.flatten(1), z], 1))))


def perceptron(inputs: int, outputs: int, width: int, norm: str, slope: float) -> nn.Sequential:
    """(B, inputs) to (B, outputs): two hidden layers with (leaky) ReLU after the norm, and a linear
    end, of the generators and encoders of such games.

    Args:
        norm: "none", "layer" or "batch". slope: of the rectifier below 0.

    >>> perceptron(3, 5, width=4, norm="layer", slope=0.2)(torch.zeros(2, 3)).shape
    torch.Size([2, 5])
    """
    norms = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
    layers: list[nn.Module] = []
    for a in (inputs, width):
        of_norm = () if norm == "none" else (width,)
        layers += [nn.Linear(a, width), norms[norm](*of_norm), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))
