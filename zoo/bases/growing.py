"""Games whose networks grow with the images they are shown (Karras et al. 2018, section 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.bases.adversary import Adversary
from zoo.bases.generator import GeneratorModule
from zoo.core.batch import Batch
from zoo.nn.blur import doubled, halved
from zoo.nn.growth import Growth, blended


class Growing(Adversary):
    """A discriminator that grows: it judges images of the level at hand, with the game's α."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs, self.game.alpha)


class GrowingModule(GeneratorModule):
    """Base of the games that begin with small images. A constructor calls ``grow``, and its
    adversary is ``Growing``.

    The level and α follow from the number of training images that D has been shown, over all
    processes; where the level changes the optimisers begin anew. The layers of every level exist
    from the start, so averages of weights hold them all.

    Attributes:
        growth: the schedule. shown: int64, images shown so far.
    """

    growth: Growth
    shown: Tensor

    def grow(self, growth: Growth) -> None:
        """For a constructor: set the schedule."""
        self.growth = growth
        self.register_buffer("shown", torch.zeros((), dtype=torch.int64))

    @property
    def level(self) -> int:
        """Of the images that are trained on now."""
        return self.growth.at(int(self.shown))[0]

    @property
    def alpha(self) -> float:
        """The level's share in a sum with the level before."""
        return self.growth.at(int(self.shown))[1]

    def size_of(self, level: int) -> tuple[int, int]:
        """Height and width of a level's images."""
        _, height, width = self.spec.shape
        down = self.growth.levels - 1 - level
        return height >> down, width >> down

    @property
    def stands(self) -> str:
        """Where the growth is: the level's height and width, and α while it is faded in."""
        height, width = self.size_of(self.level)
        return f"{height}x{width}" + (f" at {self.alpha:.0%}" if self.alpha < 1 else "")

    def at_level(self, v: Tensor) -> Tensor:
        """Images in D's units as this level shows them: of its size, mixed like the made ones with
        those of the level before.
        """
        for _ in range(self.growth.levels - 1 - self.level):
            v = halved(v)
        return v if self.alpha == 1 else blended(v, doubled(halved(v)), self.alpha)

    def full_size(self, v: Tensor) -> Tensor:
        """Images of any level at the size of the data's."""
        while v.shape[2:] != torch.Size(self.spec.shape[1:]):
            v = doubled(v)
        return v

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        before = self.level
        super().training_step(batch, batch_idx)
        trainer: Any = self.trainer
        self.shown += batch.n * trainer.world_size
        if self.level > before:
            for optimiser in trainer.optimizers:
                optimiser.state.clear()
