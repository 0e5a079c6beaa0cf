"""The loop is Algorithm 1: fresh data and noise for every step, players in turn, the generator's
clock.
"""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from tests.support import Given, fit
from zoo.bases import AdversarialModule, LoopOptions, Phase
from zoo.core import Batch, DataSpec

SPEC = DataSpec((2,))


class Toy(AdversarialModule):
    """A linear critic against a shift, which writes down everything it is given."""

    def __init__(
        self,
        spec=SPEC,
        k: int = 1,
        needs_real: bool = False,
        n_gen: int = 1,
        lr: float = 0.1,
        loop: LoopOptions = LoopOptions(),
    ):
        super().__init__(spec, loop)
        self.k, self.needs_real, self.n_gen, self.lr = k, needs_real, n_gen, lr
        self.critic, self.g = nn.Linear(2, 1), nn.Linear(3, 2)
        self.rows, self.noises, self.steps, self.norms = [], [], [], []

    def players(self):
        return {"d": self.critic, "g": self.g}

    def phases(self):
        return [
            Phase("d", self.d_loss, repeat=self.k, critic=True),
            Phase("g", self.g_loss, ("x",) if self.needs_real else (), repeat=self.n_gen),
        ]

    def d_loss(self, batch):
        z = self.noise.normal(batch.n, 3)
        self.rows.append(batch["index"])
        self.noises.append(z)
        loss = self.critic(self.g(z).detach()).tanh().mean() - self.critic(batch["x"]).tanh().mean()
        return {"loss": loss, "seen": batch["x"].mean()}

    def g_loss(self, batch):
        assert ("x" in batch) == self.needs_real
        if self.needs_real:
            self.rows.append(batch["index"])
        z = self.noise.normal(batch.n, 3)
        self.noises.append(z)
        return {"loss": -self.critic(self.g(z)).tanh().mean()}

    def after_step(self, player):
        self.steps.append(player)

    def optimisers(self):
        return {p: torch.optim.SGD(self.parameters_of(p), self.lr) for p in self.players()}


def data(batch_size=4, n=96):
    return Given(
        SPEC, torch.randn(n, 2, generator=torch.Generator().manual_seed(0)), batch_size=batch_size
    )


@pytest.mark.parametrize(("k", "n_gen"), [(1, 1), (3, 1), (2, 2)])
def test_the_order_of_play_and_the_generators_clock(k, n_gen):
    toy = Toy(k=k, n_gen=n_gen)
    trainer = fit(toy, data(), 4)
    assert toy.steps == (["d"] * k + ["g"] * n_gen) * 4
    assert trainer.global_step == 4


@pytest.mark.parametrize("needs_real", [False, True])
def test_a_cycle_draws_disjoint_minibatches_and_different_noises(needs_real):
    toy = Toy(k=3, needs_real=needs_real)
    fit(toy, data(), 5)
    batches = 3 + needs_real
    for cycle in range(5):
        rows = torch.cat(toy.rows[cycle * batches : (cycle + 1) * batches])
        assert len(rows) == len(set(rows.tolist())) == 4 * batches
    first_values = [z[0, 0].item() for z in toy.noises]
    assert len(set(first_values)) == len(first_values) == 20


def test_the_minibatches_of_k_steps_are_those_of_k_cycles_of_one():
    three, one = Toy(k=3), Toy(k=1)
    fit(three, data(), 4)
    fit(one, data(), 12)
    assert [r.tolist() for r in three.rows] == [r.tolist() for r in one.rows]


def test_a_schedule_of_k_takes_as_many_minibatches():
    toy = Toy(k=lambda step: 5 if step < 2 else 1)
    fit(toy, data(), 4)
    assert toy.steps == ["d"] * 5 + ["g"] + ["d"] * 5 + ["g"] + ["d", "g"] * 2


def test_gradients_of_the_other_player_are_neither_made_nor_left():
    toy = Toy()
    grads = []
    toy.after_step = lambda player: grads.append([p.grad for p in toy.parameters()])
    fit(toy, data(), 2)
    assert all(g is None for step in grads for g in step)
    assert all(p.requires_grad for p in toy.parameters())


