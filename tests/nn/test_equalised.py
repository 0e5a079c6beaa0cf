"""Equalised rates: one distribution of parameters, every layer's scale at run time."""

import pytest
import torch
from torch.nn import functional as F

from zoo.nn.equalised import EqualisedConv2d, EqualisedLinear, pixel_norm


@pytest.mark.parametrize(("gain", "rate"), [(2**0.5, 1.0), (1.0, 1.0), (2**0.5, 0.01)])
def test_parameters_have_deviation_one_over_m_and_run_time_weights_hes(gain, rate):
    torch.manual_seed(0)
    layer = EqualisedLinear(300, 200, gain=gain, rate=rate, bias=False)
    assert layer.weight.std().item() == pytest.approx(1 / rate, rel=0.01)
    seen = layer(torch.eye(300)).T  # the weights of the run
    assert seen.std().item() == pytest.approx(gain / 300**0.5, rel=0.01)


def test_a_convolutions_fan_in_counts_its_taps():
    torch.manual_seed(0)
    layer = EqualisedConv2d(50, 60, 3)
    assert layer.weight.std().item() == pytest.approx(1, rel=0.02)
    x = torch.randn(64, 50, 3, 3)
    middle = layer(x)[:, :, 1, 1]  # of all nine taps
    assert middle.var().item() == pytest.approx(2, rel=0.1) and layer.bias.abs().max() == 0
    plain = F.conv2d(x, layer.weight * (2 / 450) ** 0.5, padding=1)
    torch.testing.assert_close(layer(x), plain)


@pytest.mark.parametrize("inputs", [4, 400])
def test_adams_first_step_moves_every_run_time_weight_by_the_rate_times_its_scale(inputs):
    layer = EqualisedLinear(inputs, 3, rate=0.5, start=2.0)
    optimiser = torch.optim.Adam(layer.parameters(), 0.1, (0.0, 0.99))
    eye = torch.eye(inputs)
    before, bias = layer(eye) - layer(0 * eye), layer(0 * eye[:1])
    assert torch.equal(bias, torch.full((1, 3), 2.0))
    layer(eye).sum().backward()
    optimiser.step()
    moved = before - (layer(eye) - layer(0 * eye))
    expected = 0.1 * 0.5 * (2 / inputs) ** 0.5
    torch.testing.assert_close(moved, torch.full_like(moved, expected), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(bias - layer(0 * eye[:1]), torch.full((1, 3), 0.05))


def test_pixel_norm_makes_the_mean_square_over_channels_one_whatever_the_scale():
    for shape in ((5, 7), (2, 7, 3, 4)):
        a = torch.randn(shape, dtype=torch.float64)
        once = pixel_norm(a)
        torch.testing.assert_close(
            once.square().mean(1), torch.ones_like(once[:, 0]), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(pixel_norm(100 * a), once, rtol=1e-5, atol=1e-5)
    assert torch.equal(pixel_norm(torch.zeros(1, 3)), torch.zeros(1, 3))
