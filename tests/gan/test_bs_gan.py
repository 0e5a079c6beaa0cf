"""BS-GAN is BS-GAN: importance-weighted gradients of discrete samples, per code, and the boundary
for continuous ones.
"""

import itertools
import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.bases import LoopOptions
from zoo.check.processes import ddp_differences
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.bs_gan import BSGAN, draw_levels, importance_loss, log_mass, reinforce_loss

BITS = DataSpec((3,), 2)
WORLD = torch.tensor([*itertools.product([0.0, 1.0], repeat=3)])  # all 8 images of 3 bits


class Constant(nn.Module):
    """A generator of the same three logits, whatever the code."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, -0.8, 0.1]))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(z), 3)

    def masses(self) -> torch.Tensor:
        """g(x) of all 8 images."""
        return torch.distributions.Bernoulli(logits=self.logits).log_prob(WORLD).sum(1).exp()


class Table(nn.Module):
    """A discriminator with one free logit for each of the 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.s[((x > 0).long() * torch.tensor([4, 2, 1])).sum(-1)]


def three_bits(**options) -> BSGAN:
    model = BSGAN(BITS, **options)
    model.g, model.d.net = Constant(), Table()
    model.noise = Noise(0, "test")
    return model


def gradient(model: BSGAN, n: int = 4) -> torch.Tensor:
    return torch.autograd.grad(model.generator_loss(Batch({}, n))["loss"], model.g.logits)[0]


def test_gradient_is_that_of_the_divergence_from_the_reweighted_distribution():
    model = three_bits(samples=20_000)
    g = model.g.masses()
    target = (g * model.d.net.s.exp()).detach()
    target = target / target.sum()
    (exact,) = torch.autograd.grad((target * (target.log() - g.log())).sum(), model.g.logits)
    assert exact.abs().max() > 0.05
    torch.testing.assert_close(gradient(model), exact, atol=0.01, rtol=0)


def test_reinforce_gradient_is_that_of_the_reversed_divergence():
    model = three_bits(samples=20_000, g_loss="reinforce")
    g = model.g.masses()
    p = (g * model.d.net.s.exp()).detach()
    (exact,) = torch.autograd.grad(
        (g * (g.log() - g.detach().log() - (p / g.detach()).log())).sum(), model.g.logits
    )
    torch.testing.assert_close(gradient(model), exact, atol=0.02, rtol=0)


def test_weights_are_normalised_for_each_code_and_know_no_constant():
    s, log_g = torch.randn(5, 7), torch.randn(5, 7)
    expected = torch.stack([-(s[i].exp() / s[i].exp().sum() * log_g[i]).sum() for i in range(5)])
    torch.testing.assert_close(importance_loss(s, log_g), expected)
    torch.testing.assert_close(
        importance_loss(s + torch.randn(5, 1), log_g), expected
    )  # another constant for each code
    torch.testing.assert_close(importance_loss(0 * s + 3, log_g), -log_g.mean(1))
    flat = three_bits(samples=20)
    nn.init.constant_(flat.d.net.s, 1.7)
    assert flat.generator_loss(Batch({}, 8))["ess"].item() == pytest.approx(20, rel=1e-5)


def test_effective_sample_size_is_that_of_the_weights():
    model = three_bits(samples=6)
    terms = model.generator_loss(Batch({}, 4))
    u = Noise(0, "test")
    u.draws = 1
    levels = draw_levels(model.logits(torch.zeros(4, 3)), u.uniform(4, 6, 3))
    w = model.d(model.shown(levels)).exp()
    torch.testing.assert_close(terms["ess"], (w.sum(1) ** 2 / w.square().sum(1)).mean())
    torch.testing.assert_close(terms["w_mean"].float(), w.mean())
    torch.testing.assert_close(terms["log_w_mean"], w.log().mean())
    torch.testing.assert_close(terms["log_w_var"], w.log().square().mean() - w.log().mean() ** 2)


