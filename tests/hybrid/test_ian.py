"""IAN is IAN: one trunk in two roles that only the adversary teaches, three kinds of image, kernels
at several dilations, an editor that changes nothing but what the brush asks for.
"""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.bases import LoopOptions
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.hybrid.ian import (
    IAN,
    MDC,
    BetaImage,
    Discriminator,
    MDCBlock,
    brushed,
    change_mask,
    introspection,
    ortho,
    realness,
    ternary,
)

SPEC = DataSpec((1, 8, 8), 17)
SMALL = {"latent": 4, "enc": (4, 6), "dec": (5, 4), "hidden": 7}


def make(spec=SPEC, **options) -> IAN:
    torch.manual_seed(0)
    model = IAN(spec, **{**SMALL, **options}).double()
    restart(model)
    return model


def restart(model, seed: int = 1):
    model.noise = Noise(seed, "test", dtype=torch.float64)


def images(n: int = 6, channels: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randint(0, 17, (n, channels, 8, 8), generator=g).double()


def batch(n: int = 6) -> Batch:
    return Batch({"x": images(n)}, n)


def drawn(model, v):
    """X̂ and a sample as the first draws of noise make them, and μ, σ."""
    noise = Noise(1, "test", dtype=torch.float64)
    mu, log_var = model.e(model.d.net.maps(v)[-1])
    recon = model.g(mu + (log_var / 2).exp() * noise.normal(len(v), 4))
    return recon, model.g(noise.normal(len(v), 4)), mu, (log_var / 2).exp()


def reached(loss, net) -> bool:
    found = torch.autograd.grad(loss, [*net.parameters()], retain_graph=True, allow_unused=True)
    return any(g is not None and g.abs().max() > 0 for g in found)


# -- the trunk ------------------------------------------------------------------------------------
def test_one_trunk_serves_encoder_and_discriminator():
    model, seen = make(), []
    model.d.net.trunk[0].register_forward_hook(lambda net, args, out: seen.append(out))
    x = images()
    model.encode(x)
    model.d(model.scaled(x))
    assert len(seen) == 2 and torch.equal(*seen)
    mine = {id(p) for p in model.e.parameters()}
    assert not mine & {id(p) for p in model.d.parameters()}
    assert not any(isinstance(m, nn.Conv2d) for m in model.e.modules())
    before = model.encode(x)
    with torch.no_grad():
        model.d.net.trunk[0][0].weight.mul_(2)
    assert not torch.allclose(model.encode(x), before)


def test_kl_and_pixels_send_no_gradient_into_the_trunk():
    model = make(lam_adv=0.0, lam_feat=0.0)
    for loss in (model.latent_loss, model.generator_loss):
        model.zero_grad()
        loss(batch())["loss"].backward()
        assert all(
            p.grad is None or p.grad.abs().max() == 0 for p in model.d.net.trunk.parameters()
        )
        assert all(p.grad.abs().max() > 0 for p in model.e.parameters())


def test_heads_send_nothing_back_into_the_trunk():
    model = make()
    mu, log_var = model.e(model.d.net.maps(images() / 8 - 1)[-1])
    loss = mu.sum() + log_var.sum()
    assert reached(loss, model.e) and not reached(loss, model.d.net)


def test_discriminator_loss_reaches_the_trunk_and_neither_decoder_nor_heads():
    model = make()
    loss = model.discriminator_loss(batch())["loss"]
    assert reached(loss, model.d.net.trunk) and reached(loss, model.d.net.end)
    assert not reached(loss, model.g) and not reached(loss, model.e)


@pytest.mark.parametrize("twice", [False, True])
def test_each_phase_moves_its_own(twice):
    model = make(twice=twice)
    moved, before = [], {}

    def note(player):
        now = {name: p.detach().clone() for name, p in model.named_parameters()}
        of = {n.split(".")[0] for n, p in now.items() if not torch.equal(p, before[n])}
        moved.append((player, of))
        before.update(now)

    model.after_step = note
    before.update({name: p.detach().clone() for name, p in model.named_parameters()})
    fit(model, Given(SPEC, images(64)), 1, precision="64-true")
    again = [("e", {"e"})] if twice else []
    assert moved == [("d", {"d"}), *again, ("g", {"g", "e"})]


def test_discriminator_moves_k_times():
    model, moved = make(k=3, twice=True), []
    model.after_step = moved.append
    fit(model, Given(SPEC, images(64)), 1, precision="64-true")
    assert moved == ["d", "d", "d", "e", "g"]


# -- the objective --------------------------------------------------------------------------------
def test_the_best_ternary_adversary_is_the_share_of_each_density():
    g = torch.Generator().manual_seed(0)
    p = torch.rand(3, 8, generator=g, dtype=torch.float64)
    p = p / p.sum(1, keepdim=True)  # of eight images, under three distributions
    s = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([s], max_iter=500, tolerance_grad=1e-12, tolerance_change=0)

    def loss():
        descent.zero_grad()
        cost = sum((p[kind] * ternary(s, kind)).sum() for kind in range(3))
        cost.backward()
        return cost

    descent.step(loss)
    torch.testing.assert_close(s.softmax(1), (p / p.sum(0)).T, rtol=0, atol=1e-5)


def test_realness_is_the_log_odds_of_real():
    s = torch.tensor([[0.3, -1.0, 2.0], [4.0, 0.0, 0.0]], dtype=torch.float64)
    c = s.softmax(1)[:, 0]
    torch.testing.assert_close(realness(s), (c / (1 - c)).log())


def test_discriminator_tells_three_kinds_apart():
    model = make(lam_ortho=0.0)
    v = images() / 8 - 1
    shown = (v, *drawn(model, v)[:2])
    terms = model.discriminator_loss(batch())
    c = [model.d.net(u).softmax(1) for u in shown]
    torch.testing.assert_close(
        terms["loss"], -sum(c[kind][:, kind].log().mean() for kind in range(3))
    )
    assert not torch.allclose(shown[1], shown[2])
    right = [(c[kind].argmax(1) == kind).double().mean() for kind in range(3)]
    torch.testing.assert_close(terms["d_acc"].double(), sum(right) / 3)


def test_the_logged_accuracy_counts_each_kind_by_its_own_name():
    for kind in range(3):
        model = make()
        with torch.no_grad():
            model.d.net.end.weight.zero_()
            model.d.net.end.weight[kind] = 1.0
            for stage in model.d.net.trunk:
                stage[1].append(nn.Softplus())  # of positive sums: always this kind
        assert model.discriminator_loss(batch())["d_acc"] == pytest.approx(1 / 3)
        found = model.evaluate(batch())
        names = ("d_acc_real", "d_acc_recon", "d_acc_prior")
        assert [found[name].mean().item() for name in names] == [i == kind for i in range(3)]
        torch.testing.assert_close(found["d_acc"], torch.full((6,), 1 / 3, dtype=torch.float64))


WEIGHTS = {"lam_adv": 0.3, "lam_img": 0.7, "lam_feat": 1.1, "lam_kl": 1.3, "l2": 0.01}


def parts(model):
    """The terms of G's loss, by hand."""
    v = images() / 8 - 1
    recon, sample, mu, sigma = drawn(model, v)
    layers = zip(model.d.net.maps(v), model.d.net.maps(recon), strict=True)
    features = [((a - b) ** 2).mean() for a, b in layers]
    q = Normal(mu, sigma)
    weights = [p for name, p in model.e.named_parameters() if p.ndim == 2]
    return {
        "recon": -model.d.net(recon).softmax(1)[:, 0].log().mean(),
        "sample": -model.d.net(sample).softmax(1)[:, 0].log().mean(),
        "img": (v - recon).abs().mean(),
        "feat": sum(features) / len(features),
        "kl": kl_divergence(q, Normal(0.0, 1.0)),
        "l2": sum((w**2).sum() for w in weights),
    }


def test_generator_pays_for_verdicts_pixels_features_and_the_code():
    model = make(lam_ortho=0.0, **WEIGHTS)
    p = parts(model)
    latent = 0.3 * p["recon"] + 0.7 * p["img"] + 1.1 * p["feat"] + 1.3 * p["kl"].mean()
    latent = latent + 0.01 * p["l2"]
    terms = model.generator_loss(batch())
    torch.testing.assert_close(terms["loss"], latent + 0.3 * p["sample"])
    torch.testing.assert_close(terms["gan"], p["recon"] + p["sample"])
    torch.testing.assert_close(terms["feature_mse"], p["feat"])
    torch.testing.assert_close(terms["kl"], p["kl"].sum(1).mean())  # nats of an example
    torch.testing.assert_close(terms["recon_l1"], p["img"] / 2)  # of images in [0, 1]
    restart(model)
    torch.testing.assert_close(model.latent_loss(batch())["loss"], latent)


def test_both_losses_add_the_orthogonal_penalty_of_their_own_kernels():
    bare, model = make(lam_ortho=0.0), make(lam_ortho=0.5)
    for loss, net, name in (("discriminator_loss", "d", "d"), ("generator_loss", "g", "g")):
        restart(bare)
        restart(model)
        plain, terms = (getattr(m, loss)(batch()) for m in (bare, model))
        wanted = ortho(getattr(model, net))
        torch.testing.assert_close(terms[f"ortho_{name}"], wanted)
        torch.testing.assert_close(terms["loss"], plain["loss"] + 0.5 * wanted)
    assert "ortho_g" not in model.latent_loss(batch())


def test_features_of_data_are_a_target_without_gradient():
    a, b = ([torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2)] for _ in range(2))
    value = introspection(a, b)
    wanted = sum(((x - y) ** 2).mean((1, 2, 3)) for x, y in zip(a, b, strict=True)) / 2
    torch.testing.assert_close(value, wanted)
    value.sum().backward()
    assert all(x.grad is None and y.grad.abs().max() > 0 for x, y in zip(a, b, strict=True))


