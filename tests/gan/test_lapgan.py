"""LAPGAN is LAPGAN: a pyramid that gives the image back, a game of its own at each level, and
samples from coarse to fine.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.lapgan import LAPGAN, DetailDiscriminator, built, pyramid_of, u

SPEC = DataSpec((2, 8, 8), 17, 3)
F64 = torch.float64


def make(**options) -> LAPGAN:
    torch.manual_seed(0)
    model = LAPGAN(SPEC, **{"latent": 4, "hidden": 8, "width": 4, **options}).double()
    model.noise = Noise(3, "test", dtype=F64)
    return model


def images(n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(1)
    x = torch.randint(0, 17, (n, 2, 8, 8), generator=g).double()
    return Batch({"x": x, "y": torch.arange(n) % 3})


def pyramid_by_hand(model: LAPGAN, x: torch.Tensor) -> list[torch.Tensor]:
    """I_0, I_1, I_2 by strides."""
    found = [SPEC.to_signed(x)]
    for _ in range(2):
        v = found[-1]
        parts = [v[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        found.append(torch.stack(parts).mean(0))
    return found


def test_the_details_and_the_smallest_image_give_the_image_back():
    x = torch.randn(3, 2, 8, 8, dtype=F64)
    pyramid = pyramid_of(x, 2)
    details = [pyramid[k] - u(pyramid[k + 1]) for k in (1, 0)]
    assert [v.shape[2] for v in pyramid] == [8, 4, 2]
    torch.testing.assert_close(built(pyramid[2], details), x, rtol=0, atol=1e-12)
    assert all(F.avg_pool2d(h, 2).abs().max() < 1e-12 for h in details)  # nothing coarse in them


@pytest.mark.parametrize("level", [0, 1])
def test_both_players_of_a_level_are_given_the_real_coarser_image(level):
    model, seen = make(), {"d": [], "g": []}
    model.d[level].net.register_forward_pre_hook(lambda net, given: seen["d"].append(given))
    model.g[level].register_forward_pre_hook(lambda net, given: seen["g"].append(given))
    model.discriminator_loss(images(), level)
    model.generator_loss(images(), level)
    pyramid = pyramid_by_hand(model, images()["x"])
    l_k = pyramid[level + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    for _, given, _ in seen["d"]:
        torch.testing.assert_close(given, l_k)
    for z, given, _ in seen["g"]:
        torch.testing.assert_close(given, l_k)
        assert z.shape == (8, 1, *l_k.shape[2:]) and z.min() < -0.9 and z.max() > 0.9
    torch.testing.assert_close(seen["d"][0][0], pyramid[level] - l_k)
    assert torch.equal(seen["d"][1][0], model.g[level](*seen["g"][0]))
    assert not torch.equal(seen["g"][0][0], seen["g"][1][0])  # fresh noise


def test_the_coarsest_game_is_a_plain_one_of_small_images():
    model, seen = make(), []
    model.d[2].net.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    model.discriminator_loss(images(), 2)
    torch.testing.assert_close(seen[0], pyramid_by_hand(model, images()["x"])[2])
    z = Noise(3, "test", dtype=F64).uniform(8, 4, low=-1.0)
    torch.testing.assert_close(seen[1], model.g[2](z, torch.zeros(8, 0, dtype=F64)))
    assert seen[1].abs().max() < 1


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_losses_are_cross_entropies_of_the_levels_own_logits(level, g_loss):
    model = make(g_loss=g_loss)
    loss = model.discriminator_loss(images(), level)["loss"]
    model.noise = Noise(3, "test", dtype=F64)
    maker = model.generator_loss(images(), level)["loss"]
    real, told = model.given(level, images())
    shape = (4,) if level == 2 else (1, *real.shape[2:])
    z = Noise(3, "test", dtype=F64).uniform(8, *shape, low=-1.0)
    s, t = model.d[level].net(real, *told), model.d[level].net(model.g[level](z, *told), *told)
    expected = -s.sigmoid().log().mean() - (1 - t.sigmoid()).log().mean()
    torch.testing.assert_close(loss, expected)
    pays = -t.sigmoid().log() if g_loss == "nonsat" else (1 - t.sigmoid()).log()
    torch.testing.assert_close(maker, pays.mean())


def test_a_players_step_has_no_gradient_elsewhere():
    for level in range(3):
        for kind in ("discriminator", "generator"):
            model = make()
            getattr(model, f"{kind}_loss")(images(), level)["loss"].backward()
            players = {name: [*net.parameters()] for name, net in model.players().items()}
            got = {name for name, ps in players.items() if any(p.grad is not None for p in ps)}
            both = {f"d{level}", f"g{level}"}
            assert got == ({f"d{level}"} if kind == "discriminator" else both)


def test_every_level_takes_its_own_turns_from_coarse_to_fine():
    model, moved = make(k=2), []
    model.after_step = moved.append
    fit(model, Given(SPEC, images(96)["x"], images(96)["y"], batch_size=4), 1, precision="64-true")
    assert moved == ["d2", "d2", "g2", "d1", "d1", "g1", "d0", "d0", "g0"]
    assert model.steps_of("d0") == 2 and model.steps_of("g0") == 1


def test_samples_grow_on_what_was_made_and_the_pyramid_shows_it():
    model, seen = make().eval(), {}
    for i in range(3):
        model.g[i].register_forward_hook(
            lambda net, given, out, i=i: seen.update({i: (given, out)})
        )
    images = model.pyramid(5, generator=torch.Generator().manual_seed(0))
    assert [v.shape[2] for v in images] == [2, 4, 8]
    coarse = seen[2][1]
    for level in (1, 0):
        up = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(seen[level][0][1], up)
        coarse = up + seen[level][1]
    torch.testing.assert_close(images[2], SPEC.from_signed(coarse))
    torch.testing.assert_close(images[0], SPEC.from_signed(seen[2][1]))
    torch.testing.assert_close(
        model.sample(5, generator=torch.Generator().manual_seed(0)), images[2]
    )


def test_without_details_samples_are_the_small_ones_doubled():
    model = make().eval()
    for net in (model.g[0], model.g[1]):
        nn.init.zeros_(net.net[-1].weight)
        nn.init.zeros_(net.net[-1].bias)
    small, middle, large = model.pyramid(4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(middle, small.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(large, middle.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(model.super_resolve(small), large)


def test_super_resolving_begins_with_the_given_image_at_any_level():
    model = make().eval()
    seen = {}
    for i in range(3):
        model.g[i].register_forward_pre_hook(lambda net, given, i=i: seen.update({i: given}))
    model.g[0].net[-1].weight.data *= 30  # enough for its noise to show in levels
    coarse = pyramid_of(images()["x"], 1)[1].round()
    fine = model.super_resolve(coarse, generator=torch.Generator().manual_seed(0))
    assert fine.shape == (8, 2, 8, 8) and set(seen) == {0}
    torch.testing.assert_close(seen[0][1], u(SPEC.to_signed(coarse)))
    again = model.super_resolve(coarse, generator=torch.Generator().manual_seed(0))
    other = model.super_resolve(coarse, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fine, again) and not torch.equal(fine, other)
    with pytest.raises(
        ValueError, match=r"refines images of shape \(2, 4, 4\) or \(2, 2, 2\), got"
    ):
        model.super_resolve(images()["x"])


@pytest.mark.parametrize("d_input", ["add", "concat"])
def test_a_discriminator_learns_that_details_belong_to_another_image(d_input):
    torch.manual_seed(0)
    net = DetailDiscriminator((1, 8, 8), 0, 8, d_input, 0.0)
    none = torch.zeros(64, 0)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)

    def rows() -> tuple[torch.Tensor, torch.Tensor]:
        l_k = u(torch.randn(64, 1, 4, 4))
        return l_k * checks, l_k  # details that depend on their image

    for _ in range(150):
        h, l_k = rows()
        loss = F.softplus(-net(h, l_k, none)) + F.softplus(net(h.roll(1, 0), l_k, none))
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    h, l_k = rows()
    right = (net(h, l_k, none) > 0).float().mean() + (
        net(h.roll(1, 0), l_k, none) < 0
    ).float().mean()
    assert right / 2 > 0.9


def test_the_discriminator_sees_the_sum_or_both():
    x, l_k, none = torch.randn(3, 2, 8, 8), torch.randn(3, 2, 8, 8), torch.zeros(3, 0)
    add = DetailDiscriminator((2, 8, 8), 0, 4, "add", 0.0)
    torch.testing.assert_close(add(x, l_k, none), add(x + l_k, 0 * l_k, none))
    both = DetailDiscriminator((2, 8, 8), 0, 4, "concat", 0.0)
    assert not torch.allclose(both(x, l_k, none), both(x + l_k, 0 * l_k, none))
    assert both.net[0].in_channels == 2 * add.net[0].in_channels == 4


def test_by_class_every_network_is_told_the_class_and_else_none_is():
    model, plain = make(by_class=True), make()
    assert model.told == ("y",) and plain.told == ()
    for level in range(3):
        seen = []
        for net in (model.d[level].net, model.g[level]):
            net.register_forward_pre_hook(lambda net, given, to=seen: to.append(given[-1]))
        model.discriminator_loss(images(), level)
        model.generator_loss(images(), level)
        assert len(seen) == 5
        for c in seen:
            assert torch.equal(c, F.one_hot(images()["y"], 3).double())
    model.eval()
    y = torch.tensor([0, 1, 2])
    one, other = (
        model.pyramid(3, y=labels, generator=torch.Generator().manual_seed(0))
        for labels in (y, y.roll(1))
    )
    assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    coarse = one[0]
    with pytest.raises(ValueError, match="by_class=True is told y"):
        model.super_resolve(coarse)
    fine = [
        model.super_resolve(coarse, y=v, generator=torch.Generator().manual_seed(0))
        for v in (y, y.roll(1))
    ]
    assert not torch.equal(*fine)


def test_the_logged_ratio_is_of_made_over_real_details():
    model = make().eval()
    values = model.evaluate(images(), torch.Generator().manual_seed(0))
    pyramid = pyramid_by_hand(model, images()["x"])
    l_0 = pyramid[1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    z = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=F64) * 2 - 1
    made = model.g[0](z, l_0, torch.zeros(8, 0, dtype=F64)).detach()
    expected = made.numpy().std(ddof=1) / (pyramid[0] - l_0).numpy().std(ddof=1)
    assert values["residual_ratio"].tolist() == pytest.approx([expected] * 8)


def test_the_papers_optimiser_has_a_falling_rate_and_a_rising_momentum():
    model = make(optimiser="sgd", lr_d=0.02, lr_g=0.01, momentum_steps=2, lr_decay=2.0, k=2)
    optimisers = model.optimisers()
    schedulers = model.schedulers(optimisers)
    found = {
        p: (o.param_groups[0]["lr"], o.param_groups[0]["momentum"]) for p, o in optimisers.items()
    }
    assert found["d0"] == (0.02, 0.5) and found["g2"] == (0.01, 0.5)
    for player, times in (("d0", 2), ("g2", 1)):  # one cycle, half of the way
        for _ in range(times):
            optimisers[player].step()
            schedulers[player].step()
        assert optimisers[player].param_groups[0]["momentum"] == pytest.approx(0.65)
    assert optimisers["d0"].param_groups[0]["lr"] == pytest.approx(0.005)
    assert make().schedulers(make().optimisers()) == {}


def test_dropout_is_of_the_discriminators_alone():
    model = make(dropout=0.3)
    found = [m.p for net in model.d for m in net.modules() if isinstance(m, nn.Dropout)]
    assert found == [0.3] * 4 and not any(isinstance(m, nn.Dropout) for m in model.g.modules())


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="lapgan halves the sides 3 times"):
        LAPGAN(SPEC, levels=3)
    with pytest.raises(ValueError, match="by_class"):
        LAPGAN(DataSpec((1, 8, 8), 17), by_class=True)
