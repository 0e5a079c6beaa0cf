"""The averages follow their recursion, stay out of training, and survive a checkpoint."""

import pytest
import torch

from callbacks import EMA, SampleGrid, sample_grid
from callbacks.ema import Average
from tests.callbacks.fakes import SPEC, Gauss, Pair, run, squares
from zoo.core.ema import averaged


def test_recursion_equals_the_closed_form():
    """g shrinks by 0.9 a step from 1: the average is β^n + (1-β) Σ_i β^(n-i) 0.9^i."""
    ema = EMA(decay=0.8, ramp=False)
    run(Pair(SPEC), squares(), 10, ema)
    expected = 0.8**10 + 0.2 * sum(0.8 ** (10 - i) * 0.9**i for i in range(1, 11))
    assert ema.average.values["g.weight"].item() == pytest.approx(expected, rel=1e-6)


def test_the_ramp_lets_a_short_run_forget_its_start():
    ema = EMA(decay=0.999)
    run(Pair(SPEC), squares(), 10, ema)
    value = 1.0
    for n in range(1, 11):
        share = (1 + n) / (10 + n)
        value = share * value + (1 - share) * 0.9**n
    assert ema.average.values["g.weight"].item() == pytest.approx(value, rel=1e-6)


def test_until_start_the_average_is_the_weights():
    for steps, expected in ((4, 0.9**4), (5, 0.5 * 0.9**4 + 0.5 * 0.9**5)):
        ema = EMA(decay=0.5, start=4, ramp=False)
        run(Pair(SPEC), squares(), steps, ema)
        assert ema.average.values["g.weight"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_halflife_counts_the_generators_images(k):
    ema = EMA(halflife_images=16, ramp=False)  # batches of 8: a decay of 2^-½ whatever k is
    run(Pair(SPEC, k=k), squares(), 6, ema)
    beta = 0.5**0.5
    expected = beta**6 + (1 - beta) * sum(beta ** (6 - i) * 0.9**i for i in range(1, 7))
    assert ema.average.values["g.weight"].item() == pytest.approx(expected, rel=1e-6)


def test_only_the_chosen_player_is_averaged_and_buffers_are_not():
    ema = EMA()
    run(Pair(SPEC), squares(), 2, ema)
    assert set(ema.average.values) == {"g.weight"}
    ema = EMA(player="d")
    run(Pair(SPEC), squares(), 2, ema)
    assert set(ema.average.values) == {"d.weight"}
    ema = EMA()
    run(Gauss(), squares(), 2, ema)
    assert set(ema.average.values) == {"m"}
    with pytest.raises(ValueError, match="one of d, g"):
        run(Pair(SPEC), squares(), 1, EMA(player="e"))


def test_gradient_accumulation_counts_steps_not_batches():
    ema = EMA(decay=0.5, ramp=False)
    model = Gauss()
    run(model, squares(), 1, ema, accumulate_grad_batches=3)
    assert ema.average.values["m"].item() == pytest.approx(0.5 * model.m.item(), rel=1e-6)


def test_an_earlier_callback_sees_the_average_with_the_latest_step(monkeypatch):
    seen = []
    grids = SampleGrid(every_n_steps=1, n=1)
    monkeypatch.setattr(
        sample_grid, "sample_sheet", lambda module, *rest: seen.append(module.g.weight.item())
    )
    grids._write = lambda *args: None
    run(Pair(SPEC), squares(), 2, grids, EMA(decay=0.5, ramp=False))
    first = 0.5 + 0.5 * 0.9
    assert seen == pytest.approx([first, 0.5 * first + 0.5 * 0.81])


def test_swapping_in_and_out_is_bit_exact_also_when_nested_or_interrupted():
    model, ema = Pair(SPEC), EMA(decay=0.9)
    trainer = run(model, squares(), 5, ema)
    raw, average = model.g.weight.detach().clone(), ema.average.values["g.weight"].clone()
    with averaged(trainer, model) as used:
        assert used and torch.equal(model.g.weight, average)
        with averaged(trainer, model):
            assert torch.equal(model.g.weight, average)
        assert torch.equal(model.g.weight, average)
    assert torch.equal(model.g.weight, raw)
    with pytest.raises(KeyError), averaged(trainer, model):
        raise KeyError
    assert torch.equal(model.g.weight, raw) and not torch.equal(raw, average)


def test_without_the_callback_or_with_decay_zero_nothing_happens():
    for callbacks in ([], [EMA(decay=0)]):
        model = Pair(SPEC)
        trainer = run(model, squares(), 3, *callbacks)
        with averaged(trainer, model) as used:
            assert not used and model.g.weight.item() == pytest.approx(0.9**3)
        trainer.save_checkpoint("raw.ckpt")
        assert "ema" not in torch.load("raw.ckpt", weights_only=True)


def test_checkpoint_holds_raw_weights_and_averages_and_resuming_is_bit_exact():
    straight, whole = Pair(SPEC), EMA(decay=0.7)
    run(straight, squares(), 9, whole)
    ema = EMA(decay=0.7)
    run(Pair(SPEC), squares(), 4, ema).save_checkpoint("four.ckpt")
    saved = torch.load("four.ckpt", weights_only=True)
    assert saved["state_dict"]["g.weight"].item() == pytest.approx(0.9**4)
    assert torch.equal(saved["ema"]["g.weight"], ema.average.values["g.weight"]) and set(
        saved["ema"]
    ) == {"g.weight"}
    resumed, again = Pair(SPEC), EMA(decay=0.7)
    run(resumed, squares(), 9, again, ckpt_path="four.ckpt")
    assert torch.equal(again.average.values["g.weight"], whole.average.values["g.weight"])
    assert torch.equal(resumed.g.weight, straight.g.weight)


def test_training_is_the_same_with_and_without_averages():
    models = [Pair(SPEC), Pair(SPEC)]
    run(models[0], squares(), 5)
    run(models[1], squares(), 5, EMA(decay=0.9), every=2)
    assert torch.equal(models[0].g.weight, models[1].g.weight)


def test_validating_a_checkpoint_uses_its_averages():
    run(Pair(SPEC), squares(), 4, EMA(decay=0.7)).save_checkpoint("four.ckpt")
    saved = torch.load("four.ckpt", weights_only=True)
    model, ema = Pair(SPEC), EMA()
    trainer = run(Pair(SPEC), squares(), 1, ema)
    trainer.validate(model, squares(), ckpt_path="four.ckpt", verbose=False, weights_only=True)
    with averaged(trainer, model):
        assert torch.equal(model.g.weight, saved["ema"]["g.weight"])
    assert torch.equal(model.g.weight, saved["state_dict"]["g.weight"])


def test_half_precision_weights_are_averaged_in_float32():
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    average = Average({"p": p})
    p.data.fill_(2)
    for _ in range(10):
        average.update(0.999)  # in bfloat16 each such step would be rounded away
    assert average.values["p"].dtype == torch.float32
    assert torch.allclose(average.values["p"], torch.tensor(2 - 0.999**10))


def test_a_checkpoint_of_another_players_averages_is_refused():
    run(Pair(SPEC), squares(), 2, EMA(player="d")).save_checkpoint("d.ckpt")
    with pytest.raises(ValueError, match="averages other parameters"):
        run(Pair(SPEC), squares(), 4, EMA(player="g"), ckpt_path="d.ckpt")


def test_impossible_options_are_refused():
    for options in ({"decay": 1.0}, {"decay": -0.1}, {"halflife_images": 0}):
        with pytest.raises(ValueError, match="ema"):
            EMA(**options)


def test_a_stage_of_new_weights_begins_a_new_average():
    class Staged(Pair):
        """From the fifth step on the weights are of another stage."""

        @property
        def began_at(self):
            return 4 if self.trainer.global_step > 4 else 0

    ema = EMA(decay=0.5, ramp=False)
    run(Staged(SPEC), squares(), 6, ema)
    assert ema.average.values["g.weight"].item() == pytest.approx(
        0.5 * 0.9**5 + 0.5 * 0.9**6, rel=1e-6
    )
