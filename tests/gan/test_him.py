"""A hierarchical implicit model infers what Bayes' rule says, from simulations and a ratio."""

import pytest
import torch
from scipy import stats
from torch import nn

from zoo.core import Batch, DataSpec, Image, Label, Series, Spec, Vector
from zoo.core.noise import Noise
from zoo.data.linear_regression import LinearRegression
from zoo.data.lotka_volterra import LotkaVolterra
from zoo.gan.him import HIM, LOSSES, Classifier, Linear, posterior_gap
from zoo.nn.prior import Draw
from zoo.nn.simulators import lotka_volterra, unexpected_growth

RESPONSES = Spec("responses", x=Vector((1,)), covariates=Vector((2,)))
HUNT = Spec("hunt", x=Series((5, 2)))
DIGITS = DataSpec((1, 4, 4), 17, 3)


def rows(n: int = 40, g: int = 0) -> Batch:
    source = torch.Generator().manual_seed(g)
    c = torch.randn(n, 2, generator=source)
    x = c @ torch.tensor([[1.0], [-0.5]]) + 0.7 * torch.randn(n, 1, generator=source)
    return Batch({"x": x, "covariates": c})


def model(spec=RESPONSES, **options) -> HIM:
    made = HIM(spec, **options)
    made.noise = Noise(0, "test", dtype=made.float_dtype)
    return made


def exact(batch: Batch, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the posterior by the textbook's recursion, one row at a time."""
    mean, cov = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for c, x in zip(batch["covariates"].double(), batch["x"][:, 0].double(), strict=True):
        gain = cov @ c / (c @ cov @ c + sigma**2)
        mean, cov = mean + gain * (x - c @ mean), cov - torch.outer(gain, c @ cov)
    return mean, cov


# -- the objective ---------------------------------------------------------------------------------
def test_with_the_exact_ratio_the_optimum_is_the_posterior_and_its_value_the_evidence():
    batch, sigma = rows(), 0.7
    him = model(sigma=sigma).double()
    him.initialise_from(batch)
    batch = Batch({k: v.double() for k, v in batch.items()})

    def ratio(x, hint, match, c):  # log p(x | β, c), its constant left out of q(x | c)
        return torch.distributions.Normal(hint, sigma).log_prob(x)[:, 0]

    him.r.forward = ratio
    mean, cov = exact(batch, sigma)
    best = cov.inverse().diag().rsqrt()  # of an independent normal: from the precision's diagonal
    precision = cov.inverse()
    for shift, factor in ((0.0, 1.0), (0.1, 1.5)):  # the slope is that of the KL to the posterior
        him.q.mean.data.copy_(mean + shift)
        him.q.log_std.data.copy_((factor * best).log())
        him.draws = 8000
        loss = him.posterior_loss(batch)["loss"]
        slopes = torch.autograd.grad(40 * loss, [him.q.mean, him.q.log_std])
        wanted = precision @ torch.full((2,), shift).double(), torch.full((2,), factor**2 - 1)
        torch.testing.assert_close(slopes[0], wanted[0], atol=0.2, rtol=0.05)
        torch.testing.assert_close(slopes[1], wanted[1].double(), atol=0.05, rtol=0)
    c, x = batch["covariates"].numpy(), batch["x"][:, 0].numpy()
    evidence = stats.multivariate_normal(cov=c @ c.T + sigma**2 * torch.eye(40).numpy()).logpdf(x)
    q = torch.distributions.MultivariateNormal(him.q.mean, (2 * him.q.log_std).exp().diag())
    gap = torch.distributions.kl_divergence(q, torch.distributions.MultivariateNormal(mean, cov))
    assert -40 * loss.item() == pytest.approx(evidence - gap.item(), abs=0.1)


def test_the_mode_is_what_a_point_finds_and_it_has_no_spread():
    batch = rows()
    him = model(q="point", sigma=0.7)
    him.initialise_from(batch)
    him.r.forward = lambda x, hint, match, c: -0.5 * ((x - hint) / 0.7).square()[:, 0]
    optimiser = torch.optim.Adam([him.q.mean], 0.05)
    for _ in range(300):
        optimiser.zero_grad()
        him.posterior_loss(batch)["loss"].backward()
        optimiser.step()
    torch.testing.assert_close(him.q.mean.double(), exact(batch, 0.7)[0], atol=5e-3, rtol=0)
    drawn = him.q.draw(3, 2, Noise(0))
    assert (drawn == him.q.mean).all() and not him.q.log_std.requires_grad


@pytest.mark.parametrize("loss", ["log", "hinge"])
def test_ratio_at_the_optimum_is_the_log_ratio_of_simulated_and_data_rows(loss):
    p, q = torch.randn(2, 6, dtype=torch.float64).softmax(1)  # of simulations and of data
    r = torch.linspace(-4, 4, 8001, dtype=torch.float64)[:, None]
    price = LOSSES[loss]
    best = r[(p * price.fake(r) + q * price.real(r)).argmin(0), 0]
    wanted = (p / q).log() if loss == "log" else (p - q).sign()
    torch.testing.assert_close(best, wanted, atol=1e-3, rtol=0)
    swapped = r[(q * price.fake(r) + p * price.real(r)).argmin(0), 0]
    torch.testing.assert_close(swapped, -best, atol=2e-3, rtol=0)


def test_beyond_its_margin_the_hinge_has_no_slope():
    r = torch.tensor([-3.0, -1.5, 1.5, 3.0], requires_grad=True)
    for price, flat in ((LOSSES["hinge"].real, r < -1), (LOSSES["hinge"].fake, r > 1)):
        (slope,) = torch.autograd.grad(price(r).sum(), r)
        assert ((slope == 0) == flat).all()


def test_prior_is_counted_once_and_the_data_n_times():
    batch = rows(60)
    him = model(draws=1)
    him.initialise_from(batch)
    him.r.forward = lambda x, hint, match, c: x[:, 0] * 3  # of the rows alone
    parts = [him.posterior_loss(part)["loss"] for part in batch.chunk(3)]
    mu, s = him.q.mean.detach(), him.q.log_std.detach().exp()
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, s), torch.distributions.Normal(0.0, 1.0)
    ).sum()
    whole = -kl + (3 * batch["x"]).sum()
    assert -60 * torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-4)
    assert him.posterior_loss(batch)["kl"].item() == pytest.approx(kl.item(), rel=1e-5)


