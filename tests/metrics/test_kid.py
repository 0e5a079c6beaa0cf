"""KID is the unbiased estimate: a triple loop agrees, the mean over repeats is zero, negative
values stand.
"""

import itertools

import pytest
import torch

from zoo.metrics import KernelDistance, squared_mmd


def rows(n, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(x, y):
    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    x, y = x.tolist(), y.tolist()
    within = [
        sum(k(a[i], a[j]) for i, j in itertools.permutations(range(len(a)), 2))
        / (len(a) * (len(a) - 1))
        for a in (x, y)
    ]
    return sum(within) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_agrees_with_loops_over_all_pairs():
    x, y = rows(5), rows(4, seed=1) + 0.3
    assert squared_mmd(x, y).item() == pytest.approx(by_loops(x, y), rel=1e-12)


def test_is_zero_on_average_for_equal_distributions_and_may_be_negative():
    values = torch.stack(
        [squared_mmd(rows(50, seed=2 * s), rows(50, seed=2 * s + 1)) for s in range(200)]
    )
    error = values.std() / 200**0.5
    assert values.mean().abs() < 3 * error
    assert (values < 0).any() and (values > 0).any()


def test_a_set_against_itself_is_not_positive():
    """The diagonal is left out within a set, but not between the sets."""
    assert squared_mmd(rows(30), rows(30)) < 0


def test_a_common_shift_matters_to_a_polynomial_kernel():
    x, y = rows(20), rows(20, seed=1)
    assert not torch.isclose(squared_mmd(x, y), squared_mmd(x + 1, y + 1), rtol=1e-3)


def test_float32_features_are_cubed_in_float64():
    x, y = rows(40).float() * 100, rows(40, seed=1).float() * 100
    assert squared_mmd(x, y).item() == pytest.approx(
        squared_mmd(x.double(), y.double()).item(), rel=1e-12
    )


def test_subsets_follow_the_seed_and_average_to_the_whole():
    x, y = rows(60), rows(60, seed=1) + 0.5

    def kid(**options):
        metric = KernelDistance(6, **options)
        metric.update(x, 0, real=True)
        metric.update(y, 0)
        return metric.compute()

    assert (
        kid(subsets=5, subset_size=20)
        == kid(subsets=5, subset_size=20)
        != kid(subsets=5, subset_size=20, seed=1)
    )
    mean, sd = kid(subsets=400, subset_size=20)
    assert (mean - squared_mmd(x, y)).abs() < 3 * sd / 400**0.5
    mean, sd = kid(subsets=3, subset_size=1000)  # no more than there are: every subset is the whole
    assert mean.item() == pytest.approx(squared_mmd(x, y).item(), rel=1e-12) and sd < 1e-12


def test_order_of_arrival_and_repeated_rows_do_not_matter():
    x, y = rows(30), rows(30, seed=1)
    straight, shuffled = KernelDistance(6, 4, 10), KernelDistance(6, 4, 10)
    for metric in (straight, shuffled):
        metric.update(x, 0, real=True)
    straight.update(y, 0)
    order = torch.randperm(30)
    shuffled.update(y[order[:12]], order[:12])
    shuffled.update(
        y[order[8:]], order[8:]
    )  # four rows arrive twice, as a padding sampler sends them
    assert straight.compute() == shuffled.compute()


def test_rows_beyond_keep_are_not_stored():
    metric = KernelDistance(6, 4, 10, keep=20)
    for start in (0, 16, 32):
        metric.update(rows(16), start)
    assert len(metric.kept("fake")) == 20
    with pytest.raises(ValueError, match="features"):
        metric.update(torch.zeros(3, 5), 0)
