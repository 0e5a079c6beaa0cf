"""The options that stabilise a game: each means what its paper says, in the one place where it
stands.
"""

import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.check import Subject, ddp_differences
from zoo.core import DataSpec, GeneratorModule, LoopOptions
from zoo.core.noise import Noise
from zoo.gan.gan import GAN
from zoo.gan.wgan import WGAN

PLANE = DataSpec((2,))


class Toy(GeneratorModule):
    """A linear logit against a shift of the noise; it writes down what D is shown, by player."""

    def __init__(self, loop: LoopOptions = LoopOptions(), k: int = 1, **options) -> None:
        super().__init__(PLANE, loop, k=k, **options)
        self.build(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)))
        self.shown: list[torch.Tensor] = []
        self.noise = Noise(0, "test")

    def judge(self, x, y=None):
        self.shown.append(x.detach().clone())
        return super().judge(x, y)


class Counting(Toy):
    """A generator whose samples are the number of the cycle, in every dimension."""

    def make(self, z, y=None):
        return super().make(z) * 0 + self.trainer.global_step


def plane(n: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def data(batch_size: int = 8) -> Given:
    return Given(PLANE, plane(512), batch_size=batch_size)


def test_smoothing_the_real_target_moves_the_best_discriminator_to_a_p_over_p_plus_q():
    toy = Toy(LoopOptions(label_smooth=0.9))
    p, q = torch.rand(
        2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).softmax(1)
    s = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [s],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        on_real, on_fake = toy.prices(s, s)
        loss = (p * on_real).sum() + (q * on_fake).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(s.sigmoid(), 0.9 * p / (p + q), atol=1e-5, rtol=0)


def test_smoothing_leaves_the_price_of_generated_rows_and_the_generators_loss_alone():
    s = torch.linspace(-3, 3, 7)
    smooth, plain = Toy(LoopOptions(label_smooth=0.8)), Toy()
    torch.testing.assert_close(smooth.prices(s, s)[1], plain.prices(s, s)[1])
    expected = nn.functional.binary_cross_entropy_with_logits(
        s, torch.full_like(s, 0.8), reduction="none"
    )
    torch.testing.assert_close(smooth.prices(s, s)[0], expected)
    smooth.load_state_dict(plain.state_dict())
    assert torch.equal(smooth.generator_loss(8)["loss"], plain.generator_loss(8)["loss"])


def test_flips_are_drawn_for_each_row_and_step_at_their_rate():
    n, rho = 20_000, 0.2
    toy = Toy(LoopOptions(label_flip=rho))
    s = torch.full((n,), 2.0)
    masks = []
    for _ in range(2):
        targets = (toy.price_real(s), toy.price_fake(s))
        for price, right, wrong in zip(toy.prices(s, s), targets, targets[::-1], strict=True):
            flipped = price == wrong
            assert torch.equal(price, torch.where(flipped, wrong, right))
            masks.append(flipped)
    error = 4 * math.sqrt(rho * (1 - rho) / n)
    assert all(abs(m.float().mean().item() - rho) < error for m in masks)
    both = [(a & b).float().mean().item() for i, a in enumerate(masks) for b in masks[:i]]
    assert all(
        abs(v - rho**2) < error for v in both
    )  # independent of each other, real, generated, and from step to step


@pytest.mark.parametrize(("step", "sigma"), [(0, 0.5), (10, 0.25), (20, 0.0), (30, 0.0)])
def test_instance_noise_falls_linearly_and_is_on_all_that_d_sees(step, sigma):
    quiet, noisy = Toy(), Toy(LoopOptions(instance_noise=0.5, instance_noise_steps=20))
    noisy.load_state_dict(quiet.state_dict())
    noisy._trainer = type("Clock", (), {"global_step": step})()
    for model in (quiet, noisy):
        model.noise = Noise(0, "test")
        model.discriminator_loss({"x": plane(4000)})
        model.generator_loss(4000)
    assert len(quiet.shown) == len(noisy.shown) == 3  # real, generated, and the generator's step
    noise = [b - a for a, b in zip(quiet.shown[:2], noisy.shown[:2], strict=True)]
    assert all(v.std().item() == pytest.approx(sigma, rel=0.05) for v in noise)
    if sigma:
        assert abs((noise[0] * noise[1]).mean()) < 0.02 * sigma**2 * 4
        spread = noisy.shown[2].var().item() - quiet.shown[2].var().item()
        assert spread == pytest.approx(sigma**2, rel=0.25)


@pytest.mark.parametrize("prior", ["normal", "uniform", "sphere"])
def test_codes_are_of_the_prior_in_training_and_in_sampling(prior):
    toy = Toy(prior=prior, latent=3)
    z = toy.draw_codes(40_000, toy.noise)
    if prior == "sphere":
        torch.testing.assert_close(z.norm(dim=1), torch.full((40_000,), math.sqrt(3)))
    assert z.mean(0).abs().max() < 0.03 and z.var().item() == pytest.approx(
        1 / 3 if prior == "uniform" else 1.0, rel=0.02
    )


def test_two_time_scales_are_the_two_players_rates():
    toy = Toy(lr_d=4e-3, lr_g=1e-3)
    before = {n: p.detach().clone() for n, p in toy.named_parameters()}
    fit(toy, data(), 1)  # Adam's first step moves each weight by its rate
    for name, p in toy.named_parameters():
        rate = 4e-3 if name.startswith("discriminator") else 1e-3
        torch.testing.assert_close(
            (p.detach() - before[name]).abs(), torch.full_like(p, rate), rtol=1e-3, atol=0
        )


def test_spectral_norm_gives_every_weight_of_d_the_largest_singular_value_one():
    model = GAN(DataSpec((1, 16, 16), 17), loop=LoopOptions(spectral_norm=True))
    x = torch.randn(4, 1, 16, 16)
    for _ in range(200):  # power iterations, one a pass
        model.discriminator(x)
    layers = [m for m in model.discriminator.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 3
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, abs=2e-3)
    assert not any(nn.utils.parametrize.is_parametrized(m) for m in model.generator.modules())
    other = GAN(DataSpec((1, 16, 16), 17), loop=LoopOptions(spectral_norm=True))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval().discriminator(x), model.eval().discriminator(x))


