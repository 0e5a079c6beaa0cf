"""A tile shows its row: what is in the row is in the picture, and what is padding is not."""

import numpy as np
import pytest
import torch
from PIL import ImageColor

from zoo.core import (
    Attributes,
    Boxes,
    Image,
    Keypoints,
    Label,
    Quantity,
    Regions,
    Series,
    Tokens,
    Triples,
    Vector,
    Video,
    Volume,
)
from zoo.core.spec import Field
from zoo.show.paint import COLOURS
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
    Tokens((9,), 3, ("", "a", "b")),
    Triples((3, 3), 4, objects=3),
    Label(10),
    Attributes((4,)),
    Quantity((), "GeV"),
    Boxes(3),
    Keypoints((2, 5, 3)),
    Regions((5, 8, 8)),
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


def test_words_stand_apart_and_letters_together():
    rows = torch.tensor([[1, 2, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
    words = tile(Tokens((3, 4), 3, ("", "red", "star")), rows)
    assert same(words, text("red star red\nstar"))
    assert same(tile(Tokens((3, 4), 3, ("", "a", " ")), rows), text("a a\n"))
    assert same(tile(Label(2, names=("cat", "dog")), torch.tensor(1)), text("dog"))


def test_triples_are_read_from_subject_to_object():
    field = Triples((3, 3), 3, ("", "left of", "in"), objects=3)
    said = tile(field, torch.tensor([[2, 1, 0], [0, 2, 1], [0, 0, 0]]))
    assert same(said, text("2 left of 0\n0 in 1"))


def test_regions_have_the_colours_and_names_of_those_that_are_there():
    row = torch.zeros(3, 8, 8)
    row[0], row[2, 4:] = 1, 1
    field = Regions((3, 8, 8), names=("sky", "sea", "sand"))
    alone = np.asarray(tile(Regions((3, 8, 8)), row))
    assert alone.shape == (SIDE, SIDE, 3)
    for at, k in ((8, 0), (SIDE - 8, 2)):
        assert tuple(alone[at, 8]) == ImageColor.getrgb(COLOURS[k])
    named = np.asarray(tile(field, row))
    assert named.shape[1] > SIDE and np.array_equal(named[:, :SIDE], alone)
    inks = {tuple(p) for p in named[:, SIDE:].reshape(-1, 3).tolist()}
    assert ImageColor.getrgb(COLOURS[2]) in inks and ImageColor.getrgb(COLOURS[1]) not in inks


def test_keypoints_are_dots_where_they_are_filled_if_seen():
    points = torch.tensor([[[0.25, 0.5, 1.0], [0.75, 0.5, 0.0]], [[0.0] * 3] * 2])
    pixels = np.asarray(tile(Keypoints((2, 2, 3)), points))
    ink = ImageColor.getrgb(COLOURS[0])
    assert tuple(pixels[31, 16]) == ink and tuple(pixels[31, 47]) == (255, 255, 255)
    assert ink in {tuple(p) for p in pixels[28:36, 44:51].reshape(-1, 3).tolist()}
    assert same(tile(Keypoints((1, 2, 3)), points[:1]), tile(Keypoints((2, 2, 3)), points))


def test_attributes_are_named_and_quantities_have_their_unit():
    smiling = Attributes((2,), names=("smiling", "hat"))
    assert same(tile(smiling, torch.tensor([1.0, 0.0])), text("smiling"))
    assert same(tile(Quantity((), "GeV"), torch.tensor(12.9)), text("12.9 GeV"))
    light = Quantity((2,), names=("night", "fog"))
    assert same(tile(light, torch.tensor([0.5, 0.0])), text("night 0.5\nfog 0"))


def test_a_kind_of_ones_own_is_shown_by_its_numbers():
    class Angle(Field):
        pass

    angle = Angle.__new__(Angle)
    assert same(tile(angle, torch.tensor([0.5, 1.25])), text("0.5 1.25"))


def test_long_texts_are_wrapped_and_cut():
    long = tile(Tokens((40, 30), 9), torch.ones(40, 30, dtype=torch.int64))
    assert long.width < 400 and long.height < (LINES + 1) * 18
    assert same(text("\n".join("abcdefghij")), text("\n".join([*"abcdefg", "… 3 lines more"])))
