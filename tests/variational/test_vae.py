"""The VAE is a VAE: a true lower bound in nats, tight for the exact posterior, tightened by
importance weights.
"""

import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.check import likelihoods
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import RowNoise
from zoo.core.noise import Noise
from zoo.nn.gaussian import kl_normal, kl_standard, log_normal
from zoo.nn.likelihood_heads import DiscretisedLogistic
from zoo.variational.vae import VAE

BINARY = DataSpec((1, 2, 3), 2)
VECTOR = DataSpec((5,))


class Fixed(nn.Module):
    """A network given as a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def vae(spec: DataSpec = BINARY, seed: int = 0, scale: float = 0.7, **options) -> VAE:
    torch.manual_seed(seed)
    model = VAE(spec, **{"latent": 2, "width": 16, **options}).double().eval()
    for p in model.parameters():
        p.data.mul_(1 + scale)
    return model


def linear_gaussian(posterior: str) -> tuple[VAE, torch.Tensor]:
    """x = Wz + b + σ ε with orthogonal columns of W, so that the exact posterior is diagonal; and
    log N(x; b, WWᵀ + σ²I).
    """
    g = torch.Generator().manual_seed(0)
    model, var = vae(VECTOR), 0.3
    W = torch.linalg.qr(torch.randn(5, 2, generator=g, dtype=torch.float64))[0] * torch.tensor(
        [1.5, 0.6], dtype=torch.float64
    )
    b, x = (
        torch.randn(5, generator=g, dtype=torch.float64),
        torch.randn(4, 5, generator=g, dtype=torch.float64),
    )
    precision = torch.eye(2, dtype=torch.float64) + W.T @ W / var
    variance = 1 / precision.diagonal()

    def encode(v):
        mu, log_var = (v - b) @ W / var * variance, variance.log().expand(len(v), 2)
        return (
            torch.cat([mu, 10 * torch.atanh(log_var / 10)], 1)
            if posterior == "exact"
            else torch.zeros(len(v), 4).double()
        )

    model.encoder = Fixed(encode)
    model.decoder = Fixed(
        lambda z: torch.stack([z @ W.T + b, torch.full((len(z), 5), math.log(var)).double()], 1)
    )
    normal = torch.distributions.MultivariateNormal(
        b, W @ W.T + var * torch.eye(5, dtype=torch.float64)
    )
    return model, (x, normal.log_prob(x))


def test_closed_form_kl_is_the_monte_carlo_kl():
    mu, log_var = torch.tensor([0.7, -1.5]).double(), torch.tensor([-1.0, 0.8]).double()
    q = torch.distributions.Normal(mu, (0.5 * log_var).exp())
    z = q.sample((200_000,))
    for kl, p in (
        (kl_standard(mu, log_var), torch.distributions.Normal(torch.zeros(2).double(), 1.0)),
        (
            kl_normal(mu, log_var, mu + 0.9, log_var * 0.2),
            torch.distributions.Normal(mu + 0.9, (0.1 * log_var).exp()),
        ),
    ):
        torch.testing.assert_close(kl, (q.log_prob(z) - p.log_prob(z)).mean(0), rtol=0.01, atol=0)
        torch.testing.assert_close(kl, torch.distributions.kl_divergence(q, p))
    torch.testing.assert_close(log_normal(z[:5], mu, log_var), q.log_prob(z[:5]))


def test_bound_is_tight_for_the_exact_posterior_of_a_linear_gaussian_model():
    model, (x, exact) = linear_gaussian("exact")
    # log p(x | z) is quadratic in ε: its mean over the four points (±1, ±1) is its expectation
    nodes = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)
    inner, elbos = model.evaluation_noise, []
    for node in nodes:
        model.evaluation_noise = lambda x, k, source, node=node: (node.expand(1, len(x), 2), None)
        elbos.append(model.elbo(x))
    model.evaluation_noise = inner
    torch.testing.assert_close(torch.stack(elbos).mean(0), exact, rtol=0, atol=1e-4)
    for k in (1, 7):
        torch.testing.assert_close(model.importance_bound(x, k), exact, rtol=0, atol=1e-4)
    recon, ratio = model.weigh(x, 50, RowNoise(x))
    assert (recon - ratio.sum(-1)).var(0).max() < 1e-8


def test_more_importance_samples_tighten_the_bound():
    model, (x, exact) = linear_gaussian("prior")
    runs = {
        k: torch.stack(
            [model.importance_bound(x, k, torch.Generator().manual_seed(s)) for s in range(2000)]
        )
        for k in (1, 5, 50)
    }
    mean = {k: v.mean(0) for k, v in runs.items()}
    assert (mean[1] < mean[5]).all() and (mean[5] < mean[50]).all() and (mean[50] < exact).all()


def test_chunks_are_put_together_to_the_mean_of_all_weights():
    model, x = vae(), likelihoods.every_image(BINARY)[:7]
    log_w = 30 * torch.randn(60, 7, dtype=torch.float64)
    rest = iter(log_w.split(9))
    model.weigh = lambda x, k, source, y=None: (next(rest), torch.zeros(k, 7, 2).double())
    torch.testing.assert_close(model.importance_bound(x, 60, chunk=9), log_w.exp().mean(0).log())


def test_probabilities_of_all_binary_images_sum_to_one():
    model, images = vae(), likelihoods.every_image(BINARY)
    axis = torch.linspace(-7, 7, 141).double()
    z = torch.cartesian_prod(axis, axis)
    weight = log_normal(z).sum(1) + 2 * math.log(0.1)
    log_p = torch.stack(
        [
            (model.log_likelihood(x.expand(len(z), 1, 2, 3), z, None) + weight).logsumexp(0)
            for x in images
        ]
    )
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-3)
    draws = torch.stack(
        [model.elbo(images, generator=torch.Generator().manual_seed(s)) for s in range(300)]
    )
    assert (draws.mean(0) < log_p + 4 * draws.std(0) / math.sqrt(300)).all()
    torch.testing.assert_close(model.importance_bound(images, 5000), log_p, rtol=0, atol=0.1)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discretised_logistic_is_a_mass(levels):
    g = torch.Generator().manual_seed(0)
    m = 3 * torch.rand(200, 1, generator=g, dtype=torch.float64) - 1.5
    log_s = torch.cat(
        [torch.full((100, 1), math.log(1e-4)), 6 * torch.rand(100, 1, generator=g) - 5]
    ).double()
    k = torch.arange(levels, dtype=torch.float64).expand(200, levels)
    mass = DiscretisedLogistic(levels).log_mass(m, log_s, k).exp()
    torch.testing.assert_close(mass.sum(1), torch.ones(200).double(), rtol=0, atol=1e-8)
    x, d = 2 * k / (levels - 1) - 1, 1 / (levels - 1)
    upper, lower = (
        torch.sigmoid((x - m + d) / log_s.exp()),
        torch.sigmoid((x - m - d) / log_s.exp()),
    )
    plain = torch.where(k == 0, upper, torch.where(k == levels - 1, 1 - lower, upper - lower))
    torch.testing.assert_close(mass, plain, rtol=0, atol=1e-12)


def test_duplicated_examples_leave_loss_and_gradients_unchanged():
    model, x = vae(), likelihoods.every_image(BINARY)[:6]
    draw = torch.randn(6, 1, 2, dtype=torch.float64)

    def gradients(times: int):
        model.noise = Noise(0, dtype=torch.float64)
        model.noise.normal = lambda n, *shape: draw.repeat(times, 1, 1)
        terms = model.loss(Batch({"x": x.repeat(times, 1, 1, 1)}))
        return terms["loss"], torch.autograd.grad(terms["loss"], [*model.parameters()])

    (one, single), (three, triple) = gradients(1), gradients(3)
    torch.testing.assert_close(one, three)
    for a, b in zip(single, triple, strict=True):
        torch.testing.assert_close(a, b)


def test_gradient_reaches_the_encoder_through_the_reconstruction_alone():
    model, x = vae(), likelihoods.every_image(BINARY)[:6]
    model.beta = lambda: 0.0
    assert all(
        g.abs().max() > 0
        for g in torch.autograd.grad(
            model.loss(Batch({"x": x}))["loss"], [*model.encoder.parameters()]
        )
    )


def test_dimensions_are_summed_and_examples_averaged():
    model, x = vae(), likelihoods.every_image(BINARY)[[3, 40]]
    for p in model.parameters():
        p.data.zero_()
    assert model.loss(Batch({"x": x}))["loss"].item() == pytest.approx(
        6 * math.log(2)
    )  # KL 0, every pixel at one half
    torch.testing.assert_close(model.elbo(x), torch.full((2,), -6 * math.log(2)).double())


def test_iwae_gradient_weighs_each_draw_by_its_normalised_weight():
    model, x = vae(objective="iwae", k=5), likelihoods.every_image(BINARY)[10:13]
    eps = torch.randn(5, 3, 2, dtype=torch.float64)
    model.noise = Noise(0, dtype=torch.float64)
    model.noise.normal = lambda *shape: eps.transpose(0, 1)
    got = torch.autograd.grad(model.loss(Batch({"x": x}))["loss"], [*model.parameters()])
    recon, ratio = model.weigh_at(x, model.posterior(x), eps)
    log_w = recon - ratio.sum(-1)
    want = torch.autograd.grad(
        -(log_w.softmax(0).detach() * log_w).sum(0).mean(), [*model.parameters()]
    )
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("options", [{}, {"kl_mc": True}, {"objective": "iwae"}], ids=str)
def test_nothing_is_detached(options):
    model, x = vae(k=3, **options), likelihoods.every_image(BINARY)[10:13]
    eps = torch.randn(3, 3, 2, dtype=torch.float64)

    def loss():
        model.noise.normal = lambda *shape: eps
        return model.loss(Batch({"x": x}))["loss"]

    for bias in (model.encoder[-1].bias, model.decoder[0].bias):
        for i in range(3):
            (gradient,) = torch.autograd.grad(loss(), bias)
            ends = []
            for h in (1e-5, -2e-5):
                bias.data[i] += h
                ends.append(loss().item())
            bias.data[i] += 1e-5
            assert gradient[i].item() == pytest.approx(
                (ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-8
            )


def test_sampled_kl_has_the_mean_of_the_closed_form():
    closed, sampled = vae(k=1000), vae(k=1000, kl_mc=True)
    x = likelihoods.every_image(BINARY)[:8]
    a, b = (m.loss(Batch({"x": x}))["kl"] for m in (closed, sampled))
    assert a.item() == pytest.approx(b.item(), rel=0.03) and a != b


@pytest.mark.parametrize(("steps", "weights"), [(4, [0, 0.25, 0.5, 0.75, 1, 1]), (0, [1] * 6)])
def test_warmup_raises_the_weight_of_the_kl_and_not_the_logged_bound(steps, weights):
    spec = DataSpec((1, 2, 3), 2)
    model, seen = VAE(spec, latent=2, width=8, warmup_steps=steps), []
    inner = model.loss
    model.loss = lambda batch: seen.append((model.beta(), inner(batch))) or seen[-1][1]
    fit(model, Given(spec, likelihoods.every_image(spec).float()), 6)
    assert [beta for beta, _ in seen] == weights
    for beta, terms in seen:
        torch.testing.assert_close(terms["nelbo"], terms["kl"] - terms["recon"])
        torch.testing.assert_close(terms["loss"], beta * terms["kl"] - terms["recon"])


def test_free_bits_cost_nothing_below_the_limit():
    model, x = vae(free_bits=50.0), likelihoods.every_image(BINARY)[:5]
    terms = model.loss(Batch({"x": x}))
    torch.testing.assert_close(terms["loss"], 2 * 50.0 - terms["recon"])
    assert terms["kl"] < 100


def test_gaussian_likelihood_of_levels_is_a_bound_whose_masses_sum_to_one():
    spec = DataSpec((1, 1, 1), 3)
    model = vae(spec, likelihood="gaussian")
    u = (torch.arange(3000).double() + 0.5) / 3000
    out, mass = model.decoder(torch.zeros(1, 2).double()), []
    for k in range(3):
        log_p = model.head.log_prob(
            out.expand(3000, -1, -1, -1, -1),
            torch.full((3000, 1, 1, 1), float(k)).double(),
            u.view(-1, 1, 1, 1),
        )
        mass.append(log_p.exp().mean().item())
        assert log_p.mean().exp() < mass[-1]
    mu, log_var = out[0, :, 0, 0, 0].tolist()
    normal = torch.distributions.Normal(mu, math.exp(0.5 * max(log_var, -7)))
    expected = [
        (
            normal.cdf(torch.tensor(2 * (k + 1) / 3 - 1)) - normal.cdf(torch.tensor(2 * k / 3 - 1))
        ).item()
        for k in range(3)
    ]
    assert mass == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("levels", "head"), [(2, "Bernoulli"), (17, "DiscretisedLogistic"), (None, "Gaussian")]
)
def test_the_likelihood_fits_the_data(levels, head):
    assert type(VAE(DataSpec((4,), levels)).head).__name__ == head
    if levels != 2:
        with pytest.raises(ValueError, match="binarise"):
            VAE(DataSpec((4,), levels), likelihood="bernoulli")


def test_convolutional_networks_keep_the_shape_and_the_bound():
    spec = DataSpec((3, 16, 16), 17)
    model = vae(spec, net="conv", width=4)
    x = torch.randint(17, (2, 3, 16, 16)).double()
    assert model.reconstruct(x).shape == x.shape and model.sample(2).shape == x.shape
    assert model.elbo(x).shape == (2,) and [
        m.out_channels for m in model.encoder if isinstance(m, nn.Conv2d)
    ] == [4, 8]


def test_xavier_start_gives_every_pixel_its_frequency():
    model, x = (
        VAE(BINARY, latent=2, width=16, init="xavier"),
        (torch.rand(4000, 1, 2, 3) < torch.rand(1, 2, 3)).float(),
    )
    assert all((m.bias == 0).all() for m in model.linear_layers())
    bound = math.sqrt(
        6 / (6 + 16)
    )  # of a layer from 6 to 16 units (Glorot and Bengio 2010, equation 16)
    assert 0.9 * bound < model.encoder[1].weight.abs().max() <= bound
    with torch.no_grad():
        model.initialise_from(Batch({"x": x}))
        p = torch.sigmoid(model.decoder(torch.zeros(1, 2)))[0, 0]
    torch.testing.assert_close(p, x.mean(0), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="init=xavier is for net=mlp"):
        VAE(DataSpec((1, 8, 8), 2), net="conv", init="xavier")


def test_interpolation_runs_from_one_reconstruction_to_the_other():
    """By equal steps, where encoder and decoder are linear."""
    model, (x, _) = linear_gaussian("exact")
    path = model.interpolate(x[:2], x[2:], frames=5)
    share = torch.linspace(0, 1, 5).double()[None, :, None]
    ends = model.reconstruct(x)[:, None]
    assert (ends[:2] - ends[2:]).abs().max() > 0.1
    torch.testing.assert_close(path, ends[:2] * (1 - share) + ends[2:] * share)


def test_rows_do_not_talk():
    model, x = vae(), likelihoods.every_image(BINARY)[:9]
    likelihoods.assert_rows_do_not_talk(model.elbo, x)
    likelihoods.assert_rows_do_not_talk(model.importance_bound, x)


def test_the_importance_weighted_loss_of_a_code_that_says_nothing_is_the_pixels_entropy():
    """Whatever K: every weight is the same."""
    model = vae(objective="iwae", k=5)
    for p in model.parameters():
        p.data.zero_()
    terms = model.loss(Batch({"x": likelihoods.every_image(BINARY)[[3, 40]]}))
    for name in ("loss", "iw_nll"):
        assert terms[name].item() == pytest.approx(6 * math.log(2))
    told = model.evaluate(Batch({"x": likelihoods.every_image(BINARY)[[3, 40]]}))
    torch.testing.assert_close(told["iw_nll"], torch.full((2,), 6 * math.log(2)).double())


def test_free_bits_are_of_the_mean_over_the_batch():
    model = vae(free_bits=0.5)
    each = torch.tensor([[0.0, 0.0], [1.2, 0.4]]).double()  # means 0.6 and 0.2
    model.kl = lambda q: each
    terms = model.loss(Batch({"x": likelihoods.every_image(BINARY)[:2]}))
    assert (terms["loss"] + terms["recon"]).item() == pytest.approx(0.6 + 0.5)
    assert terms["kl"].item() == pytest.approx(0.8)


def test_samples_are_draws_and_mean_only_is_the_mean():
    model = vae()
    for p in model.decoder.parameters():
        p.data.zero_()
    last = [m for m in model.decoder if isinstance(m, nn.Linear)][-1]
    last.bias.data.fill_(math.log(0.3 / 0.7))
    drawn = model.sample(500, generator=torch.Generator().manual_seed(0))
    assert abs(drawn.mean().item() - 0.3) < 0.035  # 4 deviations of 3,000 bits
    assert (model.sample(5, mean_only=True) == 0).all()


def test_every_sample_has_a_code_of_its_own():
    model = vae()
    model.decoder = Fixed(lambda z: 1e3 * z[:, :1, None, None, None].expand(-1, 1, 1, 2, 3))
    drawn = model.sample(1000, generator=torch.Generator().manual_seed(0)).flatten(1)
    assert (drawn == drawn[:, :1]).double().mean() > 0.99  # the sign of the first coordinate
    assert abs(drawn.mean() - 0.5) < 0.07  # 4 deviations of 1,000 codes


def test_evaluation_is_of_draws_from_the_posterior_and_as_many_as_asked():
    """E_q log p(x | z) = log p(x | μ) - Σ_j σ_j² |W_j|² / 2 σ², in the linear model."""
    model, (x, _) = linear_gaussian("exact")
    rows, counted, weigh = x[:1].expand(4000, -1), [], model.weigh
    model.draws = 7
    model.weigh = lambda x, k, source: counted.append(k) or weigh(x, k, source)
    told = model.evaluate(Batch({"x": rows}), torch.Generator().manual_seed(0))
    assert sum(counted) == 7
    mu, log_var = model.posterior(x[:1])
    columns = model.decoder(torch.eye(2).double())[:, 0] - model.decoder(torch.zeros_like(mu))[:, 0]
    spread = (log_var.exp()[0] * columns.square().sum(1)).sum() / (2 * 0.3)
    error = told["recon"].std() / math.sqrt(4000)
    want = model.log_likelihood(x[:1], mu) - spread
    assert (told["recon"].mean() - want).abs() < 4 * error < spread / 10
    normal = torch.distributions.Normal(mu, (0.5 * log_var).exp())
    standard = torch.distributions.Normal(torch.zeros(2).double(), 1.0)
    kl = torch.distributions.kl_divergence(normal, standard).sum(1)
    torch.testing.assert_close(told["kl"], kl.expand(4000))


def test_networks_are_as_wide_deep_and_bent_as_asked():
    model = VAE(BINARY, latent=2, width=5, layers=3, activation="tanh")
    for net, sizes in (
        (model.encoder, [(5, 6), (5, 5), (5, 5), (4, 5)]),
        (model.decoder, [(5, 2), (5, 5), (5, 5), (6, 5)]),
    ):
        assert [tuple(m.weight.shape) for m in net if isinstance(m, nn.Linear)] == sizes
        assert sum(isinstance(m, nn.Tanh) for m in net) == 3
        assert not any(isinstance(m, nn.ReLU) for m in net)


def test_the_encoder_reads_black_and_white_as_minus_one_and_one():
    model = VAE(DataSpec((1, 2, 2), 17), latent=2)
    model.encoder = Fixed(lambda v: v.flatten(1))
    x = torch.tensor([0.0, 8, 16, 4]).view(1, 1, 2, 2)
    assert model.encode(x).tolist() == [[-1, pytest.approx(0)]]


def test_draws_of_the_bound_of_a_gaussian_each_blur_the_levels_anew():
    """So that the bound of a code that says nothing closes in on the mass of each level."""
    spec, mean, log_var = DataSpec((1, 1, 2), 3), 0.2, -2.0
    model = vae(spec, likelihood="gaussian")
    model.encoder = Fixed(lambda v: v.new_zeros(len(v), 4))
    constant = torch.tensor([mean, log_var]).double().view(1, 2, 1, 1, 1)
    model.decoder = Fixed(lambda z: constant.expand(len(z), 2, 1, 1, 2))
    x = likelihoods.every_image(spec)
    normal = torch.distributions.Normal(mean, math.exp(log_var / 2))
    edges = normal.cdf(2 * torch.arange(4).double() / 3 - 1)
    want = (edges[1:] - edges[:-1]).log()[x.long()].flatten(1).sum(1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        torch.testing.assert_close(
            model.importance_bound(x, 10_000, generator), want, atol=0.1, rtol=0
        )
        assert (model.importance_bound(x, 1, generator) - want).abs().max() > 0.2