def test_r1_of_a_linear_discriminator_is_half_gamma_its_squared_weights_and_pulls_them_in():
    toy, plain = Toy(LoopOptions(r1=3.0)), Toy()
    plain.load_state_dict(toy.state_dict())
    phase = toy.phases()[0]
    w = toy.discriminator[0].weight
    terms = toy.regularised(phase, {"x": plane()}, toy.discriminator_loss({"x": plane()}))
    assert terms["r1"].item() == pytest.approx(1.5 * w.square().sum().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(terms["loss"], w)
    (without,) = torch.autograd.grad(
        plain.discriminator_loss({"x": plane()})["loss"], plain.discriminator[0].weight
    )
    torch.testing.assert_close(gradient - without, 3.0 * w.detach(), rtol=1e-4, atol=1e-6)


def test_r1_reads_real_rows_only_and_not_the_generators_turn():
    class Square(Toy):
        def judge(self, x, y=None):
            return x.square().sum(1) / 2 + 0 * super().judge(x)  # its gradient is x itself

    toy, x = Square(LoopOptions(r1=2.0)), plane()
    terms = toy.regularised(toy.phases()[0], {"x": x}, toy.discriminator_loss({"x": x}))
    assert terms["r1"].item() == pytest.approx(x.square().sum(1).mean().item(), rel=1e-5)
    assert "r1" not in toy.regularised(toy.phases()[1], 8, toy.generator_loss(8))


def test_replay_shows_half_new_and_half_past_samples_and_forgets_the_oldest():
    toy = Counting(LoopOptions(replay=24))
    fit(toy, data(), 8)
    fakes = [s[:, 0] for s in toy.shown[1::3]]  # of each cycle: real, generated, the generator's
    assert (fakes[0] == 0).all()
    for step, fake in enumerate(fakes[1:], 1):
        assert (fake[4:] == step).all(), "the second half is new"
        assert (fake[:4] < step).all() and (fake[:4] >= step - 3).all(), (
            "the first half is of the last 24 rows"
        )
    assert set(toy.replay_x[:, 0].tolist()) == {5.0, 6.0, 7.0}
    assert int(toy.replay_seen) == 64 and "replay_x" in toy.state_dict()


def test_replayed_rows_do_not_reach_the_generators_loss():
    toy = Counting(LoopOptions(replay=24))
    fit(toy, data(), 4)
    assert [set(s[:, 0].tolist()) for s in toy.shown[2::3]] == [{0.0}, {1.0}, {2.0}, {3.0}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_smooth": 1.2}, "1.2"),
        ({"label_smooth": 0.4}, "0.4"),
        ({"label_flip": 0.7}, "0.7"),
        ({"instance_noise": -1}, "-1"),
        ({"instance_noise_steps": 0}, "0"),
        ({"r1": -0.5}, "-0.5"),
        ({"replay": -3}, "-3"),
        ({"replay": 8, "accumulate": 2}, "accumulate=1"),
    ],
)
def test_values_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LoopOptions(**options)


def test_a_game_refuses_options_that_have_no_meaning_in_it():
    with pytest.raises(
        ValueError,
        match=r"loop.label_smooth has no meaning in wgan's game; it takes .*replay.*; leave it",
    ):
        WGAN(PLANE, loop=LoopOptions(label_smooth=0.9))


@pytest.mark.ddp
def test_all_options_together_train_the_same_on_two_processes():
    options = (
        "label_smooth=0.9",
        "label_flip=0.1",
        "instance_noise=0.3",
        "spectral_norm=true",
        "r1=1",
        "replay=300",
    )
    case = " ".join(["gan", *(f"--model.loop.{option}" for option in options)])
    assert len(Subject.of(*case.split()).model().loop.changed()) == len(options)
    found = ddp_differences((case,), steps=6)[case]
    assert not isinstance(found, str), found
    assert found[0] < 1e-12
