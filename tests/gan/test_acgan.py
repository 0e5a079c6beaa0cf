"""AC-GAN is AC-GAN: two heads on one trunk, no label into D, both players classify the generated
images, diversity within a class.
"""

import inspect

import pytest
import torch
from torch.nn import functional as F

from zoo.bases import LoopOptions
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.acgan import ACGAN, ms_ssim, partners
from zoo.gan.gan import GAN

SPEC = DataSpec((1, 8, 8), 17, 3)


def batch(n: int = 9) -> Batch:
    x = torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    return Batch({"x": x, "y": torch.arange(n) % 3})


def make(**options) -> ACGAN:
    torch.manual_seed(0)
    model = ACGAN(SPEC, **{"latent": 4, "width": 4, **options}).double()
    model.noise = Noise(3, "test", dtype=torch.float64)
    return model


def gradient(loss: torch.Tensor, net: torch.nn.Module) -> torch.Tensor:
    grads = torch.autograd.grad(loss, [*net.parameters()], allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for g, p in zip(grads, net.parameters(), strict=True)
        ]
    )


def test_the_discriminator_takes_no_label():
    model, x = make(), SPEC.to_signed(batch()["x"].double())
    assert list(inspect.signature(model.d.net.forward).parameters) == ["x"]
    with pytest.raises(TypeError):
        model.d(x, torch.zeros(9, dtype=torch.long))
    out = []
    model.d.net.register_forward_hook(lambda _, args, logits: out.append(logits))
    for y in (torch.zeros(9, dtype=torch.long), torch.ones(9, dtype=torch.long)):
        model.noise.draws = 0
        model.discriminator_loss(Batch({"x": batch()["x"].double(), "y": y}))
    assert len(out) == 4 and torch.equal(out[0], out[2]) and torch.equal(out[1], out[3])
    assert torch.equal(out[0], model.d(x))
    # One channel, nothing beside the image.
    assert model.d.net.trunk[0][0].weight.shape[1] == 1


def test_one_trunk_serves_both_heads():
    model, x = make(), SPEC.to_signed(batch()["x"].double())
    trunk = model.d.net.trunk
    calls = []
    trunk.register_forward_hook(lambda *args: calls.append(1))
    out = model.d(x)
    assert out.shape == (9, 4) and len(calls) == 1
    of_source, of_classes = model.d(x)[:, 0].sum(), model.d(x)[:, 1:].square().sum()
    assert (
        gradient(of_source, trunk).abs().max() > 0 and gradient(of_classes, trunk).abs().max() > 0
    )
    for head, other in (
        (model.d.net.source, model.d(x)[:, 1:]),
        (model.d.net.classes, model.d(x)[:, 0]),
    ):
        assert gradient(other.sum(), head).abs().max() == 0


def test_both_losses_hold_the_cross_entropy_of_generated_classes_and_only_ds_that_of_real_ones():
    rows = batch().to("cpu", torch.float64)
    changes = {}
    for name, player in (("discriminator_loss", "d"), ("generator_loss", "g")):
        with_class, without = make(), make(w_d=0.0, w_g=0.0)
        found = [
            gradient(getattr(m, name)(rows)["loss"], getattr(m, player))
            for m in (with_class, without)
        ]
        changes[name] = found[0] - found[1]
    model, noise = make(), Noise(3, "test", dtype=torch.float64)
    c, x = noise.integers(9, high=3), SPEC.to_signed(rows["x"])
    fake = model.g(torch.cat([noise.normal(9, 4), F.one_hot(c, 3)], 1))
    of_fake = F.cross_entropy(model.d(fake)[:, 1:], c)
    of_real = F.cross_entropy(model.d(x)[:, 1:], rows["y"])
    torch.testing.assert_close(changes["generator_loss"], gradient(of_fake, model.g))
    torch.testing.assert_close(
        changes["discriminator_loss"],
        gradient(of_real + of_fake.detach(), model.d.net)
        + gradient(F.cross_entropy(model.d(fake.detach())[:, 1:], c), model.d.net),
    )
    assert gradient(model.discriminator_loss(rows)["loss"], model.g).abs().max() == 0


def test_without_the_classes_it_is_a_gan():
    model, rows = make(w_d=0.0, w_g=0.0), batch().to("cpu", torch.float64)
    gan = GAN(SPEC).double()
    gan.g = torch.nn.Sequential(Told(), model.g)
    gan.d.net = torch.nn.Sequential(model.d.net, First())
    gan.latent = 4
    for name, arguments in (("discriminator_loss", rows), ("generator_loss", Batch({}, 9))):
        gan.noise = model.noise = Noise(3, "test", dtype=torch.float64)
        mine = getattr(model, name)(arguments)["loss"]
        gan.noise.draws = 1  # after the classes
        torch.testing.assert_close(mine, getattr(gan, name)(arguments)["loss"])


class First(torch.nn.Module):
    def forward(self, out: torch.Tensor) -> torch.Tensor:
        return out[:, 0]


