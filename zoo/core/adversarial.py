"""The adversarial loop, once for every model that plays a game. One training step is one full
cycle.

    for each phase (player, loss, repeat):
        repeat times:  fresh real minibatch if the phase reads data, fresh noise
                       loss -> backward -> clip -> step -> scheduler -> zero_grad ->
                       after_step(player)
    after_cycle()

With k discriminator phases before the generator's, this is Algorithm 1 of Goodfellow et al. 2014.
The loader yields the k·B rows of a cycle together, so a checkpoint never falls inside one. The
clock is the generator's: ``trainer.global_step``, ``max_steps``, checkpoints, logs and schedules
advance by one a cycle, whatever k is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.core.module import Batch, GenerativeModule
from zoo.core.spec import DataSpec

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One player's turn.

    Args:
        player: a key of ``players()``; only its parameters move and only they keep gradients.
        loss: ``loss(batch)`` if the phase reads real data, else ``loss(n)`` with n the batch size;
            returns named scalars, of which ``"loss"`` is minimised and all are logged. Terms
            without ``"loss"`` skip the step, which every process (and micro-batch) must do alike;
            the last phase is the clock's and never skips.
        repeat: optimiser steps of this player in a row, each with fresh data and noise; or a
            function of the cycle's number.
        real: whether each step consumes a fresh real minibatch.
    """

    player: str
    loss: Callable[[Any], Terms]
    repeat: int | Callable[[int], int] = 1
    real: bool = True

    def times(self, step: int) -> int:
        return self.repeat(step) if callable(self.repeat) else self.repeat


