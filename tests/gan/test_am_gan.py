"""AM-GAN is AM-GAN: class-aware gradients, dynamic and predefined targets, K + 1 learned logits;
LabelGAN beside it.
"""

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.bases import LoopOptions
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.am_gan import AMGAN, any_class, dynamic_class
from zoo.gan.gan import LOSSES

SPEC = DataSpec((1, 8, 8), 17, 3)


def batch(n: int = 9) -> Batch:
    x = torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).double()
    return Batch({"x": x, "y": torch.arange(n) % 3})


def make(spec: DataSpec = SPEC, **options) -> AMGAN:
    torch.manual_seed(0)
    model = AMGAN(spec, **{"latent": 4, "width": 4, **options}).double()
    model.noise = Noise(3, "test", dtype=torch.float64)
    return model


def at_logits(model: AMGAN, logits: torch.Tensor) -> torch.Tensor:
    """The gradient of G's loss with respect to D's logits of its rows, set to these."""
    logits = logits.clone().requires_grad_()
    model.d.net.forward = lambda x: logits
    (gradient,) = torch.autograd.grad(
        model.generator_loss(Batch({}, len(logits)))["loss"] * len(logits), logits
    )
    return gradient


def test_gradients_at_the_logits_are_the_closed_forms_of_the_paper():
    logits = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    d = logits.exp() / logits.exp().sum(1, keepdim=True)
    sure = d[:, :3].sum(1, keepdim=True)  # D_r
    label_gan = torch.cat([-(1 - sure) * d[:, :3] / sure, d[:, 3:]], 1)
    torch.testing.assert_close(at_logits(make(mode="label_gan"), logits), label_gan)
    am = d - F.one_hot(d[:, :3].argmax(1), 4)
    torch.testing.assert_close(at_logits(make(), logits), am)
    told = Noise(3, "test").integers(7, high=3)
    torch.testing.assert_close(at_logits(make(mode="predefined"), logits), d - F.one_hot(told, 4))


def test_am_lowers_the_other_classes_and_label_gan_raises_them():
    logits = torch.tensor([[2.0, 1.0, 0.0, 1.5]], dtype=torch.float64)
    assert (at_logits(make(), logits)[0].sign() == torch.tensor([-1, 1, 1, 1])).all()
    assert (
        at_logits(make(mode="label_gan"), logits)[0].sign() == torch.tensor([-1, -1, -1, 1])
    ).all()


def test_dynamic_targets_are_the_likeliest_class_of_data_without_gradient():
    logits = torch.tensor([[0.0, 1.0, -1.0, 9.0], [3.0, 2.0, 1.0, 0.0]], requires_grad=True)
    y = dynamic_class(logits)
    assert (
        y.tolist() == [1, 0] and not y.requires_grad
    )  # the fake entry, the largest of the first row, is no candidate
    assert dynamic_class(logits.detach() - 1e3).tolist() == [1, 0]


def test_dynamic_targets_follow_the_discriminator():
    model, losses = make(), []
    for favourite in (0, 2):
        with torch.no_grad():
            model.d.net.end.weight.zero_()
            model.d.net.end.bias.zero_()
            model.d.net.end.bias[favourite] = 5.0
        model.noise.draws = 0
        logits = model.d(model.g(model.codes(6)))
        assert (dynamic_class(logits) == favourite).all()
        losses.append(model.generator_loss(Batch({}, 6))["loss"])
        torch.testing.assert_close(losses[-1], -logits.log_softmax(1)[:, favourite].mean())


@pytest.mark.parametrize("mode", ["dynamic", "predefined", "label_gan"])
def test_with_one_class_both_losses_and_their_gradients_are_the_non_saturating_gans(mode):
    model, rows = make(DataSpec((1, 8, 8), 17, 1), mode=mode), batch()
    rows["y"] = torch.zeros_like(rows["y"])
    for player, loss in (
        ("d", lambda: model.discriminator_loss(rows)["loss"]),
        ("g", lambda: model.generator_loss(Batch({}, 9))["loss"]),
    ):
        model.noise.draws = 0
        mine = loss()
        noise = Noise(3, "test", dtype=torch.float64)
        if mode == "predefined":
            noise.draws += 1
        z = noise.normal(9, 4)
        fake = model.g(torch.cat([z, torch.ones(9, 1)], 1) if mode == "predefined" else z)
        s_real, s_fake = (
            out[:, 0] - out[:, 1] for out in map(model.d.net, (SPEC.to_signed(rows["x"]), fake))
        )
        gan = (
            (F.softplus(-s_real) + F.softplus(s_fake)).mean()
            if player == "d"
            else LOSSES["nonsat"].maker(s_fake).mean()
        )
        torch.testing.assert_close(mine, gan)
        parameters = [*model.parameters_of(player)]
        for a, b in zip(
            torch.autograd.grad(mine, parameters), torch.autograd.grad(gan, parameters), strict=True
        ):
            torch.testing.assert_close(a, b)


