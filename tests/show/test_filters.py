"""Filters are drawn with 0 as the middle grey, each on its own scale, in the model's order."""

import pytest
import torch

from zoo.core import DataSpec
from zoo.show.filters import filters_picture, scaled

RAMP = torch.tensor([[-2.0, 0, 2], [0, 1, -1]])[None, None]


class Looking:
    """Filters of 2 x 3 pixels, of two kinds."""

    spec = DataSpec((1, 2, 3), 256, 0, "tiny")
    model_name = "looking"

    def filters(self):
        return {"up": RAMP.expand(9, -1, -1, -1), "down": -RAMP}


def test_zero_is_grey_and_each_filter_has_its_own_scale():
    wanted = [[0, 0.5, 1], [0.5, 0.75, 0.25]]
    found = scaled(torch.cat([RAMP, 1000 * RAMP, 0 * RAMP]))
    assert found[:, 0].tolist() == [wanted, wanted, [[0.5] * 3] * 2]


def test_both_kinds_are_drawn_and_no_more_than_there_is_room_for():
    class One(Looking):
        def filters(self):
            return {"down": -RAMP}

    drawn = [
        filters_picture(m, most=n).info for m, n in ((Looking(), 9), (Looking(), 4), (One(), 9))
    ]
    assert [len(info["cells"]) for info in drawn] == [10, 5, 1]
    assert "the first 4 of 9" in drawn[1]["description"]
    assert "the first" not in drawn[0]["description"]


def test_a_model_without_filters_is_refused():
    class Blind:
        model_name = "blind"

    with pytest.raises(ValueError, match="blind has no filters to show; ica and pca have"):
        filters_picture(Blind())