def test_all_that_the_trunk_sees_in_training_has_the_instance_noise():
    model, seen = make(loop=LoopOptions(instance_noise=0.5)), []
    model.d.noisy = lambda v: v + 100
    model.d.net.trunk[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for loss, views in (("discriminator_loss", 4), ("latent_loss", 2), ("generator_loss", 3)):
        seen.clear()
        getattr(model, loss)(batch())
        assert len(seen) == views and all(v.min() > 50 for v in seen)


def test_half_of_both_kinds_of_made_images_are_of_the_past():
    model, seen = make(loop=LoopOptions(replay=100)), []
    model.d.pool.past0.fill_(7.0)
    model.d.pool.seen.fill_(100)
    model.d.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.discriminator_loss(batch())
    real, recon, sample = seen
    assert torch.equal(real, images() / 8 - 1)
    assert (recon[:3] == 7).all() and not (recon[3:] == 7).any()
    store = model.d.pool.past0
    past = torch.cat([store[:6], store[12:]])
    found = [any(torch.equal(v, w) for w in past) for v in sample]
    assert found == [True] * 3 + [False] * 3 and model.d.pool.seen == 112


# -- layers ---------------------------------------------------------------------------------------
def spread(kernel: torch.Tensor, s: int) -> torch.Tensor:
    """A 3x3 kernel with its taps s apart, zeros between."""
    wide = torch.zeros(*kernel.shape[:2], 2 * s + 1, 2 * s + 1, dtype=kernel.dtype)
    wide[..., ::s, ::s] = kernel
    return wide


def test_mdc_of_one_dilation_is_a_convolution():
    torch.manual_seed(0)
    mdc, x = MDC(3, 5, [1]), torch.randn(2, 3, 9, 7)
    torch.testing.assert_close(mdc(x), F.conv2d(x, mdc.weight, padding=1))


def test_mdc_weighs_one_kernel_at_every_dilation():
    torch.manual_seed(0)
    mdc, x = MDC(3, 5, [0, 1, 2, 3]).double(), torch.randn(2, 3, 9, 7).double()
    assert (mdc.mix == 0.25).all()  # it begins as the mean
    nn.init.normal_(mdc.mix)
    w, m = mdc.weight, mdc.mix[:, None, :, None, None]
    wanted = m[0] * torch.einsum("oikl,bihw->bohw", w / 9, x)
    for s in (1, 2, 3):
        wanted = wanted + m[s] * F.conv2d(x, spread(w, s), padding=s)
    torch.testing.assert_close(mdc(x), wanted)


def test_kernels_are_shared_by_the_dilations():
    count = [sum(p.numel() for p in MDC(3, 5, range(n)).parameters()) for n in (1, 2, 4)]
    assert count == [3 * 5 * 9 + 5 * n for n in (1, 2, 4)]


def test_a_block_of_silent_kernels_passes_its_input():
    block, h = MDCBlock(4, [1, 2], "none"), torch.randn(2, 4, 5, 5)
    nn.init.zeros_(block.net[3].weight)
    torch.testing.assert_close(block(h), F.leaky_relu(h, 0.2))
    assert [type(m) for m in block.net] == [nn.Sequential, MDC, nn.Sequential, MDC]
    nn.init.normal_(block.net[3].weight)
    a = block.net[1](F.leaky_relu(h, 0.2))
    wanted = F.leaky_relu(h + block.net[3](F.leaky_relu(a, 0.2)), 0.2)
    torch.testing.assert_close(block(h), wanted)


def test_a_channel_is_the_mean_of_a_beta_given_the_channels_before():
    torch.manual_seed(0)
    net, h = BetaImage(4, 3, [1, 2]).double(), torch.randn(2, 4, 5, 5).double()
    r = net.of_maps[0](h).sigmoid()
    g = (net.of_maps[1](h) + net.of_before[0](r)).sigmoid()
    b = (net.of_maps[2](h) + net.of_before[1](torch.cat([r, g], 1))).sigmoid()
    mean = [torch.distributions.Beta(ab[:, 0], ab[:, 1]).mean for ab in (r, g, b)]
    torch.testing.assert_close(net(h), 2 * torch.stack(mean, 1) - 1)


def test_orthonormal_filters_cost_nothing():
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ConvTranspose2d(5, 4, 3), MDC(4, 6, [1]), nn.Linear(2, 2)
    ).double()
    for conv in net[:3]:
        w = torch.linalg.qr(torch.randn(conv.weight.numel() // conv.out_channels, 6).double())[0]
        rows = w.T[: conv.out_channels]
        if isinstance(conv, nn.ConvTranspose2d):
            rows = rows.view(4, 5, 3, 3).transpose(0, 1)
        conv.weight.data = rows.reshape(conv.weight.shape).contiguous()
    assert ortho(net).item() == pytest.approx(0, abs=1e-12)
    net[0].weight.data *= 2  # five filters of squared norm 4
    assert ortho(net).item() == pytest.approx(15)
    net[0].weight.data[1] = net[0].weight.data[0]  # and two of them the same
    assert ortho(net).item() == pytest.approx(15 + 8)


def test_rows_meet_only_in_minibatch_discrimination():
    torch.manual_seed(0)
    v = torch.randn(4, 1, 8, 8)
    plain, coupled = (Discriminator((1, 8, 8), (4, 6), "layer", kernels=n) for n in (0, 5))
    torch.testing.assert_close(plain(v)[:2], plain(v[:2]))
    assert not torch.allclose(coupled(v)[:2], coupled(v[:2]))
    h = coupled.maps(v)[-1].mean((2, 3))
    both = torch.cat([h, coupled.minibatch(h)], 1)
    torch.testing.assert_close(coupled(v), both @ coupled.end.weight.T)
    torch.testing.assert_close(plain(v), plain.maps(v)[-1].mean((2, 3)) @ plain.end.weight.T)


def test_where_mdc_blocks_stand():
    spec = DataSpec((3, 32, 32), 256)
    for whole, blocks, ends in ((False, [1, 0, 0], nn.Tanh), (True, [1, 1, 0], BetaImage)):
        g = make(spec, enc=(4, 4, 4), dec=(4, 6, 5), full=whole, kernels=3).g
        after = [m for m, up in zip(g.net[1:], g.net, strict=False) if up.__class__ is UP]
        assert [isinstance(m, MDCBlock) for m in after] == [bool(b) for b in blocks]
        assert isinstance(g.net[-1], ends)
        made = g(torch.randn(2, 4).double())
        assert made.shape == (2, 3, 32, 32) and made.abs().max() < 1


UP = nn.ConvTranspose2d


def test_networks_are_the_papers():
    with torch.device("meta"):
        model = IAN(
            DataSpec((3, 64, 64), 256),
            latent=100,
            enc=(128, 256, 512, 1024),
            dec=(512, 256, 128, 128),
            hidden=1000,
            dilations=(0, 1, 2, 3),
            full=True,
            kernels=500,
            norm="batch",
        )
    d, e, g = model.d.net, model.e.net, model.g.net
    convs = [tuple(stage[0].weight.shape) for stage in d.trunk]
    widths = [3, 128, 256, 512, 1024]
    assert convs == [(b, a, 5, 5) for a, b in zip(widths[:-1], widths[1:], strict=True)]
    norms = [isinstance(stage[1][0], nn.BatchNorm2d) for stage in d.trunk]
    assert norms == [False, True, True, True]
    assert tuple(d.end.weight.shape) == (3, 1524) and d.end.bias is None
    linear = [tuple(m.weight.shape) for m in e if isinstance(m, nn.Linear)]
    assert linear == [(1000, 1024 * 16), (200, 1000)] and isinstance(e[-1], nn.BatchNorm1d)
    ups = [tuple(m.weight.shape[:2]) for m in g if isinstance(m, UP)]
    assert ups == [(512, 512), (512, 256), (256, 128), (128, 128)]
    assert tuple(g[0].weight.shape) == (512 * 16, 100)
    x = torch.empty(2, 3, 64, 64, device="meta")
    assert [m.shape[-1] for m in d.maps(x)] == [32, 16, 8, 4]


# -- the editor -----------------------------------------------------------------------------------
class Linear(nn.Module):
    """A decoder whose descent is known: images A z."""

    def __init__(self):
        super().__init__()
        self.a = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).double() / 8

    def forward(self, z):
        return (z @ self.a.T).view(-1, 1, 8, 8)


def stroke(*columns: int) -> torch.Tensor:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:6, [*columns]] = True
    return mask