def test_each_loss_reaches_its_own_player_alone():
    him, batch = model(), rows()
    him.initialise_from(batch)
    him.ratio_loss(batch)["loss"].backward()
    assert all(p.grad is None for p in him.q.parameters())
    assert all(p.grad.abs().sum() > 0 for p in him.r.parameters())
    him.zero_grad()
    him.r.requires_grad_(False)  # as the loop does in q's turn
    him.posterior_loss(batch)["loss"].backward()
    assert all(p.grad is None for p in him.r.parameters())
    assert all(p.grad.abs().sum() > 0 for p in him.q.parameters())


def test_both_halves_of_the_ratios_batch_have_the_same_beta_and_q_is_shown_data():
    him, batch, seen = model(draws=3, widen=5.0, sigma=1e-6), rows(4), []
    him.r.net.forward = lambda *inputs: (seen.append(inputs), inputs[0][:, 0])[1]
    him.initialise_from(batch)
    him.ratio_loss(batch)
    (x, hint, match, c), (made, hint_made, _, c_made) = seen
    assert (hint == hint_made).all() and (c == c_made).all()
    assert (x == batch["x"].repeat_interleave(3, 0)).all() and (made != x).all()
    torch.testing.assert_close(made, hint, atol=1e-4, rtol=0)  # simulated with that very β
    assert (match == x - hint).all()
    assert (c == batch["covariates"].repeat_interleave(3, 0)).all()
    him.posterior_loss(batch)
    assert (seen[2][0] == x).all() and (seen[2][1] != hint).all()  # a draw of its own


