"""Observation models: what they score is what they sample."""

import math

import pytest
import torch

from zoo.nn.likelihood_heads import HEADS, make_head


@pytest.mark.parametrize(
    ("name", "levels"), [("bernoulli", 2), ("dlogistic", 2), ("dlogistic", 5), ("gaussian", 5)]
)
def test_samples_have_the_frequencies_of_the_mass(name, levels):
    head = make_head(name, levels)
    out = torch.tensor([0.3, -0.8][: head.params]).double().view(1, -1, 1)
    drawn = head.sample(out.expand(100_000, -1, 1), torch.Generator().manual_seed(0)).flatten()
    seen = torch.bincount(drawn.long(), minlength=levels) / 100_000
    k = torch.arange(levels).double().view(-1, 1)
    u = (
        ((torch.arange(1000).double() + 0.5) / 1000).view(1000, 1, 1)
        if head.dequantises
        else torch.zeros(1, 1, 1).double()
    )
    mass = torch.stack([head.log_prob(out.expand(levels, -1, 1), k, v).exp() for v in u]).mean(0)
    if (
        name == "gaussian"
    ):  # what lies outside [-1, 1] is lost to the mass and clamped to the ends by the sampler
        mass[0], mass[-1] = seen[0], seen[-1]
    torch.testing.assert_close(seen.double(), mass, rtol=0, atol=0.006)


def test_bernoulli_is_the_cross_entropy_from_logits_and_stays_finite():
    head = make_head("bernoulli", 2)
    logits, x = torch.randn(4, 1, 3).double(), torch.randint(2, (4, 3)).double()
    expected = torch.distributions.Bernoulli(logits=logits[:, 0]).log_prob(x).sum(1)
    torch.testing.assert_close(head.log_prob(logits, x), expected)
    assert head.log_prob(torch.full((1, 1, 1), 500.0), torch.zeros(1, 1)).item() == -500


def test_real_gaussian_is_a_normal_density_with_all_constants():
    head = make_head("gaussian", None)
    out, x = torch.randn(4, 2, 3).double(), torch.randn(4, 3).double()
    expected = torch.distributions.Normal(out[:, 0], (0.5 * out[:, 1]).exp()).log_prob(x).sum(1)
    torch.testing.assert_close(head.log_prob(out, x), expected)


def test_flat_pixels_cannot_make_the_density_diverge():
    head = make_head("gaussian", 17)
    best = head.log_prob(
        torch.tensor([[[0.0], [-1e9]]]), torch.tensor([[8.0]]), torch.tensor([[0.5]])
    )
    assert best.item() == pytest.approx(3.5 - 0.5 * math.log(2 * math.pi) - math.log(8.5), abs=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_stay_finite_at_extreme_parameters(name):
    head = make_head(name, 2)
    for value in (-60.0, 60.0):
        out = torch.full((2, head.params, 1), value, requires_grad=True)
        log_p = head.log_prob(out, torch.tensor([[0.0], [1.0]]), torch.full((2, 1), 0.5))
        log_p.sum().backward()
        assert torch.isfinite(log_p).all() and torch.isfinite(out.grad).all()


def test_an_unfit_head_is_refused_with_the_remedy():
    for name, levels, remedy in (
        ("bernoulli", 17, "binarise"),
        ("dlogistic", None, "use gaussian"),
        ("poisson", 2, "auto"),
    ):
        with pytest.raises(ValueError, match=remedy):
            make_head(name, levels)