def test_the_brush_descends_the_squared_error_under_it():
    g, z, under = Linear(), torch.randn(3, 4).double(), stroke(3, 4).double()
    c = torch.tensor([0.4]).double()
    wanted, m = z, under.flatten()
    for _ in range(3):
        wanted = wanted - 0.1 * 2 * (m * (wanted @ g.a.T - 0.4)) @ g.a
    found = brushed(g, z, under, c[:, None, None], 3, 0.1)
    torch.testing.assert_close(found, wanted)
    assert not found.requires_grad and torch.equal(brushed(g, z, under, c, 0, 0.1), z)


def test_the_mask_is_the_change_above_a_least_one_smoothed():
    delta = torch.randn(4, 3, 8, 8).double() / 3
    m = delta.abs().numpy().mean(1)
    m = np.where(m > 0.1, np.minimum(m, 1), 0)
    line = np.array([1, 2, 1]) / 4
    for axis in (1, 2):
        m = ndimage.convolve1d(m, line, axis, mode="constant")
    torch.testing.assert_close(change_mask(delta)[:, 0], torch.from_numpy(m))
    assert (change_mask(delta / 100) == 0).all() and change_mask(100 * delta).max() == 1


def editor() -> IAN:
    """A model whose decoder draws with some contrast, a little at each place for each code."""
    model = make().eval()
    g = Linear()
    model.g = nn.Sequential(g, nn.Tanh())
    g.a *= (torch.arange(64) % 8 > 2)[:, None] * 8  # nothing on the left
    return model