class Told(torch.nn.Module):
    """Joins z with the classes that the model draws, its step's first draw."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, F.one_hot(Noise(3, "test").integers(len(z), high=3), 3)], 1)


def test_real_rows_are_classified_by_their_labels_and_generated_ones_by_the_drawn_class():
    rows, losses = batch(), []
    told = Noise(3, "test").integers(9, high=3)
    assert not torch.equal(told, rows["y"])
    for y in (rows["y"], (rows["y"] + 1) % 3):
        model = make()
        with torch.no_grad():
            model.d.net.classes.weight.zero_()
            model.d.net.classes.bias.copy_(torch.tensor([1.0, 2.0, 4.0]))
        losses.append(model.discriminator_loss(Batch({"x": rows["x"].double(), "y": y}))["d_class"])
        log_p = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).log_softmax(0)
        torch.testing.assert_close(losses[-1], -log_p[y].mean() - log_p[told].mean())


def test_classes_are_drawn_uniformly_and_anew_in_each_step():
    model = make()
    first, second = model.draw_classes(6000), model.draw_classes(6000)
    assert not torch.equal(first, second)
    assert (torch.bincount(first, minlength=3) / 6000 - 1 / 3).abs().max() < 0.03


def test_images_of_one_class_that_are_equal_have_ms_ssim_one_and_unlike_ones_less():
    for side in (8, 16, 32, 64, 128, 192):
        x = torch.rand(4, 1, side, side, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ms_ssim(x, x), torch.ones(4))
        assert (ms_ssim(x, x.flip(0)) < 0.7).all() and (
            ms_ssim(x, (x + 0.1 * x.flip(0)).clamp(0, 1)) > ms_ssim(x, x.flip(0))
        ).all()


def test_a_generator_that_ignores_z_has_ms_ssim_one():
    model = ACGAN(SPEC, latent=4, width=4).eval()
    free = model.evaluate(batch(), torch.Generator().manual_seed(0))["ms_ssim"].mean()
    with torch.no_grad():
        model.g.net[1].weight[:4] = 0  # the projection's rows that read z
    stuck = model.evaluate(batch(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(stuck["ms_ssim"], torch.ones(9))
    assert free < 0.99 and stuck["ms_ssim_real"].mean() < 0.9


def test_partners_are_other_rows_of_the_same_class():
    y = torch.tensor([0, 1, 0, 2, 1, 0])
    assert partners(y).tolist() == [2, 4, 5, 3, 1, 0]


def test_classes_of_held_out_images_are_compared_with_their_labels():
    model, rows = ACGAN(SPEC, width=4).eval(), batch(30)
    p = model.classify(rows["x"])
    torch.testing.assert_close(p.sum(1), torch.ones(30))
    values = model.evaluate(rows, torch.Generator().manual_seed(0))
    assert values["class_acc_real"].mean() == (p.argmax(1) == rows["y"]).float().mean()


def sure_of_the_source(model: ACGAN) -> ACGAN:
    """A model whose D gives the source's logit the largest value of all."""
    with torch.no_grad():
        model.d.net.source.bias.fill_(50.0)
        model.d.net.classes.weight.mul_(20.0)
    return model


