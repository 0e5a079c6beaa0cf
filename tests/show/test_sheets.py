"""A sheet is within a screen, says what it shows, and says what found no room."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.show.support import cell, head_of, label_of, readable, shows, texts
from zoo.core.spec import Image as ImageField
from zoo.show.paint import DATA, DRAWN, Shades, elided, rgb, width_of, wrapped
from zoo.show.sheets import Panel, save, sheet


def noise(n, c=1, h=8, w=8):
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, c, h, w), generator=g, dtype=torch.uint8).expand(n, 3, h, w)


def flat(*shades):
    return torch.tensor(shades, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)


def shades_of(picture):
    return [int(cell(picture, i)[8, 8, 0]) for i in range(len(picture.info["cells"]))]


def test_cells_stand_under_their_headings_and_beside_their_labels():
    cells = flat(0, 50, 100, 150, 200, 250)
    panel = Panel(cells, 3, "six shades", DRAWN, ["up", "down"], ["one", "two", "three"])
    picture = sheet("A title", "said below", [[panel]], ["a note"])
    assert readable(picture) and shades_of(picture) == [0, 50, 100, 150, 200, 250]
    for i in range(6):
        assert label_of(picture, i, ["up", "down"]) == ("up", "down")[i // 3]
        assert head_of(picture, i, ["one", "two", "three"]) == ("one", "two", "three")[i % 3]
    assert texts(picture)[:3] == ["A title", "said below", "six shades"]
    assert texts(picture)[-1] == "a note" and picture.info["cut"] == []


def test_captions_stand_below_their_cells():
    picture = sheet("t", "s", [[Panel(flat(1, 2, 3), 3, captions=["a", "b", "c"])]])
    for i, words in enumerate("abc"):
        left, _, right, bottom = picture.info["cells"][i]
        box = next(box for text, box in picture.info["texts"] if text == words)
        assert left < (box[0] + box[2]) / 2 < right and bottom <= box[1] < bottom + 16
    assert readable(picture)


def test_panels_have_their_colour_and_stand_in_their_order():
    left, right = Panel(flat(10, 20), 2, "drawn", DRAWN), Panel(flat(30, 40), 2, "data", DATA)
    picture = sheet("t", "s", [[left, right]])
    cells = picture.info["cells"]
    assert shades_of(picture) == [10, 20, 30, 40] and cells[1][2] < cells[2][0]
    inks = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (DRAWN, DATA)}
    found = {tuple(p) for p in np.asarray(picture).reshape(-1, 3).tolist()}
    assert inks <= found
    under = sheet("t", "s", [[left], [right]]).info["cells"]
    assert under[0][3] < under[2][1] and under[0][0] == under[2][0]


@pytest.mark.parametrize(("side", "least"), [(4, 80), (8, 80), (32, 80), (64, 96), (128, 160)])
def test_cells_are_large_where_there_is_room(side, least):
    picture = sheet("t", "s", [[Panel(noise(4, 3, side, side), 2)]])
    left, top, right, bottom = picture.info["cells"][0]
    assert right - left == bottom - top == least


SIZES = [(3, *size, n) for size in ((4, 4), (32, 48), (256, 256)) for n in (1, 7, 64, 3000)]


@pytest.mark.parametrize(("channels", "h", "w", "n"), [*((c, 8, 8, 9) for c in (1, 2, 4)), *SIZES])
def test_any_number_of_images_of_any_size_is_within_a_screen(channels, h, w, n):
    field = ImageField((channels, h, w), 256)
    few = torch.randint(256, (1, channels, h, w)).float()
    pixels = rgb(few, Shades(field, few)).expand(n, -1, -1, -1)
    picture = sheet("t", "s", [[Panel(pixels, 0, "drawn", DRAWN), Panel(pixels, 0, "data", DATA)]])
    assert readable(picture)
    shown = len(picture.info["cells"]) // 2
    assert (shown == n) == (not picture.info["cut"])
    if shown < n:
        assert picture.info["cut"] == [f"the first {shown:,} of {n:,} are shown"]
        assert picture.info["cut"][0] in texts(picture)
    assert shown >= min(n, 7)


def test_rows_and_columns_without_room_are_said_and_a_path_keeps_its_ends():
    cells = torch.arange(100 * 60)[:, None, None, None] % 256
    cells = cells.to(torch.uint8).expand(-1, 3, 64, 64)
    rows, heads = [f"r{i}" for i in range(100)], [f"h{i}" for i in range(60)]
    first = sheet("t", "s", [[Panel(cells, 60, "first", DRAWN, rows, heads)]])
    even = sheet("t", "s", [[Panel(cells, 60, "path", DRAWN, rows, heads, path="both")]])
    for picture in (first, even):
        assert readable(picture)
        down = [w for w in texts(picture) if w in rows]
        across = [w for w in texts(picture) if w in heads]
        assert f"{len(down)} of 100 rows" in picture.info["cut"][0]
        assert f"{len(across)} of 60 columns" in picture.info["cut"][0]
        want = [(60 * int(r[1:]) + int(h[1:])) % 256 for r in down for h in across]
        assert shades_of(picture) == want
    assert down[0] == "r0" and down[-1] == "r99" and across[0] == "h0" and across[-1] == "h59"
    gaps = np.diff([int(h[1:]) for h in across])
    assert gaps.max() - gaps.min() <= 1
    assert [w for w in texts(first) if w in heads] == heads[: len(across)]


def test_rows_that_belong_together_are_left_out_together():
    rows = ["original", "again"] * 40
    picture = sheet("t", "s", [[Panel(noise(160), 2, rows=rows, together=2)]])
    shown = [w for w in texts(picture) if w in rows]
    assert readable(picture) and shown == ["original", "again"] * (len(shown) // 2)
    tops = [c[1] for c in picture.info["cells"][::2]]
    steps = np.diff(tops)
    assert (steps[1::2] > steps[0]).all() and (steps[::2] == steps[0]).all()


def test_a_cell_that_is_none_is_left_white():
    picture = sheet("t", "s", [[Panel([flat(5)[0], None, flat(7)[0]], 2)]])
    assert shades_of(picture) == [5, 7] and readable(picture)
    (_, top, right, bottom), below = picture.info["cells"]
    assert below[1] >= bottom
    assert (np.asarray(picture)[top:bottom, right + 3 : right + 60] == 255).all()


def test_long_words_are_wrapped_or_end_in_dots():
    long = "a very long name of a model " * 12 + "x" * 300
    panel = Panel(
        noise(4), 2, long, DRAWN, ["class " * 40] * 2, ["head " * 60, "b"], ["c" * 90] * 4
    )
    picture = sheet(long, long, [[panel]], [long])
    assert readable(picture)
    said = texts(picture)
    assert sum("x" * 20 in words for words in said) >= 3
    assert any(words.startswith("class class") and words.endswith("…") for words in said)


def test_words_keep_to_their_width():
    for words in ("", "a", "some words in a row", "w" * 200):
        for width in (30, 90, 400):
            assert width_of(elided(words, width)) <= width
            lines = wrapped(words, width)
            assert all(width_of(line) <= width for line in lines)
            assert "".join("".join(lines).split()) == "".join(words.split())


def test_a_picture_is_enlarged_smoothly_and_keeps_its_places():
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 2, 5] = 255
    field = ImageField((1, 8, 8), 256)
    picture = sheet("t", "s", [[Panel(rgb(x, Shades(field, x)), 1)]])
    assert shows(picture, 0, x[0], 255) and not shows(picture, 0, x[0].flip(1), 255)


def test_the_file_says_in_words_what_is_on_it(tmp_path):
    panel = Panel(noise(2), 2, "drawn by α", DRAWN, ["−1 → 1"])
    picture = sheet("Samples of x", "digits · step 3", [[panel]])
    save(picture, tmp_path / "x.png")
    found = Image.open(tmp_path / "x.png")
    assert found.text["Title"] == "Samples of x"
    assert found.text["Description"].splitlines() == texts(picture)
    assert {"drawn by α", "−1 → 1"} <= {*texts(picture)}
    assert np.array_equal(np.asarray(found), np.asarray(picture))


def test_real_values_of_data_and_samples_have_one_scale():
    field = ImageField((1, 2, 2))
    data = torch.tensor([-2.0, 0.0, 1.0, 2.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    shades = Shades(field, data)
    assert rgb(data, shades)[:, 0, 0, 0].tolist() == [0, 128, 191, 255]
    assert rgb(data / 2, shades)[:, 0, 0, 0].tolist() == [64, 128, 159, 191]
    assert shades.note == "shades from -2 to 2"
    assert Shades(field, data.clamp(0, 1)).note == ""
    assert Shades(ImageField((5, 2, 2), 3), torch.zeros(1, 5, 2, 2)).note.startswith("the first")
    broken = torch.full((1, 1, 2, 2), float("nan"))
    assert rgb(broken, Shades(field, broken)).shape == (1, 3, 2, 2)
