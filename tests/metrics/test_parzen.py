"""The Parzen estimate against the densities it must equal."""

import pytest
import torch
from scipy.stats import multivariate_normal

from zoo.metrics.parzen import ParzenWindow, choose_sigma, parzen_log_density


def test_one_sample_gives_the_gaussian_log_density():
    x, g = torch.rand(5, 1, 2, 3), torch.rand(1, 1, 2, 3)
    expected = multivariate_normal(g.flatten().numpy(), 0.3**2).logpdf(x.flatten(1).numpy())
    torch.testing.assert_close(
        parzen_log_density(x, g, 0.3), torch.from_numpy(expected), rtol=1e-6, atol=1e-6
    )


def test_several_samples_give_their_mixture_whatever_the_chunk():
    x, g = torch.rand(7, 4), torch.rand(3, 4)
    mixture = (
        sum(torch.from_numpy(multivariate_normal(m.numpy(), 0.25).pdf(x.numpy())) for m in g) / 3
    )
    for chunk in (2, 100):
        torch.testing.assert_close(
            parzen_log_density(x, g, 0.5, chunk), mixture.log(), rtol=1e-6, atol=1e-6
        )


def test_sigma_is_the_width_of_the_data_around_the_samples():
    x = 0.2 * torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    assert choose_sigma(x, torch.zeros(1, 10), (0.05, 0.1, 0.2, 0.4, 0.8)) == pytest.approx(0.2)


def test_the_metric_scores_the_half_that_did_not_choose_sigma():
    g = torch.Generator().manual_seed(0)
    narrow, wide = (0.5 + s * torch.randn(200, 6, generator=g) for s in (0.1, 0.2))
    samples = torch.full((1, 6), 0.5)
    metric = ParzenWindow(6)
    metric.update(
        torch.stack([narrow, wide], 1).flatten(0, 1), 0, real=True
    )  # even rows are narrow, odd ones wide
    metric.update(samples, 0)
    found = metric.compute()
    assert found["sigma"].item() == pytest.approx(0.1)
    expected = multivariate_normal(samples[0].numpy(), 0.1**2).logpdf(wide.numpy()).mean()
    assert found["nats"].item() == pytest.approx(expected, rel=1e-5)
