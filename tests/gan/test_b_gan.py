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


def test_what_is_logged_of_ratios_is_of_the_rows_it_names():
    model = BGAN(PLANE, f="kl", alpha=0.0)
    real, fake = (
        torch.tensor([0.5, 2.0, 4.0, 8.0]).log(),
        torch.tensor([0.5, 0.25, 0.125, 2.0]).log(),
    )
    terms = model.d.watch(real, fake)
    assert terms["d_acc_real"] == 0.75 and terms["d_acc_fake"] == 0.75
    u = fake.exp()
    torch.testing.assert_close(terms["ratio_mean"], u.mean())
    torch.testing.assert_close(terms["div"], (u * u.log()).mean())
    torch.testing.assert_close(terms["div_lb"], real.mean() + 1 - u.mean())


def test_held_out_bound_is_minus_the_loss_of_each_pair():
    model, x = BGAN(PLANE, f="gan", width=8).eval(), torch.randn(50, 2)
    values = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(1))
    fake = model.sample(50, generator=torch.Generator().manual_seed(1))
    real, made = model.d.net(x).sigmoid(), model.d.net(fake).sigmoid()
    torch.testing.assert_close(values["div_lb"], real.log() + (1 - made).log())


def test_pearsons_ratio_is_above_zero_and_has_a_slope_everywhere():
    s = torch.tensor([-20.0, -3.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    r = BGAN(PLANE, f="pearson").positive(s)
    torch.testing.assert_close(r, (1 + s.exp()).log() + 1e-6)
    assert (torch.autograd.grad(r.sum(), s)[0] > 0).all()


def test_the_ratio_is_of_examples_in_their_own_units():
    spec = DataSpec((1, 16, 16), 17)
    model, x = BGAN(spec, f="kl", width=4), torch.randint(0, 17, (5, 1, 16, 16)).float()
    torch.testing.assert_close(model.ratio(x), model.d.net(x / 8 - 1).exp())


def test_the_network_and_the_game_are_those_that_are_asked_for():
    spec = DataSpec((1, 16, 16), 17)
    options = {"prior": "uniform", "k": 3, "lr_d": 0.2, "lr_g": 0.1, "beta1": 0.3}
    model = BGAN(spec, norm="layer", width=4, **options)
    assert any(isinstance(m, torch.nn.GroupNorm) for m in model.d.net.modules())
    made = model.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())
    assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]
    assert model.codes(500).abs().max() <= 1


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
