"""Precision, recall, density and coverage: the expectations of the papers, loops over all pairs,
strict balls without oneself.
"""

import math

import pytest
import torch

from zoo.metrics.prdc import PRDC, prdc, radii


def rows(n, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_loops_over_all_pairs():
    real, fake, k = rows(12, 2), rows(9, 2, seed=1) * 1.3, 2
    dist = lambda a, b: math.dist(a, b)  # noqa: E731
    r, f = real.tolist(), fake.tolist()
    ball = lambda s, i: sorted(dist(s[i], s[j]) for j in range(len(s)) if j != i)[k - 1]  # noqa: E731
    inside = [[dist(y, x) < ball(r, i) for i, x in enumerate(r)] for y in f]
    found = prdc(real, fake, k)
    assert found["precision"].item() == pytest.approx(sum(map(any, inside)) / 9)
    assert found["density"].item() == pytest.approx(sum(map(sum, inside)) / (k * 9))
    assert found["coverage"].item() == pytest.approx(
        sum(any(row[i] for row in inside) for i in range(12)) / 12
    )
    assert found["recall"].item() == pytest.approx(
        sum(any(dist(x, y) < ball(f, j) for j, y in enumerate(f)) for x in r) / 12
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


def test_a_copy_of_the_data_is_perfect_except_where_duplicates_leave_no_ball():
    x = rows(40)
    found = prdc(x, x.clone())
    assert [found[k].item() for k in ("precision", "recall", "coverage")] == [1, 1, 1]
    same = torch.cat(
        [x[:1].expand(4, -1), x[4:] + 100]
    )  # four equal points: their third neighbour is at distance 0
    assert radii(same, 3)[:4].tolist() == [0, 0, 0, 0]
    found = prdc(same, same.clone())
    assert found["precision"] == found["recall"] == found["coverage"] == 36 / 40


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
