"""f-GAN is f-GAN: conjugates, tight bounds, Goodfellow's game as one row, the single-step method,
mass covering and mode seeking.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.bases import LoopOptions
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.f_gan import DIVERGENCES, FGAN, LinearGenerator, Variational, alpha_divergence

LINE, PLANE = DataSpec((1,)), DataSpec((2,))
ROWS = DIVERGENCES | {"alpha 1.5": alpha_divergence(1.5), "alpha -0.5": alpha_divergence(-0.5)}
DOMAIN = {
    "tv": (-0.5, 0.5),
    "rkl": (-math.inf, 0),
    "neyman": (-math.inf, 1),
    "hellinger": (-math.inf, 1),
    "js": (-math.inf, math.log(2)),
    "gan": (-math.inf, 0),
    "alpha 1.5": (-2, math.inf),
    "alpha -0.5": (-math.inf, 2 / 3),
}


def slope(f, u: torch.Tensor) -> torch.Tensor:
    """f'(u) by autograd."""
    u = u.clone().requires_grad_()
    return torch.autograd.grad(f(u).sum(), u)[0]


@pytest.fixture
def densities() -> torch.Tensor:
    return torch.randn(2, 8, dtype=torch.float64).softmax(1)


@pytest.fixture(params=ROWS)
def row(request):
    return request.param, ROWS[request.param]


def model_of(name: str, **options) -> FGAN:
    kind, _, alpha = name.partition(" ")
    return FGAN(PLANE, divergence=kind, alpha=float(alpha or 1.5), **options)


def test_conjugate_of_the_slope_is_the_legendre_transform_and_f_vanishes_where_p_is_q(row):
    name, d = row
    u = torch.exp(2 * torch.randn(50, dtype=torch.float64))
    t, one = slope(d.f, u), torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(d.conjugate(t), u * t - d.f(u), atol=1e-8, rtol=1e-8)
    assert d.f(one).item() == pytest.approx(-math.log(4) if name == "gan" else 0, abs=1e-12)
    assert slope(d.f, one).item() == pytest.approx(d.threshold, abs=1e-12)


def test_output_map_increases_stays_in_the_conjugates_domain_and_crosses_the_threshold(row):
    name, d = row
    v = torch.linspace(-15, 15, 301, dtype=torch.float64)
    low, high = DOMAIN.get(name, (-math.inf, math.inf))
    t = d.g(v)
    assert (
        ((t >= low) & (t <= high)).all() and (t.diff() >= 0).all() and (slope(d.g, v / 5) > 0).all()
    )
    assert t[0] < d.threshold < t[-1]


def test_stable_form_is_the_conjugate_of_the_output(row):
    v = torch.linspace(-5, 5, 101, dtype=torch.float64, requires_grad=True)
    stable, plain = row[1].composite(v), row[1].conjugate(row[1].g(v))
    torch.testing.assert_close(stable, plain, atol=1e-9, rtol=1e-9)
    slopes = [torch.autograd.grad(value.sum(), v)[0] for value in (stable, plain)]
    torch.testing.assert_close(*slopes, atol=1e-8, rtol=1e-7)


@pytest.mark.parametrize("name", [*ROWS, "alpha 3", "alpha -2"])
def test_costs_and_their_slopes_are_finite_in_single_precision_however_far_the_output_goes(name):
    model, v = (
        model_of(name),
        torch.tensor([-1e4, -31.0, -11.0, 11.0, 31.0, 1e4], requires_grad=True),
    )
    for price in (model.d.price.real, model.d.price.fake, model.d.price.maker):
        cost = price(v)
        assert (
            torch.isfinite(cost).all()
            and torch.isfinite(torch.autograd.grad(cost.sum(), v)[0]).all()
        )
    bound = model.divergence.largest
    assert not model.divergence.exponential or torch.equal(
        model.bounded(v[[0, -1]]), torch.tensor([-bound, bound])
    )
    assert bound == {"alpha 3": 10.0, "alpha -2": 10.0, "alpha 1.5": 20.0, "alpha -0.5": 20.0}.get(
        name, 30.0
    )


