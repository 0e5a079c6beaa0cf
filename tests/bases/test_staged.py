"""A game in stages: what a stage leaves behind is kept and frozen, the next begins anew, and a run
resumes in any of them.
"""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo.bases import Adversary, LoopOptions, Phase, StagedModule
from zoo.check import Given, fit
from zoo.check.processes import launch
from zoo.core import DataSpec
from zoo.core.noise import seeded
from zoo.core.options import Count
from zoo.gan.gan import LOSSES

SPEC = DataSpec((2,))
STEPS = 3  # of a stage


class Toy(StagedModule):
    """Linear networks; a stage begins with a generator moved by noise of its number. It writes down
    what it sees.
    """

    def __init__(
        self, spec, stages: Count = 3, norm: bool = False, loop: LoopOptions = LoopOptions()
    ):
        super().__init__(spec, loop, k=2)
        d = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
        self.g = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        d = nn.Sequential(spectral_norm(d[0]), d[1]) if norm else d
        self.d = Adversary(self, d, LOSSES["nonsat"])
        self.begin(stages, STEPS)
        self.diary, self.began = [], []

    def discriminator_loss(self, batch):
        return self.d.loss((batch["x"],), (self.g(self.codes(batch.n)),))

    def generator_loss(self, batch):
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    def phases(self):
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]

    def begin_stage(self):
        self.began.append(
            (
                self.trainer.global_step,
                int(self.stage),
                [len(o.state) for o in self.trainer.optimizers],
            )
        )
        weight = self.g[0].weight
        with torch.no_grad():
            weight += torch.randn(
                weight.shape,
                generator=seeded(int(self.noise_seed), "stage", int(self.stage)),
                dtype=weight.dtype,
            )

    def after_cycle(self, terms):
        steps = {int(s["step"]) for o in self.trainer.optimizers for s in o.state.values()}
        self.diary.append(
            (int(self.stage), steps, {n: v.clone() for n, v in self.state_dict().items()})
        )


def data(batch_size=4):
    return Given(
        SPEC, torch.randn(96, 2, generator=torch.Generator().manual_seed(0)), batch_size=batch_size
    )


def state_of(toy, trainer):
    moments = [v for o in trainer.optimizers for s in o.state.values() for v in s.values()]
    return [*toy.state_dict().values(), *moments]


def resumed(at, folder, **options):
    """A run of 2½ stages in one go, and one of other weights and seed that goes on from a
    checkpoint of step ``at``.
    """
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(Toy(SPEC))
    whole, first, rest = runs
    trainers = [fit(whole, data(), 8, **options)]
    fit(first, data(), at, **options).save_checkpoint(folder / f"{at}.ckpt")
    trainers.append(fit(rest, data(), 8, ckpt_path=folder / f"{at}.ckpt", **options))
    return [state_of(toy, trainer) for toy, trainer in zip((whole, rest), trainers, strict=True)]


def test_stages_follow_one_another_and_the_last_has_the_rest():
    toy = Toy(SPEC)
    fit(toy, data(), 11)
    assert [stage for stage, _, _ in toy.diary] == [1] * 3 + [2] * 3 + [3] * 5
    assert [began[:2] for began in toy.began] == [(3, 2), (6, 3)]
    assert toy.stage.dtype == torch.int64 and not toy.stage.requires_grad


def test_a_single_stage_is_the_plain_game():
    toy = Toy(SPEC, stages=1)
    fit(toy, data(), 7)
    assert not toy.began and len(toy.past) == 0 and int(toy.stage) == 1


def test_optimisers_begin_anew_with_each_stage():
    toy = Toy(SPEC)
    fit(toy, data(), 7)
    assert [began[2] for began in toy.began] == [[0, 0], [0, 0]]
    assert [steps for _, steps, _ in toy.diary] == [{2, 1}, {4, 2}, {6, 3}] * 2 + [
        {2, 1}
    ]  # D twice a cycle, G once