def test_ratio_is_shown_wider_draws_than_the_posteriors():
    him = model()
    him.q.mean.data.zero_()
    him.q.log_std.data.fill_(-2.0)
    found = [him.q.draw(4000, 1, Noise(0), w).std().item() for w in (1.0, 5.0)]
    assert found == pytest.approx([torch.tensor(-2.0).exp().item() * w for w in (1, 5)], rel=0.03)
    spread = []
    him.r.net.forward = lambda *inputs: (spread.append(inputs[1]), inputs[0][:, 0])[1]
    batch = Batch({"x": torch.zeros(4000, 1), "covariates": torch.ones(4000, 2)})
    him.ratio_loss(batch)
    him.posterior_loss(batch)
    assert (spread[0].std() / spread[2].std()).item() == pytest.approx(8.0, rel=0.06)


# -- simulators ------------------------------------------------------------------------------------
def test_responses_have_the_mean_and_the_deviation_of_the_model():
    c, beta = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -1.0]]).expand(1, 20000, 2)
    x = Linear(2, 0.3).simulate(beta, c, Draw(torch.Generator().manual_seed(0)))
    assert x.mean().item() == pytest.approx(-1.5, abs=0.01)
    assert x.std().item() == pytest.approx(0.3, rel=0.02)


def test_populations_drift_and_spread_as_the_four_reactions_say():
    rates, n, dt = torch.tensor([0.01, 0.5, 1.0, 0.02]), 200_000, 0.2
    noise = torch.randn(n, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    x = lotka_volterra(rates.expand(n, 4), noise)[:, 0]
    mean = torch.tensor([50 + dt * (0.01 * 5000 - 25), 100 + dt * (100 - 0.02 * 5000)])
    variance = dt * torch.tensor([50.0 + 25, 100 + 100])
    torch.testing.assert_close(x.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(x.var(0), variance, atol=0, rtol=0.02)


def test_growth_is_unexpected_by_what_the_rates_leave_over():
    x = torch.tensor([[40.0, 80.0], [50.0, 60.0], [45.0, 70.0]], dtype=torch.float64)
    a, b, c, d = 0.01, 0.5, 1.0, 0.02
    wanted = torch.zeros(8, dtype=torch.float64)
    for t in range(2):
        for k in range(2):
            own, other = x[t : t + 2, k].mean(), x[t : t + 2, 1 - k].mean()
            growth = (x[t + 1, k].log1p() - x[t, k].log1p()) / 0.2
            e = (growth - (a * other - b if k == 0 else c - d * other)) * own / (own + 20)
            for j, v in enumerate((e, e * other / 100, e**2, (e * other / 100) ** 2)):
                wanted[2 * j + k] += v / 2
    rates = torch.tensor([a, b, c, d], dtype=torch.float64)
    torch.testing.assert_close(unexpected_growth(x.log1p(), rates), wanted)


def test_what_r_is_shown_of_populations_is_least_unexpected_at_their_own_rates():
    him = model(HUNT)
    g, beta = torch.Generator().manual_seed(0), torch.zeros(400, 3, 4)
    beta[:, 1, 0], beta[:, 2, 3] = 0.5, -0.5  # other births of predators, other deaths of prey
    data = Batch(
        {
            "x": lotka_volterra(
                him.simulator.rates(beta[:, 0]), torch.randn(400, 5, 2, 4, generator=g)
            )
        }
    )
    x, c = him.rows(data)
    *_, match, _ = him.beside(x, beta, c)
    squares = match.view(400, 3, 8)[:, :, 4:].mean(0)
    assert match.shape == (1200, 8) and (squares[0] < squares[1])[[0, 2]].all()
    assert (squares[0] < squares[2])[[1, 3]].all()


def test_populations_never_fall_below_none():
    noise = -3 * torch.ones(2, 30, 2, 4)
    assert (lotka_volterra(torch.tensor([0.01, 5.0, 0.1, 0.5]).expand(2, 4), noise) >= 0).all()


def test_labels_are_drawn_with_the_probabilities_of_the_network():
    net = Classifier(3, 4, hidden=5, noise=2)
    g = torch.Generator().manual_seed(1)
    beta, c = torch.randn(1, 1, net.dim, generator=g), torch.randn(1, 3, generator=g)
    many = beta.expand(1, 20000, -1)
    drawn = net.simulate(many, c, Draw(g))[0].mean(0)
    eps = torch.randn(1, 1, 5000, 2, generator=g)
    w1, b1, w2, b2 = (  # the network by hand
        p.view(s) for p, s in zip(beta[0, 0].split([25, 5, 20, 4]), net.shapes, strict=True)
    )
    inputs = torch.cat([c.expand(5000, 3), eps[0, 0]], 1)
    h = ((inputs @ w1.T + b1) / 5**0.5).relu()
    wanted = (h @ w2.T * (2 / 5) ** 0.5 + b2).softmax(1).mean(0)
    torch.testing.assert_close(drawn, wanted, atol=0.015, rtol=0)
    assert net.dim == 5 * 5 + 5 + 4 * 5 + 4
    summary = net.summary(many[:, :2000], c, Draw(g)).exp()
    torch.testing.assert_close(summary.mean((0, 1)), wanted, atol=0.01, rtol=0)
    many_eps = net.summary(beta, c, Draw(g), k=5000).exp()[0, 0]  # the mean, not one of them
    torch.testing.assert_close(many_eps, wanted, atol=0.015, rtol=0)
    assert net.match(torch.eye(4)[None, :1], summary[:, :1].log()).shape == (1, 1, 1)


# -- use -------------------------------------------------------------------------------------------
def test_samples_are_the_posterior_predictive():
    him = model(sigma=0.5)
    him.q.mean.data.copy_(torch.tensor([1.0, -2.0]))
    him.q.log_std.data.copy_(torch.tensor([0.3, 0.1]).log())
    c = torch.tensor([1.0, 3.0]).expand(20000, 2)
    x = him.sample(20000, generator=torch.Generator().manual_seed(0), covariates=c)
    assert x.shape == (20000, 1) and x.mean().item() == pytest.approx(-5, abs=0.02)
    assert x.var().item() == pytest.approx(0.3**2 + 9 * 0.1**2 + 0.5**2, rel=0.03)


def test_each_task_makes_what_its_data_are():
    hunt = model(HUNT)
    x = hunt.sample(3, generator=torch.Generator().manual_seed(0))
    assert x.shape == (3, 5, 2) and (x >= 0).all() and hunt.told == ()
    assert hunt.simulator.rates(torch.zeros(4)).tolist() == pytest.approx([0.02, 0.4, 0.7, 0.02])
    digits = model(DIGITS)
    assert digits.told == ("x",) and digits.makes == ("y",)
    images = DIGITS["x"].example(6, torch.Generator())
    y = digits.sample(6, generator=torch.Generator().manual_seed(0), x=images)["y"]
    assert not DIGITS["y"].faults(y)
    p = digits.classify(images)
    torch.testing.assert_close(p.sum(1), torch.ones(6))
    torch.testing.assert_close(digits.classify(images[:2]), p[:2])  # rows by themselves


def test_logged_gaps_are_those_of_two_normals():
    mean, log_std = torch.tensor([0.1, -0.3]), torch.tensor([0.2, 0.4]).log()
    cov = torch.tensor([[0.09, 0.03], [0.03, 0.04]])
    said = posterior_gap(mean, log_std, torch.tensor([0.0, 0.1]), cov)
    assert said["posterior_error"].item() == pytest.approx(0.4)
    ratio = (0.2 * 0.4 / (0.3 * 0.2)) ** 0.5
    assert said["posterior_spread"].item() == pytest.approx(ratio)
    s = torch.diag(torch.tensor([0.04, 0.16])).double()  # KL by its formula
    p, d = cov.double().inverse(), (mean - torch.tensor([0.0, 0.1])).double()
    kl = 0.5 * ((p @ s).trace() + d @ p @ d - 2 - (s.det() * p.det()).log())
    assert said["posterior_kl"].item() == pytest.approx(kl.item())


def test_validation_says_the_gap_the_share_inside_and_the_accuracy():
    batch, him = rows(), model(sigma=0.7)
    him.initialise_from(batch)
    mean, cov = exact(batch, 0.7)
    torch.testing.assert_close(him.exact_mean.double(), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(him.exact_cov.double(), cov, atol=1e-6, rtol=0)
    assert int(him.size) == 40 and him.evaluate(batch)["posterior_error"].shape == (40,)
    hunt = model(HUNT)
    hunt.q.mean.data.zero_()
    x = hunt.sample(600, generator=torch.Generator().manual_seed(3))
    inside = hunt.evaluate(Batch({"x": x}))["inside_90"].mean().item()
    assert inside == pytest.approx(0.9, abs=0.05)
    digits = model(DIGITS)
    images = DIGITS["x"].example(8, torch.Generator())
    said = digits.classify(images).argmax(1)
    assert digits.evaluate(Batch({"x": images, "y": said}))["acc"].mean() == 1
    assert digits.evaluate(Batch({"x": images, "y": (said + 1) % 3}))["acc"].mean() == 0


def test_players_have_their_rates_and_the_ratio_its_steps():
    him = model(lr_r=0.1, lr_q=0.2, beta1=0.4, k=3)
    made = him.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"r": 0.1, "q": 0.2}
    assert all(o.defaults["betas"] == (0.4, 0.999) for o in made.values())
    assert [(p.player, p.times(0)) for p in him.phases()] == [("r", 3), ("q", 1)]
    assert him.phases()[0].reads == ("x", "covariates")


def test_data_without_a_simulator_are_refused_and_images_alone_classify():
    with pytest.raises(ValueError, match="linear_regression"):
        HIM(DataSpec((2,)))
    with pytest.raises(ValueError, match="classifies images"):
        model().classify(torch.zeros(1, 2))
    assert isinstance(HIM(Spec("d", x=Image((1, 4, 4), 2), y=Label(2))).r.net, nn.Module)


# -- data ------------------------------------------------------------------------------------------
def test_responses_are_those_of_one_linear_model_with_known_noise():
    data = LinearRegression(weights=3, sigma=0.5, size=4000)
    train, val = data.split("train"), data.split("val")
    c, x = train["covariates"].double(), train["x"].double()
    w = torch.linalg.lstsq(c, x).solution
    assert (x - c @ w).std().item() == pytest.approx(0.5, rel=0.04)
    again = val["x"].double() - val["covariates"].double() @ w  # the same weights, other rows
    assert again.std().item() == pytest.approx(0.5, rel=0.05)
    assert not torch.equal(train["covariates"], val["covariates"])
    assert torch.equal(LinearRegression(3, 0.5, 4000).split("train")["x"], train["x"])


def test_series_are_independent_draws_at_the_rates_of_the_option():
    data = LotkaVolterra(size=300, points=6)
    x = data.split("train")["x"]
    assert x.shape == (300, 6, 2) and data.spec["x"].shape == (6, 2)
    assert len({round(v, 3) for v in x[:, 0, 0].tolist()}) > 250
    fast = LotkaVolterra(rates=(0.01, 0.5, 3.0, 0.01), size=300, points=6).split("train")["x"]
    assert fast[:, 0, 1].mean() > x[:, 0, 1].mean() + 20  # prey are born three times as fast
    with pytest.raises(ValueError, match="4 rates"):
        LotkaVolterra(rates=(1.0, 2.0))
