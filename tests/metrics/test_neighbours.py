"""Nearest neighbours are the nearest, whatever the blocks, and copies are told from fresh data."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from tests.support import Given
from zoo.core.spec import DataSpec
from zoo.data.digits import Digits
from zoo.metrics.neighbours import TrainingSet, copying, nearest, pixel_features
from zoo.show.neighbours import neighbours

DATA = Digits()


def rows(seed, n, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_search_in_blocks_is_the_brute_force_search(size):
    queries, references = rows(0, 20), rows(1, 100)
    far, index = nearest(queries, [(i, references[i : i + size]) for i in range(0, 100, size)], 5)
    found = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(references.double().numpy())
    want_far, want = found.kneighbors(queries.double().numpy())
    assert np.array_equal(index.numpy(), want)
    np.testing.assert_allclose(far.numpy(), want_far, rtol=1e-7)


def test_equal_distances_come_in_row_order_whatever_the_order_of_the_blocks():
    references = torch.zeros(12, 3)
    blocks = [(i, references[i : i + 4]) for i in (8, 0, 4)]
    assert nearest(torch.ones(2, 3), blocks, 3)[1].tolist() == [[0, 1, 2]] * 2


def test_training_images_are_their_own_neighbours():
    training = TrainingSet(DATA, pixel_features)
    x = DATA.examples(180)["x"]
    values, far, index = training.search(x, 2)
    assert (
        (far[:, 0] == 0).all()
        and torch.equal(index[:, 0], torch.arange(180))
        and (far[:, 1] > 0).all()
    )
    assert values["ratio"] == 0 and values["rate"] == 1 and values["auc"] == 1


def test_validation_images_are_not_taken_for_copies():
    values, _, _ = TrainingSet(DATA, pixel_features).search(DATA.examples(180, "val")["x"])
    assert values["ratio"] == 1 and values["rate"] <= 2 / 180
    test = TrainingSet(DATA, pixel_features).search(DATA.examples(180, "test")["x"])[0]
    assert (
        test["ratio"] == pytest.approx(1, abs=0.1)
        and test["rate"] < 0.06
        and test["auc"] == pytest.approx(0.5, abs=0.1)
    )


def test_rows_belong_to_the_images_shown():
    training = TrainingSet(DATA, pixel_features)
    x, y = (DATA.examples(180, "test")[k] for k in "xy")
    far, index = training.nearest(x, 1)
    near = DATA.evaluation_batch("train", index[:, 0])
    torch.testing.assert_close((near["x"] - x).flatten(1).norm(dim=1).double() / 16, far[:, 0])
    assert (near["y"] == y).float().mean() > 0.9  # a nearest-neighbour classifier of digits is good


def test_scores_by_hand():
    found = copying(
        torch.tensor([1.0, 2, 3]),
        torch.tensor([2.0, 4, 6]),
        torch.tensor([1.0, 1, 4]),
        torch.tensor([1.0, 3, 3]),
    )
    assert (
        found["ratio"] == 0.5
        and found["rate"] == pytest.approx(2 / 3)
        and found["auc"] == pytest.approx(0.5)
    )


def test_data_whose_images_repeat_make_no_copyist_and_hide_none():
    images = torch.randint(17, (30, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    x = images.repeat(12, 1, 1, 1)  # in every split: fresh images are copies too
    spec = DataSpec((1, 8, 8), 17)
    training = TrainingSet(Given(spec, x), pixel_features)
    assert training.search(x[:50])[0] == {"ratio": 1.0, "rate": 1.0, "auc": 0.5}
    new = training.search((x[:50] + 1) % 17)[0]
    assert math.isnan(new["ratio"]) and new["rate"] == 0


def test_a_copy_by_features_of_other_batches_is_at_distance_zero():
    references = rows(1, 100) * 30
    queries = references[:20] * (1 + torch.finfo(torch.float32).eps)
    far, index = nearest(queries, [(0, references)], 2)
    assert (far[:, 0] == 0).all() and (far[:, 1] > 0).all()
    assert index[:, 0].tolist() == [*range(20)]


def test_the_scores_of_copies_are_finite_where_all_is_alike():
    alike = torch.zeros(30, dtype=torch.float64)
    assert copying(alike, alike, alike, alike) == {"ratio": 1.0, "rate": 1.0, "auc": 0.5}


def test_more_neighbours_than_images_are_refused():
    with pytest.raises(
        ValueError, match="181 neighbours are wanted of 180 images of the val split"
    ):
        TrainingSet(DATA, pixel_features).nearest(DATA.examples(1)["x"], 181, "val")


def test_the_picture_has_a_sample_and_its_neighbours_in_every_half_row():
    training = TrainingSet(DATA, pixel_features)
    x = DATA.examples(5, "test")["x"]
    panels = neighbours("gan", DATA, x, *training.nearest(x, 3), "pixels")
    assert [(p.columns, len(p.cells)) for p in panels] == [(4, 12), (4, 8)]
    assert panels[1].rows == ["4", "5"]
