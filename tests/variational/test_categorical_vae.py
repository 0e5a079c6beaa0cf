"""The categorical VAE relaxes in training only: its bounds are of one-hot draws, below the
enumerated likelihood.
"""

import math

import pytest
import torch
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from tests.support import Given, fit
from zoo.check import likelihoods
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import RowNoise
from zoo.core.noise import Noise
from zoo.nn.prior import Draw
from zoo.variational.categorical_vae import (
    CategoricalVAE,
    gumbel,
    kl_uniform,
    log_concrete,
    one_hot,
    relax,
)

SPEC = DataSpec((1, 2, 2), 2)


def vae(seed: int = 0, scale: float = 2, **options) -> CategoricalVAE:
    torch.manual_seed(seed)
    model = (
        CategoricalVAE(SPEC, **{"variables": 2, "classes": 3, "width": 16, **options})
        .double()
        .eval()
    )
    for p in model.parameters():
        p.data.mul_(scale)
    return model


def test_the_largest_of_logits_and_gumbel_noise_is_a_draw_of_the_softmax():
    logits, n = torch.tensor([0.3, -1.2, 1.0]).double(), 200_000
    g = gumbel(Noise(0, dtype=torch.float64).uniform(n, 3))
    p = logits.softmax(0)
    assert ((one_hot(logits + g).mean(0) - p).abs() < 3 * (p * (1 - p) / n).sqrt()).all()


def test_uniform_noise_of_zero_and_one_is_finite():
    assert (
        torch.isfinite(gumbel(torch.tensor([0.0, 1.0]))).all()
        and torch.isfinite(gumbel(torch.tensor([0.0, 1.0]).double())).all()
    )


def test_temperature_goes_from_one_hot_to_uniform():
    logits, g = (
        torch.tensor([0.3, -1.2, 1.0]).double(),
        gumbel(torch.rand(5000, 3, dtype=torch.float64)),
    )
    assert (relax(logits, g, 0.01).max(1).values > 0.99).double().mean() > 0.95
    torch.testing.assert_close(
        relax(logits, g, 1000.0), torch.full((5000, 3), 1 / 3).double(), atol=0.01, rtol=0
    )


def test_kl_is_zero_for_equal_logits_and_ln_k_for_certainty():
    assert kl_uniform(torch.full((4, 8), 1.7)).abs().max() < 1e-6
    assert kl_uniform(torch.tensor([200.0, 0, 0])).item() == pytest.approx(math.log(3))
    logits = torch.randn(50, 8).double()
    uniform = torch.distributions.Categorical(logits=torch.zeros(50, 8).double())
    want = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits), uniform
    )
    torch.testing.assert_close(kl_uniform(logits), want)


def test_bounds_lie_below_the_enumerated_likelihood_and_close_in():
    model, images = vae(scale=1.3), likelihoods.every_image(SPEC)
    codes = torch.stack(
        [torch.cat([torch.eye(3)[i], torch.eye(3)[j]]) for i in range(3) for j in range(3)]
    ).double()
    given_z = torch.stack([model.log_likelihood(images, z.expand(16, 6)) for z in codes])
    exact = given_z.logsumexp(0) - math.log(9)
    assert exact.exp().sum().item() == pytest.approx(1)
    logits, _, _ = model.posteriors(images)
    q = torch.einsum("bi,bj->bij", *logits.softmax(-1).unbind(1)).reshape(16, 9).T
    elbo = (q * (given_z - math.log(9) - q.log())).sum(0)
    rows = images.repeat(4000, 1, 1, 1)
    draws = model.elbo(rows, generator=torch.Generator().manual_seed(0)).view(4000, 16)
    assert ((draws.mean(0) - elbo).abs() < 4.5 * draws.std(0) / math.sqrt(4000)).all() and (
        elbo < exact
    ).all()
    tighter = torch.stack(
        [model.importance_bound(images, 500, torch.Generator().manual_seed(s)) for s in range(20)]
    ).mean(0)
    torch.testing.assert_close(tighter, exact, atol=0.02, rtol=0)
    assert (elbo < tighter).all()