def test_shares_of_classes_are_among_the_classes_alone_in_training_and_held_out():
    model, rows = sure_of_the_source(make()).eval(), batch(60).to("cpu", torch.float64)
    terms = model.discriminator_loss(rows)
    noise, x = Noise(3, "test", dtype=torch.float64), SPEC.to_signed(rows["x"])
    c = noise.integers(60, high=3)
    fake = model.g(torch.cat([noise.normal(60, 4), torch.eye(3, dtype=torch.float64)[c]], 1))

    def share(v: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (model.d.net.classes(model.d.net.features(v)).max(1).indices == y).float()

    torch.testing.assert_close(terms["class_acc_real"], share(x, rows["y"]).mean())
    torch.testing.assert_close(terms["class_acc_fake"], share(fake, c).mean())
    values = model.evaluate(rows, torch.Generator().manual_seed(0))
    drawn = model.sample(60, y=rows["y"], generator=torch.Generator().manual_seed(0))
    assert torch.equal(values["class_acc_real"].float(), share(x, rows["y"]))
    assert torch.equal(values["class_acc_fake"].float(), share(SPEC.to_signed(drawn), rows["y"]))
    assert 0 < values["class_acc_real"].mean() < 1
    said = model.classify(rows["x"])
    expected = model.d.net.classes(model.d.net.features(x)).softmax(1)
    torch.testing.assert_close(said, expected)


def test_samples_and_paths_are_of_the_class_that_is_asked_for_each_row():
    model, y = ACGAN(SPEC, latent=4, width=4).eval(), torch.tensor([2, 0, 1])
    drawn = model.sample(3, y=y, generator=torch.Generator().manual_seed(5))
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(drawn, SPEC.from_signed(model.g(torch.cat([z, torch.eye(3)[y]], 1))))
    frames = model.interpolate(z, z.flip(0), 5, y=y)
    for i, c in enumerate(y):
        for at, code in ((0, z[i]), (-1, z.flip(0)[i])):
            row = model.g(torch.cat([code, torch.eye(3)[c]])[None])
            assert torch.equal(frames[i, at], SPEC.from_signed(row)[0])


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_the_generators_loss_is_the_one_that_is_asked_with_its_own_weight_of_the_classes(g_loss):
    model, noise = make(g_loss=g_loss, w_d=0.3, w_g=0.7), Noise(3, "test", dtype=torch.float64)
    terms = model.generator_loss(Batch({}, 9))
    c = noise.integers(9, high=3)
    out = model.d(model.g(torch.cat([noise.normal(9, 4), torch.eye(3).double()[c]], 1)))
    p = out[:, 0].sigmoid()
    game = -p.log().mean() if g_loss == "nonsat" else (1 - p).log().mean()
    of_class = -out[:, 1:].softmax(1)[torch.arange(9), c].log().mean()
    torch.testing.assert_close(terms["loss"], game + 0.7 * of_class)


def test_similarity_is_of_two_draws_of_a_class_and_of_two_held_out_images_of_it():
    spec = DataSpec((1, 16, 16), 17, 3)
    model = ACGAN(spec, latent=4, width=4).eval()
    x = torch.randint(0, 17, (9, 1, 16, 16), generator=torch.Generator().manual_seed(1)).float()
    y = torch.arange(9) % 3
    values = model.evaluate(Batch({"x": x, "y": y}), torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(0)
    a, b = (model.sample(9, y=y, generator=source) / 16 for _ in range(2))
    torch.testing.assert_close(values["ms_ssim"], ms_ssim(a, b))
    own = ms_ssim(x / 16, x.roll(-3, 0) / 16).mean()  # the next row of the class
    torch.testing.assert_close(values["ms_ssim_real"], own.expand(9))
    assert values["ms_ssim"].max() < 0.999 and own < 0.5


def test_r1_is_of_the_logit_of_the_source_alone():
    model, rows = make(loop=LoopOptions(r1=3.0)), batch().to("cpu", torch.float64)
    r1 = model.discriminator_loss(rows)["r1"]
    x = SPEC.to_signed(rows["x"]).requires_grad_()
    (slope,) = torch.autograd.grad(model.d.net.source(model.d.net.features(x)).sum(), x)
    torch.testing.assert_close(r1, 1.5 * slope.square().sum((1, 2, 3)).mean())


def test_the_networks_have_the_widths_and_the_dropout_that_are_asked():
    model = ACGAN(SPEC, width=4, width_d=6, dropout=0.3, lr_d=0.2, lr_g=0.1, beta1=0.3)
    assert model.d.net.trunk[0][0].out_channels == 6 and model.d.net.dropout.p == 0.3
    assert [m.in_channels for m in model.g.net if hasattr(m, "output_padding")][-1] == 4
    made = model.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())


def test_codes_without_a_class_are_refused():
    model, z = ACGAN(SPEC), torch.zeros(2, 32)
    for ask in (lambda: model.from_codes(z), lambda: model.interpolate(z, z + 1)):
        with pytest.raises(TypeError, match=r"ACGAN.* missing 1 required keyword-only .*: 'y'"):
            ask()


def test_the_papers_start_is_that_of_both_networks():
    model = ACGAN(DataSpec((1, 16, 16), 17, 3), init="dcgan")
    for net in (model.g, model.d.net):
        weights = [
            m.weight
            for m in net.modules()
            if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))
        ]
        assert weights and torch.cat([w.flatten() for w in weights]).std().item() == pytest.approx(
            0.02, rel=0.05
        )


def test_paper_discriminator_is_table_2():
    with torch.device("meta"):
        model = ACGAN(
            DataSpec((3, 32, 32), 256, 10),
            arch="paper",
            latent=100,
            width=96,
            width_d=16,
            kernel=5,
            norm="batch",
            dropout=0.5,
        )
    convs = [m for m in model.d.net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in convs] == [
        (16, 3, 2),
        (32, 3, 1),
        (64, 3, 2),
        (128, 3, 1),
        (256, 3, 2),
        (512, 3, 1),
    ]
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.d.net.modules()) == 5
    assert [m.p for m in model.d.net.modules() if isinstance(m, torch.nn.Dropout)] == [0.5] * 6
    assert model.d(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 11)
    up = [
        (m.in_channels, m.out_channels)
        for m in model.g.modules()
        if isinstance(m, torch.nn.ConvTranspose2d)
    ]
    assert up == [(110, 384), (384, 192), (192, 96), (96, 3)]


def test_what_has_no_classes_is_refused():
    with pytest.raises(ValueError, match="labelled data"):
        ACGAN(DataSpec((1, 8, 8), 17))
    with pytest.raises(ValueError, match="replay"):
        ACGAN(SPEC, loop=LoopOptions(replay=10))