def test_a_frozen_part_stays_frozen():
    toy = Toy()
    toy.critic.bias.requires_grad_(False)
    before = toy.critic.bias.clone()
    fit(toy, data(), 3)
    assert not toy.critic.bias.requires_grad
    assert torch.equal(before, toy.critic.bias)


def test_terms_without_a_loss_skip_the_step_and_the_clock_ticks_on():
    class Skipping(Toy):
        def d_loss(self, batch):
            terms = super().d_loss(batch)
            if self.trainer.global_step % 2:
                del terms["loss"]
            return terms

    toy, weights, logged = Skipping(), [], []
    toy.after_cycle = lambda terms: (
        weights.append(toy.critic.weight.detach().clone()),
        logged.append(set(terms)),
    )
    trainer = fit(toy, data(), 4)
    assert toy.steps == ["d", "g", "g"] * 2 and trainer.global_step == 4
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert logged[0] - logged[1] == {"loss_d"} and "seen" in logged[1]


def test_the_last_phase_never_skips():
    toy = Toy()
    toy.g_loss = lambda batch: {}
    with pytest.raises(ValueError, match="the last phase"):
        fit(toy, data(), 1)


def test_players_that_share_a_network_move_it_in_both_turns_with_their_own_optimisers_state():
    class TwoRoles(Toy):
        def players(self):
            return {**super().players(), "g2": [self.g]}

        def phases(self):
            return [
                Phase(
                    "g2",
                    lambda rows: {"loss": self.g(self.noise.normal(rows.n, 3)).square().mean()},
                    reads=(),
                ),
                *super().phases(),
            ]

        def optimisers(self):
            return {p: torch.optim.Adam(self.parameters_of(p), 0.1) for p in self.players()}

    toy, seen = TwoRoles(), []
    toy.after_step = lambda player: seen.append(
        (player, toy.g.weight.detach().clone(), [p.grad for p in toy.parameters()])
    )
    first = toy.g.weight.detach().clone()
    trainer = fit(toy, data(), 2)
    assert [player for player, _, _ in seen] == ["g2", "d", "g"] * 2
    moved = [
        not torch.equal(a, b)
        for a, b in zip(
            [first, *(w for _, w, _ in seen[:-1])], [w for _, w, _ in seen], strict=True
        )
    ]
    assert moved == [True, False, True] * 2 and all(
        g is None for _, _, grads in seen for g in grads
    )
    by_player = dict(zip(toy.players(), trainer.optimizers, strict=True))
    moments = [by_player[p].state[toy.g.weight]["exp_avg"] for p in ("g", "g2")]
    assert not torch.equal(*moments) and all(
        o.state[p]["step"] == 2 for o in trainer.optimizers for p in o.state
    )


def test_accumulation_is_one_step_on_the_whole_minibatch():
    results = []
    for accumulate in (1, 2, 4):
        torch.manual_seed(0)
        toy, told = Toy(k=2, loop=LoopOptions(accumulate=accumulate)).double(), []
        toy.after_cycle = lambda terms, told=told: told.append(terms)
        fit(toy, data(), 5, precision="64-true")
        weights = torch.cat([p.detach().flatten() for p in toy.parameters()])
        assert {*told[0]} == {"loss_d", "loss_g", "seen"}
        results.append((weights, told))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=1e-14)


def test_clipping_limits_each_players_own_gradient():
    torch.manual_seed(0)
    toy = Toy(lr=1.0, loop=LoopOptions(clip_d=1e-3, clip_g=1e-4))
    last = {p: torch.cat([q.detach().flatten() for q in toy.parameters_of(p)]) for p in ("d", "g")}
    moves = {"d": [], "g": []}

    def watch(player):
        now = torch.cat([q.detach().flatten() for q in toy.parameters_of(player)])
        moves[player].append((now - last[player]).norm().item())
        last[player] = now

    toy.after_step = watch
    fit(toy, data(), 3)
    assert moves["d"] == pytest.approx([1e-3] * 3, rel=1e-2)
    assert moves["g"] == pytest.approx([1e-4] * 3, rel=1e-2)
    assert toy.terms["grad_norm_d"] > 1e-3


