"""Checks of models that play a game: whose turn it is, what each step reads, and the loop's
options.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from zoo.check.checks import check, plays, refusal
from zoo.check.subject import Subject
from zoo.core.batch import ROWS, Batch
from zoo.core.noise import Noise

OPTIONS = {
    "label_smooth": 0.9,
    "label_flip": 0.3,
    "instance_noise": 0.5,
    "spectral_norm": True,
    "r1": 0.7,  # that no config has
    "replay": 16,
}


@check(plays)
def check_players_take_turns(subject: Subject) -> None:
    """Over two cycles the steps are those of ``phases``, each moving one player and leaving no
    gradients; the clock counts cycles; with k=2 every critic has twice the steps.
    """
    model = subject.model()
    expected = [p.player for step in range(2) for p in model.phases() for _ in range(p.times(step))]
    seen = _turns(subject, model)
    assert seen == expected, f"played {seen}, phases say {expected}"
    if "k" not in subject.entry.parameters:
        return
    critics = {p.player for p in model.phases() if p.critic}
    params = {**subject.model_params, "k": 2}
    doubled = dataclasses.replace(subject, model_params=params)
    if said := refusal(doubled.model):
        assert "k=2" in said, f"k=2 is refused, not saying so: {said}"
        return
    other = doubled.model()
    turns = _turns(doubled, other)
    for player in model.players():
        wanted = 4 if player in critics else seen.count(player)
        assert turns.count(player) == wanted, f"with k=2 two cycles are {turns}"


def _turns(subject: Subject, model: Any) -> list[str]:
    """Whose steps two cycles consist of."""
    seen: list[str] = []
    last: dict[str, Tensor] = {}
    before, after = model.before_cycle, model.after_step

    def begin(step: int) -> None:
        nonlocal last
        before(step)
        if not seen:  # weights may have been set by the first rows
            last = {n: p.detach().clone() for n, p in model.named_parameters()}

    def watch(player: str) -> None:
        nonlocal last
        after(player)
        now = {n: p.detach().clone() for n, p in model.named_parameters()}
        own = {id(p) for p in model.parameters_of(player)}
        others = {n: p for n, p in model.named_parameters() if id(p) not in own}
        moved = [n for n in others if not torch.equal(now[n], last[n])]
        assert not moved, f"{player}'s step moved {', '.join(moved)}"
        left = [n for n, p in others.items() if p.grad is not None]
        assert not left, f"{player}'s phase left gradients in {', '.join(left)}"
        last = now
        seen.append(player)

    model.before_cycle, model.after_step = begin, watch
    trainer = subject.fit(model, 2)
    assert trainer.global_step == 2, f"global_step is {trainer.global_step} after two cycles"
    return seen


@check(plays)
def check_fresh_data_and_noise(subject: Subject) -> None:
    """No two steps of a cycle read the same training rows, or draw the same codes; a phase is given
    the fields that it reads and no other.
    """
    model = subject.model()
    rows: list[list[int]] = []
    codes: list[list[Tensor]] = []
    phases, draw_codes = model.phases, getattr(model, "draw_codes", None)

    def watched(phase: Any) -> Callable[[Batch], Any]:
        def read(batch: Batch) -> Any:
            codes.append([])
            assert set(batch) - {ROWS} == set(phase.reads), f"{phase.player} is given {[*batch]}"
            if ROWS in batch:
                rows.append(batch[ROWS].tolist())
            return phase.loss(batch)

        return read

    def drawn(n: int, source: Any) -> Tensor:
        assert draw_codes is not None
        z = draw_codes(n, source)
        codes[-1].append(z.detach().clone())
        return z

    model.phases = lambda: [dataclasses.replace(p, loss=watched(p)) for p in phases()]
    codes_of_a_step = draw_codes is not None and subject.entry.family == "gan"
    if codes_of_a_step:
        model.draw_codes = drawn
    subject.fit(model, 1)
    flat = [i for step in rows for i in step]
    assert len(flat) == len(set(flat)), "two steps of a cycle read the same row"
    if codes_of_a_step:
        bare = [i for i, of in enumerate(codes) if not of]
        assert not bare, f"steps of a cycle without codes of their own: {bare}"
    every = [z for of in codes for z in of]
    same = [
        (i, j)
        for i, a in enumerate(every)
        for j, b in enumerate(every[:i])
        if a.shape == b.shape and torch.equal(a, b)
    ]
    assert not same, f"draws {same} of a cycle are equal"


@check(plays)
def check_makers_get_gradients(subject: Subject) -> None:
    """Every parameter of each player that is no critic has a non-zero gradient in its phases."""
    model, batch = subject.model(), subject.batch(16)
    model.noise = Noise(1, "check")
    names = {id(p): n for n, p in model.named_parameters()}
    made: dict[str, Tensor] = {}
    reached: dict[str, set[int]] = {}
    for phase in model.phases():
        model.zero_grad()
        terms = phase.loss(Batch({**batch, **made}, batch.n).only(phase.reads))
        made |= {name: terms[name].detach() for name in phase.makes}
        if "loss" in terms:
            terms["loss"].backward()
        got = {id(p) for p in model.parameters_of(phase.player) if _reached(p)}
        if not phase.critic:
            reached[phase.player] = reached.get(phase.player, set()) | got
    for player, got in reached.items():
        none = [names[id(p)] for p in model.parameters_of(player) if id(p) not in got]
        assert not none, f"{player}: no gradient in {', '.join(none)}"


def _reached(p: Tensor) -> bool:
    return p.grad is not None and bool(p.grad.abs().max() > 0)


@check(plays)
def check_accumulation_equals_one_batch(subject: Subject) -> None:
    """Two micro-batches give the step of one batch."""
    assert "loop" in subject.entry.parameters, "it takes no loop options"
    results = []
    for accumulate in (1, 2):
        model = subject.model().double()
        model.loop = dataclasses.replace(model.loop, accumulate=accumulate)
        subject.fit(model, 2, precision="64-true")
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    apart = (results[0] - results[1]).abs().max()
    assert apart < 1e-9, f"differs by {apart:.2g}"


@check(plays)
def check_options_of_the_loop_work(subject: Subject) -> None:
    """Every option of the adversaries changes three cycles and keeps them finite, or is refused by
    a message that names it and the model. (What joint batches change needs batch norm in D; a test
    of dcgan has it.)
    """

    def trained(**loop: Any) -> Tensor:
        seed_everything(0, verbose=False)
        both = {**subject.model_params.get("loop", {}), **loop}
        model = subject.create(subject.data().spec, loop=both)
        subject.fit(model, 3)
        players = [p for name in model.players() for p in model.parameters_of(name)]
        return torch.cat([p.detach().flatten() for p in players])

    plain = trained()
    taken = 0
    for name, value in OPTIONS.items():
        if said := refusal(functools.partial(trained, **{name: value})):
            assert f"loop.{name}" in said and subject.entry.name in said, (
                f"{name}: it says {said!r}"
            )
            continue
        taken += 1
        with_it = trained(**{name: value})
        finite = torch.isfinite(with_it).all()
        assert finite, f"loop.{name}={value} gives weights that are not finite"
        assert not torch.equal(with_it, plain), f"loop.{name}={value} changes nothing"
    assert taken, "it refuses every option of the loop"
