"""The adversarial loop, once for every model that plays a game. One training step is one full
cycle.

    for each phase (player, loss, reads, repeat):
        repeat times:  a fresh minibatch of what the phase reads, fresh noise
                       loss -> backward -> clip -> step -> scheduler -> zero_grad -> after_step
    after_cycle()

With k discriminator phases before the generator's, this is Algorithm 1 of Goodfellow et al. 2014.
The loader yields the k·B rows of a cycle together, so a checkpoint never falls inside one. The
clock is the generator's: ``trainer.global_step``, ``max_steps``, checkpoints, logs and schedules
advance by one a cycle, whatever k is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.bases.adversary import Terms
from zoo.bases.loop_options import LoopOptions
from zoo.core.batch import Batch
from zoo.core.lightning import Clock, attached
from zoo.core.module import GenerativeModule
from zoo.core.spec import Spec


@dataclass(frozen=True)
class Phase:
    """One player's turn.

    Args:
        player: a key of ``players()``; only its parameters move and only they keep gradients.
        loss: of a ``Batch`` of the fields that the phase reads (and their row numbers); returns
            named scalars, of which ``"loss"`` is minimised and all are logged. Terms without
            ``"loss"`` skip the step, which every process (and micro-batch) must do alike; the last
            phase is the clock's and never skips.
        reads: the fields of the data that each step takes a fresh minibatch of; ``()`` takes none,
            and the loss is given n rows of nothing.
        repeat: optimiser steps of this player in a row, each with fresh data and noise; or a
            function of the cycle's number.
        critic: a discriminator, critic or energy: ``loop.clip_d`` is its largest gradient norm.
        makes: terms that are not scalars but fields, (B, ...), for the phases after it in the
            cycle, which read them like any other; they carry no gradient.
    """

    player: str
    loss: Callable[[Batch], Terms]
    reads: tuple[str, ...] = ("x",)
    repeat: int | Callable[[int], int] = 1
    critic: bool = False
    makes: tuple[str, ...] = ()

    def times(self, step: int) -> int:
        """Optimiser steps in a cycle."""
        return self.repeat(step) if callable(self.repeat) else self.repeat


class AdversarialModule(GenerativeModule):
    """Base of the models that play a game. Subclasses define ``players``, ``phases``,
    ``optimisers`` and the losses.

    Attributes:
        loop: the options of the loop and its adversaries.
    """

    def __init__(self, spec: Spec, loop: LoopOptions | dict[str, Any] = LoopOptions()) -> None:
        super().__init__(spec)
        self.automatic_optimization = False
        self.loop = LoopOptions(**loop) if isinstance(loop, dict) else loop
        self._fed: list[Phase] = []  # of the run at hand

    # -- what a model defines ---------------------------------------------------------------------
    def players(self) -> Mapping[str, nn.Module | Sequence[nn.Module]]:
        """The trained networks by player: "d" discriminator or critic, "g" generator, "e" encoder.

        Players may share a network, which then moves in both turns: one network in two roles, each
        with its optimiser's state.
        """
        raise NotImplementedError

    def phases(self) -> list[Phase]:
        """The game, in the order of play; the last phase is the clock's."""
        raise NotImplementedError

    def optimisers(self) -> dict[str, Optimizer]:
        """One optimiser for each player."""
        raise NotImplementedError

    def schedulers(self, optimisers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        """Learning-rate schedulers by player, each stepped after every step of its player."""
        return {}

    def before_cycle(self, step: int) -> None:
        """Called at the start of a cycle with the number of cycles done: stages."""

    def after_step(self, player: str) -> None:
        """Called after each optimiser step, before the next forward pass: weight clipping."""

    def after_cycle(self, terms: Terms) -> None:
        """Called once a cycle with all its (detached) terms, the player's name appended to "loss":
        controllers.
        """

    @property
    def differentiates_twice(self) -> bool:
        return self.loop.r1 > 0

    # -- what the loop does -----------------------------------------------------------------------
    def parameters_of(self, player: str) -> Iterator[nn.Parameter]:
        nets = self.players()[player]
        for net in [nets] if isinstance(nets, nn.Module) else nets:
            yield from net.parameters()

    def one_each(self, kind: Callable[..., Optimizer], **options: Any) -> dict[str, Optimizer]:
        """An optimiser of this kind for each player, with the rate ``lr_PLAYER`` of the model."""
        return {
            p: kind(self.parameters_of(p), getattr(self, f"lr_{p}"), **options)
            for p in self.players()
        }

    def batches_per_step(self, step: int = 0) -> int:
        phases = self._fed if attached(self) and self._fed else fed(self.phases())
        return max(sum([p.times(step) for p in phases]), 1)

    def steps_of(self, player: str) -> int:
        """Optimiser steps of a player in the first cycle: for schedules that count them."""
        return sum(p.times(0) for p in self.phases() if p.player == player)

    def configure_optimizers(self) -> Any:
        optimisers = self.optimisers()
        if set(optimisers) != set(self.players()):
            raise ValueError(
                f"players {[*self.players()]} need one optimiser each, got {[*optimisers]}"
            )
        self._order = [*optimisers]
        self._scheduled = self.schedulers(optimisers)
        return [*optimisers.values()], [*self._scheduled.values()]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # A scaler skips steps, and the clock would not know.
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise MisconfigurationException(
                "16-mixed is not supported by the adversarial loop; use "
                "--trainer.precision=bf16-mixed"
            )
        self._phases = self.phases()
        self._fed = fed(self._phases)
        self._owned = {name: [*self.parameters_of(name)] for name in self.players()}
        trainable = {id(p): p for ps in self._owned.values() for p in ps if p.requires_grad}
        self._others = {
            name: [p for key, p in trainable.items() if key not in {id(q) for q in mine}]
            for name, mine in self._owned.items()
        }
        wrapped = self.optimizers()
        self._optimiser = dict(
            zip(self._order, wrapped if isinstance(wrapped, list) else [wrapped], strict=True)
        )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        step = self.trainer.global_step
        self.before_cycle(step)
        times = [p.times(step) for p in self._phases]
        real = [p in self._fed for p in self._phases]
        wanted = sum(t for t, fresh in zip(times, real, strict=True) if fresh)
        minibatches, size = self._chunks(batch, max(wanted, 1))
        clock = Clock(self._optimiser.values(), self._optimiser[self._phases[-1].player])
        terms: Terms = {}
        made: dict[str, Tensor] = {}
        for number, (phase, repeat) in enumerate(zip(self._phases, times, strict=True)):
            with self._turn(phase.player):
                for j in range(repeat):
                    if number == len(times) - 1 and j == repeat - 1:
                        clock.tick()  # only the last phase's last step is the trainer's
                    rows = next(minibatches) if real[number] else Batch({}, size)
                    rows = (Batch({**rows, **made}, size) if made else rows).only(phase.reads)
                    terms |= self._play(phase, rows, (number, j), made)
        self.after_cycle(terms)
        self.report(terms, step + 1)

    def _play(
        self, phase: Phase, batch: Batch, turn: tuple[int, int], made: dict[str, Tensor]
    ) -> Terms:
        """One optimiser step of one player; returns its terms, averaged over micro-batches."""
        optimiser, parts = self._optimiser[phase.player], self.loop.accumulate
        total: Terms = {}
        fields: dict[str, list[Tensor]] = {name: [] for name in phase.makes}
        for part, rows in enumerate([batch] if parts == 1 else batch.chunk(parts)):
            self.start_noise(f"phase {turn[0]}", turn[1], part, parts)
            terms = phase.loss(rows)
            for name, kept in fields.items():
                kept.append(terms.pop(name).detach())
            if "loss" in terms:
                self.manual_backward(terms["loss"] / parts if parts > 1 else terms["loss"])
            for key, value in terms.items():
                old = total.get(key, 0)
                total[key] = value.detach() if parts == 1 else old + value.detach() / parts
        made |= {name: torch.cat(kept) for name, kept in fields.items()}
        if "loss" not in total:
            if phase is self._phases[-1]:
                raise ValueError(
                    f"the last phase ({phase.player!r}) is the clock's and skips no step; "
                    "let an earlier one skip"
                )
            return total
        limit = self.loop.clip_d if phase.critic else self.loop.clip_g
        if limit is not None:
            norm = nn.utils.clip_grad_norm_(self._owned[phase.player], limit)
            total[f"grad_norm_{phase.player}"] = norm
        optimiser.step()
        if phase.player in self._scheduled:
            rate = optimiser.param_groups[0]["lr"]
            total[f"lr_{phase.player}"] = total["loss"].new_tensor(rate)
            self._scheduled[phase.player].step()
        optimiser.zero_grad(set_to_none=True)
        self.after_step(phase.player)
        total[f"loss_{phase.player}"] = total.pop("loss")
        return total

    @contextmanager
    def _turn(self, player: str) -> Iterator[None]:
        """Freeze every other player: gradients flow through them but are not left in them."""
        for p in self._others[player]:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in self._others[player]:
                p.requires_grad_(True)

    def _chunks(self, batch: Batch, wanted: int) -> tuple[Iterator[Batch], int]:
        parts = self.loop.accumulate
        if batch.n % wanted or (batch.n // wanted) % parts:
            raise ValueError(
                f"a cycle needs {wanted} minibatches of equal size, each divisible by "
                f"loop.accumulate={parts}; got {batch.n} rows. Make data.batch_size a multiple of "
                "loop.accumulate; your own loader yields batch_size * batches_per_step() rows"
            )
        return iter(batch.chunk(wanted)), batch.n // wanted


def fed(phases: Sequence[Phase]) -> list[Phase]:
    """The phases that take fresh data: those that read a field which no phase before them makes."""
    made: set[str] = set()
    out = []
    for phase in phases:
        if set(phase.reads) - made:
            out.append(phase)
        made |= set(phase.makes)
    return out