def test_reinforce_takes_the_running_log_z_where_it_is_kept():
    for running, log_z in ((True, 0.9), (False, None)):
        model = three_bits(samples=6, g_loss="reinforce", log_z=running)
        model.log_z.fill_(0.9)
        loss = model.generator_loss(Batch({}, 4))["loss"]
        noise = Noise(0, "test")
        noise.draws = 1  # after the codes
        p = model.g.logits.sigmoid().detach()
        x = (noise.uniform(4, 6, 3) >= 1 - p).float()
        s = model.d.net(x).detach()
        of_each = s.exp().mean(1, keepdim=True).log() if log_z is None else log_z
        log_g = (x * p.log() + (1 - x) * (1 - p).log()).sum(2)
        torch.testing.assert_close(loss.detach(), -((s - of_each - 1) * log_g).mean())


def test_what_the_discriminator_sees_and_what_is_sampled_are_draws_of_each_pixel():
    model = three_bits()
    p = model.g.logits.detach().sigmoid()
    shown = (model.made(8000) + 1) / 2
    sampled = model.sample(8000, generator=torch.Generator().manual_seed(0))
    again = model.sample(8000, generator=torch.Generator().manual_seed(1))
    for x in (shown, sampled, again):
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert (x.mean(0) - p).abs().max() < 0.02
        assert (x.T.corrcoef() - torch.eye(3)).abs().max() < 0.05
    assert not torch.equal(sampled, again)


def test_no_gradient_goes_through_the_weights_yet_the_generator_has_one():
    model = three_bits()
    model.generator_loss(Batch({}, 4))["loss"].backward()
    assert model.d.net.s.grad is None and model.g.logits.grad.abs().max() > 0
    s, log_g = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    for loss in (importance_loss(s, log_g), reinforce_loss(s, log_g, torch.tensor(0.0))):
        slopes = torch.autograd.grad(loss.sum(), [s, log_g], allow_unused=True)
        assert slopes[0] is None and slopes[1].abs().max() > 0
    through = torch.autograd.grad(-(s.softmax(1) * log_g).sum(), s)[0]  # what it would be
    assert through.abs().max() > 0.01


def test_steps_with_the_true_ratio_lead_to_the_nearest_generator():
    p = torch.randn(8).softmax(0)
    model = three_bits(samples=200)
    optimiser = torch.optim.SGD(model.g.parameters(), 0.5)
    marginals = p @ WORLD
    nearest = (
        torch.distributions.Bernoulli(marginals).log_prob(WORLD).sum(1)
    )  # of independent pixels

    def divergence(log_g):
        return (p * (p.log() - log_g)).sum().item()

    before = divergence(model.g.masses().log())
    for step in range(300):
        model.noise = Noise(0, step)
        model.d.net.s.data = (p / model.g.masses()).log().detach()
        model.g.logits.grad = gradient(model, 8)
        optimiser.step()
    after, least = divergence(model.g.masses().log()), divergence(nearest)
    assert before > least + 0.1 and after < least + 0.005


def test_continuous_samples_are_drawn_to_the_boundary_from_both_sides():
    model = BSGAN(DataSpec((2,)), mode="continuous", log_z=True)
    s = torch.tensor([-4.0, 0.0, 3.0], requires_grad=True)
    torch.testing.assert_close(
        torch.autograd.grad(model.d.price.maker(s).mean(), s)[0], s.detach() / 3
    )
    d = s.detach().sigmoid()
    torch.testing.assert_close(model.d.price.maker(s), 0.5 * (d.log() - (1 - d).log()) ** 2)
    model.log_z.fill_(0.7)
    torch.testing.assert_close(
        torch.autograd.grad(model.d.price.maker(s).mean(), s)[0], (s.detach() - 0.7) / 3
    )


@pytest.mark.parametrize(
    "options", [{"mode": "continuous"}, {"mode": "discrete", "g_loss": "reinforce"}]
)
def test_log_z_is_a_running_mean_of_the_mean_weights_logarithm(options):
    spec = BITS if options["mode"] == "discrete" else DataSpec((3,))
    model, seen = BSGAN(spec, log_z=True, width=8, **options), []
    after = model.after_cycle
    model.after_cycle = lambda terms: (seen.append(terms["w_mean"].item()), after(terms))
    fit(model, Given(spec, torch.randint(0, 2, (64, 3)).float()), 5)
    expected = 0.0
    for w in seen:
        expected = 0.995 * expected + 0.005 * math.log(w)
    assert model.log_z.item() == pytest.approx(expected, rel=1e-9) and expected != 0
    assert "log_z" in model.state_dict()


