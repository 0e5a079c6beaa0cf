"""β-TCVAE takes the KL apart without a rest, and estimates the aggregated posterior of the training
set without bias.
"""

import itertools
import math

import pytest
import torch

from tests.support import Given, fit
from zoo.check import likelihoods
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.data.factor_grid import FactorGrid
from zoo.nn.gaussian import split_kl
from zoo.variational.beta_tcvae import BetaTCVAE, log_weights
from zoo.variational.vae import VAE

SPEC = DataSpec((1, 2, 3), 2)


def beta_tcvae(size: int = 64, **options) -> BetaTCVAE:
    torch.manual_seed(0)
    model = BetaTCVAE(SPEC, **{"latent": 3, "width": 16, **options}).double()
    model.size.fill_(size)
    return model


def posterior(n: int, dims: int = 2) -> torch.distributions.Normal:
    g = torch.Generator().manual_seed(n)
    mu, log_var = torch.randn(2, n, dims, generator=g, dtype=torch.float64)
    return torch.distributions.Normal(2 * mu, (0.5 * log_var).exp())


def parts(z, q, log_w):
    return split_kl(z, q.log_prob(z).sum(1), q.mean, 2 * q.stddev.log(), log_w)


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_the_three_terms_add_up_to_the_kl_of_the_draw(estimator):
    q = posterior(9, 4)
    z, prior = q.sample(), torch.distributions.Normal(torch.zeros(4).double(), 1.0)
    expected = (q.log_prob(z) - prior.log_prob(z)).sum(1)
    for log_w in (log_weights(estimator, 9, 50), torch.randn(9, 9, dtype=torch.float64)):
        torch.testing.assert_close(sum(parts(z, q, log_w)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("n", "b"), [(7, 4), (6, 2), (5, 5)])
def test_stratified_estimate_of_the_aggregated_posterior_is_unbiased(n, b):
    q, z = posterior(n, 1), torch.tensor([0.3], dtype=torch.float64)
    density, found = q.log_prob(z).exp()[:, 0], []  # q(z | x_m) of every training example
    for batch in itertools.permutations(range(n), b):
        if batch[0] == 2:  # batches whose first example is the third
            found.append((log_weights("mss", b, n)[0].exp() * density[[*batch]]).sum())
    torch.testing.assert_close(torch.stack(found).mean(), density.mean())
    if b < n:
        assert torch.stack(found).std() > 1e-3
    torch.testing.assert_close(log_weights("mss", b, n).exp().sum(1), torch.ones(b).double())


def test_the_third_example_weighs_one_nth_wherever_it_stands():
    w = log_weights("mss", 4, 20).exp()
    torch.testing.assert_close(w.diagonal(), torch.full((4,), 1 / 20).double())
    torch.testing.assert_close(
        w[~torch.eye(4, dtype=torch.bool)], torch.full((12,), 19 / 60).double()
    )


def test_a_batch_of_everything_gives_the_exact_aggregated_posterior():
    x = likelihoods.every_image(SPEC)[::5]
    model, n = beta_tcvae(len(x)), len(x)
    q = model.posterior(x)
    z = torch.randn(n, 3, dtype=torch.float64)
    each = torch.distributions.Normal(q[0], (0.5 * q[1]).exp())
    mixture = torch.distributions.Categorical(torch.ones(n, dtype=torch.float64))
    joint = torch.distributions.MixtureSameFamily(
        mixture, torch.distributions.Independent(each, 1)
    ).log_prob(z)
    columns = [torch.distributions.Normal(q[0][:, j], (0.5 * q[1][:, j]).exp()) for j in range(3)]
    product = sum(
        torch.distributions.MixtureSameFamily(mixture, c).log_prob(z[:, j])
        for j, c in enumerate(columns)
    )
    mi, tc, dwkl = model.split(z, q, q)
    torch.testing.assert_close(tc, joint - product)
    torch.testing.assert_close(mi, each.log_prob(z).sum(1) - joint)
    torch.testing.assert_close(dwkl, product - torch.distributions.Normal(0, 1).log_prob(z).sum(1))
    for whole, chunked in zip(model.aggregate(x), model.aggregate(x, chunk=4), strict=True):
        torch.testing.assert_close(whole, chunked)
    torch.testing.assert_close(
        model.aggregate(x)[1], torch.as_tensor(model.evaluate(Batch({"x": x}))["tc"])
    )


def test_equal_weights_are_the_vae_with_a_sampled_kl():
    x, found = likelihoods.every_image(SPEC)[:20], []
    torch.manual_seed(0)
    vae = VAE(SPEC, latent=3, width=16, kl_mc=True).double()
    for model in (vae, beta_tcvae(beta=1.0), beta_tcvae(beta=6.0)):
        model.noise = Noise(3, "test", dtype=torch.float64)
        loss = model.loss(Batch({"x": x}))["loss"]
        found.append([loss, *torch.autograd.grad(loss, [*model.parameters()])])
    for a, b in zip(found[0], found[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert abs(found[0][0] - found[2][0]) > 1e-4


def test_a_code_that_ignores_the_image_has_no_terms():
    q = torch.distributions.Normal(torch.zeros(8, 3).double(), 1.0)
    for term in parts(q.sample(), q, log_weights("mss", 8, 100)):
        assert term.abs().max() < 1e-6


def test_the_weighted_estimator_moves_the_terms_by_constants():
    model, x = beta_tcvae(640), likelihoods.every_image(SPEC)[::4]
    q = model.posterior(x)
    z = torch.randn(16, 3, dtype=torch.float64)
    uniform = parts(z, torch.distributions.Normal(q[0], (0.5 * q[1]).exp()), -math.log(16))
    model.estimator = "mws"
    mi, tc, dwkl = model.split(z, q, q)
    for got, plain, shift in zip((mi, tc, dwkl), uniform, (1, 2, -3), strict=True):
        torch.testing.assert_close(got, plain + shift * math.log(640))


def test_the_size_is_that_of_the_training_set_and_lies_in_the_checkpoint():
    model = beta_tcvae(0)
    fit(model.float(), Given(SPEC, likelihoods.every_image(SPEC).float()), 2)
    assert model.size == 64 and "size" in model.state_dict()


def test_beta_rises_over_the_warmup():
    model, seen = beta_tcvae(warmup_steps=4).float(), []
    model.after_step = lambda: seen.append({k: v.item() for k, v in model.terms.items()})
    fit(model, Given(SPEC, likelihoods.every_image(SPEC).float()), 6)
    beta = [(t["loss"] + t["recon"] - t["mi"] - t["dwkl"]) / t["tc"] for t in seen]
    assert beta == pytest.approx([0, 1.5, 3, 4.5, 6, 6], abs=0.02)


@pytest.mark.slow
def test_beta_halves_the_exact_total_correlation():
    x, found = (
        FactorGrid(
            size=16, shapes=["square"], scales=[0.16, 0.22, 0.28], rotations=1, x=7, y=7
        ).grid()[0],
        {},
    )
    for beta in (1.0, 6.0):
        torch.manual_seed(0)
        model = BetaTCVAE(DataSpec((1, 16, 16), 2), beta=beta)
        fit(model, Given(model.spec, x, batch_size=64), 1000)
        found[beta] = model.aggregate(x)[1].mean()
    assert found[6.0] < 0.5 * found[1.0]


def test_each_part_has_its_own_weight_and_the_logged_bound_none():
    x, found = likelihoods.every_image(SPEC)[:16], {}
    for name in ("alpha", "beta", "gamma"):
        for weight in (1.0, 5.0):
            model = beta_tcvae(**{"alpha": 1.0, "beta": 1.0, "gamma": 1.0, name: weight})
            model.noise = Noise(3, "test", dtype=torch.float64)
            found[weight] = model.loss(Batch({"x": x}))
        part = found[1.0][{"alpha": "mi", "beta": "tc", "gamma": "dwkl"}[name]]
        torch.testing.assert_close(found[5.0]["loss"] - found[1.0]["loss"], 4 * part)
        torch.testing.assert_close(found[5.0]["nelbo"], found[1.0]["loss"])


def test_a_process_has_every_second_row_of_the_minibatch():
    model = beta_tcvae()
    mu, log_var, z = torch.randn(3, 8, 3, dtype=torch.float64)
    whole = model.split(z, (mu, log_var), (mu, log_var))
    for rank in range(2):
        own = slice(rank, None, 2)
        mine = model.split(z[own], (mu[own], log_var[own]), (mu, log_var), rank, 2)
        for a, b in zip(mine, whole, strict=True):
            torch.testing.assert_close(a, b[own])


def test_the_gradient_is_that_of_all_codes_of_the_minibatch():
    """By differences of the loss, in a mean and in a spread of the posterior."""
    model, x = beta_tcvae(), likelihoods.every_image(SPEC)[10:14]
    eps = torch.randn(4, 1, 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        model.noise.normal = lambda *shape: eps
        return model.loss(Batch({"x": x}))["loss"]

    bias = model.encoder[-1].bias
    (gradient,) = torch.autograd.grad(loss(), bias)
    for i in (0, 3):
        ends = []
        for h in (1e-5, -2e-5):
            bias.data[i] += h
            ends.append(loss().item())
        bias.data[i] += 1e-5
        assert gradient[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_a_lone_row_is_its_own_aggregated_posterior():
    model = beta_tcvae()
    q = torch.randn(2, 1, 3, dtype=torch.float64)
    mi, tc, dwkl = model.split(torch.randn(1, 3, dtype=torch.float64), (q[0], q[1]), (q[0], q[1]))
    assert abs(mi) < 1e-12 and abs(tc) < 1e-12 and abs(dwkl) > 0.01
