"""Probabilistic PCA is the linear-gaussian model at its maximum of likelihood."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from tests.support import Given, fit
from zoo.baseline.pca import PCA, closed_form
from zoo.core import DataSpec

SPEC = DataSpec((6,))


def data(n: int = 500, d: int = 6) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=g).double() @ torch.randn(d, d, generator=g).double() + 3


def pca(spec: DataSpec = SPEC, latent: int = 2, rows=None, steps: int = 1, **options) -> PCA:
    torch.manual_seed(0)
    model = PCA(spec, latent=latent, **options).double().eval()
    for _ in range(steps if rows is not None else 0):
        model.iterate(rows)
    return model


def biased_covariance(x):
    return torch.cov(x.T, correction=0)


def test_log_prob_is_that_of_the_multivariate_normal():
    x = data()
    model = pca(rows=x)
    oracle = MultivariateNormal(
        model.mu, model.W @ model.W.T + model.sigma2 * torch.eye(6).double()
    ).log_prob(x)
    torch.testing.assert_close(model.log_prob(x), oracle, rtol=0, atol=1e-10)


@pytest.mark.parametrize("algorithm", ["eigen", "em"])
def test_filters_are_the_eigenvectors_of_the_covariance(algorithm):
    x = data()
    model = pca(DataSpec((1, 2, 3)), 3, x, 1 if algorithm == "eigen" else 600, algorithm=algorithm)
    (axes,) = model.filters().values()
    _, vectors = np.linalg.eigh(np.cov(x.numpy().T))
    assert axes.shape == (3, 1, 2, 3)
    overlap = abs(axes.flatten(1).numpy() @ vectors[:, ::-1])  # whatever their sign
    np.testing.assert_allclose(overlap, np.eye(3, 6), atol=1e-4)


def test_with_one_dimension_less_it_is_the_full_gaussian():
    x = data()
    model = pca(latent=5, rows=x)
    torch.testing.assert_close(model.covariance.detach(), biased_covariance(x), rtol=0, atol=1e-10)


def test_mean_log_likelihood_at_the_maximum_is_the_closed_form():
    x = data()
    for latent in (1, 3, 5):
        model = pca(latent=latent, rows=x)
        expected = -0.5 * (6 * math.log(2 * math.pi) + torch.logdet(model.covariance) + 6)
        torch.testing.assert_close(model.log_prob(x).mean(), expected)
        torch.testing.assert_close(model.iterate(x)["nll_nats"], -expected.detach())


def test_the_closed_form_is_a_maximum():
    x = data()
    model = pca(rows=x)
    gradients = torch.autograd.grad(model.log_prob(x).mean(), [*model.parameters()])
    assert all(g.abs().max() < 1e-8 for g in gradients)


def test_likelihood_rises_with_the_latent_dimensions():
    x = data()
    values = [pca(latent=q, rows=x).log_prob(x).mean().item() for q in range(1, 6)]
    assert all(b > a for a, b in itertools.pairwise(values))


def test_projection_error_is_the_sum_of_the_discarded_eigenvalues():
    x = data()
    eigenvalues = torch.linalg.eigvalsh(biased_covariance(x))
    w = pca(rows=x).W.detach()
    centred = x - x.mean(0)
    projected = centred @ w @ torch.linalg.inv(w.T @ w) @ w.T
    assert (centred - projected).square().mean().item() == pytest.approx(
        eigenvalues[:4].sum().item() / 6, abs=1e-8
    )


def test_one_step_of_em_is_an_expectation_over_codes_and_two_regressions():
    x = data().numpy()
    model = pca(algorithm="em")
    w, sigma2 = model.W.detach().numpy(), model.sigma2.item()
    r = x - x.mean(0)
    cov = sigma2 * np.linalg.inv(w.T @ w + sigma2 * np.eye(2))  # of z given x
    z = r @ w @ cov / sigma2
    zz = z[:, :, None] * z[:, None] + cov
    new = (r.T @ z) @ np.linalg.inv(zz.sum(0))
    error = (r**2).sum(1) - 2 * (z * (r @ new)).sum(1) + np.einsum("nij,ij->n", zz, new.T @ new)
    terms = model.iterate(torch.from_numpy(x))
    np.testing.assert_allclose(model.W.detach().numpy(), new, rtol=1e-9)
    assert model.sigma2.item() == pytest.approx(error.mean() / 6, rel=1e-9)
    assert terms["sigma2"].item() == pytest.approx(error.mean() / 6, rel=1e-9)


def test_the_explained_variance_is_scikit_learns_less_the_noise_of_every_dimension():
    from sklearn import decomposition

    x = data()
    reference = decomposition.PCA(2).fit(x.numpy())
    said = pca().iterate(x)["explained_variance_ratio"].item()
    values = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))
    noise = values[:4].mean()
    assert said == pytest.approx((values[4:] - noise).sum() / values.sum(), rel=1e-9)
    assert said < reference.explained_variance_ratio_.sum() < said + 6 * noise / values.sum()


def test_em_never_loses_likelihood_and_reaches_the_closed_form_up_to_rotation():
    x = data()
    model = pca(algorithm="em")
    values = [model.iterate(x)["nll_nats"].item() for _ in range(400)]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(values))
    exact = pca(rows=x)
    torch.testing.assert_close(model.W @ model.W.T, exact.W @ exact.W.T, rtol=0, atol=1e-4)
    assert model.sigma2.item() == pytest.approx(exact.sigma2.item(), abs=1e-5)


def test_it_agrees_with_scikit_learn_but_for_its_unbiased_covariance():
    from sklearn import decomposition

    x = data()
    reference = decomposition.PCA(2).fit(x.numpy())
    assert pca(rows=x).log_prob(x).mean().item() == pytest.approx(
        reference.score(x.numpy()), abs=1e-2
    )
    w, sigma2 = closed_form(torch.cov(x.T), 2)  # 1/(N-1), as there
    torch.testing.assert_close(
        w @ w.T + sigma2 * torch.eye(6), torch.from_numpy(reference.get_covariance())
    )


def test_images_get_the_variance_of_their_dequantisation_noise():
    spec = DataSpec((1, 2, 2), 5)
    x = torch.randint(5, (300, 1, 2, 2), generator=torch.Generator().manual_seed(0)).double()
    model = pca(spec, latent=3)
    model.iterate(model.prepared(x))
    u = torch.rand(400, *x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = ((x + u) / 5).flatten(0, 1).flatten(1)  # 120,000 dequantised images
    torch.testing.assert_close(
        model.covariance.detach(), biased_covariance(drawn), rtol=0, atol=5e-4
    )
    torch.testing.assert_close(model.mu.detach(), drawn.mean(0), rtol=0, atol=1e-3)


def test_code_is_the_posterior_mean():
    x = data()
    model = pca(rows=x)
    joint = (
        torch.cat(
            [torch.cat([torch.eye(2), model.W.T], 1), torch.cat([model.W, model.covariance], 1)]
        )
        .detach()
        .double()
    )
    expected = (
        (x - model.mu) @ torch.linalg.inv(joint[2:, 2:]) @ joint[2:, :2]
    )  # conditional of a joint gaussian
    torch.testing.assert_close(model.encode(x), expected)


def test_samples_have_the_covariance_of_the_model():
    x = data()
    model = pca(rows=x)
    samples = model.sample(200_000, generator=torch.Generator().manual_seed(0)).detach()
    error = (
        biased_covariance(samples) - model.covariance
    ).abs().max() / model.covariance.abs().max()
    assert error < 0.02


def test_inpainting_draws_the_gaussian_conditional():
    x = data()
    model = pca(latent=5, rows=x)
    known = torch.tensor([[True, False, True, False, True, True]])
    k, u = known[0].nonzero()[:, 0], (~known[0]).nonzero()[:, 0]
    c, row = model.covariance.detach(), x[:1]
    mean = model.mu[u] + c[u][:, k] @ torch.linalg.solve(c[k][:, k], (row[0, k] - model.mu[k]))
    cov = c[u][:, u] - c[u][:, k] @ torch.linalg.solve(c[k][:, k], c[k][:, u])
    drawn = model.inpaint(
        row.expand(100_000, 6), known, generator=torch.Generator().manual_seed(0)
    ).detach()
    assert torch.equal(drawn[:, k], row[:, k].expand(100_000, 4))
    scale = cov.diagonal().sqrt()
    assert ((drawn[:, u].mean(0) - mean.detach()).abs() / scale).max() < 0.02
    assert ((biased_covariance(drawn[:, u]) - cov).abs() / torch.outer(scale, scale)).max() < 0.03


def test_flat_data_and_too_many_dimensions_are_refused():
    flat = torch.randn(50, 1).double() * torch.ones(6)
    with pytest.raises(ValueError, match="noise vanishes"):
        pca(latent=2, rows=flat)
    with pytest.raises(ValueError, match="latent=6"):
        PCA(SPEC, latent=6)


def test_training_is_the_estimate():
    x = data(64)
    model = PCA(SPEC, latent=2).double()
    fit(model, Given(SPEC, x), 1, precision="64-true")
    torch.testing.assert_close(model.covariance, pca(rows=x).covariance)
