"""A tile shows its row: what is in the row is in the picture, and what is padding is not."""

import numpy as np
import pytest
import torch

from zoo.core import (
    Attributes,
    Boxes,
    Image,
    Label,
    Quantity,
    Series,
    Tokens,
    Vector,
    Video,
    Volume,
)
from zoo.core.spec import Field
from zoo.show.tiles import LINES, SIDE, text, tile

KINDS = [
    Image((1, 8, 8), 17),
    Image((2, 8, 8)),
    Image((3, 8, 8), 256),
    Image((5, 8, 8), 2),
    Video((3, 3, 8, 8), 256),
    Volume((1, 4, 6, 8), 2),
    Series((9, 2)),
    Vector((12,)),
    Tokens((9,), 7),
    Label(10),
    Attributes((4,)),
    Quantity((), "GeV"),
    Boxes(3),
]


def same(a, b) -> bool:
    return a.size == b.size and np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("field", KINDS, ids=lambda f: f"{type(f).__name__}{f.shape}")
def test_other_rows_have_other_pictures_and_the_same_row_the_same(field):
    rows = field.example(40, torch.Generator().manual_seed(0))
    first = tile(field, rows[0])
    assert same(first, tile(field, rows[0].clone()))
    assert any(not same(first, tile(field, row)) for row in rows[1:])


def test_pixels_are_enlarged_smoothly_and_keep_their_places():
    row = torch.zeros(1, 8, 8)
    row[0, 2, 5] = 16
    pixels = np.asarray(tile(Image((1, 8, 8), 17), row))
    assert pixels.shape == (SIDE, SIDE, 3)
    lit = pixels[..., 0].reshape(8, SIDE // 8, 8, SIDE // 8)
    middles = lit[:, SIDE // 16 - 1 : SIDE // 16 + 1, :, SIDE // 16 - 1 : SIDE // 16 + 1]
    middles = middles.mean((1, 3))
    assert middles[2, 5] > 240
    middles[2, 5] = 0
    assert middles.max() < 12


def test_colours_are_red_green_blue():
    row = torch.zeros(3, 8, 8)
    row[0] = 255
    assert np.asarray(tile(Image((3, 8, 8), 256), row))[0, 0].tolist() == [255, 0, 0]


def test_frames_stand_from_left_to_right_in_time():
    clip = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 8, 8) * 100
    pixels = np.asarray(tile(Video((3, 1, 8, 8), 256), clip))
    across = pixels[4, :, 0]
    assert [across[SIDE // 2 + i * (SIDE + 2)] for i in range(3)] == [0, 100, 200]


def test_a_volume_is_seen_along_each_of_its_axes():
    row = torch.zeros(1, 4, 4, 4)
    row[0, 1, 2, 3] = 1
    pixels = np.asarray(tile(Volume((1, 4, 4, 4), 2), row))[..., 0]
    views = [pixels[:, i * (SIDE + 2) :][:, :SIDE] for i in range(3)]
    lit = [np.argwhere(v.reshape(4, SIDE // 4, 4, SIDE // 4).mean((1, 3)) > 128) for v in views]
    assert [at.tolist() for at in lit] == [[[2, 3]], [[1, 3]], [[1, 2]]]  # (h, w), (d, w), (d, h)


def test_padding_is_left_out():
    boxes = torch.tensor([[0.1, 0.1, 0.9, 0.9], [0.0, 0.0, 0.0, 0.0]])
    alone = tile(Boxes(1), boxes[:1])
    assert same(tile(Boxes(2), boxes), alone)
    assert same(tile(Tokens((4,), 9), torch.tensor([3, 5, 0, 0])), text("3 5 0 0"))
    two = torch.tensor([[3, 5], [0, 0]])
    assert same(tile(Tokens((2, 2), 9), two), text("3 5"))


def test_attributes_are_named_and_quantities_have_their_unit():
    smiling = Attributes((2,), names=("smiling", "hat"))
    assert same(tile(smiling, torch.tensor([1.0, 0.0])), text("smiling"))
    assert same(tile(Quantity((), "GeV"), torch.tensor(12.9)), text("12.9 GeV"))


def test_a_kind_of_ones_own_is_shown_by_its_numbers():
    class Angle(Field):
        pass

    angle = Angle.__new__(Angle)
    assert same(tile(angle, torch.tensor([0.5, 1.25])), text("0.5 1.25"))


def test_long_texts_are_wrapped_and_cut():
    long = tile(Tokens((40, 30), 9), torch.ones(40, 30, dtype=torch.int64))
    assert long.width < 400 and long.height < (LINES + 1) * 18
    assert same(text("\n".join("abcdefghij")), text("\n".join([*"abcdefg", "… 3 lines more"])))
