"""WGAN is WGAN: clipping after every critic step, a critic without logarithms, bursts, a slope that
does not vanish.
"""

import pytest
import torch
from torch import nn

from tests.gan.critics import assert_networks_and_codes_as_asked
from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.gan import LOSSES
from zoo.gan.wgan import WGAN

PLANE, LINE = DataSpec((2,)), DataSpec((1,))


class Cloud(nn.Module):
    """A generator whose samples are given points moved by θ."""

    def __init__(self, points: torch.Tensor) -> None:
        super().__init__()
        self.points, self.theta = points, nn.Parameter(torch.zeros(()))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.points[: len(z)] + self.theta


class Linear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze(1)


@pytest.mark.parametrize("spec", [PLANE, DataSpec((1, 8, 8), 17)], ids=["vectors", "images"])
def test_every_critic_parameter_is_within_the_clamp_after_each_step_and_before_the_next_pass(spec):
    model, largest, forwards = WGAN(spec, c=0.02, k=4, norm="batch", width=8), [], []

    def biggest():
        return max(p.abs().max().item() for p in model.d.net.parameters())

    after = model.after_step
    model.after_step = lambda player: (after(player), largest.append((player, biggest())))
    model.d.net.register_forward_pre_hook(lambda *_: forwards.append(biggest()))
    fit(model, Given(spec, torch.randint(0, 17, (64, *spec.shape)).float()), 2)
    c = torch.tensor(0.02).item()
    assert [player for player, _ in largest] == (["d"] * 4 + ["g"]) * 2
    assert (
        all(value <= c for _, value in largest)
        and forwards[0] > c
        and all(value <= c for value in forwards[2:])
    )
    assert max(p.abs().max().item() for p in model.g.parameters()) > c  # G is not clamped


def test_linear_critic_converges_to_the_corner_and_estimates_c_times_the_l1_distance_of_the_means():
    g = torch.Generator().manual_seed(0)
    x, fake = (
        torch.randn(64, 3, generator=g) + torch.tensor([2.0, -1.0, 0.5]),
        torch.randn(64, 3, generator=g),
    )
    model = WGAN(DataSpec((3,)), c=0.05, k=40, lr_d=0.01)
    model.d.net, model.g = Linear(3, 1), Cloud(fake)
    with pytest.warns(UserWarning, match="rows repeat"):
        fit(model, Given(model.spec, x, batch_size=64), 1)
    gap = x.mean(0) - fake.mean(0)
    torch.testing.assert_close(model.d.net.weight[0].detach(), 0.05 * gap.sign())
    assert model.terms["w_est"].item() == pytest.approx(0.05 * gap.abs().sum().item(), rel=0.01)


