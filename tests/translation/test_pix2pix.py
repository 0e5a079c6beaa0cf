"""What makes pix2pix itself: patches, skips, dropout as the only noise, and D's ½."""

import math

import pytest
import torch
from torch import nn

from zoo.core import DataSpec, Image, Spec
from zoo.core.noise import Noise
from zoo.nn.patches import PatchDiscriminator, by_image
from zoo.nn.prior import Draw
from zoo.nn.unet import UNet, dropped
from zoo.translation.pix2pix import GAME, Pix2Pix

SPEC = Spec("pairs", x=Image((3, 16, 16), 256), source=Image((1, 16, 16), 2))


def model(spec=SPEC, **options):
    torch.manual_seed(0)
    made = Pix2Pix(spec, width=4, widest=8, **options)
    made.noise = Noise(0, "check")
    return made


def batch(n=4, spec=SPEC):
    return spec.example(n, 1)


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch_of_exactly_so_many_pixels(layers, pixels):
    net = PatchDiscriminator(1, 2, layers, norm=lambda width: nn.Identity()).double()
    x = torch.rand(1, 1, 128, 128).double().requires_grad_()
    logits = net(x)
    middle = logits.shape[1] // 2
    logits[0, middle, middle].backward()
    rows, columns = (x.grad[0, 0].abs().sum(d).nonzero().flatten() for d in (1, 0))
    assert len(rows) == len(columns) == pixels
    assert rows[-1] - rows[0] == pixels - 1


def test_of_logits_that_are_zero_d_pays_ln_2_and_g_ln_2_and_lam_l1():
    m = model(lam=7.0, dropout=0.0)
    m.d.net.forward = lambda *images: torch.zeros(len(images[0]), 3, 3)
    rows = batch()
    assert math.isclose(m.discriminator_loss(rows)["loss"].item(), math.log(2), rel_tol=1e-6)
    terms = m.generator_loss(rows)
    made = m.g(rows["source"] * 2 - 1)
    l1 = (rows["x"] / 127.5 - 1 - made).abs().double().mean().item()
    assert terms["l1"].item() == pytest.approx(l1, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(math.log(2) + 7 * l1, rel=1e-5)


def test_prices_are_half_of_ds_binary_cross_entropy_and_all_of_gs():
    s = torch.linspace(-3, 3, 7)
    bce = nn.BCEWithLogitsLoss(reduction="none")
    assert torch.allclose(GAME.real(s), bce(s, torch.ones(7)) / 2)
    assert torch.allclose(GAME.fake(s), bce(s, torch.zeros(7)) / 2)
    assert torch.allclose(GAME.maker(s), bce(s, torch.ones(7)))


def test_two_draws_of_one_source_differ_by_their_dropout_alone():
    m, source = model().eval(), batch()["source"]

    def drawn(seed, **options):
        return m.translate(source, generator=torch.Generator().manual_seed(seed), **options)

    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))
    assert torch.equal(drawn(0, deterministic=True), drawn(1, deterministic=True))
    m.g.dropout = 0.0
    assert torch.equal(drawn(0), drawn(1)) and torch.equal(drawn(0), drawn(1, deterministic=True))


def test_d_is_shown_what_dropout_made_and_another_step_draws_anew():
    m, rows, shown = model(), batch(), []
    m.d.register_forward_hook(lambda d, inputs, out: shown.append(inputs[0].detach()))
    m.discriminator_loss(rows)
    plain = m.made(m.scaled("source", rows["source"])).detach()
    assert not torch.allclose(shown[1], plain, atol=1e-3)
    m.noise = Noise(1, "check")
    m.discriminator_loss(rows)
    assert not torch.equal(shown[1], shown[3]) and torch.equal(shown[0], shown[2])


def test_dropout_keeps_a_share_and_the_mean():
    h = torch.ones(200, 50)
    out = dropped(h, 0.25, Noise(0, "check"))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3]) and abs(out.mean() - 1) < 0.02
    assert dropped(h, 0.25, None) is h


def test_dropout_is_in_the_innermost_levels_after_the_bottleneck_alone():
    net = UNet(1, 1, (2, 4, 4, 4), dropout=0.5, noisy=2).double()
    seen = []
    for conv in net.up:
        conv.register_forward_hook(lambda m, i, out: seen.append(i[0].detach()))
    x = torch.rand(2, 1, 16, 16).double()
    net(x)
    clean = [*seen]
    seen.clear()
    net(x, Noise(0, "check", dtype=torch.float64))
    same = [torch.equal(a, b) for a, b in zip(clean, seen, strict=True)]
    assert same == [True, True, False, False]  # the inputs of the third and the fourth


def test_skips_carry_the_source_past_a_dead_bottleneck():
    def moved(skips):
        torch.manual_seed(0)
        net = UNet(1, 1, (4, 8, 8, 8), skips=skips)
        nn.init.zeros_(net.up[0].weight)
        x = torch.rand(2, 1, 16, 16)
        return (net(x) - net(x.flip(0))).abs().max().item()

    assert moved(True) > 1e-3 and moved(False) == 0


