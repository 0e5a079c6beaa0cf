"""LSGAN is LSGAN: the least-squares optimum, the Pearson divergence, gradients that pull back, an
unbounded end.
"""

import pytest
import torch
from torch import nn

from zoo.core import Batch, DataSpec
from zoo.gan.gan import LOSSES
from zoo.gan.lsgan import LSGAN, squared_error

PLANE = DataSpec((2,))


def optimum(p: torch.Tensor, q: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """The table of outputs that minimises D's loss, by LBFGS."""
    s = torch.zeros_like(p, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [s],
        max_iter=200,
        tolerance_grad=1e-13,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        loss = (p * squared_error(s, b) + q * squared_error(s, a)).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return s.detach()


@pytest.fixture
def densities() -> torch.Tensor:
    return torch.randn(2, 8, dtype=torch.float64).softmax(1)


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (-1.0, 1.0), (2.3, -0.7)])
def test_best_discriminator_is_the_mean_of_the_codes_weighted_by_the_densities(densities, a, b):
    p, q = densities
    torch.testing.assert_close(optimum(p, q, a, b), (b * p + a * q) / (p + q), atol=1e-6, rtol=0)


def test_pearson_codes_make_the_optimal_loss_a_divergence(densities):
    p, q = densities
    s = optimum(p, q, -1.0, 1.0)
    assert (p * s**2 + q * s**2).sum().item() == pytest.approx(
        ((q - p) ** 2 / (p + q)).sum().item(), abs=1e-6
    )
    s = optimum(p, q, 0.0, 1.0)  # the 0-1 codes do not
    assert (
        abs(
            (p * (s - 1) ** 2 + q * (s - 1) ** 2).sum().item()
            - ((q - p) ** 2 / (p + q)).sum().item()
        )
        > 0.1
    )


def test_chi2_is_logged_for_the_pearson_codes_only_and_is_twice_the_two_errors_about_c():
    batch = Batch({"x": torch.randn(16, 2)})
    for a, b, c in ((0, 1, 1), (0, 1, 0), (-1, 1, 1)):
        assert "chi2" not in LSGAN(PLANE, a=a, b=b, c=c).discriminator_loss(batch)
    for c in (0, 3):
        model = LSGAN(PLANE, a=c - 1, b=c + 1, c=c)
        chi2 = model.discriminator_loss(batch)["chi2"]
        model.noise.draws = 0
        fake = model.g(model.noise.normal(16, 2))
        errors = [(model.d(v) - c).pow(2).mean() for v in (batch["x"], fake)]
        torch.testing.assert_close(chi2, sum(errors))


def test_losses_are_half_squared_errors_to_the_three_codes():
    model, x = LSGAN(PLANE, a=-0.3, b=0.9, c=0.4), torch.randn(16, 2)
    loss_d = model.discriminator_loss(Batch({"x": x}))["loss"]
    loss_g = model.generator_loss(Batch({}, 16))["loss"]
    model.noise.draws = 0
    fakes = [model.d(model.g(model.noise.normal(16, 2))) for _ in range(2)]
    mse = nn.functional.mse_loss
    code = [torch.full((16,), v) for v in (-0.3, 0.9, 0.4)]
    torch.testing.assert_close(
        loss_d, 0.5 * mse(model.d(x), code[1]) + 0.5 * mse(fakes[0], code[0])
    )
    torch.testing.assert_close(loss_g, 0.5 * mse(fakes[1], code[2]))


def test_a_sample_far_on_the_real_side_is_pulled_back():
    s = torch.tensor([10.0, -3.0, 1.0], requires_grad=True)
    (slope,) = torch.autograd.grad(squared_error(s, 1.0).mean(), s)
    torch.testing.assert_close(slope, torch.tensor([9.0, -4.0, 0.0]) / 3)
    (other,) = torch.autograd.grad(LOSSES["nonsat"].maker(s).mean(), s)
    assert slope[0] > 0 > other[0] > -1e-4


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"spec": DataSpec((1, 16, 16), 17)},
        {"spec": DataSpec((1, 16, 16), 17), "arch": "paper", "width": 8},
    ],
)
def test_nothing_bounds_the_discriminators_output(model):
    model = LSGAN(**{"spec": PLANE, **model}).eval()
    x = torch.randn(32, *model.spec.shape)
    model.d.net.end.weight.data *= 1e3 / model.d(x).abs().max().item()
    assert model.d(x).abs().max() > 5


def test_accuracy_is_about_the_middle_of_the_codes_and_knows_their_order():
    for a, b in ((0.0, 1.0), (1.0, 0.0)):
        model = LSGAN(PLANE, a=a, b=b)
        model.d.net.forward = lambda x, b=b: torch.full(
            (len(x),), 0.75 if b == 1 else 0.25
        )  # always nearer to b
        terms = model.discriminator_loss(Batch({"x": torch.randn(4, 2)}))
        assert (terms["d_acc_real"], terms["d_acc_fake"]) == (1, 0)
    for a, b, s in ((-1.0, 1.0, 0.25), (1.0, -1.0, -0.25), (2.0, 4.0, 3.5), (4.0, 2.0, 2.5)):
        said = torch.tensor([s, s, s, 2 * a - s])
        shares = LSGAN(PLANE, a=a, b=b).watched(said, said)  # three of four are nearer to b
        assert (shares["d_acc_real"], shares["d_acc_fake"]) == (0.75, 0.25)


def test_options_of_training_are_those_that_are_asked_for():
    model = LSGAN(PLANE, prior="uniform", k=3, lr_d=0.2, lr_g=0.1, beta1=0.3)
    made = model.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())
    assert model.codes(500).abs().max() <= 1
    assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]


def test_paper_network_is_figure_2():
    with torch.device("meta"):
        model = LSGAN(DataSpec((3, 112, 112), 256), arch="paper", latent=1024)
    up = [
        (m.out_channels, m.stride[0])
        for m in model.g.modules()
        if isinstance(m, nn.ConvTranspose2d)
    ]
    assert up == [(256, 2), (256, 1), (256, 2), (256, 1), (256, 2), (128, 2), (3, 1)]
    assert model.g(torch.zeros(2, 1024, device="meta")).shape == (2, 3, 112, 112)
    down = [m for m in model.d.net.stages.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size, m.stride) for m in down] == [
        (n, (5, 5), (2, 2)) for n in (64, 128, 256, 512)
    ]
    assert model.d.net.end.kernel_size == (7, 7)  # the fully connected end
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.d.net.modules()) == 3
