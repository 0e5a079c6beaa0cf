"""WGAN-GP is WGAN-GP: the two-sided penalty of each example's own gradient between data and
samples.
"""

import pytest
import torch
from torch import nn

from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.wgan_gp import WGANGP, ResidualBlock, between
from zoo.nn.penalties import squared_gradient_norm

SPEC = DataSpec((1, 4, 4))  # real-valued, so that the losses see x itself
F64 = torch.float64


class Linear(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w, self.b = (
            nn.Parameter(torch.randn(dim, dtype=F64)),
            nn.Parameter(torch.zeros((), dtype=F64)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.w + self.b


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 5, dtype=F64), nn.Linear(5, 1, dtype=F64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x.flatten(1)).tanh()).squeeze(1)


def model_with(critic: nn.Module, **options) -> WGANGP:
    """The model of 4x4 images with this critic, and a generator that needs no image size."""
    model = WGANGP(DataSpec((16,)), **options).double()
    model.spec = SPEC
    model.g = nn.Sequential(nn.Linear(16, 16, dtype=F64), nn.Unflatten(1, (1, 4, 4)))
    model.d.net = critic
    return model


def terms_of(model: WGANGP, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.noise = Noise(5, "test", dtype=F64)
    return model.discriminator_loss(Batch({"x": x}))


def drawn(model: WGANGP, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The samples and the ε of ``terms_of``."""
    noise = Noise(5, "test", dtype=F64)
    return model.g(noise.normal(len(x), 16)).detach(), noise.uniform(len(x))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(6, 1, 4, 4, dtype=F64)


def test_penalty_of_a_linear_critic_is_that_of_its_weight_norm(x):
    model = model_with(Linear(16), lam=3.0)
    norm = model.d.net.w.norm().item()
    for data in (x, 100 * x):
        terms = terms_of(model, data)
        assert terms["gp"].item() == pytest.approx(3 * (norm - 1) ** 2, rel=1e-9)
        assert terms["grad_norm"].item() == pytest.approx(norm, rel=1e-9)


def test_epsilon_is_one_number_for_each_example(x):
    model = model_with(Linear(16), lam=2.0)
    model.d.net.forward = lambda v: v.flatten(1).square().sum(1) / 2  # its gradient is x̂ itself
    fake, eps = drawn(model, x)
    assert len(eps.unique()) == 6
    x_hat = torch.stack([e * a + (1 - e) * b for e, a, b in zip(eps, x, fake, strict=True)])
    expected = 2 * (x_hat.flatten(1).norm(dim=1) - 1).square().mean()
    assert terms_of(model, x)["gp"].item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.equal(between(x, fake, eps), x_hat)


def test_penalty_teaches_the_critic_as_finite_differences_say_and_not_its_last_bias(x):
    model = model_with(Smooth())
    w = model.d.net.first.weight
    gradient, bias = torch.autograd.grad(
        terms_of(model, x)["gp"], [w, model.d.net.last.bias], allow_unused=True
    )
    assert bias is None or bias == 0
    for i, j in ((0, 0), (2, 7), (4, 15)):
        step, values = 1e-6, []
        for sign in (1, -1):
            w.data[i, j] += sign * step
            values.append(terms_of(model, x)["gp"].item())
            w.data[i, j] -= sign * step
        assert gradient[i, j].item() == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-9
        )


RESNET = {"spec": DataSpec((3, 16, 16), 256), "arch": "resnet", "width": 4}


@pytest.mark.parametrize(
    "options",
    [{"spec": DataSpec((2,))}, {"spec": DataSpec((1, 16, 16), 17)}, RESNET],
    ids=["mlp", "conv", "resnet"],
)
def test_penalty_does_not_mix_examples_and_batch_norm_is_refused(options):
    for norm in ("none", "layer"):
        model = WGANGP(**options, norm=norm)
        v = torch.randn(4, *model.spec.shape, requires_grad=True)
        (gradient,) = torch.autograd.grad(model.d(v)[1], v)
        assert gradient[1].abs().max() > 0 and gradient[[0, 2, 3]].abs().max() == 0
    with pytest.raises(ValueError, match="batch norm"):
        WGANGP(**options, norm="batch")


def test_no_gradient_reaches_the_generator_in_the_critics_turn(x):
    model = model_with(Smooth())
    terms_of(model, x)["loss"].backward()
    assert all(p.grad is None for p in model.g.parameters())
    assert all(p.grad.abs().max() > 0 for p in [model.d.net.first.weight, model.d.net.last.weight])


def test_losses_are_the_papers(x):
    model = model_with(Smooth(), lam=10.0)
    terms, (fake, _) = terms_of(model, x), drawn(model, x)
    w = model.d(x).mean() - model.d(fake).mean()
    torch.testing.assert_close(terms["loss"], terms["gp"] - w)
    model.noise = Noise(5, "test", dtype=F64)
    torch.testing.assert_close(model.generator_loss(Batch({}, 6))["loss"], -model.d(fake).mean())


def test_gradient_at_a_flat_critic_is_finite(x):
    model = model_with(Linear(16))
    nn.init.zeros_(model.d.net.w)
    terms = terms_of(model, x)
    (gradient,) = torch.autograd.grad(terms["loss"], [model.d.net.w])
    assert terms["gp"].item() == pytest.approx(1, abs=1e-5) and torch.isfinite(gradient).all()


def test_penalty_is_in_single_precision_under_autocast():
    critic, seen = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)), []
    critic[0].register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    points = torch.randn(5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        critic(points)
        inside = squared_gradient_norm(critic, points)
    assert seen == [torch.bfloat16, torch.float32]
    assert torch.equal(inside, squared_gradient_norm(critic, points))


def test_resnet_is_the_papers():
    with torch.device("meta"):
        model = WGANGP(DataSpec((3, 32, 32), 256), arch="resnet", latent=128)
    kinds = [
        [m.resample for m in net.blocks if isinstance(m, ResidualBlock)]
        for net in (model.g, model.d.net)
    ]
    assert kinds == [["up"] * 3, ["down", "down", "", ""]]
    fake = model.g(torch.zeros(2, 128, device="meta"))
    assert (
        fake.shape == (2, 3, 32, 32)
        and model.d.net.features(fake).shape == (2, 128, 8, 8)
        and model.d(fake).shape == (2,)
    )


def test_pooling_before_the_shortcut_convolution_equals_pooling_after():
    block, v = ResidualBlock(3, 5, "down", first=True), torch.randn(2, 3, 8, 8)
    after = nn.functional.avg_pool2d(block.shortcut(v), 2)
    torch.testing.assert_close(
        after, block.shortcut(nn.functional.avg_pool2d(v, 2)), atol=1e-6, rtol=0
    )


def test_rates_fall_linearly_to_zero_for_both_players_whatever_k():
    model = WGANGP(DataSpec((2,)), k=3, decay_steps=10, lr_d=0.1, lr_g=0.2)
    optimisers = model.optimisers()
    schedulers = model.schedulers(optimisers)
    for player in 5 * ["d", "d", "d", "g"]:
        optimisers[player].step()
        schedulers[player].step()
    assert [o.param_groups[0]["lr"] for o in optimisers.values()] == [
        pytest.approx(0.05),
        pytest.approx(0.1),
    ]
    for player in 6 * ["d", "d", "d", "g"]:
        optimisers[player].step()
        schedulers[player].step()
    assert [o.param_groups[0]["lr"] for o in optimisers.values()] == [0, 0]


def test_the_estimate_is_the_critics_on_data_above_samples_in_training_and_held_out(x):
    model = model_with(Smooth(), lam=4.0)
    terms, (fake, _) = terms_of(model, x), drawn(model, x)
    above = model.d.net(x).mean() - model.d.net(fake).mean()
    torch.testing.assert_close(terms["w_est"], above)
    held_out = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(2))["w_est"]
    z = torch.randn(6, 16, dtype=F64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(held_out, model.d.net(x) - model.d.net(model.g(z)))


def test_the_penalty_draws_flat_and_steep_critics_to_norm_one(x):
    for norm, gp in ((0.25, 0.75**2), (1.0, 0.0), (3.0, 2.0**2)):
        model = model_with(Linear(16), lam=5.0)
        model.d.net.w.data *= norm / model.d.net.w.norm()
        terms = terms_of(model, x)
        assert terms["gp"].item() == pytest.approx(5 * gp, abs=1e-9)
        assert terms["grad_norm"].item() == pytest.approx(norm)


def test_all_that_the_critic_sees_has_the_instance_noise_and_the_past(x):
    model, seen = model_with(Smooth()), []
    model.d.noisy = lambda v: v + 100
    model.d.stored = lambda made: (made.detach() + 1000,)
    model.d.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    terms_of(model, x)
    fake, eps = drawn(model, x)
    real, made = x + 100, fake + 1100
    eps = eps.view(6, 1, 1, 1)
    assert len(seen) == 3
    for shown, expected in zip(seen, (real, made, eps * real + (1 - eps) * made), strict=True):
        torch.testing.assert_close(shown, expected)


def test_the_optimisers_and_the_norm_are_those_that_are_asked_for():
    spec = DataSpec((1, 16, 16), 17)
    model = WGANGP(spec, norm="layer", width=4, lr_d=0.2, lr_g=0.1, beta1=0.3, beta2=0.7, k=3)
    made = model.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.7) for o in made.values())
    assert sum(isinstance(m, nn.GroupNorm) for m in model.d.net.modules()) == 1
    assert model.d.net.end.bias is None  # a constant would change no loss
    assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]
    assert model.schedulers(made) == {}


def test_a_decay_of_nought_may_be_written_as_a_whole_number():
    for optimiser in WGANGP(DataSpec((1, 8, 8)), beta1=0).optimisers().values():
        assert optimiser.defaults["betas"] == (0.0, 0.9)


@pytest.mark.parametrize("resample", ["up", "down", ""])
@pytest.mark.parametrize("first", [True, False])
def test_a_residual_block_is_two_convolutions_beside_a_shortcut(resample, first):
    block, x = ResidualBlock(3, 5, resample, first=first), torch.randn(2, 3, 8, 8)
    h, beside = x if first else x.clamp(min=0), x
    if resample == "up":
        h, beside = (v.repeat_interleave(2, 2).repeat_interleave(2, 3) for v in (h, beside))
    h = block.conv2(block.conv1(h).clamp(min=0))
    if resample == "down":
        h, beside = (
            v.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)) for v in (h, beside)
        )
    torch.testing.assert_close(block(x), h + block.shortcut(beside))