def test_a_brush_that_asks_for_nothing_gives_the_image_back():
    model, x, c = editor(), images(), torch.tensor([16.0]).double()
    assert torch.equal(model.edit(x, stroke(3, 4), c, steps=0), x)
    assert torch.equal(model.edit(x, torch.zeros(1, 8, 8).bool(), c), x)
    assert not torch.equal(model.edit(x, stroke(3, 4), c), x)


def test_what_is_shown_is_the_image_plus_the_masked_change():
    model, x, c = editor(), images(), torch.tensor([12.0]).double()
    with torch.no_grad():
        z_0 = model.encode(x)
        z = brushed(model.g, z_0, stroke(3, 4).double(), c[:, None, None] / 8 - 1, 7, 0.05)
        delta = model.g(z) - model.g(z_0)
        m = change_mask(delta)
    y = model.edit(x, stroke(3, 4), c, steps=7, eta=0.05)
    torch.testing.assert_close(y, ((x / 8 - 1 + m * delta + 1) * 8).round().clamp(0, 16))
    assert torch.equal(y[(m == 0)], x[(m == 0)]) and (m == 0).any() and (m > 0).any()
    assert torch.equal(y[..., :2], x[..., :2])  # where the decoder cannot change anything


def test_strokes_of_either_colour_pull_the_decoded_image_their_way():
    model, x = editor(), images()
    under, z_0 = stroke(4, 5).double(), model.encode(images()).detach()
    ends = []
    for colour in (-1.0, 1.0):
        c = torch.full((1, 1, 1), colour).double()
        gaps = []
        for steps in (0, 5, 20):
            made = model.g(brushed(model.g, z_0, under, c, steps, 0.02))
            gaps.append((under * (made - c)).square().sum((1, 2, 3)).detach())
        assert (gaps[1] < gaps[0]).all() and (gaps[2] < gaps[1]).all()
        ends.append(model.edit(x, stroke(4, 5), 8 * (c.flatten() + 1)))
    inside = [y[..., 2:6, 4:6].mean() for y in ends]
    assert inside[0] < x[..., 2:6, 4:6].mean() < inside[1]


