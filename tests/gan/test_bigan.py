"""BiGAN learns an encoder that inverts the generator, from a discriminator of pairs alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.bigan import LOSSES, BiGAN

SPEC = DataSpec((1, 4, 4), 17)


def model(**options) -> BiGAN:
    torch.manual_seed(0)
    made = BiGAN(SPEC, **{"latent": 3, "width": 8, "norm": "layer", **options})
    made.noise = Noise(0, "test")
    return made


def images(n: int = 6) -> Batch:
    return Batch({"x": SPEC["x"].example(n, torch.Generator().manual_seed(1))})


def gradients(loss, net):
    return torch.autograd.grad(loss, [*net.parameters()], retain_graph=True, allow_unused=True)


# -- the objective ---------------------------------------------------------------------------------
def test_encoder_has_no_noise_and_reaches_every_code():
    bigan, v = model(), torch.randn(500, 1, 4, 4) * 30
    assert torch.equal(bigan.code(v), bigan.code(v)) and bigan.code(v).abs().max() > 1
    assert bigan.encode(images()["x"]).shape == (6, 3)


def test_with_the_inverse_the_best_pairs_cannot_be_told_apart_and_with_any_other_encoder_they_can():
    p = torch.full((4,), 0.25, dtype=torch.float64)  # four images, four codes, G a bijection
    best = []
    for encoder in (torch.arange(4), torch.tensor([1, 0, 2, 3]), torch.zeros(4).long()):
        q, g = torch.zeros(2, 4, 4, dtype=torch.float64)
        q[torch.arange(4), encoder] = p
        g[torch.arange(4), torch.arange(4)] = p
        s = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([s], max_iter=200)

        def closure(s=s, q=q, g=g, optimiser=optimiser):
            optimiser.zero_grad()
            price = LOSSES["nonsat"]
            loss = (q * price.real(s)).sum() + (g * price.fake(s)).sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        best.append((closure().item(), s.detach()))
    assert best[0][0] == pytest.approx(2 * torch.tensor(2.0).log().item())
    assert best[0][1].diag().abs().max() < 1e-6
    assert best[1][0] < best[0][0] - 0.1 and best[2][0] < best[0][0] - 0.1


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_encoder_learns_from_its_own_pairs_and_the_generator_from_its(g_loss):
    bigan, batch = model(g_loss=g_loss), images()
    pairs = bigan.pairs(batch)
    s_enc = bigan.d(pairs["v"], pairs["enc"])
    s_made = bigan.d(pairs["made"], pairs["z"])
    d_e, d_g = s_enc.detach().sigmoid() + 0, s_made.detach().sigmoid()
    loss = bigan.pairs_loss(**pairs)["loss"]
    by_hand = {
        "nonsat": -(1 - d_e).log().mean() - d_g.log().mean(),
        "minimax": d_e.log().mean() + (1 - d_g).log().mean(),
    }[g_loss]
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    of_enc = F.softplus(s_enc).mean() if g_loss == "nonsat" else -F.softplus(-s_enc).mean()
    of_made = F.softplus(-s_made).mean() if g_loss == "nonsat" else -F.softplus(s_made).mean()
    for net, own, other in ((bigan.e, of_enc, of_made), (bigan.g, of_made, of_enc)):
        assert all(g is None for g in gradients(other, net))
        for a, b in zip(gradients(loss, net), gradients(own, net), strict=True):
            torch.testing.assert_close(a, b)


def test_discriminator_pays_for_pairs_that_carry_no_gradient():
    bigan, batch = model(), images()
    loss = bigan.discriminator_loss(batch)["loss"]
    assert all(g is None for net in (bigan.g, bigan.e) for g in gradients(loss, net))
    bigan.noise = Noise(0, "test")
    pairs = bigan.pairs(batch)
    s, t = bigan.d(pairs["v"], pairs["enc"]), bigan.d(pairs["made"], pairs["z"])
    by_hand = -s.sigmoid().log().mean() - (1 - t.sigmoid()).log().mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_both_makers_are_one_player_with_one_optimiser():
    bigan = model(lr_g=0.1, lr_d=0.2, weight_decay=0.01, beta1=0.3)
    assert {*bigan.players()} == {"d", "g"}
    made = bigan.optimisers()
    held = {id(p) for group in made["g"].param_groups for p in group["params"]}
    assert held == {id(p) for net in (bigan.g, bigan.e) for p in net.parameters()}
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"g": 0.1, "d": 0.2}
    assert all(o.defaults["weight_decay"] == 0.01 for o in made.values())
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())


def test_image_and_code_both_matter_to_the_discriminator():
    bigan, v, z = model(), torch.randn(6, 1, 4, 4), torch.randn(6, 3)
    s = bigan.d(v, z)
    assert not torch.allclose(s, bigan.d(v.roll(1, 0), z))
    assert not torch.allclose(s, bigan.d(v, z.roll(1, 0)))


def test_the_latent_regressor_sees_no_codes_and_learns_by_their_error():
    bigan, batch = model(joint=False, regress=2.0), images()
    pairs = bigan.pairs(batch)
    terms = bigan.pairs_loss(**pairs)
    error = (bigan.e(pairs["made"].detach()) - pairs["z"]).square().mean()
    assert terms["code_mse"].item() == pytest.approx(error.item())
    for a, b in zip(gradients(terms["loss"], bigan.e), gradients(2 * error, bigan.e), strict=True):
        torch.testing.assert_close(a, b)  # nothing by way of D
    seen = []
    bigan.d.net.register_forward_hook(lambda net, inputs, out: seen.append(inputs[1]))
    bigan.discriminator_loss(batch)
    bigan.pairs_loss(**pairs)
    assert len(seen) == 4 and all((z == 0).all() for z in seen)
    both = model(regress=1.0)
    pairs = both.pairs(batch)
    terms = both.pairs_loss(**pairs)
    game = terms["loss"] - terms["code_mse"]
    for a, b in zip(gradients(terms["loss"], both.g), gradients(game, both.g), strict=True):
        torch.testing.assert_close(a, b)  # the error is not G's
    with pytest.raises(ValueError, match="regress"):
        model(joint=False)


# -- the game --------------------------------------------------------------------------------------
def test_simultaneous_players_step_from_the_same_pairs():
    bigan, batch = model(simultaneous=True), images()
    first, second = bigan.phases()
    assert (first.player, second.player, second.critic) == ("g", "d", True)
    assert first.makes == second.reads == ("v", "enc", "made", "z")
    terms = bigan.generator_loss(batch)
    pairs = Batch({name: terms[name].detach() for name in first.makes})
    before = bigan.discriminator_loss(pairs)["loss"]
    with torch.no_grad():
        for p in (*bigan.g.parameters(), *bigan.e.parameters()):
            p.add_(1.0)  # the makers have moved
    assert bigan.discriminator_loss(pairs)["loss"].item() == before.item()
    with pytest.raises(ValueError, match="k=2"):
        model(simultaneous=True, k=2)
    assert [(p.player, p.times(0)) for p in model(k=2).phases()] == [("d", 2), ("g", 1)]


def test_rates_stay_for_half_of_the_run_and_end_at_a_hundredth():
    bigan = model(anneal_steps=100, k=2, lr_d=1.0, lr_g=1.0)
    made = bigan.optimisers()
    schedules = bigan.schedulers(made)
    for player, times in (("g", 1), ("d", 2)):
        rates = []
        for _ in range(100 * times):
            rates.append(made[player].param_groups[0]["lr"])
            made[player].step()
            schedules[player].step()
        rates.append(made[player].param_groups[0]["lr"])
        assert rates[50 * times] == 1 and rates[75 * times] == pytest.approx(0.1)
        assert rates[100 * times] == pytest.approx(0.01)
    assert model().schedulers(model().optimisers()) == {}


# -- use -------------------------------------------------------------------------------------------
def test_reconstructions_are_the_generators_of_the_code_and_their_error_is_a_pixels():
    bigan, batch = model(), images()
    x = batch["x"]
    z = bigan.encode(x)
    again = bigan.reconstruct(x)
    assert torch.equal(again, bigan.decode(z)) and again.shape == x.shape
    values = bigan.evaluate(batch)
    made = (bigan.g(z) + 1) / 2
    unit = SPEC["x"].to_unit(x)
    wanted = (made - unit).square().flatten(1).mean(1)
    torch.testing.assert_close(values["recon_mse"], wanted)
    other = (made[[5, 0, 1, 2, 3, 4]] - unit).square().flatten(1).mean(1)
    torch.testing.assert_close(values["recon_permuted"], other)
    torch.testing.assert_close(values["code_gain"], other - wanted)
    said = bigan.d(bigan.scaled(x), z) > 0
    assert torch.equal(values["d_acc_real"], said.float())


def test_codes_are_of_the_prior_and_networks_of_the_norm():
    assert model().codes(500).abs().max() <= 1 < model(prior="normal").codes(500).abs().max()
    for norm, kind in (("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)):
        bigan = model(norm=norm)
        assert all(
            sum(isinstance(m, kind) for m in net.modules()) == 2 for net in (bigan.g, bigan.e)
        )
        assert not any(isinstance(m, kind) for m in bigan.d.modules())
