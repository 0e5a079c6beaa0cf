"""ProGAN is ProGAN: levels faded in for made and real images alike, by images shown; a critic with
a wanted slope and a drift.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.bases import AdversarialModule
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.progan import ProGAN, between, penalty
from zoo.nn.equalised import pixel_norm
from zoo.nn.growth import Growth

SPEC = DataSpec((1, 16, 16), 17)
F64 = torch.float64


def make(shown: int = 10**9, **options) -> ProGAN:
    torch.manual_seed(0)
    small = {"latent": 5, "width": 2, "widest": 4, "fade": 40, "steady": 100, **options}
    model = ProGAN(SPEC, **small).double()
    model.noise = Noise(3, "test", dtype=F64)
    model.shown.fill_(shown)
    return model


def images(n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(1)
    return Batch({"x": torch.randint(0, 17, (n, 1, 16, 16), generator=g).double()})


class Sum(nn.Module):
    """D(x) = a Σ x, whose slope is a √pixels everywhere."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=F64))

    def forward(self, x: torch.Tensor, alpha: float) -> torch.Tensor:
        return self.a * x.flatten(1).sum(1)


@pytest.mark.parametrize("level", [1, 2])
def test_a_new_level_begins_as_the_old_one_doubled(level):
    model, z = make(), torch.randn(3, 5, dtype=F64)
    old, new = model.g(z, level - 1), model.g(z, level, 0.0)
    assert new.shape[2] == 2 * old.shape[2] == 4 << level
    torch.testing.assert_close(new, old.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_between_two_levels_the_image_is_on_the_line_and_in_the_end_the_old_layer_is_idle():
    model, z = make(), torch.randn(3, 5, dtype=F64)
    start, middle, end = (model.g(z, 2, alpha) for alpha in (0.0, 0.25, 1.0))
    torch.testing.assert_close(middle, 0.75 * start + 0.25 * end)
    end.square().sum().backward()
    assert [layer.weight.grad is None for layer in model.g.to_image] == [True, True, False]


def test_real_images_are_faded_in_alike():
    model, v = make(), torch.randn(2, 1, 16, 16, dtype=F64)
    model.shown.fill_(250)  # level 2, α = 1/4
    coarse = v.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    up = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(model.at_level(v), 0.25 * v + 0.75 * up)
    model.shown.fill_(140)
    torch.testing.assert_close(model.at_level(v), coarse)
    model.shown.fill_(0)
    torch.testing.assert_close(model.at_level(v), F.avg_pool2d(v, 4))
    model.shown.fill_(280)
    assert torch.equal(model.at_level(v), v)


def test_the_critic_sees_real_and_made_images_of_one_level_and_share():
    model, seen = make(shown=110), []
    model.d.net.register_forward_pre_hook(lambda net, given: seen.append(given))
    model.discriminator_loss(images())
    assert [x.shape[2] for x, _ in seen] == [8, 8, 8] and {alpha for _, alpha in seen} == {0.25}
    torch.testing.assert_close(seen[0][0], model.at_level(SPEC.to_signed(images()["x"])))
    z = Noise(3, "test", dtype=F64).normal(8, 5)
    torch.testing.assert_close(seen[1][0], model.g(z, 1, 0.25))
    seen.clear()
    model.generator_loss(Batch({}, 8))
    assert seen[0][0].shape[2] == 8 and seen[0][1] == 0.25


def test_the_loss_is_the_papers_term_by_term():
    a, gamma = 0.3, 2.0
    model = make(lam=7.0, gamma=gamma, drift=0.1)
    model.d.net = Sum(a)
    terms = model.discriminator_loss(images())
    x = SPEC.to_signed(images()["x"])
    made = model.g(Noise(3, "test", dtype=F64).normal(8, 5), 2).detach()
    s, t = a * x.flatten(1).sum(1), a * made.flatten(1).sum(1)
    gp = 7 / gamma**2 * (16 * a - gamma) ** 2
    drift = 0.1 * (s**2).mean()
    assert terms["gp"].item() == pytest.approx(gp) and terms["drift"].item() == pytest.approx(
        drift.item()
    )
    torch.testing.assert_close(terms["w_est"], s.mean() - t.mean())
    torch.testing.assert_close(terms["loss"], t.mean() - s.mean() + gp + drift)
    assert terms["level"] == 2 and terms["alpha"] == 1
    model.noise = Noise(3, "test", dtype=F64)
    torch.testing.assert_close(model.generator_loss(Batch({}, 8))["loss"], -t.mean())


def test_drift_pulls_the_values_of_real_images_alone_by_two_epsilon_over_the_batch():
    model = make(lam=0.0, drift=0.5)
    kept = []
    model.d.net.register_forward_hook(lambda net, given, s: kept.append(s) or s.retain_grad())
    model.discriminator_loss(images())["drift"].backward()
    real, made = kept[:2]
    torch.testing.assert_close(real.grad, 2 * 0.5 * real.detach() / 8)
    assert made.grad is None and all(p.grad is None for p in model.g.parameters())


def test_no_gradient_reaches_the_generator_in_the_critics_turn():
    model = make()
    model.discriminator_loss(images())["loss"].backward()
    assert all(p.grad is None for p in model.g.parameters())
    assert all(p.grad.abs().max() > 0 for p in model.d.net.last.parameters())


def test_points_of_the_penalty_lie_between_pairs_with_one_share_an_image():
    x, made = torch.randn(2, 5, 1, 4, 4, dtype=F64)
    u = torch.rand(5, dtype=F64)
    for row in range(5):
        torch.testing.assert_close(between(x, made, u)[row], torch.lerp(made[row], x[row], u[row]))
    assert penalty(torch.tensor([750.0, 0.0, 1500.0]), 750.0).tolist() == [0, 1, 1]


def test_the_slope_is_taken_between_real_and_made_images():
    model, seen = make(), []
    model.d.net.register_forward_pre_hook(lambda net, given: seen.append(given[0].detach()))
    model.discriminator_loss(images())
    noise = Noise(3, "test", dtype=F64)
    noise.normal(8, 5)
    u = noise.uniform(8).view(8, 1, 1, 1)
    torch.testing.assert_close(seen[2], u * seen[0] + (1 - u) * seen[1])


def test_every_convolution_of_the_generator_is_followed_by_pixel_norm_and_codes_begin_with_it():
    model, z = make(), torch.randn(3, 5, dtype=F64)
    torch.testing.assert_close(model.g(7 * z, 2), model.g(z, 2))
    seen = []
    for module in [model.g.first, *(c for b in model.g.blocks for c in b), *model.g.to_image]:
        module.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    model.g(z, 2)
    assert len(seen) == 6
    for h in seen:
        torch.testing.assert_close(h, pixel_norm(h), rtol=1e-3, atol=1e-3)
        negative = h[h < 0].abs().mean() / h[h > 0].mean()
        assert 0.05 < negative < 0.6  # leaky


def test_level_and_share_follow_the_images_of_all_processes():
    model = make(shown=0)
    assert model.growth == Growth(3, 40, 100)
    fit(model, Given(SPEC, images(96)["x"], batch_size=8), 14, precision="64-true")
    assert int(model.shown) == 14 * 8 and model.level == 1 and model.alpha == 12 / 40
    model = make(shown=0, k=2)
    fit(model, Given(SPEC, images(96)["x"], batch_size=8), 3, precision="64-true")
    assert int(model.shown) == 3 * 2 * 8 and model.shown.dtype == torch.int64


def test_images_of_four_processes_count_four_times(monkeypatch):
    class Trainer:
        world_size, optimizers = 4, []

    trainer, model = Trainer(), make(shown=90)
    monkeypatch.setattr(AdversarialModule, "training_step", lambda self, batch, i: None)
    model.trainer = trainer
    model.training_step(images(8), 0)
    assert int(model.shown) == 90 + 4 * 8 and (model.level, model.alpha) == (1, 22 / 40)


def test_optimisers_begin_anew_where_the_level_changes_and_nowhere_else():
    model, steps = make(shown=0, steady=24, fade=16), []
    base = model.after_cycle

    def watch(terms):
        base(terms)
        steps.append({int(s["step"]) for o in model.trainer.optimizers for s in o.state.values()})

    model.after_cycle = watch
    fit(model, Given(SPEC, images(96)["x"], batch_size=8), 9, precision="64-true")
    # levels: 24 images; 16 + 24; the rest
    assert [max(s) for s in steps] == [1, 2, 3, 1, 2, 3, 4, 5, 1]


def test_samples_of_an_early_level_are_its_images_doubled_to_the_datas_size():
    model = make(shown=0).eval()
    x = model.sample(4, generator=torch.Generator().manual_seed(0))
    assert x.shape == (4, 1, 16, 16)
    coarse = x[:, :, ::4, ::4]
    assert torch.equal(x, coarse.repeat_interleave(4, 2).repeat_interleave(4, 3))
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert torch.equal(coarse, SPEC.from_signed(model.g(z, 0)))
    model.shown.fill_(250)
    assert torch.equal(model.from_codes(z), SPEC.from_signed(model.g(z, 2, 0.25)))


def test_the_held_out_estimate_is_of_the_level_at_hand():
    model = make(shown=110).eval()
    values = model.evaluate(images(), torch.Generator().manual_seed(0))
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = model.at_level(SPEC.to_signed(images()["x"]))
    expected = model.d.net(x, 0.25) - model.d.net(model.g(z, 1, 0.25), 0.25)
    torch.testing.assert_close(values["w_est"], expected)
    assert expected.std() > 0


def test_the_network_at_1024_is_the_papers():
    with torch.device("meta"):
        model = ProGAN(DataSpec((3, 1024, 1024), 256), latent=512, width=16, widest=512)
    count = {
        name: sum(p.numel() for p in net.parameters()) for name, net in model.players().items()
    }
    assert [c.in_channels for c in model.g.to_image] == [512] * 4 + [256, 128, 64, 32, 16]
    # 23.1 million each (table 2), without the input and output layers of the lower levels
    idle = sum(p.numel() for c in model.g.to_image[:-1] for p in c.parameters())
    assert abs(count["g"] - idle - 23.1e6) < 1e5
    idle = sum(p.numel() for c in model.d.net.from_image[:-1] for p in c.parameters())
    assert abs(count["d"] - idle - 23.1e6) < 1e5


@pytest.mark.parametrize("option", ["replay", "spectral_norm", "separate_batches"])
def test_options_without_meaning_are_refused(option):
    value = {"replay": 8, "spectral_norm": True, "separate_batches": False}[option]
    with pytest.raises(ValueError, match=f"loop.{option}.*progan"):
        ProGAN(SPEC, loop={option: value})
