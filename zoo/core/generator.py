"""Games whose generator turns a code into an example: drawing codes, sampling, and the path between two codes, once for all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.core.adversarial import AdversarialModule
from zoo.nn.prior import Draw, Source, path, prior


class GeneratorModule(AdversarialModule):
    """Base of the games with x = G(z), z from ``zoo.nn.prior``.

    Attributes:
        generator: (B, latent) to examples in [-1, 1]. latent: dimensions of z. prior: "normal", "uniform" or "sphere".
    """

    generator: nn.Module
    latent: int
    prior: str

    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of the prior, (n, latent)."""
        return prior(self.prior, n, self.latent, source)

    def from_codes(self, z: Tensor) -> Tensor:
        """G(z) in the units of ``spec``, (B, *shape)."""
        return self.spec.from_signed(self.generator(z))

    def sample(self, n: int, *, y: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return self.from_codes(self.draw_codes(n, Draw(generator, self.device, self.float_dtype)))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """Examples along the path between codes a and b, (B, latent): (B, frames, *shape)."""
        return self.from_codes(path(self.prior, a, b, frames).flatten(0, 1)).unflatten(0, (len(a), frames))
