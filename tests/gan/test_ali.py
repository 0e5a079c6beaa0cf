"""ALI matches two joint distributions of image and code, one by a stochastic encoder."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.ali import ALI, LOSSES, ConvDiscriminator, realness

SPEC = DataSpec((1, 4, 4), 17, 3)


def model(spec=SPEC, **options) -> ALI:
    torch.manual_seed(0)
    made = ALI(spec, **{"latent": 3, "width": 8, "norm": "layer", **options})
    made.noise = Noise(0, "test")
    return made


def images(n: int = 9) -> Batch:
    g = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    return Batch({"x": SPEC["x"].example(n, g), "y": y, "index": torch.arange(n)})


def gradients(loss, *nets):
    weights = [p for net in nets for p in net.parameters()]
    return torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)


# -- the objective ---------------------------------------------------------------------------------
def test_best_discriminator_is_the_log_ratio_of_the_joints():
    q, p = torch.randn(2, 3, 4, dtype=torch.float64).flatten(1).softmax(1)
    s = torch.linspace(-8, 8, 16001, dtype=torch.float64)[:, None]
    price = LOSSES["nonsat"]
    costs = q * price.real(s) + p * price.fake(s)
    best = s[costs.argmin(0), 0]
    torch.testing.assert_close(best, (q / p).log(), atol=1e-3, rtol=0)
    alike = (p * price.real(s) + p * price.fake(s)).sum(1)
    assert s[alike.argmin(), 0].abs() < 1e-9
    assert alike.min().item() == pytest.approx(2 * torch.tensor(2.0).log().item())


def test_codes_are_draws_of_the_encoders_normal():
    ali, v = model(), torch.rand(1, 1, 4, 4).expand(20000, 1, 4, 4)
    mu, log_var = ali.posterior(v[:1])
    z = ali.code(v).detach()
    torch.testing.assert_close(z.mean(0), mu[0].detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(z.std(0), (0.5 * log_var[0]).exp().detach(), atol=0, rtol=0.05)
    assert stats.kstest(z[:, 0], "norm", (mu[0, 0].item(), z[:, 0].std().item())).pvalue > 1e-3


def test_draws_go_through_the_deviation_and_without_it_are_the_mean():
    ali, v = model(), torch.rand(5, 1, 4, 4)
    mu = torch.zeros(5, 3, requires_grad=True)
    log_var = torch.zeros(5, 3, requires_grad=True)
    ali.posterior = lambda v: (mu, log_var)
    z = ali.code(v)
    slope = torch.autograd.grad(z.sum(), [mu, log_var])
    eps = Noise(0, "test").normal(5, 3)
    torch.testing.assert_close(slope[0], torch.ones(5, 3))
    torch.testing.assert_close(slope[1], eps / 2)  # dσ/d log σ² = σ/2 at σ = 1
    ali.posterior = lambda v: (mu, torch.full((5, 3), -50.0))
    torch.testing.assert_close(ali.code(v), ali.mean_code(v), atol=1e-6, rtol=0)


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_encoder_learns_from_its_own_pairs_and_the_generator_from_its(g_loss):
    ali = model(g_loss=g_loss)
    pairs = ali.pairs(images())
    s, t = ali.d(pairs["v"], pairs["enc"]), ali.d(pairs["made"], pairs["z"])
    loss = ali.pairs_loss(**pairs)["loss"]
    real, fake = s.sigmoid(), t.sigmoid()
    by_hand = {
        "nonsat": -(1 - real).log().mean() - fake.log().mean(),
        "minimax": real.log().mean() + (1 - fake).log().mean(),
    }[g_loss]
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)
    of_enc = F.softplus(s).mean() if g_loss == "nonsat" else -F.softplus(-s).mean()
    of_made = F.softplus(-t).mean() if g_loss == "nonsat" else -F.softplus(t).mean()
    for net, own, other in ((ali.e, of_enc, of_made), (ali.g, of_made, of_enc)):
        assert all(g is None for g in gradients(other, net))
        for a, b in zip(gradients(loss, net), gradients(own, net), strict=True):
            torch.testing.assert_close(a, b)


def test_discriminator_pays_for_pairs_that_carry_no_gradient():
    ali, batch = model(), images()
    loss = ali.discriminator_loss(batch)["loss"]
    assert all(g is None for g in gradients(loss, ali.g, ali.e))
    ali.noise = Noise(0, "test")
    pairs = ali.pairs(batch)
    s, t = ali.d(pairs["v"], pairs["enc"]), ali.d(pairs["made"], pairs["z"])
    by_hand = -s.sigmoid().log().mean() - (1 - t.sigmoid()).log().mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_discriminator_tells_a_joint_from_the_product_of_its_marginals():
    ali = model(DataSpec((2,)), latent=2, width=32)
    ali.scaled = lambda x: x
    ali.code = lambda v: v  # the encoder copies, the generator draws by itself
    optimiser = torch.optim.Adam(ali.d.parameters(), 0.01)
    source = torch.Generator().manual_seed(0)
    for step in range(200):
        ali.noise = Noise(step)
        x, z, apart = torch.randn(3, 64, 2, generator=source)
        loss = ali.judge_loss(v=x, enc=x, made=apart, z=z, batch=Batch({}, 64))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, z = torch.randn(2, 2000, 2, generator=source)
    assert (ali.d(x, x) > 0).float().mean() > 0.85 and (ali.d(x, z) < 0).float().mean() > 0.7


# -- labels ----------------------------------------------------------------------------------------
def test_labelled_rows_teach_the_classes_and_realness_is_their_sum():
    ali, batch = model(labels=6), images()
    ali.initialise_from(batch)
    assert ali.reads == ("x", "y") and ali.chosen.tolist() == [0, 1, 2, 3, 4, 5]
    terms = ali.discriminator_loss(batch)
    ali.noise = Noise(0, "test")
    pairs = ali.pairs(batch)
    real, fake = ali.d(pairs["v"], pairs["enc"]), ali.d(pairs["made"], pairs["z"])
    torch.testing.assert_close(realness(real), real.exp().sum(1).log())
    on = [realness(real).sigmoid(), realness(fake).sigmoid()]
    game = -on[0].log().mean() - (1 - on[1]).log().mean()
    chosen = real.softmax(1)[torch.arange(6), batch["y"][:6]]
    assert terms["sup"].item() == pytest.approx(-chosen.log().mean().item(), rel=1e-4)
    assert terms["loss"].item() == pytest.approx((game + terms["sup"]).item(), rel=1e-4)
    p = ali.classify(batch["x"])
    v = ali.scaled(batch["x"])
    torch.testing.assert_close(p, ali.d(v, ali.mean_code(v)).softmax(1))
    right = (p.argmax(1) == batch["y"]).float()
    assert torch.equal(ali.evaluate(batch)["acc"], right)
    maker = ali.pairs_loss(**pairs)["loss"].item()
    by_hand = -(1 - on[0]).log().mean() - on[1].log().mean()
    assert maker == pytest.approx(by_hand.item(), rel=1e-4)


def test_labels_go_with_their_rows_where_players_step_at_once():
    ali, batch = model(labels=6, simultaneous=True), images()
    ali.initialise_from(batch)
    first, second = ali.phases()
    assert first.makes == second.reads == ("v", "enc", "made", "z", "y", "index")
    terms = ali.generator_loss(batch)
    assert torch.equal(terms["y"], batch["y"]) and torch.equal(terms["index"], batch["index"])
    assert ali.discriminator_loss(Batch({k: terms[k].detach() for k in first.makes}))["sup"] > 0


def test_what_labels_need_is_said():
    with pytest.raises(ValueError, match="labels"):
        model(DataSpec((1, 4, 4), 17), labels=5)
    with pytest.raises(ValueError, match="labels"):
        model().classify(images()["x"])


# -- networks and use ------------------------------------------------------------------------------
def test_generator_starts_at_the_mean_image():
    ali, batch = model(), images()
    ali.initialise_from(batch)
    mean = (batch["x"] / 16).mean(0).clamp(0.01, 0.99)
    torch.testing.assert_close(ali.g.net[-1].bias.sigmoid().view(1, 4, 4), mean)
    assert ((ali.g(ali.codes(50)) > 0) & (ali.g(ali.codes(50)) < 1)).all()


def test_paper_networks_are_those_of_table_4():
    colour = DataSpec((3, 32, 32), 256, 10)
    ali = model(colour, arch="paper", latent=64)
    x = colour["x"].example(2, torch.Generator())
    assert ali.encode(x).shape == (2, 64) and ali.g(ali.codes(2)).shape == (2, 3, 32, 32)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ali.d.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in ali.e.modules()) == 6
    drops = [m.p for m in ali.d.modules() if isinstance(m, nn.Dropout)]
    assert drops.count(0.2) == 2 and drops.count(0.5) == 8
    d = ConvDiscriminator(3, 64, 10)
    assert d(torch.zeros(2, 3, 32, 32), torch.zeros(2, 64)).shape == (2, 10)
    with pytest.raises(ValueError, match="32x32"):
        model(arch="paper")


def test_maxout_takes_the_larger_of_two_maps():
    layer = ConvDiscriminator(3, 4, 1).eval().of_x[0]
    v = torch.randn(2, 3, 8, 8)
    a, b = (
        F.conv2d(v, w, c)
        for w, c in zip(layer.conv.weight.chunk(2), layer.conv.bias.chunk(2), strict=True)
    )
    torch.testing.assert_close(layer(v), torch.where(a > b, a, b))


def test_encoding_is_the_mean_and_a_draw_of_it_has_a_generator_of_its_own():
    ali, x = model(), images()["x"]
    mu, _ = ali.posterior(ali.scaled(x))
    torch.testing.assert_close(ali.encode(x), mu)
    draws = [ali.encode_draw(x, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.allclose(draws[0], draws[2])
    assert torch.equal(ali.reconstruct(x), ali.decode(mu))
    wanted = (ali.g(mu) - x / 16).square().flatten(1).mean(1)
    torch.testing.assert_close(ali.evaluate(images())["recon_mse"], wanted)
