"""Likelihoods are means over all rows in the right units, repeatable, and refused where there are
none.
"""

import json
import math
from pathlib import Path

import pytest
import torch

from callbacks import EMA, BitsPerDim
from tests.callbacks.fakes import (
    POINTS,
    SPEC,
    Bound,
    Gauss,
    Pair,
    Recorder,
    Witness,
    entry,
    run,
    squares,
)
from tests.support import Given


def values(trainer):
    return {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")}


def still(model):
    """Training that moves nothing."""
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), 0.0)
    return model


def test_mean_is_over_rows_with_an_unequal_last_batch():
    data = squares(50)  # batches of 8, the last of 2
    trainer = run(still(Gauss()), data, 1, BitsPerDim(), every=1)
    x = data.examples()["x"].double()
    nll = (x.square().flatten(1).sum(1) / 2).mean().item()
    found = trainer.callback_metrics
    assert found["val/nll_nats"].item() == pytest.approx(nll, rel=1e-6)
    assert found["val/bits_per_dim"].item() == pytest.approx(nll / 16 / math.log(2), rel=1e-6)
    assert found["val/first"].item() == pytest.approx(x.flatten(1)[:, 0].mean().item(), rel=1e-6)


def test_a_bound_is_logged_as_a_bound_and_its_kind_is_in_the_protocol():
    data = squares(50)
    trainer = run(still(Bound()), data, 1, BitsPerDim(), every=1)
    elbo = -(data.examples()["x"].square().flatten(1).sum(1) / 2).mean().item() - 1
    found = trainer.callback_metrics
    assert found["val/elbo"].item() == pytest.approx(elbo, rel=1e-6) and "val/nll_nats" not in found
    assert found["val/bits_per_dim"].item() == pytest.approx(-elbo / 16 / math.log(2), rel=1e-6)
    assert json.loads(Path("protocol.json").read_text()) == {"likelihood_kind": "lower_bound"}


def test_bits_are_those_of_the_likelihood_where_there_is_a_bound_too():
    class Both(Bound):
        entry = entry("both", can={"elbo", "log_prob"}, likelihood="exact_mass")
        log_prob = Gauss.log_prob

    found = values(run(still(Both()), squares(), 1, BitsPerDim(), every=1))
    nats = sum(8 * (i % 3 + 1) ** 2 for i in range(50)) / 50  # 16 pixels of level 1, 2 or 3
    assert found["val/elbo"] == pytest.approx(-nats - 1)
    assert found["val/bits_per_dim"] == pytest.approx(nats / 16 / math.log(2))


def test_a_likelihood_is_told_what_its_model_is_told():
    class Told(Gauss):
        """N(y, 1) for each pixel of a square of class y."""

        entry = entry("told", can={"log_prob"}, told=("y",), likelihood="exact_mass")

        def log_prob(self, x, *, y, generator=None):
            return super().log_prob(x - y[:, None, None, None])

    found = values(run(still(Told()), squares(), 1, BitsPerDim(), every=1))
    assert found["val/nll_nats"] == pytest.approx(8)  # the level is y + 1: a half for each pixel


def test_vectors_have_no_bits_per_dimension():
    trainer = run(still(Gauss(POINTS)), Given(POINTS, torch.randn(20, 2)), 1, BitsPerDim(), every=1)
    assert (
        "val/nll_nats" in trainer.callback_metrics
        and "val/bits_per_dim" not in trainer.callback_metrics
    )


def test_x_axis_is_generator_steps():
    logger = Recorder()
    run(Gauss(), squares(), 6, BitsPerDim(), every=2, logger=logger)
    assert logger.steps("val/nll_nats") == [2, 4, 6]


def test_random_estimates_repeat():
    def estimate(before, **options):
        torch.manual_seed(before)
        return (
            run(still(Gauss()), squares(), 1, BitsPerDim(**options), every=1)
            .callback_metrics["val/random"]
            .item()
        )

    assert estimate(1) == estimate(2) != estimate(1, seed=1)
    assert 0.3 < estimate(1) < 0.7


def test_every_batch_draws_noise_of_its_own_and_the_same_in_the_next_validation():
    class Kept(Gauss):
        def evaluate(self, batch, generator=None):
            drawn.append(torch.rand(batch.n))
            return {"random": drawn[-1]}

    drawn = []
    run(still(Kept()), squares(), 2, BitsPerDim(), every=1)
    first, second = torch.cat(drawn[:7]), torch.cat(drawn[7:])  # of 50 rows each
    assert len(first.unique()) == 50 and torch.equal(first, second)


