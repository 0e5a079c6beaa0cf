"""The base of autoregressive models: inpainting is conditioning, temperature divides logits, bad
requests are refused.
"""

import pytest
import torch

from zoo.autoregressive.fvsbn import FVSBN
from zoo.check.likelihoods import every_image
from zoo.core import DataSpec

SPEC = DataSpec((1, 2, 2), 3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = FVSBN(SPEC)
    for p in model.parameters():
        p.data.normal_(0, 1.0)
    return model.double().eval()


def conditional(model, known, values):
    """P(x | x_known = values) over every image, by enumeration."""
    images = every_image(SPEC)
    agree = (images.flatten(1)[:, known] == values).all(1)
    p = model.log_prob(images).exp() * agree
    return p / p.sum()


def frequencies(model, known, values, n, candidates):
    mask, x = torch.zeros(4, dtype=torch.bool), torch.zeros(4).double()
    mask[known], x[known] = True, values
    again = model.inpaint(
        x.view(1, 1, 2, 2).expand(n, -1, -1, -1),
        mask.view(1, 1, 2, 2),
        generator=torch.Generator().manual_seed(0),
        candidates=candidates,
    )
    index = (again.flatten(1) @ 3 ** torch.arange(3, -1, -1).double()).long()
    return torch.bincount(index, minlength=81) / n


@pytest.mark.parametrize(
    ("known", "candidates"),
    [([0, 1], 1), ([2, 3], 64), ([1, 3], 64)],
    ids=["first", "last", "between"],
)
def test_inpainting_draws_from_the_conditional_distribution(model, known, candidates):
    values = torch.tensor([2.0, 1.0]).double()
    expected = conditional(model, known, values)
    found = frequencies(model, known, values, 20_000, candidates)
    assert 0.5 * (found - expected).abs().sum() < 0.03
    assert found[expected == 0].sum() == 0  # what is given is never changed


def test_one_candidate_is_blind_to_what_is_known_further_on(model):
    values = torch.tensor([2.0, 1.0]).double()
    expected = conditional(model, [2, 3], values)
    assert (
        0.5 * (frequencies(model, [2, 3], values, 20_000, 1) - expected).abs().sum() > 0.1
    )  # the resampling is what conditions


def test_many_rows_are_completed_in_parts(model):
    x = torch.randint(3, (2100, 1, 2, 2), generator=torch.Generator().manual_seed(0)).double()
    known = torch.tensor([[True, False], [True, True]])
    again = model.inpaint(x, known, generator=torch.Generator().manual_seed(0), candidates=4)
    assert torch.equal(again[..., known], x[..., known]) and again.shape == x.shape


def test_a_low_temperature_draws_the_most_probable_value(model):
    cold = model.sample(50, generator=torch.Generator().manual_seed(0), temperature=1e-6)
    assert len(cold.unique(dim=0)) == 1
    first = model.conditionals(cold)[0, 0]
    assert cold[0, 0, 0, 0] == first.argmax()


def test_temperature_must_be_positive(model):
    with pytest.raises(ValueError, match=r"temperature is positive.*got 0"):
        model.sample(1, temperature=0)


def test_a_conditional_model_without_labels_says_so():
    model = FVSBN(DataSpec((1, 2, 2), 3, 10), conditional=True)
    with pytest.raises(ValueError, match=r"fvsbn models P\(x \| y\): pass the labels"):
        model.sample(1)
