"""What makes AffGAN itself: the plane that it never leaves, and a loss that is a divergence."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zoo.bases import LoopOptions
from zoo.core import Image, Spec
from zoo.core.noise import Noise
from zoo.translation.affgan import GAME, AffGAN, Denoiser, Residual, slope, surrogate

SPEC = Spec("pairs", x=Image((3, 16, 16), 256), source=Image((3, 4, 4), 4081))
TENT = [1.0, 3, 5, 7, 7, 5, 3, 1]


def model(spec=SPEC, **options):
    torch.manual_seed(0)
    made = AffGAN(spec, width=4, blocks=1, **options)
    made.noise = Noise(0, "check")
    return made


def batch(n=4, spec=SPEC):
    return spec.example(n, 1)


def at(monkeypatch, step):
    monkeypatch.setattr(AffGAN, "step", property(lambda self: step))


@pytest.mark.parametrize("kernel", [[], TENT])
def test_of_random_weights_too_what_is_made_is_the_source_made_larger(kernel):
    m = model(kernel=kernel)
    for p in m.g.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    s = m.scaled("source", batch()["source"])
    made = m.g(s)
    assert made.abs().max() > 1.5 and (m.a.down(made) - s).abs().max() < 1e-5
    assert (made - m.a.project(made, s)).abs().max() < 1e-5
    small = m.made(m.scaled("source", batch()["source"]))
    assert torch.equal(made, small)


def test_what_is_made_of_a_source_is_the_part_of_f_that_the_source_does_not_say():
    m = model().double()
    s = m.scaled("source", batch()["source"].double())
    f = m.g.f(s)
    blocks = f.view(4, 3, 4, 4, 4, 4).mean((3, 5))
    wanted = f - blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    wanted = wanted + s.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(m.g(s), wanted)


def test_display_alone_rounds_and_clamps():
    m, rows = model(), batch()
    torch.nn.init.normal_(m.g.f.end[1].weight, 0, 1)
    made = m.g(m.scaled("source", rows["source"]))
    assert torch.equal(m.translate(rows["source"]), ((made + 1) * 127.5).round().clamp(0, 255))
    assert made.min() < -1 and made.max() > 1
    assert torch.equal(m.sample(4, source=rows["source"]), m.translate(rows["source"]))


def test_minus_the_best_ds_logit_is_the_divergence_in_the_mean():
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    logit = -(x.square() - (x - 1).square()) / 2  # log p - log q of N(0, 1) and N(1, 1)
    assert abs(GAME.maker(logit).mean() - 0.5) < 0.02
    d = logit.sigmoid()
    assert abs(-d.log().mean() - 0.5) > 0.1
    assert torch.allclose(GAME.maker(logit), -(d / (1 - d)).log())
    assert torch.allclose(GAME.real(logit), -d.log())
    assert torch.allclose(GAME.fake(logit), -(1 - d).log())


def test_gs_loss_is_linear_in_the_logit():
    m, rows = model(), batch(5)
    for s in (-20.0, 0.0, 30.0):
        logits = torch.full((5,), s, requires_grad=True)
        m.d.net.forward = lambda x, logits=logits: logits
        terms = m.generator_loss(rows)
        assert terms["loss"].item() == terms["kl_est"].item() == pytest.approx(-s)
        (slopes,) = torch.autograd.grad(terms["loss"], logits)
        assert torch.allclose(slopes, torch.full((5,), -1 / 5))


def test_the_surrogate_descends_minus_the_score_that_a_denoiser_knows():
    sigma = 0.7
    x = torch.randn(5, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    loss = surrogate(x, x.detach(), x / (1 + sigma**2), sigma)
    assert loss.shape == (5,)
    (found,) = torch.autograd.grad(loss.sum(), x)
    log_p = torch.distributions.Normal(0.0, math.sqrt(1 + sigma**2)).log_prob(x).sum()
    assert torch.allclose(found, -torch.autograd.grad(log_p, x)[0])
    assert torch.allclose(found, x / (1 + sigma**2))


def test_the_denoisers_turns_are_of_noise_of_sigma_and_the_maker_sees_its_answer():
    m, rows = model(mode="denoiser", sigma=0.5), batch(64)
    seen, inner = [], m.d.forward
    m.d.forward = lambda v: seen.append(v.detach()) or inner(v)
    x, s = m.scaled("x", rows["x"]), m.scaled("source", rows["source"])
    loss = m.denoiser_loss(rows.only(["x"]))["loss"]
    assert loss.item() == pytest.approx((inner(seen[0]) - x).square().mean().item(), rel=1e-5)
    assert (seen[0] - x).std().item() == pytest.approx(0.5, rel=0.02)
    made = m.g(s)
    terms = m.generator_loss(rows)
    noisy = seen[1] - made.detach()
    assert noisy.std().item() == pytest.approx(0.5, rel=0.02)
    wanted = (made * (seen[1] - inner(seen[1])) / 0.25).flatten(1).sum(1).mean()
    assert terms["loss"].item() == pytest.approx(wanted.item(), rel=1e-3)
    terms["loss"].backward()
    assert all(p.grad is None for p in m.d.parameters())
    assert any(p.grad.abs().max() > 0 for p in m.g.parameters())


@pytest.mark.parametrize(("step", "sigma"), [(0, 0.2), (30, 0.14), (99, 0.002), (100, 0), (500, 0)])
def test_noise_of_one_strength_is_on_images_and_on_what_is_made_and_ends(monkeypatch, step, sigma):
    at(monkeypatch, step)
    m, rows, seen = model(fade=100), batch(64), []
    m.d.net.register_forward_hook(lambda net, inputs, out: seen.append(inputs[0].detach()))
    x, made = m.scaled("x", rows["x"]), m.g(m.scaled("source", rows["source"])).detach()
    m.discriminator_loss(rows)
    m.generator_loss(rows)
    apart = [(v - w).std().item() for v, w in zip(seen, (x, made, made), strict=True)]
    assert apart == pytest.approx([sigma] * 3, rel=0.02, abs=1e-6)


def test_d_judges_images_alone_and_pairs_do_not_matter():
    m, rows = model(), batch()
    mixed = type(rows)({"x": rows["x"].flip(0), "source": rows["source"]}, rows.n)
    apart = [m.generator_loss(r)["loss"].item() for r in (rows, mixed)]
    m.noise = Noise(0, "check")
    again = m.generator_loss(mixed)["loss"].item()
    assert apart[0] == again and m.d.net.stages[0][0].in_channels == 3
    m.discriminator_loss(rows)["loss"].backward()
    assert all(p.grad is None for p in m.g.parameters())
    assert all(p.grad is not None for p in m.d.parameters())


def test_in_mode_mse_and_in_warmup_g_descends_the_error_and_nobody_else_moves(monkeypatch):
    rows = batch()
    for m, step in ((model(mode="mse"), 7), (model(warmup=8), 7)):
        at(monkeypatch, step)
        made = m.g(m.scaled("source", rows["source"]))
        wanted = (made - m.scaled("x", rows["x"])).square().mean().item()
        terms = m.generator_loss(rows)
        assert terms["loss"].item() == terms["mse"].item() == pytest.approx(wanted)
        assert sum(p.times(7) for p in m.phases() if p.player == "d") == 0
    at(monkeypatch, 8)
    assert "kl_est" in m.generator_loss(rows) and [p.times(8) for p in m.phases()] == [1, 1]
    assert [*model(mode="mse").players()] == ["g"] and not hasattr(model(mode="mse"), "d")
    assert model(k=3, warmup=2).judge_steps(1) == 0 and model(k=3, warmup=2).judge_steps(2) == 3


def test_f_is_a_residual_network_at_the_sources_size_and_a_shuffle():
    f = Residual(3, 8, 2, 4).double()
    y = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    h = f.begin(y)
    for block in f.blocks:
        h = h + block[3](block[1](h.relu()).relu())
    maps = f.end[1](h.relu()).view(2, 3, 4, 4, 4, 5)
    assert torch.allclose(f(y), maps.permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 16, 20))
    r = Denoiser(3, 8, 1).double()
    torch.nn.init.zeros_(r.net.end[1].weight)
    torch.nn.init.zeros_(r.net.end[1].bias)
    assert torch.equal(r(y), y)


def test_logged_are_the_largest_contradiction_the_sharpness_and_the_divergence():
    m, rows = model().eval(), batch()
    s, x = m.scaled("source", rows["source"]), m.scaled("x", rows["x"])
    terms = m.evaluate(rows)
    assert terms["lr_consistency"].shape == (4,) and terms["lr_consistency"].max() < 1e-6
    assert torch.allclose(terms["kl_est"], -m.d.net(m.g(s)))
    dy, dx = (np.diff(x.numpy(), axis=a) for a in (2, 3))
    wanted = np.hypot(dy[..., :-1], dx[..., :-1, :]).mean((1, 2, 3))
    assert torch.allclose(slope(x), torch.from_numpy(wanted), atol=1e-5)
    assert torch.allclose(terms["sharpness"], slope(m.g(s)) / slope(x))
    bump = torch.zeros(4, 3, 16, 16)
    bump[2, :, :4, :4] = 0.5
    m.g.forward = lambda y: m.a.up(y) + bump
    found = m.evaluate(rows)["lr_consistency"]
    assert found.tolist() == pytest.approx([0, 0, 0.25, 0], abs=1e-6)
    assert "kl_est" not in model(mode="mse").evaluate(rows)


def test_d_watches_its_mean_probabilities():
    m, rows = model(), batch()
    m.noise = Noise(0, "check")
    m.d.net.forward = lambda v: torch.full((len(v),), math.log(3.0))
    terms = m.discriminator_loss(rows)
    assert terms["d_real"].item() == pytest.approx(0.75) == terms["d_fake"].item()


def test_any_size_of_a_source_is_made_as_much_larger():
    for kernel in ([], TENT):
        wide = torch.randint(4081, (2, 3, 5, 7)).float()
        made = model(kernel=kernel).translate(wide)
        assert made.shape == (2, 3, 20, 28) and made.min() >= 0 and made.max() <= 255


def pairs(x, source):
    return Spec("pairs", x=Image(x, 256), source=Image(source, 256))


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        (pairs((3, 16, 16), (3, 16, 16)), {}, "made larger by a whole number"),
        (pairs((3, 16, 16), (1, 4, 4)), {}, "as many channels"),
        (pairs((3, 16, 16), (3, 4, 8)), {}, "made larger by a whole number"),
        (pairs((3, 12, 18), (3, 6, 9)), {}, "multiples of 4"),
        (SPEC, {"loop": LoopOptions(instance_noise=0.1)}, "set model.sigma and model.fade"),
        (SPEC, {"kernel": [1.0, 1.0, 1.0]}, "an even number"),
        (SPEC, {"kernel": [1.0] * 32}, "give a shorter"),
    ],
)
def test_what_cannot_be_is_refused(spec, options, said):
    with pytest.raises(ValueError, match=said):
        model(spec, **options)
    assert model(pairs((3, 12, 18), (3, 6, 9)), mode="mse").a.s == 2


def test_options_reach_what_they_name():
    m = model(lr_d=3e-4, lr_g=5e-4, beta1=0.1, norm="batch")
    rates = {k: o.param_groups[0] for k, o in m.optimisers().items()}
    assert rates["d"]["lr"] == 3e-4 and rates["g"]["lr"] == 5e-4
    assert rates["g"]["betas"] == (0.1, 0.999)
    assert any(isinstance(n, torch.nn.BatchNorm2d) for n in m.d.modules())
    assert SimpleNamespace(**vars(m.loop)).instance_noise == 0.2