def test_no_trace_is_left():
    callback = BitsPerDim()
    witness = Witness(callback)
    run(still(Gauss()), squares(), 2, callback, EMA(), every=1)
    assert (
        witness.calls == 2 * (7 + 1) + 2 + 1
    )  # batches and ends of two validations, training batches, the end


def test_models_are_judged_by_their_averaged_weights():
    ema = EMA(decay=0.9, ramp=False)
    model, data = Gauss(), squares()
    trainer = run(model, data, 5, BitsPerDim(), ema, every=5)
    x, m = data.examples()["x"], ema.average.values["m"]
    assert m != model.m
    expected = ((x - m).square().flatten(1).sum(1) / 2).mean().item()
    assert trainer.callback_metrics["val/nll_nats"].item() == pytest.approx(expected, rel=1e-5)


def test_the_input_may_be_differentiated_inside_a_validation_loop():
    class Score(Gauss):
        def log_prob(self, x, *, generator=None):
            with torch.enable_grad():
                x = x.requires_grad_()
                (grad,) = torch.autograd.grad(x.square().sum() / 2, x)
            return -grad.square().flatten(1).sum(1) / 2

    data, found = squares(), []
    for model in (Score(), Gauss()):
        trainer = run(still(model), data, 1, BitsPerDim(), every=1)
        found += [trainer.callback_metrics["val/nll_nats"].item()]
        found += [
            trainer.validate(model, data, verbose=False)[0]["val/nll_nats"]
        ]  # in Lightning's inference mode
    assert len(set(found)) == 1


def test_test_runs_are_logged_as_test():
    model, data = still(Gauss()), squares()
    trainer = run(model, data, 1, BitsPerDim(), every=1)
    val = trainer.callback_metrics["val/nll_nats"].item()
    (found,) = trainer.test(model, data, verbose=False)
    assert found["test/nll_nats"] == pytest.approx(val) and not any(
        k.startswith("val/") for k in found
    )


def test_models_without_likelihood_are_left_alone_or_refused():
    trainer = run(Pair(SPEC), squares(), 1, BitsPerDim(), every=1)
    assert (
        not any(k.startswith("val/") for k in trainer.callback_metrics)
        and not Path("protocol.json").exists()
    )
    with pytest.raises(ValueError, match=r"pair assigns no likelihood.*require=false"):
        run(Pair(SPEC), squares(), 1, BitsPerDim(require=True), every=1)


def test_terms_of_another_shape_than_the_rows_are_refused(caplog):
    model = Gauss()
    model.log_prob = lambda x, generator=None: x.sum()
    trainer = run(model, squares(), 2, BitsPerDim(), every=1)
    assert trainer.global_step == 2 and not values(trainer)
    assert sum("one value for each of 8 rows" in r for r in caplog.messages) == 1
    with pytest.raises(ValueError, match="one value for each of 8 rows"):
        trainer.validate(model, squares())


def test_a_likelihood_that_fails_on_some_rows_is_left_out_and_training_goes_on(caplog):
    class Picky(Gauss):
        calls = 0

        def log_prob(self, x, *, generator=None):
            self.calls += 1
            if self.calls == 3:  # of the seven batches of the first validation
                raise torch.linalg.LinAlgError("singular")
            return super().log_prob(x)

    logger, data = Recorder(), squares()
    trainer = run(Picky(), data, 2, BitsPerDim(), every=1, logger=logger)
    assert logger.steps("val/nll_nats") == [2] and trainer.global_step == 2
    assert [r for r in caplog.messages if r.startswith("bits_per_dim: the likelihood left out")]


def test_a_likelihood_that_is_no_number_is_left_out_with_a_line(caplog):
    class Lost(Gauss):
        def log_prob(self, x, *, generator=None):
            return super().log_prob(x) * math.nan

    found = values(run(Lost(), squares(), 2, BitsPerDim(), every=1))
    assert {*found} == {"val/first", "val/random"}
    said = [r for r in caplog.messages if "left out" in r]
    assert said == [
        "bits_per_dim: val/nll_nats, val/bits_per_dim left out: not a number for some of the rows"
    ]
