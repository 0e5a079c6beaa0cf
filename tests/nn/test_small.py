"""The default networks: every size they promise, and a clear refusal of the others."""

import pytest
import torch

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
