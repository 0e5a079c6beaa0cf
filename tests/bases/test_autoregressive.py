"""The base of autoregressive models: inpainting is conditioning, temperature divides logits, bad
requests are refused.
"""

import math

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from zoo.autoregressive.fvsbn import FVSBN
from zoo.bases.autoregressive import AutoregressiveModule, MixtureOfOrders
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


def test_each_of_many_rows_is_completed_by_what_it_is_told():
    class Told(AutoregressiveModule):
        """Every dimension of a row of class y is y."""

        conditional = True

        def conditionals(self, x, *, y):
            return 100.0 * F.one_hot(y, 3)[:, None].expand(-1, 4, -1)

    y = torch.arange(2100) % 3
    x, nothing = torch.zeros(2100, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool)
    again = Told(DataSpec((1, 2, 2), 3, 3)).inpaint(x, nothing, y=y)
    assert torch.equal(again.flatten(1).long(), y[:, None].expand(-1, 4))


def test_pixels_follow_in_raster_order_with_their_channels_together():
    order = AutoregressiveModule(DataSpec((2, 2, 2), 3)).order
    assert order.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("cache", [True, False])
def test_a_mixture_of_orders_is_the_mean_of_their_masses_and_draws_each_as_often(cache):
    class Two(MixtureOfOrders):
        """All zeros in the first order, all ones in the second."""

        orders = 2

        def order_of(self, k):
            return torch.arange(4) if k == 0 else torch.arange(4).flip(0)

        def conditionals(self, x, k=0):
            return torch.full((len(x), 4, 1), 50.0 if k else -50.0)

    model, spec = Two(DataSpec((1, 2, 2), 2)), DataSpec((1, 2, 2), 2)
    log_p = model.log_prob(every_image(spec).float())
    assert log_p[[0, -1]].tolist() == pytest.approx([math.log(0.5)] * 2)
    assert log_p[1:-1].max() < -40
    drawn = model.sample(400, generator=torch.Generator().manual_seed(0), cache=cache).flatten(1)
    assert torch.equal(drawn, drawn[:, :1].expand(-1, 4))
    assert stats.binomtest(int(drawn[:, 0].sum()), 400).pvalue > 1e-3


def test_a_low_temperature_draws_the_most_probable_value(model):
    cold = model.sample(50, generator=torch.Generator().manual_seed(0), temperature=1e-6)
    assert len(cold.unique(dim=0)) == 1
    first = model.conditionals(cold)[0, 0]
    assert cold[0, 0, 0, 0] == first.argmax()


def test_rounding_never_draws_a_level_that_is_not_there():
    logits = torch.randn(2000, 256, generator=torch.Generator().manual_seed(0))
    masses = logits.softmax(-1).cumsum(-1)[:, -1]
    u = torch.full((2000,), 1 - 2**-24)  # the largest number that is drawn
    assert (masses <= u).any()
    drawn = AutoregressiveModule(DataSpec((1, 2, 2), 256)).invert(logits, u)
    assert drawn.max() == 255 and drawn.min() > 128


def test_temperature_must_be_positive(model):
    with pytest.raises(ValueError, match=r"temperature is positive.*got 0"):
        model.sample(1, temperature=0)


def test_a_conditional_model_without_labels_says_so():
    model = FVSBN(DataSpec((1, 2, 2), 3, 10), conditional=True)
    with pytest.raises(ValueError, match=r"fvsbn models P\(x \| y\): pass the labels"):
        model.sample(1)
