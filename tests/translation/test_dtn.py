"""What makes DTN itself: a frozen f that is looked through twice, and a D of three kinds."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo import auxiliary
from zoo.core import Image, Label, Spec
from zoo.core.noise import Noise
from zoo.translation.dtn import (
    DTN,
    FROM_SOURCE,
    FROM_TARGET,
    TARGET,
    is_target,
    of_kind,
    total_variation,
)

SPEC = Spec("d", a=Image((3, 16, 16), 17), b=Image((1, 16, 16), 17), y=Label(10))


def model(spec=SPEC, **options):
    torch.manual_seed(0)
    made = DTN(spec, width=4, **options)
    made.noise = Noise(0, "check")
    return made


def batch(n=6):
    return SPEC.example(n, 1)


def test_of_uniform_logits_d_pays_3_ln_3_and_g_2_ln_3():
    m, rows = model(), batch()
    m.d.net.forward = lambda x: torch.zeros(len(x), 3)
    assert m.discriminator_loss(rows)["loss"].item() == pytest.approx(3 * math.log(3))
    assert m.generator_loss(rows)["gang"].item() == pytest.approx(2 * math.log(3))


def test_d_pays_for_each_kind_the_logarithm_of_its_own_probability():
    m, rows = model(), batch()
    s, t = m.both(rows)
    with torch.no_grad():
        groups = {FROM_SOURCE: m.made("b", s), FROM_TARGET: m.made("b", t), TARGET: t}
    wanted = sum(
        F.cross_entropy(m.d.net(x), torch.full((len(x),), kind)) for kind, x in groups.items()
    )
    torch.testing.assert_close(m.discriminator_loss(rows)["loss"], wanted)


def test_gs_loss_is_its_terms_with_their_weights():
    m, rows = model(alpha=3.0, beta=5.0, gamma=7.0), batch()
    terms = m.generator_loss(rows)
    s, t = (rows["a"] / 8 - 1, rows["b"] / 8 - 1)
    of_s, of_t = m.g(m.f(s)), m.g(m.f(t))
    wanted = sum(-m.d.net(v).log_softmax(1)[:, 2].mean() for v in (of_s, of_t))
    const = F.mse_loss(m.f(of_s), m.f(s))
    tid = F.mse_loss(of_t, t)
    tv = (total_variation(of_s) + total_variation(of_t)) / 2
    torch.testing.assert_close(terms["loss"], wanted + 3 * const + 5 * tid + 7 * tv)
    assert "tv" not in model().generator_loss(rows)


def test_the_features_distance_teaches_g_through_the_second_look():
    m, rows = model(), batch()
    const = m.generator_loss(rows)["const"]
    moved = torch.autograd.grad(const, [*m.g.parameters()], retain_graph=True, allow_unused=True)
    assert all(g is not None for g in moved) and any(g.abs().max() > 0 for g in moved)
    plain = m.f.forward

    def looked(x):  # at what was made without gradient
        return plain(x.detach())

    m.f.forward = looked
    assert not m.generator_loss(rows)["const"].requires_grad


def test_f_is_no_player_and_stays_what_it_is_in_training():
    m, rows = model().train(), batch()
    before = {k: v.clone() for k, v in m.f.state_dict().items()}
    moved = {id(p) for player in m.players() for p in m.parameters_of(player)}
    assert not any(p.requires_grad or id(p) in moved for p in m.f.parameters())
    optimiser = torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 0.1)
    for loss in (m.discriminator_loss, m.generator_loss):
        loss(rows)["loss"].backward()
        optimiser.step()
    assert not m.f.training and m.g.training
    assert all(torch.equal(v, before[k]) for k, v in m.f.state_dict().items())


def test_targets_alone_are_to_be_redrawn():
    m, rows = model(), batch()
    first = m.generator_loss(rows)["tid"]
    rows["a"] = rows["a"].flip(0) * 0
    torch.testing.assert_close(m.generator_loss(rows)["tid"], first)
    rows["b"] = rows["b"] * 0
    assert not torch.allclose(m.generator_loss(rows)["tid"], first)


def test_sources_and_targets_are_two_batches_to_gs_norms():
    m, rows = model(), batch()
    s, t = m.both(rows)
    seen = []
    m.g.register_forward_hook(lambda g, inputs, out: seen.append(inputs[0]))
    m.generator_loss(rows)
    assert [len(v) for v in seen] == [6, 6]
    torch.testing.assert_close(seen[0], m.f(s))
    torch.testing.assert_close(seen[1], m.f(t))


def test_total_variation_of_a_constant_is_0_and_of_an_edge_its_length():
    assert total_variation(torch.full((2, 1, 8, 8), 0.3)).item() == 0
    edge = torch.zeros(1, 1, 8, 6)
    edge[..., 3:] = 1
    assert total_variation(edge).item() == pytest.approx(7 / 48)  # the last row has none below
    corner = torch.zeros(1, 1, 2, 2)
    corner[0, 0, 0, 0] = 1
    assert total_variation(corner).item() == pytest.approx(math.sqrt(2) / 4)
    flat = torch.zeros(1, 1, 4, 4, requires_grad=True)
    total_variation(flat).backward()
    assert flat.grad.isfinite().all()


def test_realness_is_the_log_odds_of_a_target():
    logits = torch.randn(5, 3)
    p = logits.softmax(1)[:, TARGET]
    torch.testing.assert_close(is_target(logits), (p / (1 - p)).log())
    torch.testing.assert_close(of_kind(logits, 1), -logits.softmax(1)[:, 1].log())


def test_what_d_is_right_about_is_the_share_of_three_kinds():
    m = model()
    m.d.net.forward = lambda x: F.one_hot(torch.full((len(x),), TARGET), 3).float()
    assert m.discriminator_loss(batch())["d_acc"].item() == pytest.approx(1 / 3)


def test_what_was_made_gives_g_no_gradient_in_ds_step():
    m = model()
    m.discriminator_loss(batch())["loss"].backward()
    assert all(p.grad is None for p in m.g.parameters())


def test_f_is_taught_the_classes_of_a_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zoo.auxiliary.own.STEPS", 60)
    rows = SPEC.example(64, 2)
    rows["y"] = torch.arange(64) % 2
    rows["a"][:, 0] = 16.0 * rows["y"][:, None, None]  # red ones are 1
    m, other = model(), model(alpha=1.0)
    m.initialise_from(rows)
    code = m.features(rows["a"])
    centres = torch.stack([code[rows["y"] == k].mean(0) for k in (0, 1)])
    said = torch.cdist(code, centres).argmin(1)
    assert (said == rows["y"]).double().mean() > 0.95 and code.shape == (64, 8)
    assert not m.f.training and not any(p.requires_grad for p in m.f.parameters())
    (_file,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr("zoo.auxiliary.own._trained", lambda *_: pytest.fail("again"))
    other.initialise_from(rows)
    assert all(torch.equal(v, other.f.state_dict()[k]) for k, v in m.f.state_dict().items())


def test_f_is_taught_images_as_the_networks_see_them(monkeypatch):
    taught, m, rows = [], model(), batch()
    monkeypatch.setattr("zoo.translation.dtn.recogniser", lambda *given: taught.append(given))
    m.initialise_from(rows)
    ((name, net, x, y),) = taught
    assert name == "dtn_f" and net is m.f and torch.equal(y, rows["y"])
    torch.testing.assert_close(x, rows["a"] / 8 - 1)


def test_classes_that_are_all_one_teach_nothing():
    with pytest.raises(ValueError, match="f: all 4 images are of one class"):
        auxiliary.recogniser("f", model().f, torch.rand(4, 3, 16, 16), torch.ones(4))


def test_an_image_is_what_g_draws_of_what_f_sees_and_a_target_can_be_redrawn():
    m, rows = model().eval(), batch()
    made = m.translate(rows["a"])
    wanted = m.g(m.f(rows["a"] / 8 - 1))
    torch.testing.assert_close(made, ((wanted + 1) * 8).round())
    grey = m.f(rows["b"] / 8 - 1)
    torch.testing.assert_close(grey, m.f((rows["b"] / 8 - 1).expand(-1, 3, -1, -1)))
    torch.testing.assert_close(m.features(rows["b"]), grey)
    with pytest.raises(ValueError, match="no way back"):
        m.translate(rows["b"], to="a")


def test_val_values_are_of_a_and_of_b():
    m, rows = model().eval(), batch()
    values = m.evaluate(rows)
    s, t = m.both(rows)
    gap = (m.f(s) - m.f(m.g(m.f(s)))).square().sum(1) / m.f(s).var(0).sum()
    torch.testing.assert_close(values["code_gap"], gap)
    redrawn = ((t - m.g(m.f(t))) / 2).square().flatten(1).mean(1)
    torch.testing.assert_close(values["tid"], redrawn)


def test_networks_have_the_filters_of_their_place():
    m = DTN(SPEC, width=16)
    convs = [c.out_channels for c in m.f.modules() if isinstance(c, nn.Conv2d)]
    assert convs == [16, 32, 32]
    wide = DTN(Spec("d", a=Image((3, 32, 32), 256), b=Image((1, 32, 32), 256), y=Label(10)), 64)
    convs = [c.out_channels for c in wide.f.modules() if isinstance(c, nn.Conv2d)]
    assert convs == [64, 128, 256, 128]  # as in the paper's
    ups = [c.out_channels for c in wide.g if isinstance(c, nn.ConvTranspose2d)]
    assert ups == [512, 256, 128, 1]
    assert [c.out_channels for c in wide.d.net.net if isinstance(c, nn.Conv2d)] == [
        64,
        128,
        256,
        3,
    ]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"squares of 8, 16, 32 ... pixels"):
        DTN(Spec("d", a=Image((3, 12, 12), 17), b=Image((1, 12, 12), 17), y=Label(10)))
    with pytest.raises(ValueError, match=r"1 or 3 channels"):
        DTN(Spec("d", a=Image((2, 16, 16), 17), b=Image((1, 16, 16), 17), y=Label(10)))
    with pytest.raises(ValueError, match="y"):
        DTN(Spec("d", a=Image((3, 16, 16), 17), b=Image((1, 16, 16), 17)))
