"""MIG and FactorVAE score on codes whose disentanglement is known."""

import math

import pytest
import torch
from sklearn.metrics import mutual_info_score

from zoo.metrics.disentanglement import (
    factor_vae_score,
    mig_discrete,
    mig_q,
    mutual_information,
    posterior_information,
)


def grid(*sizes):
    return torch.cartesian_prod(*(torch.arange(n) for n in sizes))


V = grid(8, 8, 4)
PERFECT = V.double()
SHARP = torch.full_like(PERFECT, -9.0)  # log variances that leave no doubt of the factor


def rotated(codes):
    a, b = codes[:, 0] / 7, codes[:, 1] / 7
    return torch.stack([(a - b) / math.sqrt(2), (a + b) / math.sqrt(2)], 1)


def noise(n, dims, seed=0):
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_perfect_axis_aligned_code_scores_one():
    assert mig_discrete(PERFECT, V) == pytest.approx(1.0)
    assert mig_q(PERFECT, SHARP, V, samples=1000) == pytest.approx(1.0, abs=1e-6)
    assert factor_vae_score(PERFECT, V) == 1.0


def test_a_code_turned_by_45_degrees_has_no_gap():
    pair = V[:, :2]
    assert mig_discrete(rotated(PERFECT), pair) <= 0.15
    assert mig_q(rotated(PERFECT), torch.full((256, 2), -4.0), pair, samples=1000) <= 0.15


def test_order_sign_and_scale_of_the_dimensions_do_not_matter():
    mu = torch.cat([PERFECT + noise(256, 3), noise(256, 2, 1)], 1)
    log_var = noise(256, 5, 2) / 4 - 2
    order, scale = torch.tensor([3, 0, 4, 2, 1]), torch.tensor([-2.0, 0.5, 1.0, -1.0, 4.0]).double()
    other, other_var = (mu * scale)[:, order], (log_var + 2 * scale.abs().log())[:, order]
    assert mig_discrete(other, V) == pytest.approx(
        mig_discrete(mu, V), abs=0.02
    )  # a value on a bin's edge may fall on its other side
    assert mig_q(other, other_var, V) == pytest.approx(mig_q(mu, log_var, V), abs=0.02)
    assert factor_vae_score(other, V) == pytest.approx(factor_vae_score(mu, V), abs=1e-12)


def test_a_factor_that_two_dimensions_hold_has_no_gap_but_is_found():
    codes = torch.cat([PERFECT, PERFECT], 1)
    assert mig_discrete(codes, V) == pytest.approx(0.0, abs=1e-12)
    assert mig_q(codes, torch.cat([SHARP, SHARP], 1), V, samples=1000) == pytest.approx(
        0.0, abs=1e-6
    )
    assert factor_vae_score(codes, V) == 1.0


def test_a_random_code_scores_like_chance():
    v = grid(8, 8, 4).repeat(16, 1)
    codes = noise(len(v), 6)
    assert mig_discrete(codes, v) < 0.02
    assert mig_q(codes[:1024], torch.zeros(1024, 6), v[:1024], samples=2048) < 0.02
    scores = [factor_vae_score(codes, v, seed=s) for s in range(5)]
    assert sum(scores) / 5 == pytest.approx(1 / 3, abs=0.06)


def test_a_constant_code_scores_zero_without_nan():
    constant = torch.full((256, 3), 0.7)
    assert mig_discrete(constant, V) == 0.0
    assert mig_q(constant, torch.zeros(256, 3), V, samples=500) == pytest.approx(0.0, abs=1e-12)
    assert factor_vae_score(constant, V) == 0.0


def test_counted_information_is_scikit_learns():
    codes = PERFECT[:, :2] @ torch.tensor([[1.0, 0.3], [0.2, 1.0]]).double() + noise(256, 2)
    found = mutual_information(codes, V, bins=7)
    for j in range(2):
        low, high = codes[:, j].min(), codes[:, j].max()
        cell = torch.bucketize(
            codes[:, j].contiguous(),
            torch.linspace(0, 1, 8).double()[1:-1] * (high - low) + low,
            right=True,
        )
        for k in range(3):
            assert found[j, k].item() == pytest.approx(
                mutual_info_score(cell.tolist(), V[:, k].tolist()), abs=1e-9
            )


def test_posterior_information_is_the_integral():
    v = grid(2, 3)
    mu, log_var = noise(6, 2), noise(6, 2, 1) / 2
    found = posterior_information(mu, log_var, v, samples=60_000)
    z = torch.linspace(-12, 12, 6001).double()
    for j in range(2):
        q = (
            torch.distributions.Normal(mu[:, j], (log_var[:, j] / 2).exp())
            .log_prob(z[:, None])
            .exp()
        )  # (points, x)
        for k in range(2):
            given = torch.stack([q[:, v[:, k] == value].mean(1) for value in v[:, k].unique()], 1)
            ratio = given * (given.log() - q.mean(1, keepdim=True).log())
            exact = torch.trapezoid(torch.nan_to_num(ratio), z, dim=0).mean()
            assert found[j, k].item() == pytest.approx(exact.item(), abs=0.015)


def test_the_two_estimators_differ_where_the_posterior_is_wide():
    wide = torch.full_like(PERFECT, 2 * math.log(4.0))
    assert mig_discrete(PERFECT, V) - mig_q(PERFECT, wide, V, samples=2000) > 0.5


def test_collapsed_dimensions_have_no_vote_and_keep_their_number():
    tiny = 1e-3 * PERFECT[:, :1]  # would win every vote on the first factor
    codes = torch.cat([tiny, torch.zeros(256, 1).double(), noise(256, 1), PERFECT[:, 1:]], 1)
    assert factor_vae_score(codes, V, collapsed=0.0) == 1.0
    assert factor_vae_score(torch.cat([tiny, PERFECT], 1), V) == 1.0
    assert factor_vae_score(codes, V) < 1.0


def test_factors_with_one_value_are_dropped():
    still = torch.cat([torch.zeros(256, 1, dtype=torch.long), V], 1)
    assert mig_discrete(PERFECT, still) == pytest.approx(1.0)
    assert mig_q(PERFECT, SHARP, still, samples=500) == pytest.approx(1.0, abs=1e-6)
    assert factor_vae_score(PERFECT, still) == 1.0


def test_scores_repeat_and_depend_on_the_seed():
    codes = PERFECT + 4 * noise(256, 3)
    assert factor_vae_score(codes, V, seed=1) == factor_vae_score(codes, V, seed=1)
    assert len({factor_vae_score(codes, V, seed=s) for s in range(5)}) > 1
    assert mig_q(codes, 0 * codes, V, samples=500, seed=1) != mig_q(
        codes, 0 * codes, V, samples=500, seed=2
    )


def test_the_votes_that_are_scored_are_fresh():
    few = [factor_vae_score(noise(256, 40), V, votes=40, batch=20, seed=s) for s in range(8)]
    assert sum(few) / 8 < 0.5  # 40 dimensions name the factors of 40 votes almost by heart


@pytest.mark.parametrize(
    ("codes", "factors", "words"),
    [
        (PERFECT[:5], V, "expected codes"),
        (PERFECT, V.double(), "integers"),
        (PERFECT, torch.zeros_like(V), "more than one value"),
    ],
)
def test_what_is_no_factor_is_refused(codes, factors, words):
    for metric in (mig_discrete, factor_vae_score, lambda c, f: mig_q(c, c, f)):
        with pytest.raises(ValueError, match=words):
            metric(codes, factors)
