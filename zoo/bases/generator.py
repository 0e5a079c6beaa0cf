"""Games of a generator of codes, x = G(z): what all of them share. Networks, losses and phases
stand in each model's own file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.bases.adversary import Adversary
from zoo.bases.game import AdversarialModule
from zoo.bases.loop_options import LoopOptions
from zoo.core.spec import Image, Spec
from zoo.nn.prior import Draw, Source, draw_prior, path


class GeneratorModule(AdversarialModule):
    """Base of the games with x = G(z), z from ``zoo.nn.prior``, against one adversary.

    A constructor calls ``super().__init__`` and sets ``g`` and ``d``.

    Attributes:
        g: (B, latent) to examples as D sees them. d: the adversary that judges those.
        latent: dimensions of z. prior: "normal", "uniform" or "sphere". k: D's steps in a cycle.

    Args:
        latent: None is the data's dimension for vectors and 32 for images.
        lr_d: learning rate of D. lr_g: of G. betas: Adam's decays.
        unit: whether the networks see images in [0, 1] and not in [-1, 1].
    """

    g: nn.Module
    d: Adversary

    def __init__(
        self,
        spec: Spec,
        loop: LoopOptions = LoopOptions(),
        *,
        latent: int | None = None,
        prior: str = "normal",
        k: int = 1,
        lr_d: float = 5e-4,
        lr_g: float = 5e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        unit: bool = False,
    ) -> None:
        super().__init__(spec, loop)
        self.latent = latent or (32 if spec.has(x=Image) else spec.dim)
        self.prior, self.k, self.unit = prior, k, unit
        self.lr_d, self.lr_g = lr_d, lr_g
        self.betas = (float(betas[0]), float(betas[1]))  # torch takes no mixture with integers

    # -- units and codes --------------------------------------------------------------------------
    def scaled(self, x: Tensor) -> Tensor:
        """Examples in the units of ``spec`` as the networks see them."""
        return (self.spec.to_unit if self.unit else self.spec.to_signed)(x)

    def quantised(self, v: Tensor) -> Tensor:
        """Examples as G makes them in the units of ``spec``."""
        return (self.spec.from_unit if self.unit else self.spec.from_signed)(v)

    def draw_codes(self, n: int, source: Source) -> Tensor:
        """n codes of the prior, (n, latent)."""
        return draw_prior(self.prior, n, self.latent, source)

    def codes(self, n: int) -> Tensor:
        """n codes of this training step, (n, latent)."""
        return self.draw_codes(n, self.noise)

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, Any]:
        return {"d": self.d, "g": self.g}

    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas)

    # -- use --------------------------------------------------------------------------------------
    def from_codes(self, z: Tensor) -> Tensor:
        """G(z) in the units of ``spec``, (B, *shape)."""
        return self.quantised(self.g(z))

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        source = Draw(generator, self.device, self.float_dtype)
        return self.from_codes(self.draw_codes(n, source))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, frames: int = 10) -> Tensor:
        """Examples along the path between codes a and b, (B, latent): (B, frames, *shape)."""
        z = path(self.prior, a, b, frames)
        return self.from_codes(z.flatten(0, 1)).unflatten(0, (len(a), frames))
