"""digits and toy2d: what they promise in their spec is what they serve."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from zoo.data.digits import Digits
from zoo.data.toy2d import KINDS, MIXTURE_1D, Toy2D
from zoo.data.transforms import binarise, shift


def test_digits_are_scikit_learns_split_once_and_for_all():
    data = Digits(seed=3)
    x = torch.cat([data.examples(split=s)["x"] for s in ("train", "val", "test")])
    assert [len(data.split(s)["x"]) for s in ("train", "val", "test")] == [1437, 180, 180]
    pixels = torch.from_numpy(load_digits().data).float()
    assert torch.equal(torch.sort(x.flatten(1).sum(1)).values, torch.sort(pixels.sum(1)).values)
    assert torch.equal(data.split("val")["x"], Digits(seed=0).split("val")["x"])


@pytest.mark.parametrize(("kind", "classes"), [("ring", 8), ("grid", 25)])
def test_labelled_points_are_the_same_points_with_their_component(kind, classes):
    plain, data = Toy2D(kind, size=2000), Toy2D(kind, size=2000, labelled=True)
    assert (
        plain.spec.num_classes == 0
        and data.spec.num_classes == classes
        and "y" not in plain.split("train")
    )
    for name in ("train", "val"):
        x, y = data.split(name)["x"], data.split(name)["y"]
        assert torch.equal(x, plain.split(name)["x"]) and len(y.unique()) == classes
        assert torch.equal(torch.cdist(x, data.centres).argmin(1), y)
    with pytest.raises(ValueError, match="moons have no classes"):
        Toy2D("moons", labelled=True)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_resized_digits_keep_seventeen_integer_levels(size):
    x = Digits(size=size).examples(200)["x"]
    assert x.shape == (200, 1, size, size) == (200, *Digits(size=size).spec.shape)
    assert torch.equal(x, x.round())
    assert x.min() == 0
    assert x.max() <= 16


@pytest.mark.parametrize("how", ["threshold", "stochastic", "fixed"])
def test_binarised_digits_are_binary_and_say_how(how):
    data = Digits(binarize=how)
    assert data.spec.levels == 2
    assert how in data.spec.name
    assert set(data.examples(50)["x"].unique().tolist()) == {0, 1}


def test_threshold_and_stochastic_mean_what_they_say():
    x = torch.arange(17.0).view(1, 1, 1, 17)
    assert binarise(x, 17, "threshold").flatten().tolist() == [0.0] * 8 + [1.0] * 9
    data = Digits(binarize="stochastic", batch_size=1437)
    draws = torch.stack([next(iter(_from(data, step)))["x"] for step in range(0, 40)])
    grey = Digits(batch_size=1437).examples()["x"].mean() / 16
    assert draws.mean() == pytest.approx(grey.item(), abs=2e-3)


def _from(data, step):
    loader = data.train_dataloader()
    loader._position = lambda: step
    return loader


def test_shift_moves_each_image_within_its_bound():
    from zoo.core.noise import Noise

    x = torch.zeros(200, 1, 9, 9)
    x[:, :, 4, 4] = 1
    where = shift(x, 2, Noise(0)).flatten(1).argmax(1)
    offsets = torch.stack([where // 9 - 4, where % 9 - 4])
    assert offsets.aminmax() == (-2, 2)
    assert len(torch.unique(offsets, dim=1).T) == 25


@pytest.mark.parametrize("kind", KINDS)
def test_toy_densities_fit_their_spec_and_repeat(kind):
    data, again = Toy2D(kind, size=500), Toy2D(kind, size=500)
    x = data.examples()["x"]
    assert x.shape == (500, *data.spec.shape)
    assert x.isfinite().all()
    assert x.abs().max() < 4
    assert torch.equal(x, again.examples()["x"])
    assert not torch.equal(x[:100], data.examples(split="val")["x"])


def test_the_ring_has_eight_equal_components_of_the_stated_width():
    data = Toy2D("ring", std=0.05)
    x = data.examples(20000)["x"]
    assert data.centres.norm(dim=1).tolist() == pytest.approx([2.0] * 8)
    distance = torch.cdist(x, data.centres)
    share = torch.bincount(distance.argmin(1)) / len(x)
    assert share.tolist() == pytest.approx([1 / 8] * 8, abs=0.01)
    assert distance.min(1).values.pow(2).mean().sqrt() == pytest.approx(
        0.05 * math.sqrt(2), rel=0.02
    )


def test_the_checkerboard_fills_half_of_its_squares():
    x = Toy2D("checkerboard").examples(20000)["x"]
    parity = (x.floor().sum(1) % 2).unique()
    assert len(parity) == 1
    assert x.aminmax().min >= -2
    assert x.aminmax().max <= 2
    assert len(torch.unique(x.floor(), dim=0)) == 8


def test_the_line_mixture_has_its_stated_mean_and_variance():
    x = Toy2D("mixture1d").examples(40000)["x"].double()
    mean = sum(w * m for m, _, w in MIXTURE_1D)
    variance = sum(w * (s**2 + m**2) for m, s, w in MIXTURE_1D) - mean**2
    assert x.mean() == pytest.approx(mean, abs=0.02)
    assert x.var() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Digits(size=9), "8, 16, 32, got 9"),
        (lambda: Digits(binarize="soft"), "got 'soft'"),
        (lambda: Toy2D("rings"), "got 'rings'"),
        (lambda: Toy2D(std=0), "toy2d: std is positive, got 0"),
    ],
)
def test_bad_values_are_refused_with_the_choices(build, words):
    with pytest.raises(ValueError, match=words):
        build()
