"""The inception score equals a difference of entropies, between 1 and the number of classes."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from zoo.metrics.inception_score import InceptionScore, classes_present, inception_score


def probabilities(n=200, classes=7):
    return (
        torch.randn(n, classes, generator=torch.Generator().manual_seed(0))
        .double()
        .mul(2)
        .softmax(1)
    )


def test_certain_and_balanced_classes_score_their_number():
    p = torch.eye(10, dtype=torch.float64).repeat(20, 1)
    assert inception_score(p, splits=1)[0].item() == pytest.approx(10, rel=1e-12)


def test_constant_probabilities_score_one():
    p = torch.tensor([[0.7, 0.2, 0.1, 0.0]]).repeat(50, 1)
    mean, sd = inception_score(p, splits=5)
    assert mean.item() == pytest.approx(1, abs=1e-7) and sd < 1e-7


def test_equals_the_entropy_of_the_mean_less_the_mean_entropy():
    p = probabilities()
    parts = np.array_split(p.numpy(), 4)
    expected = [np.exp(entropy(part.mean(0)) - entropy(part, axis=1).mean()) for part in parts]
    mean, sd = inception_score(p, splits=4, seed=None)
    assert mean.item() == pytest.approx(np.mean(expected), rel=1e-12)
    assert sd.item() == pytest.approx(np.std(expected), rel=1e-10)  # population, ddof 0


def test_one_row_in_one_split_scores_one_and_one_split_has_no_deviation():
    assert inception_score(probabilities(1), splits=1)[0].item() == pytest.approx(1, rel=1e-12)
    assert inception_score(probabilities(), splits=1)[1] == 0


def test_contiguous_splits_depend_on_the_order_and_the_shuffle_mends_it():
    ordered = torch.eye(5, dtype=torch.float64).repeat_interleave(40, 0)
    assert inception_score(ordered, splits=5, seed=None)[0].item() == pytest.approx(
        1, rel=1e-12
    )  # each split sees one class
    assert inception_score(ordered, splits=5, seed=0)[0] > 4.5
    assert inception_score(ordered, splits=5, seed=0) == inception_score(ordered, splits=5, seed=0)


def test_small_splits_lower_the_score():
    p = probabilities(1000)
    assert (
        inception_score(p, splits=100)[0]
        < inception_score(p, splits=10)[0]
        < inception_score(p, splits=1)[0]
    )


def test_more_splits_than_rows_is_refused():
    with pytest.raises(ValueError, match="splits"):
        inception_score(probabilities(3), splits=4)


def test_a_class_is_present_from_two_percent_on():
    p = torch.eye(4, dtype=torch.float64)[[0] * 97 + [1] * 2 + [2] * 1]
    assert classes_present(p) == 2


def test_metric_collects_rows_in_any_order():
    p = probabilities(60)
    metric = InceptionScore(7, splits=3)
    order = torch.randperm(60)
    for part in order.split(25):
        metric.update(p[part], part)
    mean, sd, present = metric.compute()
    assert (mean, sd) == inception_score(p, splits=3) and present == classes_present(p)
