"""Units and preprocessing of likelihoods: one conversion, one dequantisation, one logit
transform.
"""

import math

import pytest
import torch

from zoo.bases import DensityModule
from zoo.check.likelihoods import assert_flow_inverts
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import (
    bits_per_dim,
    dequantise,
    inverse_logit_transform,
    logit_transform,
    quantise,
    row_noise,
)


class Uniform(DensityModule):
    """The density that is 1 on [0, 1)^D."""

    def log_density(self, y):
        assert (y >= 0).all() and (y < 1).all()
        return y.new_zeros(len(y))


def test_bits_per_dim_is_nats_over_d_ln_2():
    assert bits_per_dim(torch.tensor(-79.2), 784).item() == pytest.approx(0.14574, abs=1e-5)
    assert torch.equal(
        bits_per_dim(torch.tensor([-math.log(2) * 6, 0.0], dtype=torch.float64), 6),
        torch.tensor([1.0, 0.0]).double(),
    )


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_a_uniform_density_scores_log2_of_the_levels(levels):
    spec = DataSpec((3, 2, 2), levels)
    x = torch.randint(levels, (5, 3, 2, 2)).double()
    model = Uniform(spec)
    bits = bits_per_dim(model.log_prob(x), spec.dim)
    torch.testing.assert_close(
        bits, torch.full((5,), math.log2(levels), dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert model.loss(Batch({"x": x}))["loss"].item() == pytest.approx(math.log2(levels), abs=1e-12)
    assert model.likelihood_kind == "dequantised_bound"


def test_vectors_are_neither_dequantised_nor_rescaled():
    class Normal(DensityModule):
        def log_density(self, y):
            return torch.distributions.Normal(0, 1).log_prob(y).sum(1)

    model, x = Normal(DataSpec((2,))), torch.tensor([[0.5, -3.0]])
    assert model.likelihood_kind == "exact_density"
    assert model.log_prob(x).item() == pytest.approx(
        -0.5 * (0.25 + 9) - math.log(2 * math.pi), abs=1e-6
    )
    assert model.loss(Batch({"x": x}))["loss"] == -model.log_prob(x).mean()


def test_the_bound_is_below_the_mass_and_the_masses_sum_to_one():
    # p(y) = 2y on [0, 1) with 3 levels has the masses 1/9, 3/9, 5/9
    class Ramp(DensityModule):
        draws = 4000

        def log_density(self, y):
            return torch.log(2 * y).flatten(1).sum(1)

    x = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
    mass = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64) / 9
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    y = (x.view(3, 1) + u) / 3
    torch.testing.assert_close(
        (2 * y).mean(1) / 3, mass, rtol=1e-8, atol=0
    )  # the implied mass, by quadrature
    exact_bound = torch.log(2 * y).mean(1) - math.log(3)
    assert (exact_bound < mass.log()).all()
    torch.testing.assert_close(
        Ramp(DataSpec((1, 1, 1), 3)).log_prob(x), exact_bound, rtol=0, atol=0.06
    )


def test_dequantised_images_fill_their_bins_and_quantise_back():
    x = torch.arange(17.0).view(1, 1, 1, 17)
    for u in (0.0, 0.5, 1 - 1e-6):
        y, constant = dequantise(x, 17, torch.full_like(x, u))
        assert y.min() >= 0 and y.max() < 1 and torch.equal(quantise(y, 17), x)
    assert constant == pytest.approx(-17 * math.log(17))
    assert torch.equal(
        quantise(torch.tensor([-0.01, 0.0, 1.0]), 17), torch.tensor([0.0, 0.0, 16.0])
    )


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_logit_log_det_is_autograds_and_the_inverse_undoes_it(alpha):
    y = torch.rand(3, 1, 2, 3, dtype=torch.float64)
    assert_flow_inverts(
        lambda v: logit_transform(v, alpha), lambda z: inverse_logit_transform(z, alpha), y
    )


def test_black_and_white_stay_finite_under_the_logit():
    ends = torch.tensor([[0.0], [1.0]])
    v, log_det = logit_transform(ends, 0.05)
    assert torch.isfinite(v).all() and torch.isfinite(log_det).all()
    torch.testing.assert_close(v, torch.tensor([[math.log(0.05 / 0.95)], [math.log(0.95 / 0.05)]]))
    assert not torch.isfinite(torch.logit(0.05 + (1 - 0.05) * ends)).all()  # the printed formula


def test_row_noise_belongs_to_the_row_unless_a_generator_is_given():
    x = torch.rand(4, 3)
    noise = row_noise(torch.rand, x, (2, 5))
    assert noise.shape == (4, 2, 5) and torch.equal(noise, row_noise(torch.rand, x, (2, 5)))
    assert torch.equal(row_noise(torch.rand, x[2:], (2, 5)), noise[2:])
    assert not torch.equal(noise[0], noise[1])
    a, b = (row_noise(torch.rand, x, (2, 5), torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not torch.equal(a, b)


def test_row_noise_is_uniform_or_normal_over_rows():
    x = torch.rand(2000, 2)
    u, eps = row_noise(torch.rand, x, (3,)).flatten(), row_noise(torch.randn, x, (3,)).flatten()
    assert u.mean().item() == pytest.approx(0.5, abs=0.02) and u.var().item() == pytest.approx(
        1 / 12, abs=0.005
    )
    assert eps.mean().item() == pytest.approx(0, abs=0.05) and eps.var().item() == pytest.approx(
        1, abs=0.06
    )


def test_evaluation_is_repeatable_and_training_uses_the_step_noise():
    model = Uniform(DataSpec((1, 2, 2), 4))
    seen = []
    model.log_density = lambda y: (seen.append(y.clone()), y.sum((1, 2, 3)))[1]
    x = torch.ones(2, 1, 2, 2)
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    model.loss(Batch({"x": x}))
    model.loss(Batch({"x": x}))
    assert not torch.equal(seen[-1], seen[-2])