def test_schedulers_follow_their_own_players_steps():
    class Scheduled(Toy):
        def schedulers(self, optimisers):
            return {
                p: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 0.5**n)
                for p, o in optimisers.items()
            }

    toy = Scheduled(k=3)
    trainer = fit(toy, data(), 2)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [0.1 * 0.5**6, 0.1 * 0.5**2]
    rates = [toy.terms[f"lr_{player}"].item() for player in "dg"]  # of the last step of each
    assert rates == pytest.approx([0.1 * 0.5**5, 0.1 * 0.5])


def test_bf16_trains_and_16_bit_with_a_scaler_is_refused():
    toy = Toy()
    fit(toy, data(), 2, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in toy.parameters())
    with pytest.raises(Exception, match="bf16-mixed"):
        fit(
            Toy(), data(), 2, plugins=MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
        )


def test_a_loader_that_yields_the_wrong_number_of_rows_is_an_error():
    rows = [{"x": torch.zeros(2), "index": i} for i in range(7)]
    loader = torch.utils.data.DataLoader(rows, batch_size=7)
    with pytest.raises(ValueError, match="3 minibatches of equal size"):
        fit(Toy(k=3), loader, 1)


def test_a_users_own_loader_of_plain_dicts_trains():
    rows = [{"x": torch.full((2,), float(i)), "index": i} for i in range(8)]
    model = Toy()
    before = [p.detach().clone() for p in model.parameters()]
    fit(model, torch.utils.data.DataLoader(rows, batch_size=8), 2)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("bad", [{"accumulate": 0}, {"clip_d": -1.0}, {"clip_g": 0.0}])
def test_bad_loop_options_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LoopOptions(**bad)


def test_a_second_run_with_more_k_than_rows_says_that_rows_repeat():
    with pytest.warns(UserWarning, match="rows repeat within a step"):
        fit(Toy(k=3), data(batch_size=40), 1)


def test_dropout_is_the_same_whatever_was_drawn_before():
    class Dropping(Toy):
        def __init__(self, waste: int):
            super().__init__()
            self.waste = waste

        def d_loss(self, batch):
            terms = super().d_loss(batch)
            return {**terms, "loss": nn.functional.dropout(terms["loss"].expand(50), 0.5).mean()}

        def on_train_start(self):
            torch.rand(self.waste)

    runs = []
    for waste in (0, 17):
        torch.manual_seed(0)
        toy = Dropping(waste)
        fit(toy, data(), 3)
        runs.append(torch.cat([p.detach().flatten() for p in toy.parameters()]))
    assert torch.equal(*runs)


