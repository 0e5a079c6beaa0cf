"""A network that tells people apart: images of one lie near each other on a sphere."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.perceptual import coloured

SCALE = 16.0  # of the cosines that are its logits


class Ident(nn.Module):
    """Images to unit vectors, and to logits of the people that it was taught: 16 times the cosine
    with a direction of each.

    Args:
        people: number of people. dim: of the vectors.

    Shape: images (B, 1 or 3, H, W) in [0, 1]; ``forward``: (B, people); ``embed``: (B, dim).
    """

    def __init__(self, people: int, dim: int = 64) -> None:
        super().__init__()
        wide, layers = 3, list[nn.Module]()
        for width in (32, 64, 128):
            layers += [nn.Conv2d(wide, width, 3, stride=2, padding=1), nn.ReLU()]
            wide = width
        self.body = nn.Sequential(*layers)
        self.vector = nn.Linear(wide, dim)
        self.people = nn.Linear(dim, people, bias=False)

    def embed(self, x: Tensor) -> Tensor:
        v = self.body(2 * coloured(x) - 1).mean((2, 3))
        return F.normalize(self.vector(v), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return SCALE * F.linear(self.embed(x), F.normalize(self.people.weight, dim=1))