def test_an_edit_is_each_rows_own_and_in_levels_and_leaves_no_gradient():
    model, x, c = make().eval(), images(), torch.tensor([16.0]).double()
    every = model.edit(x, stroke(3, 4), c, eta=0.2)
    alone = torch.cat([model.edit(row[None], stroke(3, 4), c, eta=0.2) for row in x])
    assert torch.equal(every, alone) and torch.equal(every, every.round().clamp(0, 16))
    assert all(p.grad is None for p in model.parameters())
    each = stroke(3, 4).repeat(6, 1, 1, 1)
    each[0] = False
    own = model.edit(x, each, c, eta=0.2)
    assert torch.equal(own[0], x[0]) and torch.equal(own[1:], every[1:])


# -- use ------------------------------------------------------------------------------------------
def test_samples_are_decoded_from_draws_of_the_prior():
    model = make().eval()
    made = model.sample(5, generator=torch.Generator().manual_seed(4))
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert torch.equal(made, SPEC.from_signed(model.g(z).detach()))
    other = model.sample(5, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(made, other) and len(model.g(z).detach().unique(dim=0)) == 5


def test_an_image_is_encoded_by_its_mean_code():
    model, x = make().eval(), images()
    mu = model.e(model.d.net.maps(x / 8 - 1)[-1])[0]
    assert torch.equal(model.encode(x), mu)
    assert torch.equal(model.reconstruct(x), SPEC.from_signed(model.g(mu).detach()))


def test_held_out_errors_are_of_the_mean_code():
    model, v = make().eval(), images() / 8 - 1
    model.mean_image.fill_(0.25)
    found = model.evaluate(batch(), torch.Generator().manual_seed(0))
    mu, log_var = model.e(model.d.net.maps(v)[-1])
    recon, q = model.g(mu), Normal(mu, (log_var / 2).exp())
    off = {"recon_mse": recon - v, "recon_permuted": recon.roll(1, 0) - v}
    for name, apart in off.items():
        torch.testing.assert_close(found[name], (apart / 2).square().mean((1, 2, 3)))
    torch.testing.assert_close(found["code_gain"], found["recon_permuted"] - found["recon_mse"])
    l1 = (recon - v).abs().mean((1, 2, 3))
    torch.testing.assert_close(found["recon_l1"], l1 / 2)
    torch.testing.assert_close(found["l1_ratio"], l1 / (v - 0.25).abs().mean((1, 2, 3)))
    torch.testing.assert_close(found["kl"], kl_divergence(q, Normal(0.0, 1.0)).sum(1))
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for kind, (name, u) in enumerate({"real": v, "recon": recon, "prior": model.g(z)}.items()):
        assert torch.equal(found[f"d_acc_{name}"], (model.d(u).argmax(1) == kind).double())


def test_the_mean_image_is_that_of_the_data_as_networks_see_them():
    model = make()
    model.initialise_from(batch())
    torch.testing.assert_close(model.mean_image, images().mean(0) / 8 - 1)


def test_every_player_has_its_rate_and_all_fall_together():
    model = make(lr_d=0.1, lr_g=0.2, beta1=0.3, decay_every=4, twice=True, k=2)
    made = model.optimisers()
    rates = {p: o.param_groups[0]["lr"] for p, o in made.items()}
    assert rates == {"d": 0.1, "e": 0.2, "g": 0.2}
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())
    schedules = model.schedulers(made)
    for player, times in (("d", 2), ("e", 1), ("g", 1)):
        seen = []
        for _ in range(20):  # cycles
            seen.append(made[player].param_groups[0]["lr"] / rates[player])
            for _ in range(times):
                made[player].step()
                schedules[player].step()
        wanted = [1.0] * 4 + [0.5] * 4 + [0.25] * 4 + [0.05] * 8
        assert seen == pytest.approx(wanted)
    assert make(decay_every=0).schedulers(made) == {}