def test_discriminators_loss_is_the_cross_entropy_over_one_class_more_than_the_data_have():
    model, rows = make(), batch()
    terms = model.discriminator_loss(rows)
    model.noise.draws = 0
    fake = model.g(model.noise.normal(9, 4))
    out = model.d(torch.cat([SPEC.to_signed(rows["x"]), fake]))
    target = torch.cat([rows["y"], torch.full((9,), 3)])
    torch.testing.assert_close(terms["loss"], 2 * F.cross_entropy(out, target))
    of_g = torch.autograd.grad(terms["loss"], [*model.g.parameters()], allow_unused=True)
    assert all(g is None for g in of_g)


def test_a_real_row_raises_its_class_and_only_fakes_raise_the_fake_logit():
    model = make()
    real, fake = (torch.zeros(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    model.d.both = lambda rows, made: (real, fake)
    rows = Batch({"x": batch()["x"][:3], "y": torch.tensor([0, 1, 2])})
    loss = model.discriminator_loss(rows)["loss"]
    on_real, on_fake = torch.autograd.grad(loss, (real, fake))
    assert torch.equal(on_real < 0, torch.eye(3, 4).bool()) and (on_real[:, 3] > 0).all()
    assert (on_fake[:, 3] < 0).all() and (on_fake[:, :3] > 0).all()


def test_the_fake_logit_is_learned():
    model, rows = make(), batch()
    (gradient,) = torch.autograd.grad(model.discriminator_loss(rows)["loss"], model.d.net.end.bias)
    assert gradient.shape == (4,) and gradient[3] != 0


def test_smoothing_moves_real_targets_to_the_fake_class():
    model = make(loop=LoopOptions(label_smooth=0.9))
    real = torch.randn(5, 4, dtype=torch.float64)
    model.d.both = lambda rows, made: (real, real)
    y = torch.tensor([0, 1, 2, 0, 1])
    target = 0.9 * F.one_hot(y, 4) + 0.1 * F.one_hot(torch.full((5,), 3), 4)
    fake = F.cross_entropy(real, torch.full((5,), 3))
    loss = model.discriminator_loss(Batch({"x": real, "y": y}))["loss"]
    torch.testing.assert_close(loss, F.cross_entropy(real, target) + fake)


def test_only_predefined_targets_condition_the_generator():
    for mode, told in (("dynamic", ()), ("predefined", ("y",)), ("label_gan", ())):
        model = make(mode=mode).eval()
        assert model.told == told
        drawn = [
            model.sample(4, y=torch.full((4,), y), generator=torch.Generator().manual_seed(0))
            for y in (0, 1)
        ]
        assert torch.equal(*drawn) == (told == ())


def test_a_path_between_codes_is_of_the_class_that_is_asked_for():
    model = make(mode="predefined").eval()
    a, b = torch.randn(2, 3, 4, dtype=torch.float64)
    frames = model.interpolate(a, b, 5, y=torch.tensor([0, 1, 2]))
    assert torch.equal(frames[:, -1], model.from_codes(b, y=torch.tensor([0, 1, 2])))
    assert not torch.equal(frames[:, -1], model.from_codes(b, y=torch.tensor([1, 2, 0])))
    for ask in (
        lambda: model.interpolate(a, b),
        lambda: model.from_codes(a),
        lambda: model.sample(3),
    ):
        with pytest.raises(
            ValueError, match=r"am_gan .* is told the class; give y=, labels 0 to 2"
        ):
            ask()
    assert make().eval().interpolate(a, b).shape == (3, 10, 1, 8, 8)  # a dynamic class needs none


def test_a_predefined_class_is_drawn_at_its_own_place():
    spec = DataSpec((2,), None, 2)
    x = torch.cat([torch.randn(200, 2) * 0.1 + 2, torch.randn(200, 2) * 0.1 - 2])
    torch.manual_seed(0)
    model = AMGAN(spec, mode="predefined", width=32, lr_d=2e-3, lr_g=2e-3)
    fit(model, Given(spec, x, torch.arange(400) // 200, batch_size=64), 200)
    for y, centre in ((0, 2.0), (1, -2.0)):
        drawn = model.sample(
            200, y=torch.full((200,), y), generator=torch.Generator().manual_seed(0)
        )
        assert ((drawn - centre).norm(dim=1) < 1).float().mean() > 0.9


def opinions() -> torch.Tensor:
    """Logits of six rows of three classes and "fake", which is the likeliest of the last three."""
    first = torch.tensor([[3.0, 1.0, 0.0, 2.0], [0.0, 2.0, 1.0, -1.0], [1.0, 0.0, 2.0, 1.5]])
    last = torch.tensor([[1.0, 0.0, 0.5, 4.0], [2.0, 0.0, 1.0, 3.0], [0.0, 1.0, 2.0, 2.5]])
    return torch.cat([first, last]).double()


def test_shares_are_of_the_classes_of_data_and_of_who_is_called_fake():
    model, logits = make(), opinions()
    rows = Batch({"x": batch(6)["x"], "y": torch.tensor([0, 1, 2, 0, 1, 1])})
    model.d.both = lambda real, made: (logits, logits.flip(0)[:4])
    terms = model.discriminator_loss(rows)
    assert terms["acc"].item() == pytest.approx(4 / 6)  # of the likeliest class of data
    assert terms["d_acc_real"] == 0.5 and terms["d_acc_fake"] == 0.75
    model.d.net.forward = lambda x: logits
    values = model.evaluate(rows)
    assert values["acc"].tolist() == [1, 1, 1, 1, 0, 0]
    assert values["d_acc_real"].tolist() == [1, 1, 1, 0, 0, 0]
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(model.classify(rows["x"]), p[:, :3] / (1 - p[:, 3:]))


def test_the_logged_probability_is_the_likeliest_classs_among_all_with_fake():
    model, logits = make(), opinions()
    model.d.net.forward = lambda x: logits
    found = model.generator_loss(Batch({}, 6))["fake_max_prob"]
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(found.double(), p[:, :3].max(1).values.mean())


def test_samples_are_of_the_class_that_is_asked_for():
    model, y = make(mode="predefined").eval(), torch.tensor([2, 0, 1])
    drawn = model.sample(3, y=y, generator=torch.Generator().manual_seed(5))
    z = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    made = model.g(torch.cat([z, torch.eye(3, dtype=torch.float64)[y]], 1))
    assert torch.equal(drawn, SPEC.from_signed(made))


def test_r1_is_of_the_log_odds_of_not_being_fake():
    model, rows = make(loop=LoopOptions(r1=3.0)), batch()
    r1 = model.discriminator_loss(rows)["r1"]
    x = SPEC.to_signed(rows["x"]).requires_grad_()
    p = model.d.net(x).softmax(1)
    (slope,) = torch.autograd.grad((p[:, :3].sum(1) / p[:, 3]).log().sum(), x)
    torch.testing.assert_close(r1, 1.5 * slope.square().sum((1, 2, 3)).mean())


def test_a_flipped_sample_is_taken_for_its_likeliest_class_of_data():
    model, logits = make(loop=LoopOptions(label_flip=0.4)), opinions()
    model.noise.uniform = lambda *shape: torch.zeros(shape)  # every target is flipped
    model.d.both = lambda real, made: (logits, logits)
    rows = Batch({"x": batch(6)["x"], "y": torch.tensor([0, 1, 2, 0, 1, 1])})
    log_p = logits.log_softmax(1)
    expected = -log_p[:, 3].mean() - log_p[:, :3].max(1).values.mean()
    torch.testing.assert_close(model.discriminator_loss(rows)["loss"], expected)


def test_each_network_has_the_norm_that_is_asked_for():
    spec = DataSpec((1, 16, 16), 17, 3)
    model = AMGAN(spec, width=4, norm="layer", norm_d="batch", lr_d=0.2, lr_g=0.1, beta1=0.3)
    kinds = [
        {
            type(m)
            for m in net.modules()
            if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.GroupNorm))
        }
        for net in (model.g, model.d)
    ]
    assert kinds == [{torch.nn.GroupNorm}, {torch.nn.BatchNorm2d}]
    made = model.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())


def test_label_gans_loss_is_the_improbability_of_all_classes_of_data():
    logits = torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(any_class(logits), -(1 - logits.softmax(1)[:, 3]).log())


def test_what_has_no_classes_is_refused():
    with pytest.raises(ValueError, match="labelled data"):
        AMGAN(DataSpec((1, 8, 8), 17))
    with pytest.raises(ValueError, match="dynamic, predefined, label_gan"):
        AMGAN(SPEC, mode="static")
