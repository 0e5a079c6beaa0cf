"""Games whose generators are given images and make others of them: pairs, and two domains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.bases.adversary import Terms
from zoo.bases.game import AdversarialModule
from zoo.core.batch import Batch
from zoo.core.spec import Image
from zoo.nn.prior import Draw, Source

OTHER = {"a": "b", "b": "a"}  # domain of each


class TranslationModule(AdversarialModule):
    """What pairs and domains share. A constructor sets ``g``, ``d``, ``lr_d``, ``lr_g``, ``betas``.

    Attributes:
        g, d: generators and discriminators. grain: what the sides of a source are multiples of.
        decay_start, decay_end: steps of the game between which the rates fall linearly, to a last
            one of 1/(decay_end - decay_start + 1); 0, 0 is never.
    """

    g: Any
    d: Any
    lr_d: float
    lr_g: float
    betas: tuple[float, float]
    grain: int = 1
    decay_start: int = 0
    decay_end: int = 0

    def scaled(self, name: str, rows: Tensor) -> Tensor:
        """Images of a field in [-1, 1]."""
        field: Any = self.spec[name]
        return field.to_signed(rows)

    def images(self, name: str, v: Tensor) -> Tensor:
        """What a generator makes of a field, in its levels."""
        field: Any = self.spec[name]
        return field.from_signed(v)

    def players(self) -> dict[str, Any]:
        return {"d": self.d, "g": self.g}

    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas)

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if not self.decay_end:
            return {}

        def falling(each: int) -> Callable[[int], float]:
            whole = self.decay_end - self.decay_start + 1
            return lambda n: max(0.0, 1 - max(0, n // each + 1 - self.decay_start) / whole)

        return {p: LambdaLR(o, falling(self.steps_of(p))) for p, o in optimisers.items()}


class PairModule(TranslationModule):
    """Base of the games that know which image x belongs to a source. A model whose G takes noise
    defines ``made``.
    """

    accepts = {"x": Image, "source": Image}
    g: nn.Module

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Source and image of a batch, in [-1, 1]."""
        return self.scaled("source", batch["source"]), self.scaled("x", batch["x"])

    def made(self, s: Tensor, noise: Source | None = None) -> Tensor:
        """G of sources in [-1, 1].

        Args:
            noise: what its own is drawn from; None is without.
        """
        return self.g(s)

    @torch.no_grad()
    def translate(self, source: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The image that belongs to each source, both in levels, of any size that G takes."""
        noise = Draw(generator, self.device, self.float_dtype)
        return self.images("x", self.made(self.scaled("source", source), noise))

    def sample(self, n: int, *, source: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.translate(source, generator=generator)


class WayBack:
    """A game of two domains turned around: told images of b it makes those of a, and is the game
    itself in all else.
    """

    told, makes = ("b",), ("a",)

    def __init__(self, game: DomainsModule) -> None:
        self.game = game

    def __getattr__(self, name: str) -> Any:
        return getattr(self.game, name)

    def sample(self, n: int, *, b: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.game.translate(b, "a", generator=generator)


class DomainsModule(TranslationModule):
    """Base of the games of two domains without pairs.

    Attributes:
        g: generators by the domain that they make. d: discriminators by the one they judge.
    """

    accepts = {"a": Image, "b": Image}
    g: Any
    d: Any

    def both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images of both domains of a batch, as the networks see them."""
        return self.scaled("a", batch["a"]), self.scaled("b", batch["b"])

    def made(self, name: str, v: Tensor, noise: Source | None = None) -> Tensor:
        """What becomes of images v of the other domain in this one.

        Args:
            noise: what the generator's own is drawn from; None is without.
        """
        return self.g[name](v)

    @torch.no_grad()
    def translate(
        self, x: Tensor, to: str = "b", *, generator: torch.Generator | None = None
    ) -> Tensor:
        """What becomes of images of one domain in the other, both in levels, of any size that the
        generators take.

        Args:
            to: "b", or "a" for the way back.
        """
        noise = Draw(generator, self.device, self.float_dtype)
        return self.images(to, self.made(to, self.scaled(OTHER[to], x), noise))

    def sample(self, n: int, *, a: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.translate(a, generator=generator)

    def turned(self) -> WayBack | None:
        """The game from b to a, None where there is no way back."""
        return WayBack(self)

    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """cycle_a, cycle_b: mean absolute difference of a pixel in [0, 1] after a round trip, (B,).
        Where the data know what belongs to an a, back_l1: the same of a and what becomes of that.
        """
        noise = Draw(generator, self.device, self.float_dtype)
        a, b = self.both(batch)
        there, back = self.made("b", a, noise), self.made("a", b, noise)
        pairs = {"cycle_a": (self.made("a", there, noise), a)}
        pairs["cycle_b"] = (self.made("b", back, noise), b)
        if "oracle_b" in batch:
            pairs["back_l1"] = (self.made("a", self.scaled("b", batch["oracle_b"]), noise), a)
        return {k: (p - q).abs().flatten(1).mean(1) / 2 for k, (p, q) in pairs.items()}
