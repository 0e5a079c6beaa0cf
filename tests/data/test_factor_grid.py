"""The grid of factors: complete, distinct, geometrically what its factors say."""

import math

import pytest
import torch

from zoo.data.factor_grid import FactorGrid

SQUARES = {"size": 16, "shapes": ("square",), "rotations": 1}  # 3 sizes, 8 x 8 positions
SMALL = {"scales": (0.2, 0.26), "x": 3, "y": 2}


def test_every_combination_comes_once_and_rows_invert_factors():
    data = FactorGrid()
    x, factors = data.grid()
    assert (
        data.factor_sizes == (3, 3, 4, 8, 8)
        and x.shape == (2304, 1, 32, 32)
        and factors.shape == (2304, 5)
    )
    assert len(torch.unique(factors, dim=0)) == len(data) == 2304
    assert (factors.amin(0).tolist(), factors.amax(0).tolist()) == ([0] * 5, [2, 2, 3, 7, 7])
    assert torch.equal(data.rows(factors), torch.arange(2304))
    assert torch.equal(data.factors(torch.tensor([5, 1999])), factors[[5, 1999]])


@pytest.mark.parametrize(
    "options", [{}, {"rotations": 8}, SQUARES, {"shapes": ("star", "triangle"), "rotations": 5}]
)
def test_all_images_are_distinct_and_binary(options):
    images = FactorGrid(**options).images()
    assert len(torch.unique(images.flatten(1), dim=0)) == len(images)
    assert images.unique().tolist() == [0, 1]


def test_images_that_are_the_same_are_warned_of():
    with pytest.warns(UserWarning, match="2304 cells are 2048 images"):
        FactorGrid(size=16).images()


def test_the_tiny_subset_has_192_squares():
    data = FactorGrid(**SQUARES)
    assert (
        len(data) == 192
        and data.spec.shape == (1, 16, 16)
        and (data.spec.levels, data.spec.num_classes) == (2, 0)
    )
    assert "y" not in data.examples()


def test_areas_and_centres_are_those_of_the_factors():
    data = FactorGrid(shapes=("circle", "square"), rotations=1)
    x, factors = data.grid()
    x = x[:, 0]
    radius = torch.tensor(data.scales)[factors[:, 1]] * 32
    circle = factors[:, 0] == 0
    area = radius**2 * torch.where(circle, math.pi, 2.0)
    edge = radius * torch.where(circle, math.tau, 4 * math.sqrt(2))
    assert (
        (x.sum((1, 2)) - area).abs() <= edge * (1 / 2 + 1 / 8)
    ).all()  # whole pixels, seen at 4x4 points
    at = torch.arange(32.0) + 0.5
    centre = (
        torch.stack([(x.sum(1) * at).sum(1), (x.sum(2) * at).sum(1)], 1) / x.sum((1, 2))[:, None]
    )
    expected = 16 + 2 * (factors[:, 3:] - 3.5)
    assert (centre - expected).abs().max() < 1e-4


def test_moving_is_translation_by_whole_pixels_and_nothing_is_cut():
    data = FactorGrid()
    x = data.images().view(3, 3, 4, 8, 8, 32, 32)
    assert torch.equal(x[..., :-2][:, :, :, 0], x[..., 2:][:, :, :, 1])
    assert torch.equal(x[..., 0, :-2, :], x[..., 1, 2:, :])
    counts = x.sum((-1, -2), dtype=torch.long)
    assert (counts == counts[:, :, :, :1, :1]).all()


def test_rotations_are_equal_parts_of_the_shapes_own_symmetry():
    x = (
        FactorGrid(shapes=("square",), rotations=2, scales=(0.26,), x=4, y=4)
        .images()
        .view(2, 4, 4, 32, 32)[:, 0, 0]
    )
    upright, diamond = (int(image.any(0).sum()) for image in x)  # widths: r·√2 and 2r
    assert upright == pytest.approx(0.26 * 32 * math.sqrt(2), abs=1.3) and diamond == pytest.approx(
        0.52 * 32, abs=1.3
    )


@pytest.mark.parametrize("factor", FactorGrid.factor_names)
def test_fixed_shares_one_factor_and_draws_the_others_uniformly(factor):
    data, g = FactorGrid(**SMALL), torch.Generator().manual_seed(0)
    k = data.factor_names.index(factor)
    rows = data.fixed_rows(factor, 1, 4000, g)
    factors = data.factors(rows)
    for j, size in enumerate(data.factor_sizes):
        share = torch.bincount(factors[:, j], minlength=size) / 4000
        expected = [float(v == 1) for v in range(size)] if j == k else [1 / size] * size
        assert share.tolist() == pytest.approx(expected, abs=0.04)
    images = data.fixed(k, 1, 50, torch.Generator().manual_seed(3))
    assert torch.equal(
        images, data.images()[data.fixed_rows(k, 1, 50, torch.Generator().manual_seed(3))].float()
    )


def test_splits_share_out_the_grid_whatever_the_seed():
    data = FactorGrid(**SQUARES)
    cells = torch.cat([data.split(s)["cell"] for s in ("train", "val", "test")])
    assert [len(data.split(s)["x"]) for s in ("train", "val", "test")] == [154, 19, 19]
    assert cells.sort().values.tolist() == [*range(192)]
    assert torch.equal(data.split("train")["x"], data.images()[data.split("train")["cell"]])
    assert torch.equal(data.split("val")["x"], FactorGrid(**SQUARES, seed=7).split("val")["x"])
    labelled = FactorGrid(**SMALL)
    assert torch.equal(
        labelled.examples()["y"], labelled.factors(labelled.split("train")["cell"])[:, 0]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 20}, "16, 32, 64, got 20"),
        ({"shapes": ("square", "heart")}, "got .*heart"),
        ({"shapes": ("circle",)}, "leave them out or set rotations=1, got rotations=4"),
        ({"scales": (0.2, 0.2)}, "different radii"),
        ({"x": 20}, "20 positions a pixel apart need 19 pixels"),
        ({"x": 0}, "factor_grid: x is at least 1, got 0"),
        ({**SQUARES, "x": 1, "y": 3}, "at least 10 cells"),
    ],
)
def test_bad_values_are_refused_with_the_remedy(options, words):
    with pytest.raises(ValueError, match=words):
        FactorGrid(**options)