@pytest.mark.parametrize("levels", [2, 4])
def test_drawn_levels_have_the_stated_masses(levels):
    logits = torch.randn(1, 2, levels)
    drawn = draw_levels(logits, torch.rand(1, 40_000, 2))
    pairs = torch.tensor([*itertools.product(range(levels), repeat=2)])
    masses = log_mass(pairs[None], logits).exp()[0]
    assert masses.sum().item() == pytest.approx(1, abs=1e-5)
    frequency = (drawn[0, :, None] == pairs).all(2).float().mean(0)
    assert (frequency - masses).abs().max() < 0.012
    u = torch.tensor([[[0.0, 1 - 1e-7]]])
    assert draw_levels(logits, u).tolist() == [[[0, levels - 1]]]


def test_discriminator_sees_samples_not_probabilities():
    for spec, options, values in (
        (DataSpec((1, 8, 8), 2), {}, {-1.0, 1.0}),
        (DataSpec((1, 8, 8), 5), {"mode": "multinomial"}, {0.0, 1.0}),
    ):
        model = BSGAN(spec, **options)
        fake, real = (
            model.made(16),
            model.scaled(torch.randint(0, spec.levels, (16, *spec.shape)).float()),
        )
        assert (
            fake.shape == real.shape
            and set(fake.unique().tolist()) == set(real.unique().tolist()) == values
        )


def test_discriminator_is_shown_as_many_draws_of_each_code_as_it_asks_for():
    class Echo(nn.Module):
        """Logits that tell codes apart: bits that are 1 in half of the draws, or nearly always."""

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.where(z[:, :1] > 0, 30.0, 0.0).expand(-1, 3)

    model = three_bits(samples_d=400, latent=1)
    model.g = Echo()
    codes = model.codes(6)
    model.codes = lambda n: codes
    made = model.made(6).view(6, 400, 3)
    sure = codes[:, 0] > 0
    assert 0 < sure.sum() < 6 and (made[sure] == 1).all()
    assert ((made[~sure] > 0).float().mean(1) - 0.5).abs().max() < 0.12  # 4.8 deviations
    seen = []
    model.d.net.register_forward_pre_hook(lambda m, given: seen.append(len(given[0])))
    model.discriminator_loss(Batch({"x": WORLD[:6]}))
    assert sorted(seen) == [6, 2400]
    assert len(three_bits().made(6)) == 6


def test_one_hot_channels_are_the_levels():
    model, x = BSGAN(DataSpec((3, 2, 4), 5), mode="multinomial"), torch.randint(0, 5, (6, 3, 2, 4))
    shown = model.scaled(x.float())
    assert shown.shape == (6, 15, 2, 4)
    for c, level in itertools.product(range(3), range(5)):
        assert torch.equal(shown[:, 5 * c + level], (x[:, c] == level).float())
    assert torch.equal(model.shown(x.flatten(1)[:, None].expand(-1, 7, -1))[:, 3], shown)


