"""b-GAN is b-GAN: Bregman matching finds the density ratio, and the generator's loss is flat where
it is one.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.b_gan import BGAN, FUNCTIONS

LINE, PLANE = DataSpec((1,)), DataSpec((2,))


@pytest.fixture
def densities() -> torch.Tensor:
    return torch.randn(2, 8, dtype=torch.float64).softmax(1)


def best(model: BGAN, p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The table of ratios that minimises R's loss, and the loss there."""
    s = torch.zeros_like(p, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [s],
        max_iter=1000,
        tolerance_grad=1e-13,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        loss = (p * model.d.price.real(s) + q * model.d.price.fake(s)).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return model.positive(s.detach()), closure().item()


@pytest.mark.parametrize("f", FUNCTIONS)
def test_best_ratio_is_p_over_q_of_mean_one_and_its_loss_minus_the_divergence(densities, f):
    p, q = densities
    r, loss = best(BGAN(PLANE, f=f), p, q)
    torch.testing.assert_close(r, p / q, atol=1e-3, rtol=0)
    assert (q * r).sum().item() == pytest.approx(1, abs=1e-4)
    u = p / q
    divergence = {
        "pearson": (u - 1) ** 2 / 2,
        "kl": u * u.log(),
        "gan": u * u.log() - (1 + u) * (1 + u).log(),
    }[f]
    assert -loss == pytest.approx((q * divergence).sum().item(), abs=1e-6)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_losses_are_those_of_the_known_ratio_estimators(f):
    model, real, fake = BGAN(PLANE, f=f), torch.randn(64), torch.randn(64)
    loss = (model.d.price.real(real) + model.d.price.fake(fake)).mean()
    a, b = model.positive(real), model.positive(fake)
    expected = {
        "pearson": 0.5 * b.square().mean() - a.mean() + 0.5,  # uLSIF
        "kl": b.mean() - a.log().mean() - 1,  # KLIEP
        "gan": F.binary_cross_entropy(a / (1 + a), torch.ones(64))
        + F.binary_cross_entropy(b / (1 + b), torch.zeros(64)),
    }[f]
    torch.testing.assert_close(loss, expected)


def test_row_gan_is_goodfellows_discriminator_loss_from_logits():
    model, s = BGAN(PLANE, f="gan"), 3 * torch.randn(64)
    torch.testing.assert_close(model.d.price.real(s), F.softplus(-s))
    torch.testing.assert_close(model.d.price.fake(s), F.softplus(s))


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_relative_ratio_is_bounded_and_its_optimum_is_relative(densities, f, alpha):
    p, q = densities
    p[0] = 50 * q[0]  # a plain ratio above both bounds
    p = p / p.sum()
    model = BGAN(PLANE, f=f, alpha=alpha)
    torch.testing.assert_close(
        best(model, p, q)[0], p / (alpha * p + (1 - alpha) * q), atol=1e-3, rtol=0
    )
    assert model.positive(torch.tensor([1e4, -1e4])).tolist() == [
        pytest.approx(1 / alpha),
        pytest.approx(0, abs=1e-9),
    ]


@pytest.mark.parametrize("f", FUNCTIONS)
def test_relative_ratio_has_mean_one_under_the_mixture_and_its_divergence_is_that_from_it(
    densities, f
):
    (p, q), rows = densities, 200_000
    model = BGAN(PLANE, f=f, alpha=0.2)
    mixture = 0.2 * p + 0.8 * q
    r, loss = best(model, p, q)
    s = (0.2 * r / (1 - 0.2 * r)).log()
    assert (q * r).sum() < 0.99 and (mixture * r).sum().item() == pytest.approx(1, abs=1e-4)
    on_real, on_fake = (s.repeat_interleave((rows * density).round().long()) for density in (p, q))
    terms = model.d.watch(on_real, on_fake)
    assert terms["ratio_mean"].item() == pytest.approx(1, abs=1e-3)
    u = p / mixture
    of = {
        "pearson": (u - 1) ** 2 / 2,
        "kl": u * u.log(),
        "gan": u * u.log() - (1 + u) * (1 + u).log(),
    }[f]
    divergence = (mixture * of).sum().item()
    assert -loss == pytest.approx(divergence, abs=1e-6)
    assert all(
        terms[name].item() == pytest.approx(divergence, abs=1e-3) for name in ("div", "div_lb")
    )


def test_held_out_ratio_mean_is_that_under_the_mixture():
    model, x = BGAN(PLANE, alpha=0.2, width=8).eval(), torch.randn(50, 2)
    values = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(1))
    fake = model.sample(50, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        values["ratio_mean"].mean(), 0.2 * model.ratio(x).mean() + 0.8 * model.ratio(fake).mean()
    )