@pytest.mark.parametrize("norm", [False, True])
def test_the_pair_of_a_stage_is_kept_bit_for_bit_and_never_moves_again(norm):
    toy = Toy(SPEC, norm=norm)
    fit(toy, data(), 9)
    for number in (0, 1):
        ended = toy.diary[STEPS * (number + 1) - 1][2]
        for part, path in (("g", "g"), ("d", "d.net")):
            kept = toy.past[number][part].state_dict()
            assert kept
            for name, value in kept.items():
                assert torch.equal(value, ended[f"{path}.{name}"])
                assert torch.equal(value, toy.of_stage(number + 1, part).state_dict()[name])
    assert toy.of_stage(3) is toy.of_stage(-1) is toy.g


def test_what_is_past_is_no_players_and_stays_in_evaluation_mode():
    toy = Toy(SPEC)
    played = {id(p) for player in toy.players() for p in toy.parameters_of(player)}
    toy.train()
    assert all(not p.requires_grad and id(p) not in played for p in toy.past.parameters())
    assert not any(m.training for m in toy.past.modules()) and toy.g[1].training and toy.training
    fit(toy, data(), 7)
    assert not any(m.training for m in toy.past.modules())
    assert all(not p.requires_grad for p in toy.past.parameters()) and all(
        p.requires_grad for p in toy.g.parameters()
    )


@pytest.mark.parametrize("anew", [False, True])
def test_a_stage_of_new_weights_begins_with_an_empty_store_of_past_samples(anew):
    kept = []

    class Storing(Toy):
        def begin_stage(self):
            super().begin_stage()
            kept.append(int(self.d.pool.seen))

    Storing.anew = anew
    fit(Storing(SPEC, loop=LoopOptions(replay=64)), data(), 7)
    assert kept == ([0, 0] if anew else [STEPS * 2 * 4, 2 * STEPS * 2 * 4])


def test_a_stage_that_has_not_been_is_refused():
    toy = Toy(SPEC)
    fit(toy, data(), 4)
    for stage in (0, 3):
        with pytest.raises(ValueError, match=f"stages 1 to 2 so far.*got {stage}"):
            toy.of_stage(stage)
    with pytest.raises(ValueError, match="Toy: stages is at least 1, got 0"):
        Toy(SPEC, stages=0)


@pytest.mark.parametrize("at", [2, 3, 4, 6, 7])
def test_it_resumes_bit_for_bit_inside_a_stage_and_between_two(at, tmp_path):
    straight, rest = resumed(at, tmp_path)
    assert len(straight) == len(rest) and all(
        torch.equal(a, b) for a, b in zip(straight, rest, strict=True)
    )


@pytest.mark.ddp
def test_two_processes_agree_with_one_and_resume_in_every_stage(tmp_path):
    launch(runpy.run_path, 2, __file__, {"folder": str(tmp_path)}, "__member__")
    found = torch.load(tmp_path / "two.pt", weights_only=True)
    assert found["resumed"] == {3: True, 4: True}
    torch.manual_seed(0)
    toy = Toy(SPEC).double()
    toy.g[1].eval().requires_grad_(False)  # a norm's statistics are those of one process
    fit(toy, data(8), 8, precision="64-true")
    assert all(
        (value - found["state"][name]).abs().max() < 1e-12
        for name, value in toy.state_dict().items()
    )


if __name__ == "__member__":
    where = Path(folder)  # noqa: F821  given by the launcher
    options = {"devices": 2, "strategy": "ddp_find_unused_parameters_true"}
    outcome = {}
    for moment in (3, 4):
        both = resumed(moment, where, **options)
        outcome[moment] = all(torch.equal(a, b) for a, b in zip(*both, strict=True))
    torch.manual_seed(0)
    two = Toy(SPEC).double()
    two.g[1].eval().requires_grad_(False)
    if fit(two, data(4), 8, precision="64-true", **options).is_global_zero:
        torch.save({"resumed": outcome, "state": two.state_dict()}, where / "two.pt")
