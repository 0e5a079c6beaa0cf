"""MADE is MADE: masks that make one pass an autoregressive model, and the ensemble of masks."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support import Given, fit
from zoo.autoregressive.made import MADE, degrees, masks
from zoo.check import likelihoods
from zoo.check.likelihoods import (
    TINY,
    TINY_NAMES,
    coverage,
    dependence,
    every_image,
    leaks,
    sampler_distance,
    total_density,
    total_mass,
)
from zoo.core import Batch, DataSpec


def made(spec: DataSpec = TINY[0], seed: int = 0, **options) -> MADE:
    torch.manual_seed(seed)
    model = MADE(spec, **{"hidden": 40, **options})
    for p in model.parameters():
        p.data.normal_(0, 0.5)
    return model.double().eval()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("shuffled", [False, True])
def test_paths_from_input_to_output_are_strictly_lower_triangular_in_the_order(layers, shuffled):
    for seed in range(20):
        m = degrees(7, [12] * layers, seed, shuffled)
        *inner, direct = [mask.double() for mask in masks(m)]
        paths = torch.linalg.multi_dot(inner[::-1]) + direct
        order = m[0].argsort()
        assert (paths[order][:, order].triu() == 0).all()
        assert all(d.min() >= 1 and d.max() <= 6 for d in m[1:])  # no useless unit of degree D
        assert sorted(m[0].tolist()) == [*range(1, 8)]


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_probabilities_of_all_images_sum_to_one_under_each_mask_and_the_ensemble(spec):
    model = made(spec, n_masks=4, order_agnostic=True, layers=2)
    for k in range(4):
        assert total_mass(lambda x, k=k: model.log_prob_of(x, k), spec) == pytest.approx(
            1, abs=1e-8
        )
    assert total_mass(model.log_prob, spec) == pytest.approx(1, abs=1e-8)


def test_probabilities_still_sum_to_one_after_training():
    model = made(n_masks=2, connectivity_weights=True).float().train()
    fit(model, Given(TINY[0], every_image(TINY[0])[::3].float()), 20)
    assert total_mass(model.double().eval().log_prob, TINY[0]) == pytest.approx(1, abs=1e-8)


def test_ensemble_averages_probabilities_not_logits():
    model, x = made(n_masks=3, order_agnostic=True), every_image(TINY[0])[:50]
    each = torch.stack([model.log_prob_of(x, k).exp() for k in range(3)])
    torch.testing.assert_close(model.log_prob(x).exp(), each.mean(0))
    torch.testing.assert_close(
        model.evaluate(Batch({"x": x}))["nll_single_mask"], -each.log().mean(0)
    )


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
@pytest.mark.parametrize("shuffled", [False, True])
def test_conditionals_depend_on_all_earlier_dimensions_and_no_other(spec, shuffled):
    models = [made(spec, seed, hidden=8 * spec.dim, order_agnostic=shuffled) for seed in range(3)]
    for model in models:
        model.mask_seeds.fill_(5)
    depends = dependence(models)
    assert not depends.triu().any() and not depends[0].any()
    assert depends[-1, :-1].all() and coverage(depends) == 1


def test_without_direct_connections_the_hidden_units_alone_reach_every_earlier_dimension():
    models = [made(TINY[0], seed, hidden=120, direct=False) for seed in range(3)]
    for model in models:
        model.mask_seeds.fill_(3)
    depends = dependence(models)
    assert not depends.triu().any() and coverage(depends) > 0.9


@pytest.mark.parametrize("spec", TINY, ids=TINY_NAMES)
def test_a_changed_level_changes_no_bit_of_earlier_conditionals(spec):
    assert leaks(made(spec, layers=2, order_agnostic=True), every_image(spec)[::37]) == []


def test_one_pass_gives_what_one_pass_for_each_dimension_gives():
    model = made(layers=2, order_agnostic=True)
    x, order = every_image(TINY[0])[100:105], model.order.tolist()
    together = model.conditionals(x)
    for j, d in enumerate(order):
        known = x.clone().flatten(1)
        known[:, order[j:]] = 7.0  # whatever the later dimensions are
        torch.testing.assert_close(
            model.conditionals(known.view_as(x))[:, d], together[:, d], rtol=0, atol=1e-12
        )


def test_masks_are_regenerated_from_their_seeds_after_a_reload():
    a, b = (
        made(seed=1, n_masks=3, order_agnostic=True, layers=2),
        made(seed=2, n_masks=3, order_agnostic=True, layers=2),
    )
    x = every_image(TINY[0])[::20]
    assert not torch.equal(a.order_of(1), b.order_of(1))
    b.load_state_dict(a.state_dict())
    for k in range(3):
        assert all(torch.equal(p, q) for p, q in zip(a._mask(k)[1], b._mask(k)[1], strict=True))
    assert torch.equal(a.log_prob(x), b.log_prob(x))


def test_training_takes_the_masks_in_turn():
    model, seen = MADE(TINY[0], hidden=8, n_masks=3), []
    inner = model.log_prob_of
    model.log_prob_of = lambda x, k: (seen.append(k), inner(x, k))[1]
    fit(model, Given(TINY[0], every_image(TINY[0])[:64].float()), 5)
    assert seen == [0, 1, 2, 0, 1] and model.turn == 5


@pytest.mark.parametrize("cache", [True, False])
def test_samples_follow_the_density(cache):
    model = made(TINY[1], n_masks=2, order_agnostic=True, layers=2)
    assert sampler_distance(model, cache=cache) < 0.05


@pytest.mark.parametrize(
    "spec", [DataSpec((1, 4, 4), 2), DataSpec((3, 4, 4), 5), DataSpec((6,))], ids=str
)
def test_cached_sampling_gives_the_integers_of_naive_sampling(spec):
    model = made(spec, n_masks=2, order_agnostic=True, layers=2, connectivity_weights=True)
    for p in model.parameters():
        p.data.mul_(0.3)
    for seed in (0, 1):
        fast, slow = (
            model.sample(16, generator=torch.Generator().manual_seed(seed), cache=c)
            for c in (True, False)
        )
        torch.testing.assert_close(fast, slow, rtol=0, atol=0 if spec.levels else 1e-9)
    assert fast.unique().numel() > 1


def test_cached_sampling_costs_one_forward_pass():
    model = made(DataSpec((1, 4, 4), 2), layers=2)

    def flops(run) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    one = flops(lambda: model.conditionals(torch.zeros(8, 1, 4, 4, dtype=torch.float64)))
    assert flops(lambda: model.sample(8)) <= one
    assert flops(lambda: model.sample(8, cache=False)) == 16 * one


def test_gaussian_conditionals_make_a_density_of_vectors():
    model = made(DataSpec((2,)), hidden=16)
    for p in model.parameters():
        p.data.mul_(0.4)
    assert model.likelihood_kind == "exact_density"
    assert total_density(model.log_prob, 2, half_width=30, points=1201) == pytest.approx(
        1, abs=1e-3
    )
    x = torch.randn(5, 2, dtype=torch.float64)
    mu, log_sigma = model.conditionals(x).unbind(-1)
    torch.testing.assert_close(
        model.log_prob(x), torch.distributions.Normal(mu, log_sigma.exp()).log_prob(x).sum(1)
    )


def test_real_vectors_start_at_the_gaussians_of_the_data_and_are_drawn_with_their_deviations():
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)).double()
    x = x * torch.tensor([0.2, 5.0]).double() + torch.tensor([3.0, -7.0]).double()
    model = made(DataSpec((2,)), hidden=4)
    for p in model.parameters():
        p.data.zero_()
    model.initialise_from(Batch({"x": x}))
    start = torch.distributions.Normal(x.mean(0), x.std(0))
    torch.testing.assert_close(model.log_prob(x), start.log_prob(x).sum(1))
    drawn = model.sample(20_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.std(0), x.std(0), rtol=0.03, atol=0)
    torch.testing.assert_close(drawn.mean(0), x.mean(0), rtol=0.03, atol=0)


def test_what_single_masks_cost_is_their_mean_and_more_than_the_ensemble():
    model = made(n_masks=3, order_agnostic=True)
    x = every_image(TINY[0])[:6].double()
    said = model.evaluate(Batch({"x": x}))["nll_single_mask"]
    each = []
    for k in range(3):
        alone = made(n_masks=1, order_agnostic=True)
        alone.load_state_dict({**model.state_dict(), "mask_seeds": model.mask_seeds[k : k + 1]})
        each.append(-alone.log_prob(x))
    torch.testing.assert_close(said, torch.stack(each).mean(0))
    assert (said > -model.log_prob(x)).all()


class Labelled:
    """A conditional model with its label fixed."""

    def __init__(self, model: MADE, label: int) -> None:
        self.model, self.label, self.spec = model, label, model.spec

    def log_prob(self, x):
        return self.model.log_prob(x, y=torch.full((len(x),), self.label))

    def sample(self, n, generator):
        return self.model.sample(n, y=torch.full((n,), self.label), generator=generator)


def test_label_reaches_every_conditional_and_each_label_has_a_distribution():
    spec = DataSpec((1, 2, 2), 3, 4)
    model, images = made(spec, conditional=True, layers=2), every_image(spec)
    at = [model.conditionals(images[:1], y=torch.tensor([label])) for label in range(4)]
    assert all((at[0] != other).any(-1).all() for other in at[1:])
    for label in range(4):
        assert total_mass(Labelled(model, label).log_prob, spec) == pytest.approx(1, abs=1e-8)
    assert sampler_distance(Labelled(model, 2)) < 0.05
    with pytest.raises(ValueError, match="labels"):
        model.log_prob(images)


def test_connectivity_weights_tell_the_mask_by_masked_weights_on_ones():
    model, x = made(n_masks=2, connectivity_weights=True, direct=False), every_image(TINY[0])[:3]
    m = model._mask(1)[1]
    bias = [
        layer.bias + (u * mask) @ torch.ones(u.shape[1]).double()
        for layer, u, mask in zip(model.layers, model.connectivity, m, strict=False)
    ]
    h = torch.relu(x.flatten(1) @ (model.layers[0].weight * m[0]).T + bias[0])
    torch.testing.assert_close(
        model.conditionals(x, k=1)[..., 0], h @ (model.layers[1].weight * m[1]).T + bias[1]
    )


def test_rows_do_not_talk():
    likelihoods.assert_rows_do_not_talk(
        made(n_masks=2, order_agnostic=True).log_prob, every_image(TINY[0])[::60]
    )


@pytest.mark.parametrize("spec", [DataSpec((1, 2, 2), 2), DataSpec((1, 2, 2), 4)], ids=str)
def test_first_biases_are_the_smoothed_marginals_of_the_data(spec):
    model, x = made(spec), torch.randint(spec.levels, (30, 1, 2, 2)).double()
    model.initialise_from(Batch({"x": x}))
    for name, p in model.named_parameters():
        if name != "layers.1.bias":
            p.data.zero_()
    frequency = torch.stack(
        [(x == level).double().sum(0) + 0.5 for level in range(spec.levels)]
    ) / (30 + spec.levels / 2)
    expected = torch.stack([frequency.gather(0, row.long()[None])[0].log().sum() for row in x])
    torch.testing.assert_close(model.log_prob(x), expected)


def test_untrained_zero_network_is_the_uniform_distribution():
    model = made(DataSpec((1, 2, 2), 5))
    for p in model.parameters():
        p.data.zero_()
    assert model.log_prob(torch.zeros(1, 1, 2, 2).double()).item() == pytest.approx(
        -4 * math.log(5)
    )
