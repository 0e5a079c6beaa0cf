"""What makes ID-CGAN itself: three terms, a frozen eye, maps of the image's own size."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.core import Image, Spec
from zoo.core.noise import Noise
from zoo.nn.derain import Dense, DenseCoder, FullSize
from zoo.nn.patches import PyramidDiscriminator
from zoo.translation.id_cgan import GAME, IDCGAN, told_apart

SPEC = Spec("pairs", x=Image((3, 16, 16), 256), source=Image((3, 16, 16), 256))


def model(spec=SPEC, **options):
    torch.manual_seed(0)
    made = IDCGAN(spec, width=4, width_d=4, narrow=2, **options)
    made.noise = Noise(0, "check")
    return made


def pair(n=4):
    rows = SPEC.example(n, 1)
    return {"rainy": rows["source"] / 127.5 - 1, "clean": rows["x"] / 127.5 - 1}


@pytest.mark.parametrize("weights", [(1, 0.0066, 1), (2.0, 3.0, 700.0)])
def test_gs_loss_is_its_three_terms_with_their_weights(weights):
    changed = zip(("lam_e", "lam_a", "lam_p"), weights, strict=True)
    m, rows = (model() if weights[0] == 1 else model(**dict(changed))), pair()
    m.d.net.forward = lambda *images: torch.zeros(len(images[0]), 3, 3)
    terms = m.generator_loss(rows)
    made = m.g(rows["rainy"])
    mse = (made - rows["clean"]).square().mean()
    a, b = (m.look.net.features((v + 1) / 2, ("mid",))[0] for v in (made, rows["clean"]))
    e, adversary, p = weights
    wanted = e * mse + adversary * math.log(2) + p * (a - b).square().mean()
    torch.testing.assert_close(terms["loss"], wanted)
    assert terms["adversarial"].item() == pytest.approx(math.log(2))
    torch.testing.assert_close(terms["mse"], mse)


def test_the_authors_form_has_the_same_proportions():
    m, rows = model(lam_e=150.0, lam_a=1.0, lam_p=150.0), pair()
    paper = model()
    of = paper.generator_loss(rows)["loss"], m.generator_loss(rows)["loss"]
    assert (of[1] / of[0]).item() == pytest.approx(150, rel=0.01)


@pytest.mark.parametrize(
    ("off", "term"), [("lam_e", "mse"), ("lam_a", "adversarial"), ("lam_p", "perceptual")]
)
def test_a_weight_of_0_takes_out_exactly_the_gradient_of_its_term(off, term):
    def gradients(**options):
        m = model(**options)
        rows = pair() if m.lam_a else SPEC.example(4, 1)
        terms = m.generator_loss(rows)
        return m, terms, torch.autograd.grad(terms["loss"], [*m.g.parameters()], retain_graph=True)

    whole, terms, every = gradients()
    _, _, rest = gradients(**{off: 0.0})
    part = torch.autograd.grad(terms[term], [*whole.g.parameters()])
    weight = getattr(whole, off)
    for a, b, c in zip(every, rest, part, strict=True):
        torch.testing.assert_close(a - weight * c, b, atol=2e-6, rtol=1e-3)


def test_the_eye_is_frozen_and_no_player_moves_it():
    m = model()
    moved = {id(p) for player in m.players() for p in m.parameters_of(player)}
    assert not any(p.requires_grad or id(p) in moved for p in m.look.parameters())
    assert model(lam_p=0.0).look is None


def test_the_perceptual_term_is_0_of_the_image_itself_and_not_of_it_moved_by_a_pixel():
    m, rows = model(), pair()
    m.g.forward = lambda s: rows["clean"]
    assert m.generator_loss(rows)["perceptual"].item() == 0
    m.g.forward = lambda s: rows["clean"].roll(1, 3)  # of the same mean
    assert m.generator_loss(rows)["perceptual"].item() > 1e-4


def test_the_eye_sees_images_in_0_1():
    m, rows, seen = model(), pair(), []
    m.look.forward = lambda p, q: seen.append((p, q)) or p.mean()
    m.generator_loss(rows)
    torch.testing.assert_close(seen[0][1], (rows["clean"] + 1) / 2)
    torch.testing.assert_close(seen[0][0], (m.g(rows["rainy"]) + 1) / 2)


def test_d_is_shown_both_images_with_the_rain_and_no_gradient_of_g():
    m, rows, shown = model(), SPEC.example(4, 1), []
    m.d.register_forward_hook(lambda d, inputs, out: shown.append([v.detach() for v in inputs]))
    terms = m.discriminator_loss(rows)
    rainy, clean = rows["source"] / 127.5 - 1, rows["x"] / 127.5 - 1
    for found, wanted in zip(shown[0], (clean, rainy), strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(shown[1][1], rainy)
    assert not torch.allclose(shown[1][0], clean)
    terms["loss"].backward()
    assert all(p.grad is None for p in m.g.parameters())


def test_g_is_judged_beside_the_rain():
    m, rows, shown = model(), pair(), []
    m.d.register_forward_hook(lambda d, inputs, out: shown.append(inputs))
    m.generator_loss(rows)
    ((made, rain),) = shown
    torch.testing.assert_close(rain, rows["rainy"])
    assert made.requires_grad and not torch.allclose(made, rain)


def test_ds_logits_depend_on_the_rain_beside_the_image():
    m, x = model(), pair()
    other = m.d.net(x["clean"], x["rainy"].flip(0))
    assert not torch.allclose(m.d.net(x["clean"], x["rainy"]), other)


def test_g_moves_on_the_pairs_that_d_was_shown():
    m = model()
    first, second = m.phases()
    assert first.critic and first.reads == ("x", "source")
    assert set(first.makes) == set(second.reads) == {"rainy", "clean"}
    rows = SPEC.example(4, 1)
    made = m.discriminator_loss(rows)
    torch.testing.assert_close(made["rainy"], rows["source"] / 127.5 - 1)
    torch.testing.assert_close(made["clean"], rows["x"] / 127.5 - 1)
    (alone,) = model(lam_a=0.0).phases()
    assert alone.player == "g" and "d" not in model(lam_a=0.0).players()


def test_prices_are_half_of_ds_binary_cross_entropy_and_all_of_gs():
    s = torch.linspace(-3, 3, 7)
    bce = nn.BCEWithLogitsLoss(reduction="none")
    assert torch.allclose(GAME.real(s), bce(s, torch.ones(7)) / 2)
    assert torch.allclose(GAME.fake(s), bce(s, torch.zeros(7)) / 2)
    assert torch.allclose(GAME.maker(s), bce(s, torch.ones(7)))


def test_what_d_is_right_about_is_the_mean_of_both_kinds():
    found = told_apart(torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, 1.0]))
    assert found["d_acc"].item() == pytest.approx((3 / 4 + 1 / 2) / 2)
    wanted = torch.tensor([-1.0, 1.0]).sigmoid().mean()
    torch.testing.assert_close(found["d_fake"], wanted)


@pytest.mark.parametrize("size", [(7, 10), (16, 16), (5, 31)])
def test_v1_never_makes_a_map_smaller_and_takes_any_size(size):
    net, maps = FullSize(3, 3, 4, 1).eval(), []
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            m.register_forward_hook(lambda m, i, out: maps.append(out.shape[1:]))
    assert net(torch.zeros(1, 3, *size)).shape == (1, 3, *size)
    assert {tuple(s[1:]) for s in maps} == {size}
    assert [s[0] for s in maps] == [4, 4, 4, 4, 2, 1, 2, 4, 4, 4, 4, 3]


def test_v1_adds_the_fourth_and_the_second_map_on_the_way_back():
    torch.manual_seed(0)
    net, x = FullSize(3, 3, 4, 1).eval(), torch.rand(2, 3, 8, 8)
    e = [x]
    for layer in net.there:
        e.append(layer(e[-1]))
    v = net.back[1](net.back[0](e[6])) + e[4]
    v = net.back[3](net.back[2](v)) + e[2]
    torch.testing.assert_close(net(x), net.last(net.back[4](v)).tanh())


def test_dense_blocks_have_the_papers_widths_and_keep_what_they_are_given():
    net = DenseCoder(3, 3, 64)
    after = [t.in_channels for t in net.transitions]
    assert after == [256, 512, 1024, 768, 640, 384, 192, 128]
    assert [t.out_channels for t in net.transitions] == [128, 256, 512, 128, 120, 64, 64, 16]
    block, x = Dense(4, 12).eval(), torch.rand(2, 4, 5, 5)
    assert torch.equal(block(x)[:, :4], x)
    with torch.no_grad():
        assert DenseCoder(3, 1, 4).eval()(torch.zeros(1, 3, 16, 24)).shape == (1, 1, 16, 24)


def test_a_logit_of_the_pyramid_depends_on_every_corner():
    torch.manual_seed(0)
    net = PyramidDiscriminator(1, 4, 1, norm=lambda width: nn.Identity())
    x = torch.rand(1, 1, 64, 64, requires_grad=True)
    net(x)[0, 0, 0].backward()
    grad = x.grad[0, 0].abs()
    assert grad[-8:, -8:].sum() > 0 and grad[:8, :8].sum() > 0


def test_a_grid_of_the_pyramid_is_the_mean_of_its_cells():
    torch.manual_seed(0)
    net = PyramidDiscriminator(1, 2, 1, norm=lambda width: nn.Identity())
    seen = []
    for conv in net.reduced:
        conv.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    x = torch.rand(2, 1, 34, 34)
    net(x)
    maps = net.net(x)
    assert [v.shape[-1] for v in seen] == [1, 2, 4, 8] and maps.shape[-1] == 16
    torch.testing.assert_close(seen[2], F.avg_pool2d(maps, 4))


def test_an_image_is_made_without_noise_by_the_kept_statistics():
    m = model()
    for _ in range(3):
        m.g.train()(torch.rand(4, 3, 16, 16))
    m.eval()
    rows = SPEC.example(4, 1)["source"]
    whole = m.translate(rows)
    assert torch.equal(whole, m.translate(rows))
    torch.testing.assert_close(whole[:1], m.translate(rows[:1]), atol=1.0, rtol=0)
    assert m.translate(torch.zeros(1, 3, 9, 13)).shape == (1, 3, 9, 13)


def test_what_cannot_be_is_refused():
    other = Spec("p", x=Image((3, 16, 16), 256), source=Image((3, 8, 8), 256))
    with pytest.raises(ValueError, match="source and image have one size, got"):
        IDCGAN(other)
    odd = Spec("p", x=Image((3, 12, 12), 256), source=Image((3, 12, 12), 256))
    with pytest.raises(ValueError, match="sides are multiples of 8"):
        IDCGAN(odd, variant="final")
    with pytest.raises(ValueError, match="nothing to learn by; set one of"):
        model(lam_e=0.0, lam_a=0.0, lam_p=0.0)
    wide = Spec("p", x=Image((5, 16, 16), 256), source=Image((5, 16, 16), 256))
    with pytest.raises(ValueError, match=r"φ sees 1 or 3 channels.*set model.lam_p=0"):
        IDCGAN(wide)
    assert IDCGAN(wide, lam_p=0.0, width=2).look is None


def test_the_eye_is_filled_in_where_a_run_begins():
    m, times = model(), []
    m.look.load = lambda: times.append(1)
    m.initialise_from(SPEC.example(1, 1))
    assert times == [1]
    model(lam_p=0.0).initialise_from(SPEC.example(1, 1))  # there is none


def test_final_has_dense_blocks_and_a_pyramid():
    m = model(variant="final")
    assert isinstance(m.g, DenseCoder) and isinstance(m.d.net, PyramidDiscriminator)
    assert isinstance(model().g, FullSize) and m.grain == 8
