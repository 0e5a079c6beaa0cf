"""The base of flows: the change of variables in nats, its two parts in bits, codes and paths."""

import math

import pytest
import torch
from scipy import stats

from zoo.bases.flow import FlowModule
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import bits_per_dim

LEVELS = DataSpec((1, 2, 2), 4)
EVERY = torch.arange(4.0)[:, None, None, None].expand(4, 1, 2, 2)  # four images of one level


class Line(FlowModule):
    """z = 2 v + 1 in every dimension: vectors are N(-1/2, 1/4)."""

    def forward_flow(self, v):
        return 2 * v.flatten(1) + 1, v.new_full((len(v),), self.spec.dim * math.log(2))

    def inverse_flow(self, z):
        v = ((z - 1) / 2).view(len(z), *self.spec.shape)
        return v, z.new_full((len(z),), -self.spec.dim * math.log(2))


class Even(Line):
    """y uniform in [0, 1)^D by way of v = 4 y, z = 8 y + 1, whose density is 1/8 in each."""

    def preprocess(self, y):
        return 4 * y, y.new_full((len(y),), self.spec.dim * math.log(4))

    def log_base(self, z):
        return z.new_full((len(z),), -self.spec.dim * math.log(8))


class Rising(Line):
    """p(y) = 2 y in every dimension."""

    draws = 4000

    def log_density(self, y):
        return (2 * y).log().flatten(1).sum(1)


def test_vectors_have_the_density_of_the_base_times_the_volume_in_nats():
    model, x = Line(DataSpec((3,))), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    exact = stats.norm(-0.5, 0.5).logpdf(x.double().numpy()).sum(1)
    assert model.log_prob(x).tolist() == pytest.approx(exact, rel=1e-5)
    terms = model.loss(Batch({"x": x}))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {"loss": -exact.mean(), "nll_nats": -exact.mean()}, rel=1e-5
    )


def test_a_uniform_density_gives_every_image_the_same_mass_in_two_parts():
    model = Even(LEVELS)
    assert model.log_prob(EVERY).tolist() == pytest.approx([-math.log(4**4)] * 4)
    parts = model.evaluate(Batch({"x": EVERY}))
    assert parts["prior_bpd"].tolist() == pytest.approx([3.0] * 4)  # log2 8
    assert parts["logdet_per_dim"].tolist() == pytest.approx([-1.0] * 4)  # log2 4 - log2 8
    assert bits_per_dim(model.log_prob(EVERY), 4).tolist() == pytest.approx([2.0] * 4)


def test_the_bound_is_the_mean_over_the_noise_and_below_the_mass():
    """∫ ln(2 (k + u)/4) du = [v ln(v/2) - v] from k to k + 1; the mass is (2 k + 1)/16."""
    found = Rising(LEVELS).log_prob(EVERY, generator=torch.Generator().manual_seed(0)) / 4
    upper = [v * math.log(v / 2) - v if v else 0.0 for v in range(5)]
    means = [upper[k + 1] - upper[k] - math.log(4) for k in range(4)]
    assert found.tolist() == pytest.approx(means, abs=0.032)  # 4 deviations for level 0
    assert all(m < math.log((2 * k + 1) / 16) for k, m in enumerate(means))


def test_codes_are_of_the_middle_of_a_level_and_temperature_scales_them():
    model = Line(LEVELS)
    torch.testing.assert_close(model.encode(EVERY), (2 * EVERY + 5).flatten(1) / 4)
    assert torch.equal(model.reconstruct(EVERY), EVERY)
    points = Line(DataSpec((3,)))
    cold, warm = (
        points.sample(2000, generator=torch.Generator().manual_seed(0), temperature=t)
        for t in (0.0, 2.0)
    )
    torch.testing.assert_close(cold, torch.full((2000, 3), -0.5))
    assert stats.kstest(warm.flatten().numpy(), stats.norm(-0.5, 1.0).cdf).pvalue > 1e-3


def test_a_path_is_a_quarter_of_an_ellipse():
    model, a, b = Line(DataSpec((2,))), torch.tensor([[0.0, -0.5]]), torch.tensor([[-0.5, 1.0]])
    path = model.interpolate(a, b, frames=3)[0]  # codes (1, 0) and (0, 3)
    middle = torch.tensor([[math.sqrt(0.5) - 1, 3 * math.sqrt(0.5) - 1]]) / 2
    torch.testing.assert_close(path, torch.cat([a, middle, b]))
