"""FVSBN is FVSBN: one strictly triangular matrix, convex, and no hidden units to hide behind."""

import math

import pytest
import torch

from tests.support import Given, fit
from zoo.autoregressive.fvsbn import FVSBN
from zoo.check.likelihoods import (
    TINY,
    TINY_NAMES,
    assert_rows_do_not_talk,
    coverage,
    dependence,
    every_image,
    sampler_distance,
    total_mass,
)
from zoo.core import Batch, DataSpec

XOR = DataSpec((3,), 2)


def fvsbn(spec: DataSpec = TINY[0], seed: int = 0, **options) -> FVSBN:
    torch.manual_seed(seed)
    model = FVSBN(spec, **options)
    for p in model.parameters():
        p.data.normal_(0, 0.7)
    return model.double().eval()


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
@pytest.mark.parametrize("shuffled", [False, True])
def test_probabilities_of_all_images_sum_to_one(spec, shuffled):
    assert total_mass(fvsbn(spec, shuffled=shuffled).log_prob, spec) == pytest.approx(1, abs=1e-9)


def test_probabilities_sum_to_one_for_each_label():
    model = fvsbn(DataSpec((1, 2, 2), 2, 3), conditional=True)
    for label in range(3):
        mass = total_mass(
            lambda x, label=label: model.log_prob(x, y=torch.full((len(x),), label)), model.spec
        )
        assert mass == pytest.approx(1, abs=1e-9)
    x = every_image(model.spec)
    zeros = torch.zeros(len(x), dtype=torch.long)
    assert not torch.allclose(model.log_prob(x, y=zeros), model.log_prob(x, y=zeros + 1))


@pytest.mark.parametrize("shuffled", [False, True])
def test_conditionals_depend_on_every_earlier_pixel_and_no_other(shuffled):
    model = fvsbn(shuffled=shuffled)
    assert (sorted(model.order.tolist()) == model.order.tolist()) is not shuffled
    depends = dependence([model])
    assert not depends.triu().any() and coverage(depends) == 1


def test_training_does_not_refill_the_upper_triangle():
    model = FVSBN(TINY[0], l2=0.1)
    fit(model, Given(TINY[0], every_image(TINY[0])[::3].float()), 5)
    depends = dependence([model.double().eval()])
    assert not depends.triu().any() and coverage(depends) == 1


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_it_starts_as_the_independent_model(spec):
    x = torch.randint(
        spec.levels, (40, *spec.shape), generator=torch.Generator().manual_seed(0)
    ).double()
    model = FVSBN(spec).double()
    model.initialise_from(Batch({"x": x}))
    counts = (
        torch.stack([(x.flatten(1) == level).sum(0) for level in range(spec.levels)], 1).double()
        + 0.5
    )
    p = counts / counts.sum(1, keepdim=True)
    expected = p.log()[torch.arange(spec.dim), x.flatten(1).long()].sum(1)
    torch.testing.assert_close(model.log_prob(x), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        model.evaluate(Batch({"x": x}))["gain_over_independent"],
        torch.zeros(40).double(),
        rtol=0,
        atol=1e-9,
    )


def test_the_optimum_is_the_same_from_every_start():
    x = torch.bernoulli(
        torch.full((200, 1, 2, 3), 0.4), generator=torch.Generator().manual_seed(0)
    ).double()
    x[:, 0, 1] = torch.where(
        torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) < 0.8,
        x[:, 0, 0].float(),
        1.0,
    ).double()
    ends = []
    for seed in (1, 2):
        model = fvsbn(DataSpec((1, 2, 3), 2), seed=seed, solver="lbfgs", l2=1e-3, lr=1.0).train()
        optimiser = model.configure_optimizers()

        def closure(model=model, optimiser=optimiser):
            optimiser.zero_grad()
            loss = model.loss(Batch({"x": x}))["loss"]
            loss.backward()
            return loss

        for _ in range(20):
            optimiser.step(closure)
        ends.append(model.loss(Batch({"x": x}))["loss"].item())
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)


def test_the_loss_is_the_nats_and_half_of_lambda_times_the_squares_below_the_diagonal():
    model, x = fvsbn(l2=0.3), every_image(TINY[0])[::7].double()
    below = [(i, j) for i in range(model.spec.dim) for j in range(i)]  # raster order, binary
    squares = sum(model.W[i, j].item() ** 2 for i, j in below)
    terms = model.loss(Batch({"x": x}))
    nll = -model.log_prob(x).mean().item()
    assert terms["nll_nats"].item() == pytest.approx(nll)
    assert terms["loss"].item() == pytest.approx(nll + 0.15 * squares)


def test_what_is_gained_over_independent_pixels_is_positive_where_pixels_depend():
    x = torch.tensor([[[[0, 0]]], [[[1, 1]]]]).repeat(20, 1, 1, 1).double()
    spec = DataSpec((1, 1, 2), 2)
    model = FVSBN(spec).double()
    model.initialise_from(Batch({"x": x}))
    with torch.no_grad():
        model.W[1, 0], model.b[1] = 20.0, -10.0  # the second pixel copies the first
    gained = model.evaluate(Batch({"x": x}))["gain_over_independent"]
    torch.testing.assert_close(gained, torch.full((40,), math.log(2)).double(), rtol=0, atol=1e-3)


def test_it_cannot_learn_exclusive_or():
    x = torch.tensor([[a, b, a ^ b] for a in (0, 1) for b in (0, 1)] * 16).float()
    model = FVSBN(XOR, lr=0.05, l2=0.0)
    fit(model, Given(XOR, x, batch_size=64), 500)
    assert (
        -model.log_prob(x).mean().item() > 3 * math.log(2) - 0.02
    )  # the two coins cost 2 ln 2; the third is as good as one more


@pytest.mark.parametrize("spec", TINY[1:], ids=TINY_NAMES[1:])
def test_samples_have_the_probabilities_of_the_model(spec):
    assert sampler_distance(fvsbn(spec, shuffled=True)) < (
        0.05 if spec.dim == 4 else 0.12
    )  # √(states/2πn)


@pytest.mark.parametrize("spec", [*TINY, DataSpec((3, 4, 4), 4)], ids=[*TINY_NAMES, "3x4x4-4"])
def test_cached_sampling_gives_the_integers_of_naive_sampling(spec):
    model = fvsbn(spec, shuffled=True)
    for seed in (0, 1):
        a, b = (
            model.sample(20, generator=torch.Generator().manual_seed(seed), cache=cache)
            for cache in (True, False)
        )
        assert torch.equal(a, b)


def test_rows_do_not_talk():
    assert_rows_do_not_talk(fvsbn().log_prob, every_image(TINY[0])[::50])


def test_it_refuses_real_values_and_too_many_weights():
    with pytest.raises(ValueError, match=r"fvsbn models discrete data.*; choose"):
        FVSBN(DataSpec((2,)))
    with pytest.raises(ValueError, match=r"fvsbn needs .* weights.*; choose"):
        FVSBN(DataSpec((3, 32, 32), 256))