@pytest.mark.parametrize("f", FUNCTIONS)
def test_relative_costs_and_their_slopes_are_finite_however_sure_the_network_is(f):
    model, s = (
        BGAN(PLANE, f=f, alpha=0.2),
        torch.tensor([-1e4, -200.0, -90.0, 90.0, 1e4], requires_grad=True),
    )
    for price in (model.d.price.real, model.d.price.fake, model.d.price.maker):
        cost = price(s)
        assert (
            torch.isfinite(cost).all()
            and torch.isfinite(torch.autograd.grad(cost.sum(), s)[0]).all()
        )


def test_relative_pearson_loss_is_the_papers():
    model, real, fake = BGAN(PLANE, f="pearson", alpha=0.3), torch.randn(32), torch.randn(32)
    a, b = model.positive(real), model.positive(fake)
    loss = (model.d.price.real(real) + model.d.price.fake(fake)).mean()
    expected = 0.3 / 2 * a.square().mean() + 0.7 / 2 * b.square().mean() - a.mean() + 0.5
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_slopes_of_the_generators_losses_and_where_they_vanish(f):
    r = torch.tensor([0.05, 0.5, 1.0, 2.0, 8.0], dtype=torch.float64, requires_grad=True)
    slopes = {}
    for g_loss in ("f", "dual"):
        model = BGAN(PLANE, f=f, g_loss=g_loss)
        model.positive = lambda s: s
        (slopes[g_loss],) = torch.autograd.grad(model.d.price.maker(r).mean(), r)
    v = r.detach()
    first = {"pearson": v - 1, "kl": v.log() + 1, "gan": (v / (1 + v)).log()}[f]
    second = {"pearson": torch.ones(5).double(), "kl": 1 / v, "gan": 1 / v - 1 / (1 + v)}[f]
    torch.testing.assert_close(slopes["f"], first / 5)
    torch.testing.assert_close(slopes["dual"], -v * second / 5)
    assert (slopes["dual"] < 0).all()
    signs = {"pearson": [-1, -1, 0, 1, 1], "kl": [-1, 1, 1, 1, 1], "gan": [-1] * 5}[
        f
    ]  # drawn to 1, to 1/e, upwards
    assert slopes["f"].sign().tolist() == signs


def test_generators_f_may_be_another_one_and_its_ratio_capped():
    s = torch.tensor([-1.0, 5.0], requires_grad=True)
    model = BGAN(PLANE, f="kl", f_g="pearson", r_max=10.0)
    cost = model.d.price.maker(s)
    torch.testing.assert_close(cost, torch.tensor([(math.exp(-1) - 1) ** 2, 9.0**2]) / 2)
    (slope,) = torch.autograd.grad(cost.sum(), s)
    assert slope[0] < 0 == slope[1]  # beyond the cap there is nothing to gain


@pytest.mark.parametrize("f", FUNCTIONS)
def test_ratio_of_two_known_densities_is_learnt(f):
    model = BGAN(LINE, f=f, width=32, lr_d=3e-3)
    optimiser = model.optimisers()["d"]
    p = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)),
        torch.distributions.Normal(torch.tensor([-1.0, 1.0]), 0.5),
    )
    q = torch.distributions.Normal(0.0, 1.5)
    model.g.forward = lambda z: 1.5 * z  # frozen
    for step in range(300):
        model.noise = Noise(0, step)
        optimiser.zero_grad()
        model.discriminator_loss(Batch({"x": p.sample((256, 1))}))["loss"].backward()
        optimiser.step()
    x = torch.linspace(-2.5, 2.5, 101)[:, None]
    truth = (p.log_prob(x) - q.log_prob(x)).squeeze(1)
    learnt = model.ratio(x).detach().log()
    assert torch.corrcoef(torch.stack([learnt, truth]))[0, 1] > 0.9
    fake = model.g(model.codes(4000))
    assert model.ratio(fake).mean().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "options", [{"f": "tv"}, {"f_g": "tv"}, {"g_loss": "nonsat"}, {"alpha": 1.0}, {"r_max": 0.5}]
)
def test_settings_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        BGAN(PLANE, **options)
