"""The loop is Algorithm 1: fresh data and noise for every step, players in turn, the generator's
clock.
"""

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from tests.support import Given, fit
from zoo.core import AdversarialModule, DataSpec, LoopOptions, Phase

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
        self.critic, self.generator = nn.Linear(2, 1), nn.Linear(3, 2)
        self.rows, self.noises, self.steps, self.norms = [], [], [], []

    def players(self):
        return {"d": self.critic, "g": self.generator}

    def phases(self):
        return [
            Phase("d", self.d_loss, self.k),
            Phase("g", self.g_loss, self.n_gen, real=self.needs_real),
        ]

    def d_loss(self, batch):
        z = self.noise.normal(len(batch["x"]), 3)
        self.rows.append(batch["index"])
        self.noises.append(z)
        loss = (
            self.critic(self.generator(z).detach()).tanh().mean()
            - self.critic(batch["x"]).tanh().mean()
        )
        return {"loss": loss, "seen": batch["x"].mean()}

    def g_loss(self, batch):
        n = len(batch["x"]) if self.needs_real else batch
        if self.needs_real:
            self.rows.append(batch["index"])
        z = self.noise.normal(n, 3)
        self.noises.append(z)
        return {"loss": -self.critic(self.generator(z)).tanh().mean()}

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
    toy.g_loss = lambda n: {}
    with pytest.raises(ValueError, match="the last phase"):
        fit(toy, data(), 1)


def test_players_that_share_a_network_move_it_in_both_turns_with_their_own_optimisers_state():
    class TwoRoles(Toy):
        def players(self):
            return {**super().players(), "g2": [self.generator]}

        def phases(self):
            return [
                Phase(
                    "g2",
                    lambda n: {"loss": self.generator(self.noise.normal(n, 3)).square().mean()},
                    real=False,
                ),
                *super().phases(),
            ]

        def optimisers(self):
            return {p: torch.optim.Adam(self.parameters_of(p), 0.1) for p in self.players()}

    toy, seen = TwoRoles(), []
    toy.after_step = lambda player: seen.append(
        (player, toy.generator.weight.detach().clone(), [p.grad for p in toy.parameters()])
    )
    first = toy.generator.weight.detach().clone()
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
    moments = [by_player[p].state[toy.generator.weight]["exp_avg"] for p in ("g", "g2")]
    assert not torch.equal(*moments) and all(
        o.state[p]["step"] == 2 for o in trainer.optimizers for p in o.state
    )


def test_accumulation_is_one_step_on_the_whole_minibatch():
    results = []
    for accumulate in (1, 2, 4):
        torch.manual_seed(0)
        toy = Toy(k=2, loop=LoopOptions(accumulate=accumulate)).double()
        fit(toy, data(), 5, precision="64-true")
        results.append(torch.cat([p.detach().flatten() for p in toy.parameters()]))
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
    loader = torch.utils.data.DataLoader(
        [{"x": torch.zeros(2), "index": i} for i in range(7)], batch_size=7
    )
    with pytest.raises(ValueError, match="3 minibatches of equal size"):
        fit(Toy(k=3), loader, 1)


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
