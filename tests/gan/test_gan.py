"""GAN is GAN: the value function's optimum, the two generator losses, Algorithm 1, maxout and the
paper's training.
"""

import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.gan.gan import GAN, LOSSES, MaxoutDiscriminator, SigmoidGenerator
from zoo.nn.adversarial_losses import jsd_bound

LINE = DataSpec((1,))


def jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> float:
    m = (p + q) / 2
    return ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()).item() / 2


class Table(nn.Module):
    """A discriminator of the integers 0..7: one free logit each."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.s[x.long().squeeze(1)] + 0 * x.squeeze(1)


class Shift(nn.Module):
    """G(z) = z + θ."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(()))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + self.theta


def test_best_discriminator_is_p_over_p_plus_q_and_its_loss_gives_the_jensen_shannon_divergence():
    model = GAN(LINE)
    p, q = torch.rand(2, 8, dtype=torch.float64).softmax(1)
    s = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [s],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def loss():
        return (p * model.d.price.real(s)).sum() + (q * model.d.price.fake(s)).sum()

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    torch.testing.assert_close(s.sigmoid(), p / (p + q), atol=1e-4, rtol=0)
    assert -loss().item() == pytest.approx(-math.log(4) + 2 * jensen_shannon(p, q), abs=1e-6)
    assert jsd_bound(loss()).item() == pytest.approx(jensen_shannon(p, q), abs=1e-6)


def test_where_the_discriminator_is_sure_only_the_non_saturating_loss_has_a_slope():
    slopes = {}
    for name, loss in ((k, v.maker) for k, v in LOSSES.items()):
        s = torch.full((5,), -10.0, dtype=torch.float64, requires_grad=True)
        (slopes[name],) = torch.autograd.grad(loss(s).mean(), s)
    assert slopes["minimax"][0].item() == pytest.approx(-4.54e-5 / 5, rel=1e-3)
    assert slopes["nonsat"][0].item() == pytest.approx(-1 / 5, rel=1e-4)
    ratio = (slopes["nonsat"] / slopes["minimax"])[0].item()
    assert ratio == pytest.approx(math.exp(10), rel=1e-3)


def test_generator_loss_is_the_one_asked_for():
    for name, expected in (("nonsat", lambda d: -d.log()), ("minimax", lambda d: (1 - d).log())):
        model = GAN(LINE, g_loss=name).double()
        model.noise.dtype = torch.float64
        loss = model.generator_loss(Batch({}, 64))["loss"]
        model.noise.draws = 0
        d = model.d(model.g(model.noise.normal(64, 1))).sigmoid()
        torch.testing.assert_close(loss, expected(d).mean())


def test_each_of_the_k_discriminator_steps_sees_fresh_data_and_fresh_noise():
    model, real, codes = GAN(LINE, k=3), [], []
    model.d.net.register_forward_pre_hook(lambda _, args: real.append(args[0].flatten().tolist()))
    model.g.register_forward_pre_hook(lambda _, args: codes.append(args[0].flatten().tolist()))
    fit(model, Given(LINE, torch.arange(24.0)[:, None], batch_size=4), 2)
    rows = [row for cycle in (real[0:6:2], real[7:13:2]) for batch in cycle for row in batch]
    assert sorted(rows) == [
        *range(24)
    ]  # D is called on real and generated data in turn, then once in G's phase: no row twice
    assert len(codes) == 8 and len({z for batch in codes for z in batch}) == 8 * 4


@pytest.mark.filterwarnings("ignore:one training step takes")
def test_many_discriminator_steps_close_the_bound_to_the_divergence():
    p, q = torch.tensor([16, 8, 8, 8, 8, 8, 4, 4]), torch.tensor([1, 3, 4, 8, 8, 8, 16, 16])
    rows = [torch.arange(8.0).repeat_interleave(n)[:, None] for n in (p, q)]
    model = GAN(LINE, k=800, lr_d=0.1)
    model.d.net, model.g = Table(), Shift()
    model.g.forward = lambda z: rows[1] + 0 * model.g.theta
    fit(model, Given(LINE, rows[0], batch_size=64), 1)
    truth = jensen_shannon(p / 64, q / 64)
    assert truth > 0.1 and model.terms["jsd_bound"].item() == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_a_sure_discriminator_stops_the_minimax_generator_only(g_loss):
    model = GAN(LINE, g_loss=g_loss, optimiser="sgd", lr_d=0.01, lr_g=0.05, momentum_steps=100)
    model.g, model.d.net = Shift(), nn.Sequential(nn.Linear(1, 1), nn.Flatten(0))
    with torch.no_grad():
        model.d.net[0].weight.fill_(2.0)
        model.d.net[0].bias.fill_(-20.0)  # s(x) = 2x - 20: about +20 on the data, -20 on samples
    fit(model, Given(LINE, 20 + 0.1 * torch.randn(512, 1), batch_size=64), 40)
    moved = model.g.theta.item()
    assert moved > 1 if g_loss == "nonsat" else 0 <= moved < 0.01


