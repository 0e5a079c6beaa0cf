"""PSNR, SSIM and L1 are what numpy gives; trivial answers are what they say they are."""

import math

import numpy as np
import torch
from scipy.signal import convolve2d

from zoo.metrics.targets import answers, l1, psnr, reached, ssim


def pair(n=3, channels=2, side=32):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(n, channels, side, side, generator=g)
    return x, (x + 0.2 * torch.randn(x.shape, generator=g)).clamp(0, 1)


def test_psnr_is_that_of_each_image_and_not_of_the_batch():
    x, y = pair()
    y[0] = x[0] + 0.01
    errors = ((x - y).double() ** 2).flatten(1).mean(1).numpy()
    assert np.allclose(psnr(x, y), -10 * np.log10(errors), atol=1e-3)
    assert psnr(x, x).tolist() == [100.0] * 3
    assert np.allclose(l1(x, y), np.abs((x - y).numpy()).mean((1, 2, 3)))


def test_ssim_is_the_formula_with_a_gaussian_window_over_reflected_images():
    g = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    kernel = np.outer(g, g) / g.sum() ** 2

    def m(v):
        return convolve2d(np.pad(v, 5, mode="reflect"), kernel, mode="valid")

    for side in (32, 16):
        x, y = pair(1, 1, side)
        a, b = (v[0, 0].double().numpy() for v in (x, y))
        mu_a, mu_b = m(a), m(b)
        var_a, var_b, cov = m(a * a) - mu_a**2, m(b * b) - mu_b**2, m(a * b) - mu_a * mu_b
        c1, c2 = 0.01**2, 0.03**2
        each = (2 * mu_a * mu_b + c1) * (2 * cov + c2)
        each /= (mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2)
        assert math.isclose(ssim(x, y).item(), each.mean(), abs_tol=1e-5), side


def test_trivial_answers_have_the_size_and_channels_of_what_is_wanted():
    mean = torch.rand(3, 16, 16)
    same = answers(torch.rand(2, 3, 16, 16), mean)
    assert {k: tuple(v.shape) for k, v in same.items()} == dict.fromkeys(
        ("mean", "copy"), (2, 3, 16, 16)
    )
    small = torch.rand(2, 3, 4, 4)
    enlarged = answers(small, mean)
    assert torch.equal(enlarged["copy"][..., ::4, ::4], small)
    assert enlarged["bicubic"].shape == (2, 3, 16, 16) and enlarged["bicubic"].max() <= 1
    assert [*answers(torch.rand(2, 8, 16, 16), mean)] == ["mean"]
    grey = torch.rand(2, 1, 16, 16)
    assert torch.equal(answers(grey, mean)["copy"][:, 2], grey[:, 0])


def test_answers_are_reached_by_what_is_nearest_to_them_however_often():
    g = torch.Generator().manual_seed(0)
    wanted = torch.rand(8, 1, 4, 4, generator=g)
    made = wanted[[2, 2, 2, 5]] + 0.01 * torch.rand(4, 1, 4, 4, generator=g)
    assert reached(made, wanted).item() == 2 / 8
    assert reached(wanted.flip(0), wanted).item() == 1
    assert reached(wanted.mean(0, keepdim=True).expand(8, -1, -1, -1), wanted).item() == 1 / 8