def test_straight_through_decodes_one_hots_with_the_relaxed_gradient():
    logits, g, weight = torch.randn(3, 6, 4, 5).double()
    gradients = []
    for hard in (True, False):
        leaf = logits.clone().requires_grad_()
        y = relax(leaf, g, 0.7, hard)
        if hard:
            torch.testing.assert_close(y, one_hot(logits + g), rtol=0, atol=1e-15)
        gradients.append(torch.autograd.grad((y * weight).sum(), leaf)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("options", [{}, {"straight_through": True}, {"kl": "concrete"}])
def test_evaluation_decodes_one_hots_only_and_training_relaxed_ones(options):
    model, seen = vae(**options), []
    x = likelihoods.every_image(SPEC)
    model.decoder.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    (
        model.elbo(x),
        model.importance_bound(x, 20),
        model.evaluate(Batch({"x": x})),
        model.reconstruct(x),
        model.sample(9),
    )
    assert len(seen) == 6
    for z in seen:
        assert ((z == 0) | (z == 1)).all() and (z.unflatten(1, (2, 3)).sum(2) == 1).all()
    seen.clear()
    model.loss(Batch({"x": x}))
    assert (seen[0].unflatten(1, (2, 3)).max(2).values > 0.999).all() == options.get(
        "straight_through", False
    )


def test_concrete_density_is_that_of_torch():
    logits, tau = torch.randn(7, 5).double(), 0.6
    law = ExpRelaxedCategorical(torch.tensor(tau).double(), logits=logits)
    log_y = law.sample()
    torch.testing.assert_close(log_concrete(log_y, logits, tau), law.log_prob(log_y))


def test_relaxed_kl_has_a_mean_above_zero_and_reaches_the_encoder():
    model, x = vae(kl="concrete", tau_prior=0.4), likelihoods.every_image(SPEC).repeat(500, 1, 1, 1)
    terms = model.loss(Batch({"x": x}))
    assert terms["kl"] > 0 and all(
        g.abs().max() > 0 for g in torch.autograd.grad(terms["kl"], [*model.encoder.parameters()])
    )


def test_temperature_follows_the_training_step():
    model, seen = CategoricalVAE(SPEC, width=8, tau_rate=0.5, tau_min=0.3), []
    inner = model.loss
    model.loss = lambda batch: seen.append(inner(batch)["tau"].item()) or inner(batch)
    fit(model, Given(SPEC, likelihoods.every_image(SPEC).float()), 4)
    assert seen == pytest.approx([1, math.exp(-0.5), math.exp(-1), 0.3])


def test_joint_capacities_rise_and_stop_at_what_the_variables_can_carry():
    model, seen = (
        CategoricalVAE(
            SPEC,
            variables=1,
            classes=2,
            continuous=2,
            width=8,
            capacity=2.0,
            capacity_steps=4,
            gamma=10.0,
        ),
        [],
    )
    inner = model.loss

    def loss(batch):
        terms = inner(batch)
        logits, mu, log_var = model.posteriors(batch["x"])
        seen.append(model.capacities())
        kl_c = kl_uniform(logits).sum(1).mean()
        kl_z = torch.distributions.kl_divergence(
            torch.distributions.Normal(mu, (log_var / 2).exp()),
            torch.distributions.Normal(torch.zeros_like(mu), 1.0),
        ).sum(1)
        want = (
            10 * ((kl_z.mean() - seen[-1][0]).abs() + (kl_c - seen[-1][1]).abs()) - terms["recon"]
        )
        torch.testing.assert_close(terms["loss"], want, rtol=1e-4, atol=1e-5)
        return terms

    model.loss = loss
    fit(model, Given(SPEC, likelihoods.every_image(SPEC).float()), 6)
    ln2 = math.log(2)
    assert [z for z, _ in seen] == [0, 0.5, 1, 1.5, 2, 2] and [c for _, c in seen] == pytest.approx(
        [0, 0.5, ln2, ln2, ln2, ln2]
    )


def test_joint_codes_have_both_parts_and_a_bound():
    model, x = vae(continuous=2), likelihoods.every_image(SPEC)
    assert model.encode(x).shape == (16, 8) and model.sample(3).shape == (3, 1, 2, 2)
    recon, ratio = model.weigh(x, 4000, RowNoise(x))
    closed = model.bound_terms(x, RowNoise(x))[1]
    assert (
        (ratio.sum(2).mean(0) - closed).abs() < 4.5 * ratio.sum(2).std(0) / math.sqrt(4000)
    ).all() and recon.shape == (4000, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": "gauss"}, "kl is one of categorical, concrete, got 'gauss'"),
        ({"classes": 1}, "classes is at least 2, got 1"),
        ({"tau_min": 0.0}, "tau_min is positive, got 0"),
        ({"kl": "concrete", "continuous": 2}, "relaxed draws"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"categorical_vae.*{message}"):
        CategoricalVAE(SPEC, **options)


def test_rows_do_not_talk():
    model, x = vae(), likelihoods.every_image(SPEC)
    likelihoods.assert_rows_do_not_talk(model.elbo, x)
    likelihoods.assert_rows_do_not_talk(model.importance_bound, x)


def test_the_logged_bound_has_the_cost_of_both_kinds_of_codes():
    model = vae(continuous=2)
    model.noise = Noise(0, "test", dtype=torch.float64)
    terms = model.loss(Batch({"x": likelihoods.every_image(SPEC)[:8]}))
    torch.testing.assert_close(terms["relaxed_nelbo"], terms["kl"] - terms["recon"])


def test_drawn_codes_are_uniform_over_the_values():
    model = vae()
    codes = model.draw_codes(3000, Draw(torch.Generator().manual_seed(0), dtype=torch.float64))
    assert (codes.unflatten(1, (model.variables, model.classes)).sum(2) == 1).all()
    share = 1 / model.classes
    assert (codes.mean(0) - share).abs().max() < 5 * (share * (1 - share) / 3000) ** 0.5


def test_the_relaxed_cost_is_that_of_torchs_densities_each_at_its_own_temperature():
    model, x = vae(kl="concrete", tau_prior=0.4), likelihoods.every_image(SPEC)
    model.tau = lambda: 0.7
    model.noise = Noise(0, "test", dtype=torch.float64)
    terms = model.loss(Batch({"x": x}))
    logits, _, _ = model.posteriors(x)
    u = Noise(0, "test", dtype=torch.float64).uniform(*logits.shape)
    log_y = ((logits - (-u.log()).log()) / 0.7).log_softmax(-1)
    q = ExpRelaxedCategorical(torch.tensor(0.7).double(), logits=logits)
    p = ExpRelaxedCategorical(torch.tensor(0.4).double(), logits=torch.zeros_like(logits))
    want = (q.log_prob(log_y) - p.log_prob(log_y)).sum(1).mean()
    torch.testing.assert_close(terms["kl"], want)
    torch.testing.assert_close(terms["loss"], want - terms["recon"])


def test_each_kind_of_code_is_held_at_its_own_capacity():
    model = vae(variables=1, classes=2, continuous=2, gamma=10.0, capacity=2.0)
    model.posteriors = lambda x: (
        torch.zeros(len(x), 1, 2).double(),  # KL 0
        torch.full((len(x), 2), 3.0).double(),  # KL 9
        torch.zeros(len(x), 2).double(),
    )
    terms = model.loss(Batch({"x": likelihoods.every_image(SPEC)}))
    held = (terms["loss"] + terms["recon"]).item()
    assert held == pytest.approx(10 * (9 - 2 + math.log(2)))


def test_a_variable_is_switched_to_each_of_its_values_and_no_other():
    z = torch.eye(6)[[0, 4]].sum(0)[None]
    switched = vae().switched(z, 1)
    assert torch.equal(switched[0, :, :3], z[:, :3].expand(3, 3))
    assert torch.equal(switched[0, :, 3:], torch.eye(3))


def test_gaussian_dimensions_are_drawn_in_training_and_in_samples():
    model, seen = vae(continuous=2), []
    model.decoder.register_forward_pre_hook(lambda net, given: seen.append(given[0][:, 6:]))
    x = likelihoods.every_image(SPEC)[5:6]
    model.noise = Noise(0, "test", dtype=torch.float64)
    model.loss(Batch({"x": x.expand(4000, -1, -1, -1)}))
    model.sample(4000, generator=torch.Generator().manual_seed(0))
    _, mu, log_var = model.posteriors(x)
    for drawn, mean, std in ((seen[0], mu, (log_var / 2).exp()), (seen[1], 0 * mu, 1 + 0 * mu)):
        assert ((drawn.mean(0) - mean).abs() < 4 * std / math.sqrt(4000)).all()
        torch.testing.assert_close(drawn.std(0), std[0], rtol=0.05, atol=0)