def test_best_output_is_the_slope_at_the_density_ratio_and_the_bound_is_then_tight(row, densities):
    name, d = row
    (p, q), model = densities, model_of(name)
    v = torch.full_like(p, 0.1, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [v],
        max_iter=2000,
        tolerance_grad=1e-14,
        tolerance_change=1e-20,
        line_search_fn="strong_wolfe",
    )

    def bound(v):
        return -(p * model.d.price.real(v) + q * model.d.price.fake(v)).sum()

    def closure():
        optimiser.zero_grad()
        loss = -bound(v)
        loss.backward()
        return loss

    optimiser.step(closure)
    divergence = (q * d.f(p / q)).sum().item()
    assert bound(v).item() == pytest.approx(divergence, abs=1e-4)
    torch.testing.assert_close(
        d.g(v.detach()), slope(d.f, p / q), atol=1e-3 if name == "tv" else 1e-4, rtol=1e-4
    )  # tv: at tanh's ends
    assert all(
        bound(3 * torch.randn(8, dtype=torch.float64)) <= divergence + 1e-9 for _ in range(100)
    )


def test_row_gan_is_goodfellows_game():
    s, ones = torch.randn(64), torch.ones(64)
    bce = F.binary_cross_entropy_with_logits
    minimax, plain = (model_of("gan", g_loss=name) for name in ("minimax", "nonsat"))
    loss = minimax.d.price.real(s).mean() + minimax.d.price.fake(s).mean()
    torch.testing.assert_close(loss, bce(s, ones) + bce(s, 0 * ones))
    torch.testing.assert_close(minimax.d.price.maker(s).mean(), -bce(s, 0 * ones))
    torch.testing.assert_close(plain.d.price.maker(s).mean(), bce(s, ones))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_simultaneous_steps_are_those_of_one_backward_pass_with_the_generators_sign_flipped(
    accumulate,
):
    model, codes = (
        model_of("pearson", g_loss="minimax", loop=LoopOptions(accumulate=accumulate)),
        [],
    )
    model.optimisers = lambda: {p: torch.optim.SGD(model.parameters_of(p), 0.1) for p in ("d", "g")}
    model.g.register_forward_pre_hook(lambda _, args: codes.append(args[0]))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    x = torch.randn(32, 2)
    fit(model, Given(PLANE, x, batch_size=32), 1)
    assert sum(map(len, codes)) == 32  # one set of samples for both
    with torch.no_grad():
        after = {n: p.clone() for n, p in model.named_parameters()}
        for n, p in model.named_parameters():
            p.copy_(before[n])
    fake = model.g(torch.cat(codes))
    v, w = model.d(x), model.d(fake)
    bound = v.mean() - (w.square() / 4 + w).mean()
    gradients = torch.autograd.grad(bound, [*model.parameters()])
    for (name, start), gradient in zip(before.items(), gradients, strict=True):
        sign = 1 if name.startswith("d.") else -1
        torch.testing.assert_close(after[name] - start, sign * 0.1 * gradient, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(("name", "mean", "std"), [("kl", -0.375, 1.19), ("rkl", -1.0, 0.5)])
def test_kl_covers_both_modes_and_reverse_kl_seeks_the_larger(name, mean, std):
    z = torch.special.ndtri((torch.arange(192) + 0.5) / 192)[
        :, None
    ]  # quantiles of the normal distribution
    x = torch.cat([-1 + 0.5 * z, 1.5 + 0.5 * z[1::3]])  # of mean -0.375 and deviation 1.19
    model = FGAN(
        LINE, divergence=name, arch="line", width=32, g_loss="minimax", lr_d=8e-3, lr_g=8e-3
    )
    optimisers = model.optimisers()
    for step in range(500):
        model.noise = Noise(0, step)
        made = model.generator_loss(Batch({}, 256))
        rows = Batch({"x": x, "fake": made["fake"].detach()})
        for player, loss in (("g", made), ("d", model.discriminator_loss(rows))):
            parameters = [*model.parameters_of(player)]
            for p, gradient in zip(
                parameters, torch.autograd.grad(loss["loss"], parameters), strict=True
            ):
                p.grad = gradient
        for optimiser in optimisers.values():
            optimiser.step()
    assert model.g.mu.item() == pytest.approx(mean, abs=0.15)
    assert model.g.sigma.item() == pytest.approx(std, abs=0.15)


def test_the_bound_is_logged_as_it_grows_in_training_and_held_out():
    model, x = model_of("pearson", simultaneous=False).eval(), torch.randn(32, 2)
    model.noise = Noise(0, "test")
    terms = model.discriminator_loss(Batch({"x": x}))
    v, w = model.d.net(x), model.d.net(model.g(Noise(0, "test").normal(32, 2)))
    bound = v.mean() - (w.square() / 4 + w).mean()
    torch.testing.assert_close(terms["div_lb"], bound)
    torch.testing.assert_close(terms["loss"], -bound)
    held_out = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(1))["div_lb"]
    w = model.d.net(model.sample(32, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(held_out, v - w.square() / 4 - w)


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_the_generator_raises_the_output_or_lowers_the_bound(g_loss):
    model, s = model_of("kl", g_loss=g_loss), torch.randn(9, dtype=torch.float64)
    expected = -s if g_loss == "nonsat" else -(s - 1).exp()
    torch.testing.assert_close(model.d.price.maker(s), expected)


def test_turns_are_the_discriminators_first_and_the_samples_its_own_where_they_are_asked_for():
    model, codes = model_of("js", simultaneous=False, k=3), []
    assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]
    model.g.register_forward_pre_hook(lambda _, args: codes.append(args[0].clone()))
    fit(model, Given(PLANE, torch.randn(64, 2), batch_size=8), 1)
    assert len(codes) == 4 and len({z.sum().item() for z in codes}) == 4


def test_the_alpha_that_is_asked_for_is_the_divergences():
    u = torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64)
    for alpha, expected in ((2.0, (u - 1) ** 2 / 2), (-1.0, (u - 1) ** 2 / (2 * u))):
        model = FGAN(PLANE, divergence="alpha", alpha=alpha)
        torch.testing.assert_close(model.divergence.f(u), expected)
        ratio = 2 * (torch.tensor([0.3, 0.6]) - 0.5)
        v = torch.expm1((alpha - 1) * ratio) / (alpha - 1)
        torch.testing.assert_close(model.d.price.real(ratio), -v)