@pytest.mark.parametrize(
    "options",
    [{"mode": "multinomial"}, {"mode": "multinomial", "arch": "conv"}, {"mode": "continuous"}],
)
def test_other_modes_sample_levels_and_train_with_the_loops_options(options):
    spec = DataSpec((1, 8, 8), 4)
    loop = LoopOptions(instance_noise=0.1, replay=12, r1=1.0, label_smooth=0.9)
    model = BSGAN(spec, latent=4, width=8, loop=loop, samples=3, **options)
    fit(model, Given(spec, torch.randint(0, 4, (64, 1, 8, 8)).float()), 3)
    x = model.eval().sample(50, generator=torch.Generator().manual_seed(0))
    assert x.shape == (50, 1, 8, 8) and set(x.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert all(torch.isfinite(v) for v in model.terms.values())


def test_pixel_mean_error_is_the_distance_of_the_mean_images():
    spec = DataSpec((1, 2, 2), 3)
    model = BSGAN(spec, mode="multinomial")
    x = torch.randint(0, 3, (100, 1, 2, 2)).float()
    model.initialise_from(Batch({"x": x}))
    error = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(1))["pixel_mean_error"]
    drawn = torch.cat(
        [model.sample(4000, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    )
    assert error.shape == (100,) and error[0].item() == pytest.approx(
        (drawn.mean(0) - x.mean(0)).abs().mean().item() / 2, abs=0.02
    )


def test_paper_networks_are_the_papers():
    model = BSGAN(DataSpec((1, 28, 28), 2), arch="conv", latent=100)
    layers = [
        m
        for net in (model.g, model.d.net)
        for m in net.modules()
        if hasattr(m, "weight") and m.weight.ndim > 1
    ]
    shapes = [tuple(m.weight.shape) for m in layers]
    assert shapes == [
        (1024, 100),
        (6272, 1024),
        (128, 64, 5, 5),
        (64, 1, 5, 5),
        (64, 1, 5, 5),
        (128, 64, 5, 5),
        (1024, 6272),
        (1, 1024),
    ]
    norms = [
        [m.num_features for m in net.modules() if hasattr(m, "running_mean")]
        for net in (model.g, model.d.net)
    ]
    assert norms == [[1024, 6272, 64], [64, 128, 1024]]
    assert model.logits(torch.randn(3, 100)).shape == (3, 784, 2) and model.d(
        torch.randn(3, 1, 28, 28)
    ).shape == (3,)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "binary"}, "binary"),
        ({"samples": 1}, "got 1"),
        ({"g_loss": "nonsat"}, "nonsat"),
        ({"mode": "continuous", "arch": "conv"}, "small"),
        (
            {"mode": "continuous", "g_loss": "reinforce"},
            r"g_loss .* mode=continuous, got 'reinforce'",
        ),
        ({"mode": "continuous", "samples_d": 3}, "samples_d=3 with mode=continuous"),
        ({"optimiser": "sgd"}, "sgd"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        BSGAN(BITS, **options)


def test_data_of_another_kind_are_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"bs_gan .* 2 levels.*; binarise .*--model\.mode=multinomial"
    ):
        BSGAN(DataSpec((1, 8, 8), 17))
    for mode in ("discrete", "multinomial"):
        with pytest.raises(
            ValueError,
            match=rf"bs_gan with mode={mode} .* levels, got .*; set --model\.mode=continuous",
        ):
            BSGAN(DataSpec((2,)), mode=mode)


def test_a_single_rows_weight_has_no_variance():
    model = BSGAN(DataSpec((2,)), mode="continuous")
    model.noise = Noise(0, "test")
    assert model.generator_loss(Batch({}, 1))["log_w_var"] == 0


def test_scores_are_single_precision_under_autocast():
    model = BSGAN(DataSpec((1, 8, 8), 2), arch="conv", latent=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.d(torch.randn(4, 1, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize("gradients", [(1.0, -3.0), (1e-5, 3e-5)])
def test_rmsprop_steps_are_lasagnes(gradients):
    model = BSGAN(BITS, optimiser="rmsprop", lr_d=0.1, lr_g=0.2)
    for player, rate in (("d", 0.1), ("g", 0.2)):
        p, optimiser = next(model.parameters_of(player)), model.optimisers()[player]
        before, mean = p.detach().clone(), 0.0
        for gradient in gradients:
            p.grad = torch.full_like(p, gradient)
            mean = 0.9 * mean + 0.1 * gradient**2
            before -= rate * gradient / math.sqrt(mean + 1e-6)
            optimiser.step()
        torch.testing.assert_close(p.detach(), before, atol=2e-3, rtol=0)


@pytest.mark.ddp
def test_two_processes_share_their_log_z():
    name = "bs_gan --model.log_z=true --model.g_loss=reinforce"
    found = ddp_differences((name,))[name]
    assert not isinstance(found, str), found
    assert found[0] < 1e-12
