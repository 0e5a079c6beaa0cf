"""FID has the values that are known in closed form, for any split of the work."""

import pytest
import torch
from scipy import linalg

from zoo.metrics import FrechetDistance, frechet_distance


def features(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ torch.randn(
        d, d, generator=g, dtype=torch.float64
    )


def fid(real, fake):
    metric = FrechetDistance(real.shape[1])
    metric.update(real, real=True)
    metric.update(fake)
    return metric.compute().item()


@pytest.mark.parametrize(("n", "d"), [(200, 16), (20, 64)])
def test_identical_features_are_at_distance_zero_also_with_singular_covariance(n, d):
    x = features(n, d)
    assert abs(fid(x, x)) < 1e-6


def test_a_shift_by_v_costs_the_squared_norm_of_v():
    x, v = features(300, 8), features(1, 8, seed=1)
    assert fid(x, x + v) == pytest.approx(v.square().sum().item(), rel=1e-9)


@pytest.mark.parametrize("s", [0.0, 0.5, 3.0])
def test_a_change_of_scale_costs_d_times_its_square(s):
    zero, eye = torch.zeros(7, dtype=torch.float64), torch.eye(7, dtype=torch.float64)
    assert frechet_distance(zero, eye, zero, s**2 * eye).item() == pytest.approx(
        7 * (s - 1) ** 2, abs=1e-9
    )


def test_agrees_with_the_matrix_square_root():
    a, b = features(50, 10), features(60, 10, seed=1)
    ca, cb = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    expected = (a.mean(0) - b.mean(0)).square().sum().item() + (
        ca + cb - 2 * linalg.sqrtm(ca @ cb).real
    ).trace()
    assert fid(a, b) == pytest.approx(expected, rel=1e-10)


def test_is_symmetric_and_invariant_under_rotation_and_order():
    a, b = features(80, 12), features(90, 12, seed=1)
    rotation = torch.linalg.qr(features(12, 12, seed=2))[0]
    value = fid(a, b)
    assert fid(b, a) == pytest.approx(value, rel=1e-10)
    assert fid(a @ rotation, b @ rotation) == pytest.approx(value, rel=1e-10)
    assert fid(a[torch.randperm(80)], b.flip(0)) == pytest.approx(value, rel=1e-10)


def test_sums_in_float64_survive_a_large_mean_of_float32_features():
    a, b = (features(500, 4, seed=s).float().round(decimals=2) for s in (0, 1))
    assert fid(a + 1000, b + 1000) == pytest.approx(fid(a, b), rel=1e-3)
    low = [torch.cov((x + 1000).T) - torch.cov(x.T) for x in (a, b)]
    assert max(d.abs().max() for d in low) < 1e-2


def test_bias_of_equal_distributions_is_inversely_proportional_to_n():
    g = torch.Generator().manual_seed(0)
    scaled = []
    for n in (200, 800):
        values = [fid(*torch.randn(2, n, 16, generator=g, dtype=torch.float64)) for _ in range(20)]
        scaled.append(n * sum(values) / 20)
    assert scaled[0] == pytest.approx(scaled[1], rel=0.1) and scaled[0] == pytest.approx(
        170, rel=0.1
    )


def test_reset_keeps_the_real_half_unless_told_otherwise():
    a, b = features(40, 3), features(40, 3, seed=1)
    for keep in (True, False):
        metric = FrechetDistance(3, keep_real=keep)
        metric.update(a, real=True)
        metric.update(a + 5)
        metric.reset()
        assert metric.real_n == (40 if keep else 0) and metric.fake_n == 0
        if not keep:
            metric.update(a, real=True)
        metric.update(b)
        assert metric.compute().item() == pytest.approx(fid(a, b), rel=1e-12)


def test_one_row_has_no_covariance():
    with pytest.raises(ValueError, match="at least two rows"):
        fid(features(5, 3), features(1, 3))


def test_samples_that_are_not_numbers_give_not_a_number_rather_than_an_error():
    broken = features(40, 3)
    broken[7, 1] = float("nan")
    assert torch.tensor(fid(features(40, 3), broken)).isnan()
