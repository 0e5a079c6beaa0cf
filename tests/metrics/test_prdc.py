"""Precision, recall, density and coverage: the expectations of the papers, loops over all pairs,
closed balls without oneself.
"""

import math
import operator

import numpy as np
import pytest
import torch

from zoo.metrics.prdc import PRDC, prdc


def rows(n, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("within", [operator.le, operator.lt], ids=["closed", "open"])
def test_agrees_with_loops_over_all_pairs_whose_ends_do_not_matter_without_ties(within):
    real, fake, k = rows(12, 2), rows(9, 2, seed=1) * 1.3, 2
    dist = lambda a, b: math.dist(a, b)  # noqa: E731
    r, f = real.tolist(), fake.tolist()
    ball = lambda s, i: sorted(dist(s[i], s[j]) for j in range(len(s)) if j != i)[k - 1]  # noqa: E731
    inside = [[within(dist(y, x), ball(r, i)) for i, x in enumerate(r)] for y in f]
    found = prdc(real, fake, k)
    assert found["precision"].item() == pytest.approx(sum(map(any, inside)) / 9)
    assert found["density"].item() == pytest.approx(sum(map(sum, inside)) / (k * 9))
    assert found["coverage"].item() == pytest.approx(
        sum(any(row[i] for row in inside) for i in range(12)) / 12
    )
    assert found["recall"].item() == pytest.approx(
        sum(any(within(dist(x, y), ball(f, j)) for j, y in enumerate(f)) for x in r) / 12
    )


def test_equal_distributions_have_density_one_and_the_coverage_of_the_formula():
    n = m = 100
    k = 5
    runs = [prdc(rows(n, seed=2 * s), rows(m, seed=2 * s + 1), k) for s in range(60)]
    expected = {
        "density": 1.0,
        "coverage": 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1)),
    }
    for name, value in expected.items():
        found = torch.stack([r[name] for r in runs])
        assert (found.mean() - value).abs() < 3 * found.std() / 60**0.5, name


SHARES = ("precision", "recall", "coverage")


@pytest.mark.parametrize("times", [1, 2, 4, 5, 20])
def test_a_copy_of_the_data_is_perfect_however_often_points_repeat(times):
    x = rows(40).repeat(times, 1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    found = prdc(x, x[order], k=3)
    assert [found[k].item() for k in SHARES] == [1, 1, 1]


def test_the_closed_ball_is_kynkaanniemis():
    # equation 1: f(φ, Φ) = 1 where ‖φ - φ'‖ <= ‖φ' - NN_k(φ')‖ for one φ' of Φ
    real, rim, out = torch.tensor([[0.0], [1.0]]), 2.0, 2.001
    for at, precision in ((rim, 1), (out, 0)):
        found = prdc(real, torch.tensor([[at], [at + 50]]), k=1)
        assert found["precision"] == precision / 2, at


def test_a_perfect_model_of_few_points_has_density_one_on_average_and_misses_none():
    # 30 values drawn 400 times: every ball of radius 0 holds its value's share of both sets
    values, g = rows(30), torch.Generator().manual_seed(0)
    runs = [
        prdc(*(values[torch.randint(30, (400,), generator=g)] for _ in range(2)), k=3)
        for _ in range(20)
    ]
    density = torch.stack([r["density"] for r in runs])
    assert (density.mean() - 1).abs() < 0.1
    assert all(r[k] == 1 for r in runs for k in SHARES)
    half = prdc(values[torch.randint(30, (400,), generator=g)], values[:15].repeat(20, 1), k=3)
    assert half["precision"] == 1 and half["recall"].item() == pytest.approx(0.5, abs=0.1)


def test_equal_images_with_other_last_digits_are_equal():
    x = (rows(10) * 20).float().repeat(8, 1)
    digits = 1 + torch.finfo(torch.float32).eps * torch.randint(-1, 2, x.shape).float()
    found = prdc(x, x * digits, k=3)
    assert [found[k].item() for k in SHARES] == [1, 1, 1]


def test_all_points_alike_give_finite_numbers():
    found = prdc(torch.zeros(9, 2), torch.zeros(9, 2))
    assert [found[k].item() for k in SHARES] == [1, 1, 1] and found["density"].isfinite()
    assert prdc(torch.zeros(9, 2), torch.ones(9, 2))["precision"] == 0


def test_a_far_outlier_inflates_precision_but_hardly_density():
    real, fake = rows(100), rows(100, seed=1) + 3
    outlier = torch.cat([real, torch.full((1, 8), 50.0, dtype=torch.float64)])
    before, after = prdc(real, fake, 5), prdc(outlier, fake, 5)
    assert before["precision"] < 0.2 and after["precision"] == 1
    assert after["density"] - before["density"] <= 1 / 5 + 1e-9  # one ball more, of k a point


def test_dropping_one_of_two_clusters_halves_recall_and_coverage_and_keeps_precision():
    centre = torch.zeros(8, dtype=torch.float64)
    centre[0] = 100
    real = torch.cat([rows(150), rows(150, seed=1) + centre])
    found = prdc(real, rows(300, seed=2), 5)
    assert found["precision"] > 0.9
    assert found["coverage"].item() == pytest.approx(0.5, abs=0.03) and found[
        "recall"
    ].item() == pytest.approx(0.5, abs=0.05)


def test_the_real_set_defines_the_balls_of_precision():
    narrow, wide = rows(100, 2) * 0.1, rows(100, 2, seed=1)
    found = prdc(wide, narrow)
    assert found["precision"] > 0.9 and found["recall"] < 0.5
    swapped = prdc(narrow, wide)
    assert swapped["precision"] == found["recall"] and swapped["recall"] == found["precision"]


def test_chunks_do_not_matter(monkeypatch):
    real, fake = rows(50), rows(40, seed=1)
    whole = prdc(real, fake)
    monkeypatch.setattr("zoo.metrics.prdc.CHUNK", 130)  # two or three rows at a time
    assert prdc(real, fake) == whole


def test_too_few_rows_for_k_neighbours_are_refused():
    with pytest.raises(ValueError, match="k nearest"):
        prdc(rows(3), rows(10), k=3)


def test_metric_compares_equally_many_rows():
    metric = PRDC(8, keep=30)
    metric.update(rows(50), 0, real=True)
    metric.update(rows(25, seed=1), 0)
    assert metric.compute() == prdc(rows(50)[:25], rows(25, seed=1))


@pytest.mark.parametrize("offset", [0, 10_000])
@pytest.mark.parametrize("levels", [2, 4, None])
def test_every_pair_is_as_near_as_numpy_says_far_from_the_origin_and_where_many_are_equally_far(
    levels, offset
):
    g, k = torch.Generator().manual_seed(3), 3
    sets = [
        torch.randn(90, 4, generator=g)
        if levels is None
        else torch.randint(levels, (90, 4)).float()
        for _ in range(2)
    ]
    real, fake = ((s + offset).double() for s in sets)
    r, f = real.numpy(), fake.numpy()
    far = lambda a, b: np.sqrt(np.square(a[:, None] - b).sum(-1))  # noqa: E731
    least = 4 * np.finfo(np.float32).eps * np.linalg.norm(r, axis=1).max()
    radius = np.maximum(np.sort(far(r, r), axis=1)[:, k], least)
    inside = far(f, r) <= radius
    found = prdc(real, fake, k)
    assert found["precision"] == inside.any(1).mean()
    assert found["coverage"] == inside.any(0).mean()
    others = (far(r, r) <= radius[:, None]).sum(1) - 1
    assert found["density"].item() == pytest.approx((inside / others).sum() / len(f))
