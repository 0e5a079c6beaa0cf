"""CC-GAN is CC-GAN: G sees nothing of the hole, what is known stays, and D is shown the image that
was completed.
"""

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.bases import LoopOptions
from zoo.core import Batch, DataSpec
from zoo.core.draw import complete
from zoo.core.noise import Noise
from zoo.gan.ccgan import CCGAN, coarse, composite, rectangles

SPEC = DataSpec((1, 16, 16), 17, 3)


def make(spec=SPEC, **options) -> CCGAN:
    torch.manual_seed(0)
    model = CCGAN(spec, **{"width": 4, "labels": None, **options}).double()
    restart(model)
    return model


def restart(model) -> None:
    model.noise = Noise(1, "test", dtype=torch.float64)


def batch(n: int = 6, spec=SPEC) -> Batch:
    rows = spec.example(n)
    return Batch({**rows.to("cpu", torch.float64), "index": torch.arange(n)})


def images(n: int = 6, channels: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return 2 * torch.rand(n, channels, 16, 16, generator=g).double() - 1


def test_holes_are_rectangles_of_the_asked_for_sides_anywhere_and_each_images_own():
    u = torch.rand(3000, 4, generator=torch.Generator().manual_seed(0)).double()
    m = rectangles(u, 16, 24, 0.25, 0.5)
    rows, columns = m.amax(3)[:, 0], m.amax(2)[:, 0]
    assert torch.equal(m[:, 0], rows[:, :, None] * columns[:, None, :])
    for sides, size in ((rows, 16), (columns, 24)):
        assert sides.sum(1).min() == size / 4 and sides.sum(1).max() == size / 2
        assert (sides.diff(dim=1).abs().sum(1) <= 2).all()  # in one piece
        assert sides.mean(0).min() > 0 and sides[:, 0].mean() == pytest.approx(
            sides[:, -1].mean().item(), abs=0.03
        )
    assert len(m[:50].flatten(1).unique(dim=0)) > 40
    assert rectangles(u[:9], 16, 16, 0.0, 0.0).flatten(1).sum(1).eq(1).all()
    assert rectangles(u[:9], 16, 16, 1.0, 1.0).all()


def test_what_is_known_is_the_image_to_the_last_bit_and_is_left_alone():
    x, made = images(), images(6).flip(0)
    m = rectangles(torch.rand(6, 4), 16, 16, 0.25, 0.5)
    before = x.clone()
    filled = composite(x, made, m)
    assert torch.equal(filled[m == 0], x[m == 0]) and torch.equal(filled[m == 1], made[m == 1])
    model = make()
    model.filled(x, m.double())
    model.discriminator_loss(batch())
    assert torch.equal(x, before)


def test_g_knows_nothing_of_the_hole_unless_it_is_shown_the_coarse_image():
    x, m = images(), rectangles(torch.rand(6, 4).double(), 16, 16, 0.25, 0.5)
    moved = torch.where(m > 0, -x, x)
    model = make()
    assert torch.equal(model.filled(x, m)[1], model.filled(moved, m)[1])
    outside = torch.where(m > 0, x, -x)
    assert not torch.equal(model.filled(x, m)[1], model.filled(outside, m)[1])
    other = make(low_res=4)
    assert not torch.equal(other.filled(x, m)[1], other.filled(moved, m)[1])
    assert make().g.down[0].in_channels == 2 and other.g.down[0].in_channels == 3
    shown = other.shown(x, m)
    torch.testing.assert_close(shown[0, 2, 4:8, 8:12], x[0, 0, 4:8, 8:12].mean().expand(4, 4))
    assert torch.equal(coarse(x, 1), x)


def test_g_is_told_where_the_hole_is():
    x, m = (
        torch.zeros(2, 1, 16, 16).double(),
        rectangles(torch.rand(2, 4).double(), 16, 16, 0.3, 0.5),
    )
    shown = make().shown(x + 0.5, m)
    assert torch.equal(shown[:, 1:], m) and torch.equal(shown[:, :1], 0.5 * (1 - m))


def on_outputs(model):
    """The gradient of G's loss with respect to x_G, and the holes."""
    kept = []
    g = model.g.forward

    def noted(v):
        out = g(v)
        out.retain_grad()
        kept.append((out, v[:, 1:2]))
        return out

    model.g.forward = noted
    model.generator_loss(batch())["loss"].backward()
    out, m = kept[-1]
    return out.grad, m


@pytest.mark.parametrize("whole", [False, True])
def test_only_cc_gan_2_judges_what_is_outside_of_the_hole(whole):
    gradient, m = on_outputs(make(whole=whole))
    assert gradient[m == 1].abs().min() > 0
    assert (gradient[m == 0].abs().max() > 0) == whole


def seen_by_d(model, loss, rows):
    seen = []
    model.d.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    terms = loss(rows)
    return seen, terms


def test_d_pays_for_the_completed_image_and_in_cc_gan_2_for_both_half():
    rows, x = batch(), SPEC.to_signed(batch()["x"])
    for whole in (False, True):
        model = make(whole=whole, lam_c=0.0)
        m = model.holes(model.noise.uniform(6, 4))
        fakes = model.filled(x, m)[: 1 + whole]
        restart(model)
        seen, terms = seen_by_d(model, model.discriminator_loss, rows)
        assert torch.equal(seen[0], x) and len(seen) == 2 + whole
        assert all(torch.equal(a, b) for a, b in zip(seen[1:], fakes, strict=True))
        p = [model.d(v)[:, 0].sigmoid() for v in (x, *fakes)]
        fake = sum(-(1 - q).log().mean() for q in p[1:]) / len(p[1:])
        torch.testing.assert_close(terms["loss"], -p[0].log().mean() + fake)


@pytest.mark.parametrize(
    ("kind", "price"), [("nonsat", lambda p: -p.log()), ("minimax", lambda p: (1 - p).log())]
)
def test_g_pays_for_the_completed_image_and_for_no_pixel(kind, price):
    rows, x = batch(), SPEC.to_signed(batch()["x"])
    for whole in (False, True):
        model = make(whole=whole, g_loss=kind)
        m = model.holes(model.noise.uniform(6, 4))
        fakes = model.filled(x, m)[: 1 + whole]
        restart(model)
        terms = model.generator_loss(rows)
        wanted = sum(price(model.d(v)[:, 0].sigmoid()).mean() for v in fakes) / len(fakes)
        torch.testing.assert_close(terms["loss"], wanted)
        assert {*terms} == {"loss"}


def test_labels_are_read_of_the_labelled_rows_alone_and_teach_d_and_not_g():
    model, rows = make(labels=3, lam_c=5.0), batch()
    model.initialise_from(Batch({**rows, "y": torch.tensor([0, 1, 2, 0, 1, 2])}))
    terms = model.discriminator_loss(rows)
    p = model.classify(rows["x"])
    wanted = -p[torch.arange(3), rows["y"][:3]].log().mean()  # the first row of each class
    torch.testing.assert_close(terms["ce"], wanted)
    bare = make(labels=3, lam_c=0.0)
    torch.testing.assert_close(terms["loss"], bare.discriminator_loss(rows)["loss"] + 5 * wanted)
    of_g = torch.autograd.grad(
        terms["loss"], [*model.g.parameters()], allow_unused=True, retain_graph=True
    )
    assert all(g is None for g in of_g)
    trunk = torch.autograd.grad(terms["ce"], [*model.d.net.trunk.parameters()])
    assert all(g.abs().max() > 0 for g in trunk)
    other = Batch({**rows, "y": torch.cat([rows["y"][:3], (rows["y"][3:] + 1) % 3])}, 6)
    torch.testing.assert_close(model.discriminator_loss(other)["ce"], wanted)


def test_completions_keep_what_is_known_and_are_levels():
    spec = DataSpec((2, 16, 16), 17)
    model, x = make(spec), batch(4, spec)["x"]
    known = torch.ones(1, 16, 16, dtype=torch.bool)
    known[:, 8:] = False
    made = complete(model, x, known)
    assert torch.equal(made[:, :, :8], x[:, :, :8]) and spec["x"].faults(made) == ""
    m = (~known).double().expand(4, 1, 16, 16)
    wanted = (model.filled(spec.to_signed(x), m)[1] + 1) * 8
    torch.testing.assert_close(made[:, :, 8:], wanted.round()[:, :, 8:])
    hidden = torch.where(known, x, 16 - x)
    assert torch.equal(complete(model, hidden, known), made)
    one = known.expand(2, 16, 16).clone()
    one[0] = True  # the first channel is known everywhere
    assert torch.equal(complete(model, x, one)[:, 0], x[:, 0])
    assert torch.equal(complete(model, x, one)[:, 1], made[:, 1])


def test_errors_of_holes_are_of_the_hole_in_unit_range():
    model, rows = make(), batch()
    model.initialise_from(batch(20))
    found = model.evaluate(rows)
    m = model.holes(torch.zeros(6, 4).double())
    model.holes = lambda u: m
    found = model.evaluate(rows)
    x = rows["x"] / 16
    made = (model.filled(SPEC.to_signed(rows["x"]), m)[1] + 1) / 2
    inside = m[:, 0] > 0
    for i in range(6):
        at = inside[i]
        mse = (made[i, 0][at] - x[i, 0][at]).square().mean()
        mean = (batch(20)["x"].mean(0)[0][at] / 16 - x[i, 0][at]).square().mean()
        torch.testing.assert_close(found["hole_mse"][i], mse)
        torch.testing.assert_close(found["hole_mse_mean"][i], mean)
        torch.testing.assert_close(found["hole_gain"][i], mean - mse)
    said = model.d(SPEC.to_signed(rows["x"]))[:, 1:].argmax(1)
    assert found["acc"].tolist() == (said == rows["y"]).double().tolist()


def test_held_out_holes_belong_to_their_rows():
    model, rows = make(), batch()
    whole, part = model.evaluate(rows), model.evaluate(rows.rows(slice(2, 4)))
    torch.testing.assert_close(whole["hole_mse"][2:4], part["hole_mse"])


def test_without_labels_it_completes_and_does_not_classify():
    spec = DataSpec((1, 16, 16), 17)
    model = make(spec)
    assert model.discriminator_loss(batch(4, spec)).keys() == {"loss"}
    assert [p.reads for p in model.phases()] == [("x",), ("x",)]
    assert "acc" not in model.evaluate(batch(4, spec))
    with pytest.raises(ValueError, match="ccgan needs labels to classify"):
        model.classify(batch(4, spec)["x"])


def test_r1_is_of_the_logit_and_replay_keeps_what_d_was_shown():
    model = make(loop=LoopOptions(r1=2.0), lam_c=0.0)
    x = SPEC.to_signed(batch()["x"]).requires_grad_()
    (g,) = torch.autograd.grad(model.d(x)[:, 0].sum(), x)
    wanted = g.square().flatten(1).sum(1).mean()
    torch.testing.assert_close(model.discriminator_loss(batch())["r1"], wanted)
    kept = make(loop=LoopOptions(replay=8))
    seen, _ = seen_by_d(kept, kept.discriminator_loss, batch())
    assert torch.equal(kept.d.pool.past0[:6], seen[1])


def test_paper_network_is_vgg_a_and_widths_double():
    spec = DataSpec((3, 32, 32), 256, 10)
    model = make(spec, arch="paper")
    convs = [m.out_channels for m in model.d.net.modules() if isinstance(m, nn.Conv2d)]
    assert convs == [4 * n for n in (1, 2, 4, 4, 8, 8, 8, 8)]
    assert sum(isinstance(m, nn.MaxPool2d) for m in model.d.net.modules()) == 5
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.g.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in make().modules())
    assert model.g(torch.zeros(2, 4, 32, 32).double()).shape == (2, 3, 32, 32)


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="low_res divides both sides of the image, got 3"):
        make(low_res=3)
    with pytest.raises(ValueError, match=r"hole is \(least, largest\)"):
        make(hole=(0.5, 0.25))
    with pytest.raises(ValueError, match="multiples of 32"):
        make(arch="paper")


def test_rates_are_each_players():
    model = make(lr_d=0.1, lr_g=0.2, beta1=0.3)
    for player, rate in (("d", 0.1), ("g", 0.2)):
        group = model.optimisers()[player].param_groups[0]
        assert (group["lr"], group["betas"]) == (rate, (0.3, 0.999))


def test_fresh_holes_are_drawn_in_every_step():
    model, seen = make(), []
    model.holes = lambda u: seen.append(u) or rectangles(u, 16, 16, 0.25, 0.5)
    rows = batch(12)
    fit(model.float(), Given(SPEC, rows["x"].float(), rows["y"], batch_size=6), 2)
    assert len(seen) == 4 and len(torch.cat(seen).unique(dim=0)) == 24
