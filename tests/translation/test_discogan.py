"""What makes DiscoGAN itself: whose turn it is, matched features, the weight of the round trips,
and what couples the two ways.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.core import Image, Spec
from zoo.core.noise import Noise
from zoo.translation.discogan import GAME, DiscoGAN, Discriminator, Generator

GREY = Image((1, 16, 16), 17)
SPEC = Spec("domains", a=GREY, b=GREY)


def model(spec=SPEC, **options):
    torch.manual_seed(0)
    made = DiscoGAN(spec, width=4, **options)
    made.noise = Noise(0, "check")
    return made


def rows(n=4, spec=SPEC, seed=1):
    return spec.example(n, seed)


def bce(s, target):
    return F.binary_cross_entropy_with_logits(s, torch.full_like(s, target))


def test_of_thirty_iterations_ten_move_both_d_alone_and_twenty_both_g_alone():
    m, moved = model(), []
    nets = {f"{p}{k}": net for p in "dg" for k, net in getattr(m, p).items()}

    def state():
        return {
            k: torch.cat([p.detach().flatten() for p in net.parameters()])
            for k, net in nets.items()
        }

    was = state()

    def after_step(player):
        now = state()
        moved.append({k for k in nets if not torch.equal(was[k], now[k])})
        was.update(now)

    m.after_step = after_step
    data = Given(SPEC, fields={k: rows(24)[k] for k in "ab"}, batch_size=4)
    fit(m, data, 10)
    assert moved == [{"da", "db"}, {"ga", "gb"}, {"ga", "gb"}] * 10
    assert m.batches_per_step() == 3  # each iteration with images of its own


def test_fm_is_what_numpy_says_and_0_for_the_same_rows_in_another_order():
    image = Image((1, 32, 32), 17)  # of two layers that count
    m = model(Spec("d", a=image, b=image))
    d, x, y = m.d["b"].net, torch.rand(6, 1, 32, 32), torch.rand(6, 1, 32, 32)
    real, made = d.features(x), d.features(y)
    assert len(real) == 2
    found = m.matched(real, made).item()
    wanted = sum(
        np.mean((p.detach().numpy().mean(0) - q.detach().numpy().mean(0)) ** 2)
        for p, q in zip(real, made, strict=True)
    )
    assert found == pytest.approx(wanted, rel=1e-5) and found > 0
    assert m.matched(real, [f.flip(0) for f in real]).item() == pytest.approx(0, abs=1e-12)


def test_features_are_of_every_layer_but_the_first_and_the_last_is_judged():
    d = Discriminator(3, [4, 8, 16, 32], (4, 4))
    x = torch.rand(2, 3, 64, 64)
    maps = d.eval().features(x)
    assert [tuple(f.shape[1:]) for f in maps] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]
    assert any((f < 0).any() for f in maps)  # leaky
    wanted = (maps[-1] * d.end.weight).sum((1, 2, 3))
    torch.testing.assert_close(d(x), wanted)


def test_r_changes_with_the_iteration_and_not_with_the_cycle(monkeypatch):
    m = model(curriculum=10_000)
    assert [m.r(i) for i in (0, 9_999, 10_000)] == [0.01, 0.01, 0.5]
    batch = rows()
    for step, turn, r in ((3332, 2, 0.01), (3333, 1, 0.5), (3333, 2, 0.5)):  # 9998, 10000, 10001
        monkeypatch.setattr(DiscoGAN, "step", step)
        assert m.generator_loss(batch, turn)["r"].item() == pytest.approx(r)
    odd = model(curriculum=5)  # between the two turns of one cycle
    monkeypatch.setattr(DiscoGAN, "step", 1)
    first, second = (phase.loss(batch)["r"].item() for phase in odd.phases()[1:])
    assert (first, second) == (pytest.approx(0.01), pytest.approx(0.5))


def by_hand(m, batch):
    """gan, fm and recon of both ways, from the networks."""
    x = {k: batch[k] / 16 for k in "ab"}
    terms = {}
    for to, source in (("b", "a"), ("a", "b")):
        made = m.g[to](x[source])
        d = m.d[to].net
        terms[f"gan_{to}"] = bce(d(made), 1.0)
        maps = zip(d.features(x[to]), d.features(made), strict=True)
        terms[f"fm_{to}"] = sum((p.mean(0) - q.mean(0)).square().mean() for p, q in maps)
        terms[f"recon_{source}"] = (m.g[source](made) - x[source]).square().mean()
    return terms


@pytest.mark.parametrize("loss", ["released", "paper"])
def test_the_loss_of_g_is_the_codes_or_the_papers(loss):
    m, batch = model(loss=loss, r_start=0.2), rows()
    found, t = m.generator_loss(batch), by_hand(m, batch)
    if loss == "released":
        wanted = sum(0.8 * (0.1 * t[f"gan_{k}"] + 0.9 * t[f"fm_{k}"]) for k in "ab")
        wanted = wanted + 0.2 * (t["recon_a"] + t["recon_b"])
    else:
        wanted = t["gan_a"] + t["gan_b"] + t["recon_a"] + t["recon_b"]
        assert "fm_a" not in found
    torch.testing.assert_close(found["loss"], wanted)
    for name in found.keys() & t.keys():
        torch.testing.assert_close(found[name], t[name])


def test_each_d_pays_half_of_what_real_and_made_images_of_its_domain_cost():
    m, batch = model(), rows()
    x = {k: batch[k] / 16 for k in "ab"}
    terms = m.discriminator_loss(batch)
    total = 0
    for to, source in (("b", "a"), ("a", "b")):
        net = m.d[to].net
        wanted = (bce(net(x[to]), 1.0) + bce(net(m.g[to](x[source])), 0.0)) / 2
        torch.testing.assert_close(terms[f"loss_{to}"], wanted)
        total = total + wanted
    torch.testing.assert_close(terms["loss"], total)
    terms["loss"].backward()
    assert all(p.grad is None for p in m.g.parameters())
    s = torch.tensor([-2.0, 0.0, 3.0])
    torch.testing.assert_close(GAME.maker(s), -s.sigmoid().log())


def test_matched_features_teach_g_and_leave_d_as_it_was():
    m = model()
    m.d.requires_grad_(False)  # as in G's turn
    m.generator_loss(rows())["fm_b"].backward()
    assert all(p.grad.abs().sum() > 0 for p in m.g["b"].parameters())
    assert all(p.grad is None for p in [*m.d.parameters(), *m.g["a"].parameters()])


@pytest.mark.parametrize(
    ("arch", "of_g", "of_d"), [("discogan", "ab", "ab"), ("recongan", "ab", "b"), ("gan", "b", "b")]
)
def test_what_is_coupled_is_taught_and_nothing_else_exists(arch, of_g, of_d):
    m, batch = model(arch=arch), rows()
    assert "".join(m.g) == of_g and "".join(m.d) == of_d
    g, d = m.generator_loss(batch), m.discriminator_loss(batch)
    assert ("recon_a" in g) == (arch != "gan") and ("recon_b" in g) == (arch == "discogan")
    assert {k for k in g if k.startswith("gan_")} == {f"gan_{k}" for k in of_d}
    (g["loss"] + d["loss"]).backward()
    for net in (*m.g.values(), *m.d.values()):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert m.sample(4, a=batch["a"]).shape == (4, 1, 16, 16)
    if arch == "gan":
        assert m.evaluate(batch) == {}
        with pytest.raises(ValueError, match=r"train with model\.arch=discogan"):
            m.translate(batch["b"], "a")


def test_a_round_trip_teaches_both_g_there_and_back():
    m = model()
    m.generator_loss(rows())["recon_a"].backward()
    for g in m.g.values():
        assert all(p.grad.abs().sum() > 0 for p in g.parameters())


@pytest.mark.parametrize("bottleneck", [0, 100])
def test_the_networks_are_the_codes(bottleneck):
    g = Generator(3, 3, [64, 128, 256, 512], bottleneck, (4, 4))
    convs = [c for c in g.modules() if isinstance(c, (nn.Conv2d, nn.ConvTranspose2d))]
    between = [100, 512] if bottleneck else []
    assert [c.out_channels for c in convs] == [64, 128, 256, 512, *between, 256, 128, 64, 3]
    assert all(c.bias is None and c.kernel_size == (4, 4) for c in convs)
    norms = [n.num_features for n in g.modules() if isinstance(n, nn.BatchNorm2d)]
    assert norms == [128, 256, 512, *between, 256, 128, 64]
    leaky = sum(isinstance(x, nn.LeakyReLU) for x in g.modules())
    assert leaky == 4 + (bottleneck > 0)
    with torch.no_grad():
        out = g.eval()(torch.rand(2, 3, 64, 64))
    assert out.shape == (2, 3, 64, 64) and out.min() > 0 and out.max() < 1
    d = Discriminator(3, [64, 128, 256, 512], (4, 4))
    convs = [c for c in d.modules() if isinstance(c, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 128, 256, 512, 1]
    assert all(c.bias is None for c in convs) and convs[-1].kernel_size == (4, 4)
    norms = [n.num_features for n in d.modules() if isinstance(n, nn.BatchNorm2d)]
    assert norms == [128, 256, 512]


def test_a_level_goes_with_each_halving_and_the_bottleneck_spans_what_is_left():
    for side, levels in ((16, 2), (32, 3), (64, 4)):
        x = Image((1, side, side), 17)
        m = model(Spec("d", a=x, b=x), bottleneck=5)
        assert m.grain == 1 << levels and len(m.d["a"].net.layers) == levels
        assert m.g["b"](torch.rand(2, 1, side, side)).shape == (2, 1, side, side)
        middle = [c for c in m.g["a"].modules() if isinstance(c, nn.Conv2d)][-1]
        assert middle.kernel_size == (4, 4) and middle.out_channels == 5


def test_images_are_seen_and_made_in_the_unit_interval():
    m, batch = model().eval(), rows()
    seen = []
    m.g["b"].register_forward_pre_hook(lambda g, inputs: seen.append(inputs[0]))
    made = m.translate(batch["a"])
    torch.testing.assert_close(seen[0], batch["a"] / 16)
    assert torch.equal(made, (m.g["b"](seen[0]) * 16).round())
    assert torch.equal(m.sample(4, a=batch["a"]), made)
    back = m.translate(batch["b"], "a")
    assert torch.equal(back, (m.g["a"](batch["b"] / 16) * 16).round())


def test_round_trips_are_measured_on_the_unit_interval():
    m, batch = model().eval(), rows()
    batch["oracle_b"] = batch["b"].flip(0)
    a, b = (batch[k] / 16 for k in "ab")
    found = m.evaluate(batch)
    pairs = {
        "cycle_a": (m.g["a"](m.g["b"](a)), a),
        "cycle_b": (m.g["b"](m.g["a"](b)), b),
        "back_l1": (m.g["a"](b.flip(0)), a),
    }
    for name, (p, q) in pairs.items():
        torch.testing.assert_close(found[name], (p - q).abs().flatten(1).mean(1))


def test_adam_decays_weights_and_rates_and_turns_are_options():
    m = model(lr_d=1e-3, lr_g=2e-3, interval=4)
    optimisers = m.optimisers()
    assert {k: o.defaults["lr"] for k, o in optimisers.items()} == {"d": 1e-3, "g": 2e-3}
    for o in optimisers.values():
        assert o.defaults["betas"] == (0.5, 0.999) and o.defaults["weight_decay"] == 1e-5
    assert Counter(p.player for p in m.phases()) == {"d": 1, "g": 3} and m.batches_per_step() == 4
    defaults = DiscoGAN(SPEC)
    assert (defaults.r_start, defaults.r_end, defaults.interval) == (0.01, 0.5, 3)
    assert defaults.optimisers()["g"].defaults["lr"] == 2e-4


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((1, 16, 16), (1, 32, 32)), "one size"),
        (((1, 8, 8), (1, 8, 8)), "at least 16"),
        (((1, 18, 16), (1, 18, 16)), "multiples of 4"),
    ],
)
def test_what_cannot_be_is_refused(shapes, said):
    a, b = (Image(shape, 17) for shape in shapes)
    with pytest.raises(ValueError, match=said):
        model(Spec("d", a=a, b=b))


def test_domains_of_other_channels_are_translated():
    spec = Spec("d", a=GREY, b=Image((3, 16, 16), 256))
    m, batch = model(spec), rows(3, spec)
    assert math.isfinite(m.generator_loss(batch)["loss"].item())
    assert m.translate(batch["a"]).shape == (3, 3, 16, 16)
    assert m.translate(batch["b"], "a").shape == (3, 1, 16, 16)
