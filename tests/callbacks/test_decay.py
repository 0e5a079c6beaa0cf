"""Rates fall to nothing as the budget ends, whichever budget it is."""

from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Timer

from callbacks import LinearDecay
from tests.callbacks.fakes import SPEC, Gauss, Pair, run, squares


class Rates(Callback):
    """Keeps the rates that each step was taken with."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *args):
        self.seen.append([g["lr"] for o in trainer.optimizers for g in o.param_groups])


@pytest.mark.parametrize("hold", [0.0, 0.5])
def test_each_step_moves_by_what_is_left_of_the_budget(hold):
    """g shrinks by 1 - lr a step: 0.1 until the share ``hold`` is spent, then a line to 0 at 8."""
    model, expected = Pair(SPEC), 1.0
    run(model, squares(), 8, LinearDecay(hold=hold))
    for step in range(8):
        expected *= 1 - 0.1 * min(1, (1 - step / 8) / (1 - hold))
    assert model.g.weight.item() == pytest.approx(expected, rel=1e-6)


def test_time_decides_where_less_of_it_is_left(monkeypatch):
    """A clock of one second a step, ten seconds: after k steps 1 - k/10 is left, whatever of the
    thousand steps.
    """
    timer, rates = Timer(timedelta(seconds=10)), Rates()
    monkeypatch.setattr(timer, "time_elapsed", lambda stage="train": float(len(rates.seen)))
    run(Gauss(), squares(), 1000, LinearDecay(), rates, timer)
    falling = [0.1 * (1 - k / 10) for k in range(10)]
    assert [rate for (rate,) in rates.seen] == pytest.approx(falling)


def test_all_players_slow_down_together():
    rates = Rates()
    run(Pair(SPEC), squares(), 4, LinearDecay(), rates)
    assert rates.seen == [pytest.approx([0.1 * (1 - k / 4)] * 2) for k in range(4)]


class Scheduled(Gauss):
    def configure_optimizers(self):
        optimiser = super().configure_optimizers()
        return [optimiser], [torch.optim.lr_scheduler.StepLR(optimiser, 1)]


class SaveFour(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 4:
            trainer.save_checkpoint("four.ckpt")


def test_a_resumed_run_goes_on_with_the_rates_of_the_straight_one():
    straight, resumed = Pair(SPEC), Pair(SPEC)
    run(straight, squares(), 6, LinearDecay(), SaveFour())
    rates = Rates()
    run(resumed, squares(), 6, LinearDecay(), rates, ckpt_path="four.ckpt")
    assert rates.seen == [pytest.approx([0.1 * left / 6] * 2) for left in (2, 1)]
    assert torch.equal(resumed.g.weight, straight.g.weight)


def test_a_schedule_of_the_models_own_and_a_run_without_an_end_are_refused():
    with pytest.raises(ValueError, match="schedule of its own"):
        run(Scheduled(), squares(), 1, LinearDecay())
    with pytest.raises(ValueError, match="max_time"):
        run(Gauss(), squares(), -1, LinearDecay())
