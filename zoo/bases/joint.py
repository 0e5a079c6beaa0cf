"""Games of a generator with an encoder beside it; of these, what BiGAN and ALI share: one adversary
of pairs, (x, E(x)) and (G(z), z). Objectives and networks stand in each model's own file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from zoo.bases.adversary import Terms
from zoo.bases.game import Phase
from zoo.bases.generator import GeneratorModule
from zoo.core.batch import Batch

PAIRS = ("v", "enc", "made", "z")


def pixel_error(a: Tensor, b: Tensor, unit: bool = False) -> Tensor:
    """Squared error a pixel, (B,), as of images in [0, 1], of images in [-1, 1], or in [0, 1]
    already (``unit``).
    """
    return ((1.0 if unit else 0.5) * (a - b)).square().flatten(1).mean(1)


class InferenceModule(GeneratorModule):
    """Base of the games with an encoder. A model defines ``mean_code``.

    Attributes:
        e: the encoder.
    """

    e: nn.Module

    def mean_code(self, v: Tensor) -> Tensor:
        """The code that stands for a scaled example, (B, latent)."""
        return self.e(v)

    def encode(self, x: Tensor) -> Tensor:
        """The code that stands for each example, (B, latent)."""
        return self.mean_code(self.scaled(x))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """G(z) in the units of ``spec``, (B, *shape)."""
        return self.from_codes(z)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """G of the code that stands for x, in the units of ``spec``."""
        return self.from_codes(self.encode(x))

    def errors(self, name: str, v: Tensor, z: Tensor) -> Terms:
        """NAME_mse: squared error of scaled examples v and what G makes of their codes z, a pixel
        of images in [0, 1], (B,); NAME_permuted: with what it makes of another's code.
        """
        made = self.g(z)
        return {
            f"{name}_mse": pixel_error(made, v, self.unit),
            f"{name}_permuted": pixel_error(made.roll(1, 0), v, self.unit),
        }


class JointModule(InferenceModule):
    """Base of the joint games. A constructor sets ``g``, ``e``, ``d`` and calls ``play``; a model
    defines ``code``, ``judge_loss`` (D's), ``pairs_loss`` (the makers') and, where a code is drawn,
    ``mean_code``.

    Attributes:
        simultaneous: whether D's step is of the pairs of the makers' step, before
            which neither has moved, and not of new ones.
        weight_decay: of Adam. anneal_steps: generator steps after half of which the rates begin to
            fall, exponentially, to a hundredth at their end; 0 is never.
    """

    reads: tuple[str, ...] = ("x",)

    def play(
        self, simultaneous: bool = False, weight_decay: float = 0.0, anneal_steps: int = 0
    ) -> None:
        """For the constructor."""
        if simultaneous and self.k > 1:
            raise ValueError(
                f"{self.model_name}: simultaneous steps leave one to each player, got k={self.k}; "
                "set k=1, or simultaneous=false"
            )
        self.simultaneous, self.weight_decay = simultaneous, weight_decay
        self.anneal_steps = anneal_steps

    # -- what a model defines ---------------------------------------------------------------------
    def code(self, v: Tensor) -> Tensor:
        """A code of each scaled example, as the game has it, (B, latent)."""
        return self.e(v)

    def pairs_loss(self, v: Tensor, enc: Tensor, made: Tensor, z: Tensor) -> Terms:
        """The loss of G and E, from the pairs (v, enc) and (made, z)."""
        raise NotImplementedError

    def judge_loss(self, v: Tensor, enc: Tensor, made: Tensor, z: Tensor, batch: Batch) -> Terms:
        """D's loss, from the same pairs without gradient."""
        raise NotImplementedError

    @property
    def beside(self) -> tuple[str, ...]:
        """What else D reads of the pairs' rows: labels, and which rows they are."""
        return (*self.reads[1:], "index") if self.reads[1:] else ()

    # -- losses -----------------------------------------------------------------------------------
    def pairs(self, batch: Batch) -> Batch:
        """New pairs: scaled examples, their codes, samples, their codes."""
        v, z = self.scaled(batch["x"]), self.codes(batch.n)
        return Batch({"v": v, "enc": self.code(v), "made": self.g(z), "z": z})

    def discriminator_loss(self, batch: Batch) -> Terms:
        if self.simultaneous:
            pairs = Batch({name: batch[name] for name in PAIRS})
        else:
            with torch.no_grad():
                pairs = self.pairs(batch)
        return self.judge_loss(**pairs, batch=batch)

    def generator_loss(self, batch: Batch) -> Terms:
        pairs = self.pairs(batch)
        terms = self.pairs_loss(**pairs)
        if self.simultaneous:
            terms |= {**pairs, **{name: batch[name] for name in self.beside}}
        return terms

    # -- the game ---------------------------------------------------------------------------------
    def players(self) -> dict[str, Any]:
        return {"d": self.d, "g": nn.ModuleList([self.g, self.e])}

    def phases(self) -> list[Phase]:
        d_loss, g_loss = self.discriminator_loss, self.generator_loss
        if self.simultaneous:
            made = (*PAIRS, *self.beside)
            return [
                Phase("g", g_loss, self.reads, makes=made),
                Phase("d", d_loss, made, critic=True),
            ]
        return [
            Phase("d", d_loss, self.reads, repeat=self.k, critic=True),
            Phase("g", g_loss),
        ]

    # -- use --------------------------------------------------------------------------------------
    def evaluate(self, batch: Batch, generator: torch.Generator | None = None) -> Terms:
        """recon_mse and recon_permuted: see ``errors``; code_gain: their difference, 0 for the mean
        image however near it is; d_acc_real: how often D takes (x, E(x)) for such a pair.
        """
        v = self.scaled(batch["x"])
        z = self.mean_code(v)
        values = self.errors("recon", v, z)
        values["code_gain"] = values["recon_permuted"] - values["recon_mse"]
        return values | {"d_acc_real": (self.d.realness(self.d(v, z)) > 0).to(v.dtype)}

    # -- optimisers -------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optimizer]:
        return self.one_each(torch.optim.Adam, betas=self.betas, weight_decay=self.weight_decay)

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        if not self.anneal_steps:
            return {}
        return {p: LambdaLR(o, self._annealed(self.steps_of(p))) for p, o in optimisers.items()}

    def _annealed(self, times: int) -> Any:
        whole = self.anneal_steps * times
        return lambda step: 0.01 ** min(max(2 * step / whole - 1, 0.0), 1.0)
