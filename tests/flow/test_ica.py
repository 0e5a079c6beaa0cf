"""ICA is ICA: the likelihood of a linear or nonlinear unmixing, its natural gradient, and sources
that come back.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tests.support import Given, fit
from zoo.baseline.pca import PCA
from zoo.check.likelihoods import assert_flow_inverts, assert_rows_do_not_talk, total_density
from zoo.core import Batch, DataSpec
from zoo.data.patches import Patches
from zoo.data.sources import Sources
from zoo.data.toy2d import Toy2D
from zoo.flow.ica import (
    ICA,
    amari_index,
    draw_sources,
    log_prior,
    sinh_arcsinh,
    sinh_arcsinh_inverse,
)
from zoo.nn.prior import Draw


def ica(dim: int = 5, seed: int = 0, **options) -> ICA:
    """With random matrices, means and nonlinearities."""
    torch.manual_seed(seed)
    model = ICA(DataSpec((dim,)), **options).double().eval()
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    model.mu.normal_()
    return model


def fitted(data: Sources | Toy2D, steps: int, seed: int = 0, **options) -> ICA:
    torch.manual_seed(seed)
    model = ICA(data.spec, **options)
    fit(model, data, steps)
    return model.eval()


def held_out(model: ICA, data: Sources | Toy2D) -> float:
    with torch.no_grad():
        return -model.log_prob(data.examples(split="val")["x"]).mean().item()


@pytest.mark.parametrize("layers", [0, 3])
def test_flow_inverts_and_its_log_det_is_autograds(layers):
    model = ica(layers=layers)
    assert_flow_inverts(model.forward_flow, model.inverse_flow, torch.randn(3, 5).double())


@pytest.mark.parametrize(
    "options",
    [{"prior": p} for p in ("logistic", "laplace", "gaussian", "student")] + [{"layers": 2}],
    ids=str,
)
def test_density_on_the_plane_integrates_to_one(options):
    model = ica(2, **options)
    if model.log_df is not None:
        model.log_df.data += 1.5  # lighter tails: the grid ends somewhere
    assert total_density(model.log_prob, 2, half_width=150, points=1501) == pytest.approx(
        1, abs=1e-2
    )


def test_linear_log_prob_is_the_priors_plus_log_det():
    model, x = ica(), torch.randn(4, 5).double()
    w = model.matrices[0].detach()
    sources = (x - model.mu) @ w.T
    expected = stats.logistic.logpdf(sources.numpy()).sum(1) + math.log(
        abs(torch.linalg.det(w).item())
    )
    torch.testing.assert_close(model.log_prob(x), torch.from_numpy(expected))


def test_nonlinear_model_with_resting_nonlinearities_is_the_linear_one():
    model, linear, x = ica(layers=2), ica(), torch.randn(4, 5).double()
    for p in [*model.log_delta, *model.eps]:
        p.data.zero_()
    linear.mu.copy_(model.mu)
    linear.matrices[0].data = model.matrices[2] @ model.matrices[1] @ model.matrices[0]
    torch.testing.assert_close(model.log_prob(x), linear.log_prob(x))


def test_sinh_arcsinh_inverts_and_its_derivative_is_autograds():
    t = torch.linspace(-30, 30, 61).double().requires_grad_()
    delta, eps = torch.tensor(1.7).double(), torch.tensor(-0.4).double()
    v, log_slope = sinh_arcsinh(t, delta, eps)
    torch.testing.assert_close(log_slope, torch.autograd.grad(v.sum(), t)[0].log())
    torch.testing.assert_close(sinh_arcsinh_inverse(v, delta, eps), t)


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("logistic", stats.logistic),
        ("laplace", stats.laplace),
        ("gaussian", stats.norm),
        ("student", stats.t(df=3.5)),
        ("bimodal", None),
    ],
)
def test_priors_are_scipys_and_their_draws_follow_them(kind, reference):
    df = torch.tensor(3.5).double()
    s = torch.linspace(-6, 6, 25).double()
    if reference is None:
        density = 0.5 * (stats.norm.pdf(s - 1) + stats.norm.pdf(s + 1))
        cdf = lambda v: 0.5 * (stats.norm.cdf(v - 1) + stats.norm.cdf(v + 1))  # noqa: E731
    else:
        density, cdf = reference.pdf(s), reference.cdf
    torch.testing.assert_close(log_prior(kind, s, df).exp(), torch.as_tensor(density))
    u, v = torch.rand(2, 5000, generator=torch.Generator().manual_seed(1)).double()
    assert stats.kstest(draw_sources(kind, u, v, df).numpy(), cdf).pvalue > 0.01


def test_amari_index_is_zero_for_scaled_permutations_and_one_at_most():
    q = torch.tensor([[0.0, -3.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 2.0]])
    assert amari_index(q) == 0 and amari_index(torch.ones(3, 3)) == 1
    assert amari_index(torch.tensor([[1.0, 0.5], [0.0, 1.0]])).item() == pytest.approx(0.5 * 2 / 4)


def unmixed(kind: str, steps: int = 400, **options) -> float:
    """Amari index after fitting 2,000 samples."""
    data = Sources(kind, size=2000)
    return amari_index(fitted(data, steps, **options).matrices[0].detach() @ data.mixing).item()


@pytest.mark.parametrize("prior", ["logistic", "laplace", "student"])
def test_laplace_sources_are_separated(prior):
    assert unmixed("laplace", prior=prior) < 0.1


def test_gaussian_sources_are_not_separated():
    assert unmixed("gaussian") > 0.2


def test_uniform_sources_need_the_adaptive_prior():
    assert unmixed("uniform") > 0.2
    assert unmixed("uniform", steps=1000, adaptive_prior=True) < 0.1


def test_adaptive_prior_knows_the_sign_of_each_kurtosis():
    sources = (Sources(dim=2), Sources("uniform", dim=2))
    x = torch.stack(
        [data.draw(4000, torch.Generator().manual_seed(i))[:, 0] for i, data in enumerate(sources)],
        1,
    )
    model = ICA(DataSpec((2,)), adaptive_prior=True, lr=1e-30)
    assert not model.kurtosis.any()
    fit(model, Given(DataSpec((2,)), x, batch_size=500), 20)
    assert (model.kurtosis < 0).tolist() == [False, True]
    s = model.draw_codes(4000, Draw(torch.Generator().manual_seed(0), dtype=model.float_dtype))
    assert (
        stats.kstest(s[:, 0].numpy(), "logistic").pvalue > 0.01
        and stats.kurtosis(s[:, 1].numpy()) < 0
    )


def test_scaling_the_data_by_two_costs_d_ln_two():
    data = Sources(size=4000)
    x = data.examples()["x"]
    nll = []
    for scale in (1.0, 2.0):
        model = ICA(data.spec)
        fit(model, Given(data.spec, scale * x, batch_size=500), 600)
        nll.append(-model.eval().log_prob(scale * x).mean().item())
    assert nll[1] - nll[0] == pytest.approx(4 * math.log(2), abs=0.05)


def test_natural_gradient_step_is_lr_times_identity_minus_phi_s_times_w():
    torch.manual_seed(0)
    x = torch.randn(64, 3).double()
    model = ICA(DataSpec((3,)), optimiser="natural_gradient", lr=0.1).double()
    model.initialise_from = lambda batch: None  # from W = 1, μ = 0
    model.matrices[0].data += 0.3 * torch.randn(3, 3)
    w = model.matrices[0].detach().clone()
    fit(model, Given(DataSpec((3,)), x, batch_size=64), 1, precision="64-true")
    s = x @ w.T
    phi = torch.tanh(s / 2)  # of the logistic prior
    torch.testing.assert_close(
        model.matrices[0].detach(), w + 0.1 * (torch.eye(3).double() - phi.T @ s / 64) @ w
    )


def test_natural_gradient_is_the_same_whatever_the_mixing():
    data = Sources(size=2000)
    x, a = (
        data.examples()["x"],
        torch.tensor(
            [[1.0, 9.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.0], [0.0, 0.0, 0.0, 5.0]]
        ),
    )
    total = []
    for mix in (torch.eye(4), a):
        model = ICA(data.spec, optimiser="natural_gradient", lr=0.1).double()
        model.initialise_from = lambda batch: None
        model.matrices[0].data = torch.linalg.inv(mix).double()
        fit(model, Given(data.spec, (x @ mix.T).double(), batch_size=200), 30, precision="64-true")
        total.append(model.matrices[0].detach() @ mix.double())
    torch.testing.assert_close(
        total[0], total[1], rtol=1e-4, atol=1e-4
    )  # equivariance (Cardoso and Laheld 1996)


def test_whitening_start_gives_unit_covariance_and_counts_its_log_det():
    data = Sources(size=4000)
    x = data.examples()["x"].double()
    model = ICA(data.spec, prior="gaussian").double()
    model.initialise_from(Batch({"x": x}))
    z, log_det = model.forward_flow(x)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(4).double())
    torch.testing.assert_close(log_det[0], -0.5 * torch.logdet(torch.cov(x.T)))
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T))
    torch.testing.assert_close(model.log_prob(x), gaussian.log_prob(x))


def test_images_are_dequantised_and_come_back():
    spec = DataSpec((1, 2, 2), 5)
    x = torch.randint(5, (200, 1, 2, 2), generator=torch.Generator().manual_seed(0)).double()
    model = ICA(spec).double()
    model.initialise_from(Batch({"x": x}))
    u = torch.rand(200, 1, 2, 2).double()
    z = model.forward_flow((x + u) / 5)[0]
    assert (torch.cov(z.T) - torch.eye(4)).abs().max() < 0.25 and z.mean(0).abs().max() < 0.1
    assert torch.equal(model.reconstruct(x), x) and model.likelihood_kind == "dequantised_bound"


def test_the_start_whitens_what_training_sees_the_noise_of_dequantisation_included():
    spec, g = DataSpec((1, 1, 2), 2), torch.Generator().manual_seed(0)
    x = (torch.rand(40_000, 1, 1, 2, generator=g) < 0.3).double()
    model = ICA(spec).double()
    model.initialise_from(Batch({"x": x}))
    z = model.forward_flow((x + torch.rand(x.shape, generator=g)) / 2)[0]
    torch.testing.assert_close(torch.cov(z.T), torch.eye(2).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(z.mean(0), torch.zeros(2).double(), rtol=0, atol=0.03)


def test_rows_do_not_talk():
    assert_rows_do_not_talk(ica(layers=2).log_prob, torch.randn(6, 5).double())


@pytest.mark.parametrize("options", [{"layers": 2}, {"prior": "student"}], ids=str)
def test_every_parameter_moves(options):
    data = Sources(size=500)
    model = ICA(data.spec, **options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, data, 3)
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.slow
def test_three_nonlinear_layers_bend_a_swiss_roll_flat():
    data = Toy2D("swiss_roll")
    linear, nonlinear = fitted(data, 2000), fitted(data, 2000, layers=3)
    assert held_out(nonlinear, data) < held_out(linear, data) - 0.4


# -- filters --------------------------------------------------------------------------------------
def test_filters_and_basis_are_w_and_its_inverse_the_loudest_first():
    torch.manual_seed(0)
    model = ICA(DataSpec((1, 3, 2), 256)).double()
    model.matrices[0].data += 0.3 * torch.randn(6, 6).double()
    filters, basis = (f.flatten(1) for f in model.filters().values())
    torch.testing.assert_close(filters @ basis.T, torch.eye(6).double())
    assert {tuple(r) for r in filters.tolist()} == {tuple(r) for r in model.matrices[0].tolist()}
    assert (basis.norm(dim=1).diff() <= 0).all()
    assert [f.shape for f in model.filters().values()] == [(6, 1, 3, 2)] * 2


def spread(filters: np.ndarray) -> np.ndarray:
    """The share of the pixels over which a filter's energy is spread, (Σ f²)²/(D Σ f⁴): 1/D for one
    pixel, 1 for all alike, 0.44 for a plane wave product.
    """
    energy = filters.reshape(len(filters), -1) ** 2
    return energy.sum(1) ** 2 / (energy**2).sum(1) / energy.shape[1]


def orientation(filters: np.ndarray) -> np.ndarray:
    """How much of a filter's power, the mean apart, lies along one direction of the frequency
    plane: |Σ P exp 2iθ|/Σ P, 1 for a grating, 0 for a dot or a chequerboard of both diagonals.
    """
    k = np.fft.fftfreq(32)
    power = abs(np.fft.fft2(filters[:, 0], (32, 32))) ** 2
    power[:, 0, 0] = 0
    double = np.exp(2j * np.arctan2(k[:, None], k[None]))
    return abs((power * double).sum((1, 2))) / power.sum((1, 2))


def test_the_measures_of_filters_know_dots_gratings_and_edges():
    at = np.arange(12) - 5.5
    y, x = np.meshgrid(at, at, indexing="ij")
    dot = np.zeros((12, 12))
    dot[4, 7] = 1
    grating = np.cos(1.3 * (0.6 * x + 0.8 * y))
    gabor = grating * np.exp(-(x**2 + y**2) / 6)
    filters = np.stack([dot, grating, gabor])[:, None]
    assert spread(filters) == pytest.approx([1 / 144, 2 / 3, 0.09], abs=0.03)
    found = orientation(filters)
    assert found[0] < 0.02 and found[1] > 0.8 and found[2] > 0.7


@pytest.mark.slow
def test_filters_of_natural_images_are_localised_and_oriented_where_those_of_pca_are_not():
    """Localised, and oriented too, of seeds 0, 1 and 2: ICA .91 .93 .91 and .47 .48 .47; PCA none;
    none of ICA's filters turned at random, which whiten the data as well.
    """
    torch.manual_seed(0)
    data = Patches(size=12, batch_size=1000)
    model, axes = (
        ICA(data.spec, prior="laplace", optimiser="natural_gradient", lr=12.0),
        PCA(data.spec, latent=143),
    )
    fit(model, data, 600)
    fit(axes, data, 1)
    ica, pca = (next(iter(m.filters().values())).numpy() for m in (model, axes))
    turned = (stats.ortho_group.rvs(144, random_state=0) @ ica.reshape(144, -1)).reshape(ica.shape)
    localised = [spread(f) < 0.15 for f in (ica, pca, turned)]
    oriented = [orientation(f) > 0.5 for f in (ica, pca, turned)]
    both = [(a & b).mean() for a, b in zip(localised, oriented, strict=True)]
    assert localised[0].mean() > 0.8 and localised[1].mean() == localised[2].mean() == 0
    assert both[0] > 0.4 and oriented[0].mean() > 2.5 * oriented[1].mean()
    power = abs(np.fft.fft2(ica[:, 0], (32, 32))) ** 2
    assert (power[:, 0, 0] < 0.25 * power.max((1, 2))).mean() > 0.9  # band-pass: blind to the mean
