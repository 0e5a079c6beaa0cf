"""Angles correlate as their own formula says, wherever zero is."""

import numpy as np
import pytest
import torch

from zoo.metrics.circular import circular_correlation


def test_it_is_the_correlation_of_sines_about_the_circular_means():
    g = np.random.default_rng(0)
    p = g.normal(2.9, 0.8, 200)  # over the seam at pi
    q = 0.7 * p + g.normal(0, 0.4, 200)
    mean = [np.angle(np.exp(1j * v).mean()) for v in (p, q)]
    s, t = np.sin(p - mean[0]), np.sin(q - mean[1])
    wanted = (s * t).sum() / np.sqrt((s * s).sum() * (t * t).sum())
    found = circular_correlation(torch.tensor(p), torch.tensor(q)).item()
    assert found == pytest.approx(wanted) and 0.5 < found < 1


def test_turning_and_whole_turns_change_nothing_and_mirroring_the_sign():
    g = torch.Generator().manual_seed(0)
    p = torch.randn(50, generator=g, dtype=torch.float64)
    q = p + torch.randn(50, generator=g, dtype=torch.float64) / 3
    r = circular_correlation(p, q)
    turned = circular_correlation(
        p + 2, q - 1 + 2 * torch.pi * torch.randint(9, (50,), generator=g)
    )
    assert turned.item() == pytest.approx(r.item())
    assert circular_correlation(-p, q).item() == pytest.approx(-r.item())
    assert circular_correlation(p, p).item() == pytest.approx(1)
    assert circular_correlation(p, torch.ones(50)).item() == pytest.approx(0, abs=1e-6)
