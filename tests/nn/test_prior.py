"""Latent codes: one meaning for training and sampling, and paths that stay where the prior
lives.
"""

import pytest
import torch
from scipy import stats

from zoo.core.noise import Noise
from zoo.nn.prior import Draw, draw_prior, path, slerp

LAWS = {"normal": stats.norm().cdf, "uniform": stats.uniform(-1, 2).cdf}


@pytest.mark.parametrize("kind", ["normal", "uniform", "sphere"])
def test_training_and_sampling_draw_from_the_same_law(kind):
    draws = [
        draw_prior(kind, 3000, 4, s)
        for s in (Noise(1, "t"), Draw(torch.Generator().manual_seed(2), dtype=torch.float32))
    ]
    for z in draws:
        assert z.shape == (3000, 4) and z.mean(0).abs().max() < 0.1
        if kind in LAWS:
            assert stats.kstest(z.flatten().numpy(), LAWS[kind]).pvalue > 1e-3
        else:
            torch.testing.assert_close(z.norm(dim=1), torch.full((3000,), 2.0))
    assert stats.ks_2samp(draws[0][:, 0].numpy(), draws[1][:, 0].numpy()).pvalue > 1e-3


def test_unknown_prior_is_refused():
    with pytest.raises(ValueError, match="normal, uniform, sphere"):
        draw_prior("gauss", 1, 1, Noise(0))


def test_path_on_the_sphere_keeps_the_norm_and_equal_angles_and_the_straight_one_equal_steps():
    a, b = draw_prior("sphere", 2, 6, Noise(3)).double().split(1)
    arc = path("sphere", a, b, 7)[0]
    torch.testing.assert_close(arc[[0, -1]], torch.cat([a, b]))
    torch.testing.assert_close(
        arc.norm(dim=1), torch.full((7,), a.norm().item(), dtype=torch.float64)
    )
    angles = torch.acos((arc[1:] * arc[:-1]).sum(1) / 6)
    torch.testing.assert_close(angles, angles[:1].expand(6))
    steps = path("uniform", a, b, 7)[0].diff(dim=0)
    torch.testing.assert_close(steps, ((b - a) / 6).expand(6, -1))


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_slerp_between_parallel_codes_is_the_straight_line(factor):
    a = torch.randn(1, 5)
    middle = slerp(a, factor * a, torch.tensor(0.5))
    torch.testing.assert_close(middle, (1 + factor) / 2 * a, atol=1e-5, rtol=0)