class Handing(Toy):
    """G plays first and hands what it made to the critic, which plays twice."""

    def __init__(self, **options):
        super().__init__(**options)
        self.handed, self.taken = [], []

    def phases(self):
        return [
            Phase("g", self.hand, reads=(), makes=("fake",)),
            Phase("d", self.take, ("x", "fake"), repeat=2, critic=True),
        ]

    def hand(self, batch):
        fake = self.g(self.noise.normal(batch.n, 3))
        self.handed.append(fake)
        return {"loss": -self.critic(fake).tanh().mean(), "fake": fake}

    def take(self, batch):
        self.taken.append(batch)
        fake, x = (self.critic(batch[name]).tanh() for name in ("fake", "x"))
        return {"loss": fake.mean() - x.mean()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_a_phase_makes_reaches_the_later_phases_of_its_step_chunk_by_chunk(accumulate):
    toy = Handing(loop=LoopOptions(accumulate=accumulate))
    fit(toy, data(), 3)
    assert len(toy.handed) == 3 * accumulate and len(toy.taken) == 2 * len(toy.handed)
    for cycle in range(3):
        handed = toy.handed[cycle * accumulate :][:accumulate]
        for again in range(2):  # the same rows in both steps of the critic
            taken = toy.taken[(2 * cycle + again) * accumulate :][:accumulate]
            assert [rows.n for rows in taken] == [4 // accumulate] * accumulate
            for made, rows in zip(handed, taken, strict=True):
                assert torch.equal(rows["fake"], made)
    firsts = {rows[0, 0].item() for rows in toy.handed}
    assert len(firsts) == len(toy.handed), "each chunk and each step has rows of its own"


def test_what_a_phase_makes_carries_no_gradient_and_is_no_term():
    toy, grads = Handing(), []
    toy.after_step = lambda player: grads.append([p.grad for p in toy.parameters()])
    fit(toy, data(), 2)
    assert all(made.requires_grad for made in toy.handed)
    assert not any(rows["fake"].requires_grad for rows in toy.taken)
    assert len(grads) == 6 and all(g is None for step in grads for g in step)
    assert set(toy.terms) == {"loss_g", "loss_d"}


def test_what_is_handed_on_in_chunks_trains_as_it_does_whole():
    results = []
    for accumulate in (1, 2, 4):
        torch.manual_seed(0)
        toy = Handing(loop=LoopOptions(accumulate=accumulate)).double()
        fit(toy, data(), 5, precision="64-true")
        results.append(torch.cat([p.detach().flatten() for p in toy.parameters()]))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=1e-14)


def test_a_phase_that_reads_only_what_was_made_takes_no_minibatch():
    class Fed(Handing):
        def phases(self):
            hand, take = super().phases()
            again = Phase("d", lambda batch: self.take(Batch({**batch, "x": -batch["fake"]})))
            return [hand, take, replace(again, reads=("fake",), critic=True)]

    toy = Fed()
    assert toy.batches_per_step() == 2
    fit(toy, data(), 2)
    for cycle in range(2):
        first, second, alone = toy.taken[3 * cycle :][:3]
        assert not set(first["index"].tolist()) & set(second["index"].tolist())
        assert "index" not in alone and torch.equal(alone["fake"], toy.handed[cycle])


def test_what_is_made_does_not_outlive_its_step():
    class Backwards(Handing):
        def before_cycle(self, step):
            if step == 1:
                self._phases = self._phases[::-1]

    toy = Backwards()
    with pytest.raises(KeyError, match="the batch has no fake; it has x, index"):
        fit(toy, data(), 2)
    assert len(toy.handed) == 1 and len(toy.taken) == 2  # the first step went through


def test_a_phase_is_given_the_fields_it_reads_and_no_others():
    class Peeping(Toy):
        def d_loss(self, batch):
            seen.append(set(batch))
            batch["y"]
            return super().d_loss(batch)

    labelled, seen = DataSpec((2,), None, 3), []
    rows = Given(labelled, torch.randn(24, 2), torch.arange(24) % 3)
    with pytest.raises(KeyError, match="y"):
        fit(Peeping(labelled), rows, 1)
    assert seen == [{"x", "index"}]


@pytest.mark.parametrize("player", ["d", "g"])
def test_a_field_that_the_data_do_not_have_is_named(player):
    class Deep(Toy):
        def phases(self):
            return [
                replace(p, reads=("x", "depth")) if p.player == player else p
                for p in super().phases()
            ]

    with pytest.raises(KeyError, match="the batch has no depth; it has x, index"):
        fit(Deep(needs_real=True), data(), 1)


@pytest.mark.parametrize("option", ["clip_d", "clip_g"])
def test_clip_d_is_for_the_phases_of_critics_and_clip_g_for_all_others_by_no_name(option):
    class Renamed(Toy):
        def players(self):
            return {"judge": self.critic, "d": self.g}  # d for decoder

        def phases(self):
            critic, maker = super().phases()
            return [replace(critic, player="judge"), replace(maker, player="d")]

    def moves(loop):
        torch.manual_seed(0)
        toy = Renamed(lr=1.0, loop=loop)
        before = {p: torch.cat([q.detach().flatten() for q in toy.parameters_of(p)]) for p in names}
        fit(toy, data(), 1)
        after = {p: torch.cat([q.detach().flatten() for q in toy.parameters_of(p)]) for p in names}
        return {p: (after[p] - before[p]).norm().item() for p in names}, toy.terms

    names = ("judge", "d")
    limited, left = names if option == "clip_d" else names[::-1]
    free, _ = moves(LoopOptions())
    assert min(free.values()) > 1e-2
    clipped, terms = moves(LoopOptions(**{option: 1e-3}))
    assert clipped[limited] == pytest.approx(1e-3, rel=1e-2)
    assert clipped[left] > 1e-2
    assert f"grad_norm_{limited}" in terms and f"grad_norm_{left}" not in terms
    if limited == "d":  # the critic played before it, as if nothing were limited
        assert clipped["judge"] == free["judge"]
    assert terms[f"grad_norm_{limited}"].item() == pytest.approx(free[limited], rel=1e-2)