def test_a_constant_changes_no_gradient_and_a_factor_scales_both_losses():
    model, x = WGAN(PLANE).double(), torch.randn(32, 2, dtype=torch.float64)
    plain = model.d.net.forward

    def losses():
        model.noise = Noise(0, "test", dtype=torch.float64)
        d = model.discriminator_loss(Batch({"x": x}))["loss"]
        g = model.generator_loss(Batch({}, 32))["loss"]
        gradients = [
            *torch.autograd.grad(d, [*model.parameters_of("d")]),
            *torch.autograd.grad(g, [*model.parameters_of("g")]),
        ]
        return torch.stack([d, g]).detach(), gradients

    values, gradients = losses()
    model.d.net.forward = lambda v: plain(v) + 7
    for a, b in zip(gradients, losses()[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    model.d.net.forward = lambda v: 2 * plain(v)
    torch.testing.assert_close(losses()[0], 2 * values)


@pytest.mark.filterwarnings("ignore:one training step takes")
def test_bursts_are_a_hundred_critic_steps_at_first_and_at_every_500th():
    model, steps = WGAN(PLANE, width=4, bursts=True), []
    after = model.after_step
    model.after_step = lambda player: (after(player), steps.append(player))
    trainer = fit(model, Given(PLANE, torch.randn(400, 2)), 3)
    assert steps.count("d") == 300 and steps.count("g") == trainer.global_step == 3
    assert [model.critic_steps(n) for n in (24, 25, 499, 500, 501, 1000)] == [
        100,
        5,
        5,
        100,
        5,
        100,
    ]
    assert WGAN(PLANE).critic_steps(0) == 5


@pytest.mark.filterwarnings("ignore:one training step takes")
def test_distance_of_point_masses_grows_and_keeps_its_slope_where_the_gan_loses_it():
    estimates, slopes, lost = [], [], []
    for theta in (0.5, 1.0, 2.0, 4.0, 8.0):
        torch.manual_seed(0)
        model = WGAN(LINE, width=16, k=150, lr_d=0.01)
        model.g = Cloud(torch.full((8, 1), theta))
        fit(model, Given(LINE, torch.zeros(8, 1), batch_size=8), 1)
        estimates.append(model.terms["w_est"].item())
        (slope,) = torch.autograd.grad(model.generator_loss(Batch({}, 8))["loss"], model.g.theta)
        slopes.append(abs(slope.item()))
        logit = Linear(1, 1)  # the discriminator of the original game, on the same two points
        optimiser = torch.optim.Adam(logit.parameters(), 0.1)
        for _ in range(300):
            optimiser.zero_grad()
            s = logit(torch.tensor([[0.0], [theta]]))
            (nn.functional.softplus(-s[0]) + nn.functional.softplus(s[1])).backward()
            optimiser.step()
        point = torch.tensor([[theta]], requires_grad=True)
        (slope,) = torch.autograd.grad(LOSSES["minimax"].maker(logit(point)).sum(), point)
        lost.append(slope.abs().item())
    assert all(a < b for a, b in zip(estimates, estimates[1:], strict=False))
    assert min(slopes) > 0.5 * max(slopes) and lost[-1] < 1e-2 * lost[0]


def test_clip_frac_is_the_share_of_parameters_at_the_bound():
    model = WGAN(PLANE, c=0.1)
    for i, p in enumerate(model.d.net.parameters()):
        nn.init.constant_(p, 0.1 if i % 2 else 0.05)
    terms = {}
    model.after_cycle(terms)
    sizes = [p.numel() for p in model.d.net.parameters()]
    assert terms["clip_frac"].item() == pytest.approx(sum(sizes[1::2]) / sum(sizes))


def test_held_out_estimate_has_one_value_for_each_example_and_averages_to_the_difference():
    model, x = WGAN(PLANE).eval(), torch.randn(50, 2)
    values = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(1))["w_est"]
    fake = model.sample(50, generator=torch.Generator().manual_seed(1))
    assert values.shape == (50,)
    torch.testing.assert_close(values.mean(), model.d(x).mean() - model.d(fake).mean())


def test_both_players_use_rmsprop_without_momentum():
    made = WGAN(PLANE, lr_d=0.2, lr_g=0.1, alpha=0.5).optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    for optimiser in made.values():
        assert type(optimiser) is torch.optim.RMSprop and optimiser.defaults["momentum"] == 0
        assert optimiser.defaults["alpha"] == 0.5


def test_the_losses_are_differences_of_means_and_the_estimate_is_the_critics_negative():
    model, x = WGAN(PLANE), torch.randn(32, 2)
    model.noise = Noise(0, "test")
    terms = model.discriminator_loss(Batch({"x": x}))
    wanted = model.generator_loss(Batch({}, 32))["loss"]
    noise = Noise(0, "test")
    first, second = (model.d.net(model.g(noise.normal(32, 2))).mean() for _ in range(2))
    torch.testing.assert_close(terms["loss"], first - model.d.net(x).mean())
    torch.testing.assert_close(terms["w_est"], model.d.net(x).mean() - first)
    torch.testing.assert_close(wanted, -second)


def test_the_networks_and_codes_are_those_that_are_asked_for():
    assert_networks_and_codes_as_asked(WGAN)


def test_the_critic_is_clamped_on_both_sides_and_the_generator_on_none():
    model = WGAN(PLANE, c=0.05)
    for p in model.parameters():
        nn.init.uniform_(p, -1, 1)
    before = [p.detach().clone() for p in model.g.parameters()]
    model.after_step("g")
    assert max(p.abs().max() for p in model.d.net.parameters()) > 0.5
    model.after_step("d")
    for p in model.d.net.parameters():
        assert p.min() >= -torch.tensor(0.05) and p.max() <= torch.tensor(0.05)
    assert all(torch.equal(a, b) for a, b in zip(before, model.g.parameters(), strict=True))
