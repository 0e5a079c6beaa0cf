"""DCGAN is DCGAN: the architecture's rules, the initialisation, separate batches, features."""

import pytest
import torch
from torch import nn

from zoo.bases import LoopOptions
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.dcgan import DCGAN

SPEC = DataSpec((1, 16, 16), 17)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample)


def images(n: int) -> torch.Tensor:
    return torch.randint(0, 17, (n, 1, 16, 16), generator=torch.Generator().manual_seed(1)).float()


def paper() -> DCGAN:
    with torch.device("meta"):
        return DCGAN(DataSpec((3, 64, 64), 256), latent=100, width=128, kernel=5)


@pytest.mark.parametrize("model", [lambda: DCGAN(SPEC), paper], ids=["default", "paper"])
def test_architecture_keeps_the_papers_rules(model):
    model = model()
    modules = [*model.modules()]
    assert not any(isinstance(m, (*POOLS, nn.Linear, nn.Dropout)) for m in modules)
    layers = [m for m in model.g.net if not isinstance(m, nn.Unflatten)]
    hidden, end = layers[:-2], layers[-2:]
    assert [type(m) for m in hidden] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * (
        len(hidden) // 3
    )
    assert [type(m) for m in end] == [nn.ConvTranspose2d, nn.Tanh]
    stages = [[type(m) for m in stage] for stage in model.d.net.stages]
    assert stages[0] == [nn.Conv2d, nn.LeakyReLU]
    assert (
        all(stage == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] for stage in stages[1:])
        and len(stages) > 1
    )
    assert isinstance(model.d.net.end, nn.Conv2d)
    assert {m.negative_slope for m in modules if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert all(
        m.stride == (2, 2) for s in model.d.net.stages for m in s if isinstance(m, nn.Conv2d)
    )


def test_paper_network_is_figure_1():
    model = paper()
    up = [
        (m.out_channels, m.kernel_size[0])
        for m in model.g.modules()
        if isinstance(m, nn.ConvTranspose2d)
    ]
    assert up == [
        (1024, 4),
        (512, 5),
        (256, 5),
        (128, 5),
        (3, 5),
    ]  # the first is the projection to 4x4
    assert [s[0].out_channels for s in model.d.net.stages] == [128, 256, 512, 1024]
    x = model.g(torch.zeros(2, 100, device="meta"))
    assert x.shape == (2, 3, 64, 64) and model.d.net.features(x).shape == (2, 1024, 4, 4)


def test_weights_start_as_the_paper_says():
    model = DCGAN(SPEC, latent=100, width=64)
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            assert m.weight.std().item() == pytest.approx(
                0.02, rel=0.05 if m.weight.numel() > 2000 else 0.1
            )
    gains = torch.cat([m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert gains.mean().item() == pytest.approx(
        1, abs=0.02
    ) and gains.std().item() == pytest.approx(0.02, rel=0.3)
    assert all((m.bias == 0).all() for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_real_logits_do_not_see_the_generated_batch_unless_joined():
    for separate in (True, False):
        model, real = DCGAN(SPEC, loop=LoopOptions(separate_batches=separate)), []
        for seed in (0, 1):  # other fakes
            model.noise = Noise(seed, "test")
            real.append(model.d.both((model.scaled(images(8)),), (model.g(model.codes(8)),))[0])
        assert torch.equal(*real) == separate


def test_batch_norm_couples_samples_in_training_mode_only():
    model = DCGAN(SPEC)
    z = torch.rand(6, 32) * 2 - 1
    with torch.no_grad():
        for _ in range(50):
            model.g(torch.rand(64, 32) * 2 - 1)  # running statistics
        assert (model.g(z)[:2] - model.g(z[:2])).abs().max() > 1e-3
        model.eval()
        assert (model.g(z)[:2] - model.g(z[:2])).abs().max() < 1e-6


def test_images_lie_strictly_between_minus_one_and_one():
    for model in (DCGAN(SPEC), DCGAN(DataSpec((3, 32, 32), 256), kernel=5)):
        x = model.g(torch.rand(64, 32) * 2 - 1)
        assert x.shape[1:] == model.spec.shape and x.abs().max() < 1
        model.g.net[-2].weight.data *= 1e4  # the end is a tanh, whatever the weights
        assert 0.999 < model.g(torch.rand(64, 32) * 2 - 1).abs().max() <= 1


def test_discriminator_loss_is_the_cross_entropy_of_telling_real_from_generated():
    model, x = DCGAN(SPEC), images(8)
    model.noise = Noise(3, "test")
    terms = model.discriminator_loss(Batch({"x": x}))
    model.noise = Noise(3, "test")
    fake = model.g(model.noise.uniform(8, 32, low=-1, high=1)).detach()
    s = torch.cat([model.d(SPEC.to_signed(x)), model.d(fake)])
    target = torch.tensor([1.0] * 8 + [0.0] * 8)
    torch.testing.assert_close(
        terms["loss"], 2 * nn.functional.binary_cross_entropy_with_logits(s, target)
    )


def test_features_are_all_activations_pooled_to_a_four_by_four_grid():
    model, x = DCGAN(SPEC).eval(), images(3)
    features = model.d_features(x)
    first = model.d.net.stages[0](SPEC.to_signed(x))  # (3, 32, 8, 8)
    last = model.d.net.features(SPEC.to_signed(x))  # (3, 64, 4, 4)
    pooled = first.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    torch.testing.assert_close(features, torch.cat([pooled.flatten(1), last.flatten(1)], 1))


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_generator_loss_is_the_one_that_is_asked_for(g_loss):
    model = DCGAN(SPEC, g_loss=g_loss)
    model.noise = Noise(3, "test")
    loss = model.generator_loss(Batch({}, 8))["loss"]
    made = model.g(Noise(3, "test").uniform(8, 32, low=-1, high=1))
    p = model.d.net(made).sigmoid()
    expected = -p.log().mean() if g_loss == "nonsat" else (1 - p).log().mean()
    torch.testing.assert_close(loss, expected)


def test_the_game_is_played_as_it_is_asked_for():
    model = DCGAN(SPEC, prior="normal", k=3, lr_d=0.2, lr_g=0.1, beta1=0.3)
    made = model.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())
    assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]
    assert model.codes(500).abs().max() > 2
    assert DCGAN(SPEC, prior="uniform").codes(500).abs().max() <= 1


def test_joined_batches_share_their_statistics_with_the_samples_of_the_step():
    model = DCGAN(SPEC, loop=LoopOptions(separate_batches=False))
    model.noise = Noise(3, "test")
    terms = model.discriminator_loss(Batch({"x": images(8)}))
    fake = model.g(Noise(3, "test").uniform(8, 32, low=-1, high=1)).detach()
    s = model.d.net(torch.cat([SPEC.to_signed(images(8)), fake]))
    target = torch.tensor([1.0] * 8 + [0.0] * 8)
    bce = nn.functional.binary_cross_entropy_with_logits(s, target)
    torch.testing.assert_close(terms["loss"], 2 * bce)
