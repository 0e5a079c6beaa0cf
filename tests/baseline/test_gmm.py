"""The gaussian mixture is a density, and EM climbs its likelihood."""

import itertools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from tests.support import Given, fit
from zoo.baseline.gmm import GMM
from zoo.check.likelihoods import assert_rows_do_not_talk, total_density
from zoo.core import DataSpec
from zoo.data.digits import Digits
from zoo.data.toy2d import Toy2D

COVARIANCES = ("spherical", "diag", "full", "tied")

PLANE = DataSpec((2,))


def gmm(spec: DataSpec = PLANE, components: int = 3, seed: int = 0, **options) -> GMM:
    torch.manual_seed(seed)
    return GMM(spec, components=components, **options).double().eval()


def blobs(n: int = 300, d: int = 2) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(n, d, generator=g) * torch.linspace(0.3, 1, d)
        + 3 * torch.randint(3, (n, 1), generator=g)
    ).double()


def fitted(rows: torch.Tensor, steps: int = 5, **options) -> GMM:
    model = gmm(DataSpec((rows.shape[1],)), **options)
    model.start(rows)
    for _ in range(steps):
        model.iterate(rows)
    return model


def test_one_full_component_is_the_gaussian_of_the_data():
    x = blobs()
    model = fitted(x, components=1, covariance="full", ridge=1e-9)
    oracle = MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0))
    torch.testing.assert_close(model.log_prob(x), oracle.log_prob(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("dim", [1, 2])
def test_density_integrates_to_one(covariance, dim):
    model = fitted(blobs(d=dim), covariance=covariance)
    assert total_density(model.log_prob, dim, half_width=12, points=1201) == pytest.approx(
        1, abs=1e-6
    )


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_em_never_loses_likelihood(covariance):
    x = blobs(200, 4)
    model = gmm(DataSpec((4,)), covariance=covariance, ridge=1e-10)
    model.start(x[torch.randperm(200, generator=torch.Generator().manual_seed(0))])
    model.mu.data.copy_(x[:3])  # far from the optimum
    values = []
    for _ in range(20):
        terms = model.iterate(x)
        values.append(terms["nll_nats"].item())
    assert (
        all(b <= a + 1e-9 for a, b in itertools.pairwise(values)) and values[0] - values[-1] > 1e-3
    )


def test_em_never_loses_likelihood_on_dequantised_digits():
    data = Digits()
    model = gmm(data.spec, components=10, ridge=1e-9)
    rows = model.prepared(data.examples()["x"])
    assert (
        torch.equal(rows, model.prepared(data.examples()["x"]))
        and rows.min() >= 0
        and rows.max() < 1
    )
    model.start(rows)
    values = [model.iterate(rows)["nll_nats"].item() for _ in range(20)]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_densities_and_one_em_step_are_those_of_scikit_learn(covariance):
    from sklearn.mixture import GaussianMixture

    x = blobs(200, 3)
    reference = GaussianMixture(
        3, covariance_type=covariance, reg_covar=1e-4, max_iter=1, tol=0, random_state=0
    )
    with pytest.warns(UserWarning, match="converge"):
        reference.fit(x.numpy())
    model = gmm(DataSpec((3,)), covariance=covariance)

    def copy():
        for parameter, value in zip(
            (model.pi, model.mu), (reference.weights_, reference.means_), strict=True
        ):
            parameter.data.copy_(torch.from_numpy(value))
        root = torch.from_numpy(reference.covariances_)
        root = torch.linalg.cholesky(root) if covariance in ("full", "tied") else root.sqrt()
        model.scale.data.copy_(root.view_as(model.scale))

    copy()
    torch.testing.assert_close(
        model.log_prob(x).detach(),
        torch.from_numpy(reference.score_samples(x.numpy())),
        rtol=0,
        atol=1e-8,
    )
    model.iterate(x)
    ours = model.log_prob(x).detach()
    reference.set_params(warm_start=True)
    with pytest.warns(UserWarning, match="converge"):
        reference.fit(x.numpy())
    torch.testing.assert_close(
        ours, torch.from_numpy(reference.score_samples(x.numpy())), rtol=0, atol=1e-8
    )


def test_responsibilities_sum_to_one_and_split_components_change_nothing():
    x = blobs()
    model, twice = fitted(x), gmm(components=6)
    torch.testing.assert_close(model.encode(x).sum(1), torch.ones(300).double())
    twice.pi.data.copy_(model.pi.data.repeat(2) / 2)
    twice.mu.data.copy_(model.mu.data.repeat(2, 1))
    twice.scale.data.copy_(model.scale.data.repeat(2, 1))
    torch.testing.assert_close(twice.log_prob(x), model.log_prob(x))
    assert_rows_do_not_talk(model.log_prob, x[:9])


def test_ring_of_eight_gaussians_is_found_to_its_entropy():
    data = Toy2D(std=0.2, size=10_000)
    model = GMM(data.spec, components=8, covariance="full", ridge=1e-6)
    fit(model, data, 30)
    x = data.examples(split="val")["x"]
    rows = torch.cat(
        [MultivariateNormal(c, 0.04 * torch.eye(2)).log_prob(x)[:, None] for c in data.centres], 1
    )
    entropy = -(rows.logsumexp(1) - math.log(8)).mean()
    assert -model.log_prob(x).mean() < entropy + 0.02
    assert torch.cdist(data.centres, model.mu).min(1).values.max() < 0.05
    assert model.pi.min() > 0.08 and model.pi.max() < 0.17


def test_a_dead_component_moves_to_the_worst_explained_example():
    x = torch.cat([blobs(), torch.tensor([[40.0, -40.0]]).double()])
    model = fitted(x[:-1], components=2, steps=3)
    model.mu.data[1] = 1e6
    assert model.iterate(x)["reseeds"] == 1
    torch.testing.assert_close(model.mu[1].detach(), x[-1])
    assert model.pi.sum().item() == pytest.approx(1) and torch.isfinite(model.log_prob(x)).all()


def test_effective_components_count_the_weights():
    model = gmm(components=4)
    assert model.effective.item() == pytest.approx(4)
    model.pi.data.copy_(torch.tensor([0.5, 0.5, 0, 0]))
    assert model.effective.item() == pytest.approx(2)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_samples_have_the_moments_of_the_mixture(covariance):
    x = blobs()
    model = fitted(x, covariance=covariance, ridge=1e-9)
    samples = model.sample(100_000, generator=torch.Generator().manual_seed(0)).detach()
    pi, mu = model.pi.detach(), model.mu.detach()
    within = sum(p * model._covariance(k).detach() for k, p in enumerate(pi))
    total = within + (mu.T * pi) @ mu - torch.outer(pi @ mu, pi @ mu)
    assert (samples.mean(0) - pi @ mu).abs().max() < 0.05
    assert (torch.cov(samples.T) - total).abs().max() < 0.05 * total.abs().max()


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_samples_of_correlated_dimensions_have_their_covariance(covariance):
    model = gmm(components=1, covariance=covariance)
    wanted = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    model.scale.data.copy_(torch.linalg.cholesky(wanted)[None])
    x = model.sample(20_000, generator=torch.Generator().manual_seed(0)).detach()
    torch.testing.assert_close(torch.cov(x.T), wanted, rtol=0, atol=0.03)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_inpainting_follows_the_conditional_density(covariance):
    model = fitted(blobs(), covariance=covariance)
    known = torch.tensor([[True, False]])
    row = torch.tensor([[1.5, 0.0]]).double()
    drawn = model.inpaint(
        row.expand(40_000, 2), known, generator=torch.Generator().manual_seed(0)
    ).detach()
    axis = torch.linspace(-6, 14, 2001).double()
    density = model.log_prob(torch.stack([row[0, 0].expand_as(axis), axis], 1)).exp().detach()
    cdf = density.cumsum(0) / density.sum()
    assert torch.equal(drawn[:, 0], row[:, 0].expand(40_000))
    empirical = (drawn[:, 1].sort().values[None] <= axis[::50, None]).double().mean(1)
    assert (empirical - cdf[::50]).abs().max() < 0.02


def test_labels_of_components_classify():
    spec = DataSpec((2,), num_classes=2)
    x = torch.cat([torch.randn(40, 2), torch.randn(40, 2) + 20])
    y = torch.tensor([1] * 40 + [0] * 40)
    model = GMM(spec, components=2)
    fit(model, Given(spec, x, y), 3)
    assert torch.equal(model.classify(x).argmax(1), y)
    torch.testing.assert_close(model.classify(x).sum(1), torch.ones(80))


def test_a_row_between_two_components_has_the_labels_of_both():
    model = gmm(DataSpec((1,), num_classes=2), components=2, covariance="spherical")
    model.mu.data.copy_(torch.tensor([[-1.0], [1.0]]))
    model.pi.data.copy_(torch.tensor([0.6, 0.4]))
    model.label_counts.copy_(torch.tensor([[8.0, 0.0], [1.0, 3.0]]))
    x = torch.zeros(1, 1).double()  # as far from each: responsibilities are the weights
    shares = 0.6 * torch.tensor([9 / 10, 1 / 10]) + 0.4 * torch.tensor([2 / 6, 4 / 6])
    torch.testing.assert_close(model.classify(x), shares[None].double())


def test_bound_on_images_is_below_the_exact_mass():
    spec = DataSpec((1, 1, 1), 3)
    model = gmm(spec, components=2)
    model.mu.data.copy_(torch.tensor([[0.2], [0.7]]))
    model.scale.data.copy_(torch.tensor([[0.1], [0.2]]))
    x = torch.arange(3.0).view(3, 1, 1, 1).double()
    u = ((torch.arange(2000) + 0.5) / 2000).double()
    y = (x.view(3, 1) + u) / 3
    inside = model.log_density(y.reshape(-1, 1)).view(3, -1).detach()
    mass = inside.exp().mean(1) / 3
    assert mass.sum() < 1 + 1e-6
    bound = torch.stack(
        [model.log_prob(x, generator=torch.Generator().manual_seed(s)).detach() for s in range(400)]
    ).mean(0)
    torch.testing.assert_close(bound, inside.mean(1) - math.log(3), rtol=0, atol=0.05)
    assert (bound < mass.log()).all()
