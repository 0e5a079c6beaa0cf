"""The AM score: a divergence of marginals plus a mean entropy, zero for sure and balanced samples,
large for unsure or missing classes.
"""

import math

import pytest
import torch
from scipy.stats import entropy

from zoo.metrics.am_score import AMScore, am_score

BALANCED = torch.eye(10, dtype=torch.float64).repeat(20, 1)


def probabilities(n=200, classes=7, seed=0):
    return (
        torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))
        .double()
        .mul(2)
        .softmax(1)
    )


def test_sure_and_balanced_samples_score_zero():
    assert sum(am_score(BALANCED, BALANCED[:50])) == pytest.approx(0, abs=1e-12)


def test_samples_that_could_be_anything_score_the_log_of_the_number_of_classes():
    kl, unsure = am_score(BALANCED, torch.full((30, 10), 0.1))
    assert kl == pytest.approx(0, abs=1e-12) and unsure == pytest.approx(math.log(10), rel=1e-6)


def test_a_collapse_to_one_class_is_seen_by_the_divergence_alone():
    one = torch.full((30, 10), 1e-6 / 9, dtype=torch.float64)
    one[:, 3] = 1 - 1e-6
    kl, unsure = am_score(BALANCED, one)
    assert (
        unsure < 1e-4
        and kl == pytest.approx(entropy([0.1] * 10, one[0].numpy()), rel=1e-9)
        and kl > 10
    )
    assert am_score(BALANCED, BALANCED[[3]])[0] == math.inf  # classes without any mass


def test_equals_scipys_divergence_and_entropy():
    real, fake = probabilities(), probabilities(90, seed=1)
    kl, unsure = am_score(real, fake)
    assert kl.item() == pytest.approx(
        entropy(real.numpy().mean(0), fake.numpy().mean(0)), rel=1e-10
    )
    assert unsure.item() == pytest.approx(entropy(fake.numpy(), axis=1).mean(), rel=1e-12)


def test_direction_is_from_the_data_to_the_samples():
    real, fake = probabilities().mul(3).softmax(1), probabilities(90, seed=1)
    assert am_score(real, fake)[0] != pytest.approx(am_score(fake, real)[0].item(), rel=1e-3)


def test_shares_of_the_data_count_not_balance():
    skewed = BALANCED[:13]  # classes 0, 1, 2 twice
    assert (
        am_score(skewed, skewed.repeat(3, 1))[0] == pytest.approx(0, abs=1e-12)
        and am_score(BALANCED, skewed)[0] > 0.01
    )


def test_metric_collects_rows_in_any_order_and_keeps_the_data_when_reset():
    real, fake = probabilities(), probabilities(60, seed=1)
    metric = AMScore(7)
    metric.update(real, 0, real=True)
    for _ in range(2):
        metric.reset()
        for part in torch.randperm(60).split(25):
            metric.update(fake[part], part)
        score, kl, unsure = metric.compute()
        torch.testing.assert_close((kl, unsure), am_score(real, fake))
        assert score == kl + unsure


def test_without_rows_it_is_refused():
    with pytest.raises(ValueError, match="real and generated"):
        am_score(BALANCED, BALANCED[:0])