def test_paper_networks_see_and_make_pixels_in_the_unit_interval_from_narrow_weights():
    spec = DataSpec((1, 8, 8), 17)
    model, seen = FGAN(spec, arch="paper", width=40, simultaneous=False), []
    model.d.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randint(0, 17, (6, 1, 8, 8)).float()
    model.discriminator_loss(Batch({"x": x}))
    assert torch.equal(seen[0], x / 16) and 0 < seen[1].min() < seen[1].max() < 1
    weights = [p.abs().max().item() for p in model.parameters() if p.ndim == 2]
    assert all(0.04 < w <= 0.05 for w in weights)


def test_accuracy_is_about_the_rows_own_threshold():
    model = model_of("kl")  # f'(1) = 1
    terms = model.d.watch(torch.tensor([0.5, 1.5]), torch.tensor([0.5, 0.6, 0.7, 1.5]))
    assert (terms["d_acc_real"], terms["d_acc_fake"]) == (0.5, 0.75)


def test_outputs_beyond_the_clamp_are_counted_and_cost_finitely():
    model = model_of("hellinger")
    far = torch.tensor([-100.0, 100.0, 5.0, -5.0])
    assert model.d.watch(far, far)["clamped"] == 0.5
    edge = torch.tensor([-31.0, 31.0, 29.0, -29.0])
    assert model.d.watch(edge, edge)["clamped"] == 0.5  # the clamp is at 30
    assert (
        torch.isfinite(model.d.price.real(far)).all()
        and torch.isfinite(model.d.price.fake(far)).all()
    )
    assert "clamped" not in model_of("js").d.watch(far, far)


def test_paper_networks_are_the_papers():
    model = FGAN(DataSpec((1, 28, 28), 256), arch="paper", latent=100)
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert shapes == [(1200, 100), (1200, 1200), (784, 1200), (240, 784), (240, 240), (1, 240)]
    assert sum(isinstance(m, torch.nn.BatchNorm1d) for m in model.g.modules()) == 2
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in model.d.net.modules())
    line = FGAN(LINE, arch="line")
    assert isinstance(line.g, LinearGenerator) and isinstance(line.d.net, Variational)
    z = torch.randn(5, 1)
    torch.testing.assert_close(line.g(z), line.g.mu + line.g.sigma * z)


@pytest.mark.parametrize("arch", ["paper", "line"])
def test_scores_are_single_precision_under_autocast(arch):
    model = FGAN(LINE if arch == "line" else DataSpec((1, 8, 8), 17), arch=arch, width=20)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.d(torch.randn(4, *model.spec.shape)).dtype == torch.float32


def test_two_latents_on_the_line_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"one latent, got .* latent=2; .*--model\.latent=1"):
        FGAN(LINE, arch="line", latent=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"divergence": "w1"}, "w1"),
        ({"divergence": "alpha", "alpha": 1.0}, "kl"),
        ({"k": 2}, "simultaneous=false"),
        ({"arch": "line"}, "line"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        FGAN(PLANE, **options)