def test_norms_stand_where_the_paper_has_them():
    net = UNet(3, 3, (4, 8, 8, 8))
    normed = [not isinstance(m, nn.Identity) for m in net.down_norms]
    assert normed == [False, True, True, False] and len(net.up_norms) == 3
    assert isinstance(net.up_norms[0], nn.InstanceNorm2d) and net.up_norms[0].affine
    d = PatchDiscriminator(3, 4, 3).net
    norms = [i for i, m in enumerate(d) if isinstance(m, nn.InstanceNorm2d)]
    convs = [i for i, m in enumerate(d) if isinstance(m, nn.Conv2d)]
    assert len(convs) == 5 and norms == [i + 1 for i in convs[1:-1]]
    assert [d[i].stride[0] for i in convs] == [2, 2, 2, 1, 1]
    assert [d[i].out_channels for i in convs] == [4, 8, 16, 32, 1]


def test_d_is_shown_the_source_unless_it_is_not_to_be():
    rows, other = batch(), batch()["source"].flip(0)
    for told in (True, False):
        m = model(conditional_d=told)
        x, s = m.scaled("x", rows["x"]), m.scaled("source", rows["source"])
        t = m.scaled("source", other)
        one, two = m.d(*m.judged(x, s)), m.d(*m.judged(x, t))
        assert torch.equal(one, two) != told


def test_gradients_stay_with_their_player_and_ablations_leave_their_part_out():
    rows = batch()
    m = model()
    m.discriminator_loss(rows)["loss"].backward()
    assert all(p.grad is None for p in m.g.parameters())
    assert all(p.grad is not None for p in m.d.parameters())
    assert [p.player for p in m.phases()] == ["d", "g"]
    alone = model(gan=False)
    terms = alone.generator_loss(rows)
    assert terms["loss"].item() == pytest.approx(100 * terms["l1"].item())
    assert [p.player for p in alone.phases()] == ["g"] and [*alone.players()] == ["g"]
    free = model(lam=0.0)
    free.d.net.forward = lambda *images: torch.zeros(len(images[0]), 3, 3)
    assert free.generator_loss(rows)["loss"].item() == pytest.approx(math.log(2))


def test_an_image_knows_of_others_only_by_batch_norm():
    source = batch(6)["source"]
    for norm, talks in (("instance", False), ("batch", True)):
        m = model(norm=norm)
        for mode in (m.train(), m.eval()):
            alone = mode.translate(source[:1], deterministic=True)
            together = mode.translate(source, deterministic=True)[:1]
            assert ((alone - together).abs().max() > 2) == talks, norm
        assert not any(isinstance(b, nn.Module) and "running" in n for n, b in m.named_buffers())


def test_a_batch_norm_of_one_image_is_the_instance_norm():
    h = torch.rand(1, 3, 8, 8)
    one = nn.BatchNorm2d(3, track_running_stats=False)
    assert torch.allclose(one(h), by_image(3)(h), atol=1e-5)


def test_diversity_is_the_deviation_of_a_pixel_on_the_unit_interval():
    m, rows = model().eval(), batch()
    found = m.evaluate(rows, torch.Generator().manual_seed(3))["diversity"]
    noise = Draw(torch.Generator().manual_seed(3), dtype=torch.float32)
    s = m.scaled("source", rows["source"])
    draws = torch.stack([(m.made(s, noise) + 1) / 2 for _ in range(5)])
    assert torch.allclose(found, draws.std(0).flatten(1).mean(1), atol=1e-6)


def test_rates_fall_to_one_over_the_steps_and_one():
    m = model(decay_start=10, decay_end=20, k=2)
    optimisers = m.optimisers()
    scheduled = m.schedulers(optimisers)
    rates = {"d": [], "g": []}
    for name, times in (("d", 2), ("g", 1)):
        for _ in range(20 * times):
            rates[name].append(optimisers[name].param_groups[0]["lr"] / 2e-4)
            optimisers[name].step()
            scheduled[name].step()
    assert rates["g"][:10] == [1.0] * 10 and rates["g"][10] == pytest.approx(10 / 11)
    assert rates["g"][19] == pytest.approx(1 / 11) and rates["d"][::2] == pytest.approx(rates["g"])
    assert model().schedulers(optimisers) == {}


def test_weights_begin_small_and_biases_at_zero():
    m = model()
    for p in (m.g.down[2].weight, m.d.net.net[2].weight):
        assert p.std().item() == pytest.approx(0.02, rel=0.25)
    assert not m.g.down[0].bias.any() and not m.g.up[-1].bias.any()
    assert m.g.up_norms[0].weight.std() > 0


def test_any_size_of_the_grain_is_translated():
    m = model()
    wide = torch.randint(2, (2, 1, 32, 48)).float()
    assert m.grain == 16 and m.translate(wide).shape == (2, 3, 32, 48)
    assert m.translate(wide).min() >= 0 and m.translate(wide).max() <= 255


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gan": False, "lam": 0.0}, "nothing to learn by"),
        ({"levels": 5}, "multiples of 32"),
        ({"layers": 3}, "set layers to 2"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        model(**options)


def test_other_sizes_of_source_and_image_are_refused():
    small = Spec("sr", x=Image((3, 16, 16), 256), source=Image((3, 8, 8), 1021))
    with pytest.raises(ValueError, match="one size"):
        model(small)
    with pytest.raises(ValueError, match="needs images called source"):
        model(DataSpec((3, 16, 16), 256))
