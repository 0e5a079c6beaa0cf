"""The default networks: every size they promise, and a clear refusal of the others."""

import pytest
import torch
from torch import nn

from zoo.nn import small


@pytest.mark.parametrize(
    "shape",
    [(2,), (7,), (1, 8, 8), (1, 16, 16), (3, 28, 28), (2, 32, 16), (1, 12, 20), (3, 64, 64)],
)
@pytest.mark.parametrize("kernel", [4, 5])
def test_shapes_fit(shape, kernel):
    x = small.generator(5, shape, 8, kernel)(torch.randn(3, 5))
    assert x.shape == (3, *shape)
    for norm in small.NORMS:
        net = small.discriminator(shape, 8, kernel, norm, outputs=2)
        assert net(x).shape == (3, 2) and len(net.features(x)) == 3
    assert small.discriminator(shape, 8, kernel)(x).shape == (3,)


def test_default_discriminator_has_1024_features_of_a_16x16_image():
    assert small.discriminator((1, 16, 16)).features(torch.zeros(1, 1, 16, 16)).numel() == 1024


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 9, 9), (1, 14, 16)])
def test_other_sizes_are_refused_with_the_remedy(shape):
    for make in (small.ConvDiscriminator, lambda s: small.ConvGenerator(4, s)):
        with pytest.raises(ValueError, match=r"multiples of 4 .* got .*; resize"):
            make(shape)


def test_logits_are_single_precision_under_autocast_and_stay_double():
    net, x = small.discriminator((2,)), torch.randn(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x).dtype == torch.float32
    assert net.double()(x.double()).dtype == torch.float64


def test_logits_are_one_value_a_row_unless_there_are_several():
    assert torch.equal(small.logits(torch.ones(3, 1, dtype=torch.bfloat16)), torch.ones(3))
    assert small.logits(torch.ones(3, 2)).shape == (3, 2)


def layers(net: nn.Module) -> list[nn.Module]:
    """The layers of a network that are no containers."""
    return [m for m in net.modules() if not [*m.children()]]


@pytest.mark.parametrize(
    ("shape", "linear"), [((5,), nn.Linear), ((1, 32, 32), nn.Conv2d)], ids=["vectors", "images"]
)
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_every_layer_of_the_discriminator_has_a_norm_but_the_first_and_the_last(
    shape, linear, norm
):
    kinds = {nn.Linear: {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}}
    kinds[nn.Conv2d] = {"batch": nn.BatchNorm2d, "layer": nn.GroupNorm}
    kind = kinds[linear][norm]
    found = [
        type(m)
        for m in layers(small.discriminator(shape, 8, norm=norm))
        if not isinstance(m, nn.Flatten)
    ]
    hidden = 1 if linear is nn.Linear else 2
    assert found == [linear, nn.LeakyReLU, *[linear, kind, nn.LeakyReLU] * hidden, linear]


def test_images_are_bounded_and_vectors_are_not():
    z = 100 * torch.randn(64, 5)
    image, vector = (small.generator(5, shape, 8)(z) for shape in ((1, 8, 8), (2,)))
    assert image.abs().max() <= 1 and vector.abs().max() > 5


def test_filters_double_from_the_image_inwards_and_units_below_zero_keep_a_fifth():
    d, g = small.discriminator((3, 64, 64), 6), small.generator(5, (3, 64, 64), 6)
    down = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
    up = [m for m in g.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in down] == [6, 12, 24, 48, 1]
    assert [m.out_channels for m in up] == [48, 24, 12, 6, 3]
    for net in (d, small.discriminator((2,)), small.generator(5, (2,))):
        slopes = [m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)]
        assert slopes and set(slopes) == {0.2}


@pytest.mark.parametrize(("norm", "biased"), [("none", True), ("batch", False)])
def test_a_layer_has_a_bias_where_no_norm_shifts_it(norm, biased):
    d = small.discriminator((1, 32, 32), 6, norm=norm)
    g = small.generator(5, (1, 32, 32), 6, norm=norm)
    down = [m.bias is not None for m in d.modules() if isinstance(m, nn.Conv2d)]
    up = [m.bias is not None for m in g.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert down == [True, *[biased] * (len(down) - 2), True]
    assert up == [*[biased] * (len(up) - 1), True]


def test_dcgans_start_is_normal_with_gains_around_one():
    net = nn.Sequential(nn.Conv2d(64, 64, 5), nn.ConvTranspose2d(64, 64, 5), nn.BatchNorm2d(4000))
    small.initialise(net)
    for m in net[:2]:
        assert m.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert abs(m.weight.mean().item()) < 1e-3
    gains = net[2].weight
    assert gains.mean().item() == pytest.approx(1, abs=0.005)
    assert gains.std().item() == pytest.approx(0.02, rel=0.1) and not net[2].bias.any()


def test_a_uniform_start_fills_its_bound():
    net = small.uniform(nn.Sequential(nn.Linear(300, 100), nn.Linear(100, 50)), 0.05)
    for m in net:
        assert 0.0495 < m.weight.abs().max() <= 0.05 and not m.bias.any()
        assert m.weight.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.05)