def test_paper_networks_are_the_papers():
    model = GAN(DataSpec((1, 28, 28), 256), arch="maxout", latent=100, width=1200)
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert shapes == [(1200, 100), (1200, 1200), (784, 1200), (1200, 784), (1200, 240), (1, 240)]
    assert [m.p for m in model.d.net.modules() if isinstance(m, nn.Dropout)] == [
        0.2,
        0.5,
        0.5,
    ]
    for net, bound in ((model.g, 0.05), (model.d.net, 0.005)):
        for w in (p for p in net.parameters() if p.ndim == 2):
            assert 0.95 * bound < w.abs().max() <= bound and w.std().item() == pytest.approx(
                bound / 3**0.5, rel=0.1
            )
    assert isinstance(model.g, SigmoidGenerator) and isinstance(model.d.net, MaxoutDiscriminator)
    assert model.d.net.training  # dropout is on while D and G train


def test_sigmoid_generator_starts_at_the_mean_image():
    spec = DataSpec((1, 4, 4), 17)
    x = torch.randint(0, 17, (64, 1, 4, 4)).float()
    model = GAN(spec, arch="maxout", width=20, optimiser="sgd", lr_g=1e-12)
    fit(model, Given(spec, x, batch_size=8), 1)
    nn.init.zeros_(model.g.pixels.weight)
    torch.testing.assert_close(model.g(torch.randn(1, 32))[0], x.mean(0) / 16, atol=1e-5, rtol=0)


def test_sgd_decays_the_rate_at_each_step_and_raises_the_momentum():
    model = GAN(LINE, optimiser="sgd", lr_d=0.1, lr_g=0.1, lr_decay=2.0, momentum_steps=10, k=2)
    fit(model, Given(LINE, torch.randn(64, 1)), 4)
    d, g = (o.param_groups[0] for o in model.optimizers())
    assert (d["lr"], g["lr"]) == (pytest.approx(0.1 / 2**8), pytest.approx(0.1 / 2**4))
    assert d["momentum"] == g["momentum"] == pytest.approx(0.58)
    fit(model, Given(LINE, torch.randn(64, 1)), 20)
    assert [o.param_groups[0]["lr"] for o in model.optimizers()] == [pytest.approx(1e-6)] * 2


def test_interpolation_runs_from_the_first_code_to_the_second():
    model = GAN(DataSpec((1, 8, 8), 17))
    a, b = torch.randn(3, 32), torch.randn(3, 32)
    frames = model.eval().interpolate(a, b, 5)
    assert frames.shape == (3, 5, 1, 8, 8)
    for code, end in ((a, frames[:, 0]), (b, frames[:, -1])):
        assert torch.equal(end, model.spec.from_signed(model.g(code)))


def test_maxout_networks_see_and_make_pixels_in_the_unit_interval():
    spec = DataSpec((1, 4, 4), 17)
    model, seen = GAN(spec, arch="maxout", width=20).eval(), []
    model.d.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randint(0, 17, (6, 1, 4, 4)).float()
    model.discriminator_loss(Batch({"x": x}))
    assert torch.equal(seen[0], x / 16) and 0 < seen[1].min() < seen[1].max() < 1
    with torch.no_grad():
        model.g.pixels.weight.mul_(2000)  # pixels from black to white
    drawn = model.sample(6, generator=torch.Generator().manual_seed(0))
    z = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, (16 * model.g(z)).round())
    assert drawn.min() < 2 and drawn.max() > 14


def test_each_optimiser_has_its_rate_and_the_momentum_that_is_asked():
    options = {"lr_d": 0.2, "lr_g": 0.1, "beta1": 0.3}
    adam = GAN(LINE, **options).optimisers()
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in adam.values())
    sgd = GAN(LINE, optimiser="sgd", **options).optimisers()
    assert all(o.defaults["momentum"] == 0.3 for o in sgd.values())
    for made, kind in ((adam, torch.optim.Adam), (sgd, torch.optim.SGD)):
        assert {p: (type(o), o.defaults["lr"]) for p, o in made.items()} == {
            "d": (kind, 0.2),
            "g": (kind, 0.1),
        }


def test_codes_are_of_the_prior_that_is_asked_in_training_and_in_samples():
    for prior, like in (
        ("uniform", lambda z: z.abs().max() <= 1),
        ("sphere", lambda z: torch.allclose(z.norm(dim=1), torch.full((500,), 3**0.5))),
        ("normal", lambda z: 2.5 < z.abs().max() < 6),
    ):
        model, seen = GAN(DataSpec((3,)), prior=prior), []
        model.g.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        model.generator_loss(Batch({}, 500))
        model.sample(500, generator=torch.Generator().manual_seed(0))
        assert len(seen) == 2 and all(like(z) for z in seen) and not torch.equal(*seen)