@dataclass(frozen=True)
class LoopOptions:
    """Options of the loop that every adversarial model takes as ``--model.loop.NAME``; all are off
    by default.

    From ``separate_batches`` on they change the game of a generator against a discriminator
    (``GeneratorModule``); a model whose game gives one no meaning refuses it.

    Args:
        accumulate: cut each minibatch in this many micro-batches before a step; it must divide the
            batch size.
        clip_d: largest gradient norm of the discriminator's step; None leaves it alone.
        clip_g: the same for every other player.
        separate_batches: D sees real and generated rows in two forward passes, so that batch norm
            never mixes them, and not in one.
        label_smooth: D's target a for real rows; below 1, L_D = E[a l(x, real) + (1-a) l(x, fake)]
            + E l(G(z), fake). Only the real target is smoothed (Salimans et al. 2016, section 3.4):
            D* = a p/(p+q).
        label_flip: probability that a row's target is the other one, drawn anew for each row of
            each of D's steps.
        instance_noise: standard deviation σ0 of the gaussian noise on everything that D sees, in
            both players' steps, in D's units (Sønderby et al. 2017); it falls linearly to 0 over
            ``instance_noise_steps`` generator steps.
        instance_noise_steps: see above.
        spectral_norm: divide each of D's weights by its largest singular value (Miyato et al.
            2018), one power iteration a pass.
        r1: γ of the penalty (γ/2) E‖∇_x s(x)‖² at real rows (Mescheder et al. 2018).
        replay: past samples kept in a first-in-first-out store, from which half of the generated
            rows of each D step are drawn (Shrivastava et al. 2017); 0 is off.
    """

    accumulate: int = 1
    clip_d: float | None = None
    clip_g: float | None = None
    separate_batches: bool = True
    label_smooth: float = 1.0
    label_flip: float = 0.0
    instance_noise: float = 0.0
    instance_noise_steps: int = 1000
    spectral_norm: bool = False
    r1: float = 0.0
    replay: int = 0

    def __post_init__(self) -> None:
        for name in ("accumulate", "instance_noise_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"loop.{name} is at least 1, got {getattr(self, name)}")
        for name in ("clip_d", "clip_g"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"loop.{name} is a positive norm or null, got {value}")
        if not 0.5 < self.label_smooth <= 1:
            raise ValueError(
                f"loop.label_smooth is the target of real rows, above 0.5 and at most 1 (off), "
                f"got {self.label_smooth}"
            )
        if not 0 <= self.label_flip < 0.5:
            raise ValueError(f"loop.label_flip is a probability below 0.5, got {self.label_flip}")
        for name in ("instance_noise", "r1", "replay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"loop.{name} is not negative, got {getattr(self, name)}")
        if self.replay and self.accumulate > 1:
            raise ValueError("loop.replay stores whole minibatches: set loop.accumulate=1 with it")

    def changed(self) -> set[str]:
        """Names of the options that change the game and are on."""
        return {
            f.name
            for f in dataclasses.fields(self)
            if f.name in TOOLKIT and getattr(self, f.name) != f.default
        }


TOOLKIT = frozenset(f.name for f in dataclasses.fields(LoopOptions)) - {
    "accumulate",
    "clip_d",
    "clip_g",
}


class AdversarialModule(GenerativeModule):
    """Base of the models that play a game. Subclasses define ``players``, ``phases``,
    ``optimisers`` and the losses.

    Attributes:
        toolkit: the loop options, of those that change the game, that mean something in this one.
    """

    toolkit: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, spec: DataSpec, loop: LoopOptions | dict[str, Any] = LoopOptions()) -> None:
        super().__init__(spec)
        self.automatic_optimization = False
        self.loop = LoopOptions(**loop) if isinstance(loop, dict) else loop
        if refused := self.loop.changed() - self.toolkit:
            raise ValueError(
                f"{', '.join(f'loop.{name}' for name in sorted(refused))} has no meaning in "
                f"{self.model_name}'s game; it takes "
                f"{', '.join(['accumulate', 'clip_d', 'clip_g', *sorted(self.toolkit)])}; leave "
                f"it at its default"
            )

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

    def regularised(self, phase: Phase, batch: Any, terms: Terms) -> Terms:
        """A phase's terms with what the loop's options add to them."""
        return terms

    def after_step(self, player: str) -> None:
        """Called after each optimiser step, before the next forward pass: weight clipping."""

    def after_cycle(self, terms: Terms) -> None:
        """Called once a cycle with all its (detached) terms, the player's name appended to "loss":
        controllers.
        """

    # -- what the loop does -----------------------------------------------------------------------
    def parameters_of(self, player: str) -> Iterator[nn.Parameter]:
        nets = self.players()[player]
        for net in [nets] if isinstance(nets, nn.Module) else nets:
            yield from net.parameters()

    def batches_per_step(self, step: int = 0) -> int:
        return sum(p.times(step) for p in self.phases() if p.real)

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
        if (
            getattr(self.trainer.precision_plugin, "scaler", None) is not None
        ):  # it skips steps, and the clock would not know
            raise MisconfigurationException(
                "16-mixed is not supported by the adversarial loop; use "
                "--trainer.precision=bf16-mixed"
            )
        self._phases = self.phases()
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
        minibatches, size = self._chunks(
            batch, sum(t for p, t in zip(self._phases, times, strict=True) if p.real)
        )
        # Lightning counts every optimiser's steps; only the last phase's last one may tick
        # (docs/adversarial_loop.md).
        ticking = self._optimiser[self._phases[-1].player]
        tick = (ticking._on_before_step, ticking._on_after_step)
        for optimiser in self._optimiser.values():
            optimiser._on_before_step = optimiser._on_after_step = _silent

        terms: Terms = {}
        for number, (phase, repeat) in enumerate(zip(self._phases, times, strict=True)):
            with self._turn(phase.player):
                for j in range(repeat):
                    if number == len(times) - 1 and j == repeat - 1:
                        ticking._on_before_step, ticking._on_after_step = tick
                    terms |= self._play(
                        phase, next(minibatches) if phase.real else size, (number, j), size
                    )
        self.after_cycle(terms)
        self.report(terms, step + 1)

    def _play(self, phase: Phase, batch: Batch | int, turn: tuple[int, int], size: int) -> Terms:
        """One optimiser step of one player; returns its terms, averaged over micro-batches."""
        optimiser, parts = self._optimiser[phase.player], self.loop.accumulate
        total: Terms = {}
        for part in range(parts):
            self.start_noise(f"phase {turn[0]}", turn[1], part, parts)
            if isinstance(batch, int):
                rows: Any = size // parts
            else:
                rows = batch if parts == 1 else {k: v.chunk(parts)[part] for k, v in batch.items()}
            terms = self.regularised(phase, rows, phase.loss(rows))
            if "loss" in terms:
                self.manual_backward(terms["loss"] / parts if parts > 1 else terms["loss"])
            for key, value in terms.items():
                total[key] = (
                    value.detach() if parts == 1 else total.get(key, 0) + value.detach() / parts
                )
        if "loss" not in total:
            if phase is self._phases[-1]:
                raise ValueError(
                    f"the last phase ({phase.player!r}) is the clock's and skips no step; let an "
                    f"earlier one skip"
                )
            return total
        limit = self.loop.clip_d if phase.player == "d" else self.loop.clip_g
        if limit is not None:
            total[f"grad_norm_{phase.player}"] = nn.utils.clip_grad_norm_(
                self._owned[phase.player], limit
            )
        optimiser.step()
        if phase.player in self._scheduled:
            total[f"lr_{phase.player}"] = total["loss"].new_tensor(optimiser.param_groups[0]["lr"])
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
        rows = len(batch["x"])
        if rows % wanted or (rows // wanted) % self.loop.accumulate:
            raise ValueError(
                f"a cycle needs {wanted} minibatches of equal size, each divisible by "
                f"loop.accumulate={self.loop.accumulate}; got {rows} "
                "rows. Make data.batch_size a multiple of loop.accumulate; your own loader yields "
                "batch_size * batches_per_step() rows"
            )
        size = rows // wanted
        split = {k: v.split(size) for k, v in batch.items()}
        return iter([{k: v[i] for k, v in split.items()} for i in range(wanted)]), size


def _silent() -> None:
    pass