def test_log_sigma_is_bounded_and_the_code_is_not():
    model = make()
    with torch.no_grad():
        model.e.net[2].bias.fill_(50.0)
    mu, log_var = model.e(model.d.net.maps(images() / 8 - 1)[-1])
    assert mu.min() > 40 and log_var.min() > 9 and log_var.max() <= 10
    with torch.no_grad():
        model.e.net[2].bias.fill_(math.log(0.5))
        model.e.net[2].weight.zero_()
    sigma = (model.e(model.d.net.maps(images() / 8 - 1)[-1])[1] / 2).exp()
    torch.testing.assert_close(sigma, torch.full_like(sigma, 0.5), rtol=0.01, atol=0)


@pytest.mark.parametrize("options", [{"full": True, "kernels": 3}, {"norm": "batch"}], ids=str)
def test_it_trains_on_coloured_images(options):
    spec = DataSpec((3, 8, 8), 17)
    model = make(spec, twice=True, dilations=(0, 1, 2), **options).float()
    fit(model, Given(spec, images(32, 3).float(), batch_size=4), 3)
    named = {"loss_d", "loss_e", "loss_g", "gan", "kl", "recon_l1", "feature_mse", "d_acc"}
    assert named | {"ortho_d", "ortho_g"} <= model.terms.keys()
    assert all(v.isfinite() for v in model.terms.values())


def test_what_does_not_go_together_is_refused():
    for bad in ({"enc": (4,)}, {"enc": (4,) * 4, "dec": (4,) * 4}, {"enc": (), "dec": ()}):
        with pytest.raises(ValueError, match="ian halves the sides once for each map of enc"):
            make(**bad)
    with pytest.raises(ValueError, match="ian needs a dilation"):
        make(dilations=())
