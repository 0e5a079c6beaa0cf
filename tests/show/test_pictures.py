"""Every picture says what it is of, which part was drawn and which is data, and shows what it says,
where it says.
"""

import numpy as np
import pytest
import torch

from tests.callbacks.fakes import POINTS, SPEC, Free, Painter, Pair, squares
from tests.show.support import (
    HALVES,
    Coder,
    cell,
    head_of,
    label_of,
    panel_of,
    readable,
    shade,
    shows,
    texts,
)
from tests.support import Given
from zoo.check import Subject
from zoo.core import DataSpec
from zoo.core.draw import draw
from zoo.core.latent import manifold
from zoo.core.moment import Moment
from zoo.metrics.neighbours import pixel_features
from zoo.show.codes import (
    arithmetic_picture,
    interpolations,
    manifold_picture,
    numbered,
    traversals,
)
from zoo.show.neighbours import panel
from zoo.show.points import scatter
from zoo.show.samples import completion_sheet, outside, reconstruction_sheet, sample_sheet

MOMENT = Moment(3000, True)
CLASSES = ["class 0", "class 1", "class 2"]
HALF = 255 / 4  # a level of the fakes' five


def level(v):
    return round(float(v) * HALF)


def halves(n=40):
    """Images of two shades, that say their own number: upper half i mod 5, lower i // 5 mod 5."""
    i = torch.arange(n)
    x = torch.stack([i % 5, i // 5 % 5], 1).float().repeat_interleave(2, 1)[:, None, :, None]
    return Given(HALVES, x.expand(n, 1, 4, 4).clone(), i % 3, batch_size=8)


def codes(n, seed=0):
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 4


def groups(model):
    return {k: (model.decode(codes(4, i)), codes(4, i)) for i, k in enumerate("abc")}


PICTURES = {
    "samples": lambda: sample_sheet(Free(SPEC), squares(), 16, moment=MOMENT),
    "classes": lambda: sample_sheet(Painter(), squares(), 12, moment=MOMENT),
    "points": lambda: sample_sheet(
        Free(POINTS), Given(POINTS, torch.randn(50, 2)), points=40, moment=MOMENT
    ),
    "reconstructions": lambda: reconstruction_sheet(
        Coder(), halves().examples(12, "val"), moment=MOMENT
    ),
    "completions": lambda: completion_sheet(Coder(), halves(), 5, moment=MOMENT),
    **{
        name: lambda name=name: dict(interpolations(Coder(), halves(), 3, 5, moment=MOMENT))[name]
        for of in ("samples", "images")
        for kind in ("linear", "spherical")
        if (name := f"interpolation_{of}_{kind}")
    },
    "traversals": lambda: traversals(Coder(), halves(), moment=MOMENT),
    "manifold": lambda: manifold_picture(Coder(), 6, MOMENT),
    "arithmetic": lambda: arithmetic_picture(Coder(), groups(Coder()), moment=MOMENT),
    "numbered": lambda: numbered(Coder(), Coder().decode(codes(64)), MOMENT),
    "neighbours": lambda: panel(
        Coder(), Coder().decode(codes(6)), {"pixels": pixel_features}, halves(), 6, moment=MOMENT
    )[1],
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_has_its_title_says_whose_weights_and_what_was_drawn(name):
    picture = PICTURES[name]()
    assert readable(picture)
    title, said, *others = texts(picture)
    assert picture.info["title"] == title
    assert any(word in title for word in ("coder", "free", "painter"))
    assert any(word in said for word in ("squares 4x4", "halves 4x4", "points"))
    assert "step 3,000 · averaged weights" in said
    assert any("drawn" in w or "decoded" in w or "codes of" in w or "coder" in w for w in others)
    if name in ("samples", "classes", "points", "reconstructions", "completions"):
        assert any("data: " in w for w in others)
        assert any("(training)" in w or "(validation)" in w for w in others)


@pytest.mark.parametrize(
    "name", ["toy_domains.TwoWay", "toy_clips.ClipGAN", "toy_graphs.GraphPainter"]
)
def test_other_kinds_of_data_have_a_table_of_told_made_and_data(name):
    subject = Subject.of(name)
    model, data = subject.model(), subject.data()
    picture = sample_sheet(model, data, moment=Moment(7, False))
    assert readable(picture, least=32)
    said = texts(picture)
    heads = [
        *(f"told: {k}" for k in model.told),
        *(f"made: {k}" for k in model.makes),
        *(f"data: {k}" for k in model.makes),
    ]
    assert [w for w in said if w in heads] == heads
    assert [w for w in said if w.isdigit()] == [str(i + 1) for i in range(12)]
    assert "raw weights" in said[1] and "(validation)" in " ".join(said)
    found = [head_of(picture, i, heads) for i in range(len(heads))]
    assert found == heads  # a tile under each heading, in order


def test_a_table_shows_each_rows_own_told_made_and_data():
    subject = Subject.of("toy_domains.TwoWay")
    model, data = subject.model(), subject.data()
    model.sample = lambda n, *, a, b, generator=None: {"a": 16 - a, "b": 255 - b}
    rows = data.examples(12, "val")
    picture = sample_sheet(model, data)
    for i in range(12):
        a, b = rows["a"][i % rows.n], rows["b"][i % rows.n]
        for j, (x, top) in enumerate(
            [(a, 16), (b, 255), (16 - a, 16), (255 - b, 255), (a, 16), (b, 255)]
        ):
            assert shows(picture, 6 * i + j, x, top)


def test_samples_of_the_seed_are_left_and_the_data_right():
    model, data = Pair(SPEC), squares()
    picture = sample_sheet(model, data, 9, 3)
    x, shown = draw(model, 9, 3), data.examples(9)["x"]
    heads = ["drawn by pair", "data: squares 4x4 (training)"]
    assert len(picture.info["cells"]) == 18
    for i in range(9):
        assert shows(picture, i, x[i], 4) and panel_of(picture, i, heads) == heads[0]
        assert shows(picture, 9 + i, shown[i], 4) and panel_of(picture, 9 + i, heads) == heads[1]
    lefts = [c[0] for c in picture.info["cells"]]
    assert max(lefts[:9]) < min(lefts[9:])


@pytest.mark.parametrize("real", [True, False])
def test_one_class_a_row_beside_its_label_on_both_sides(real):
    picture = sample_sheet(Painter(), squares() if real else None, 12)
    assert len(picture.info["cells"]) == 24 if real else 12
    for i in range(len(picture.info["cells"])):
        c = i % 12 // 4
        assert label_of(picture, i, CLASSES) == CLASSES[c]
        assert cell(picture, i)[40, 40, 0] == level(c if i < 12 else c + 1)


def test_classes_have_the_datas_names(monkeypatch):
    data, names = squares(), ("cat", "dog", "a rather long name of a kind of animal")
    monkeypatch.setattr(type(data), "class_names", names)
    picture = sample_sheet(Painter(), data, 12)
    assert readable(picture) and label_of(picture, 4, ["cat", "dog"]) == "dog"
    assert not {*CLASSES} & {*texts(picture)}


def test_many_classes_show_the_first_and_say_so():
    spec = DataSpec((1, 4, 4), 200, 150, "many")
    data = Given(spec, torch.zeros(10, 1, 4, 4), torch.zeros(10, dtype=torch.long))
    picture = sample_sheet(Painter(spec), data, 64)
    assert readable(picture) and "the first 8 of 150 classes are shown" in texts(picture)
    assert "no image of class 7 was met: its row is black" in texts(picture)
    names = [f"class {i}" for i in range(150)]
    assert label_of(picture, 8 * 3, names) == "class 3"


def test_points_are_drawn_in_their_places_and_colours():
    corner = torch.full((200, 2), 0.0) + 0.1 * torch.randn(200, 2)
    model = Free(DataSpec((5,), None, 0, "points"))
    model.sample = lambda n, generator=None: torch.cat(
        [corner[:1].expand(n, 2) + 3, torch.full((n, 3), 9.0)], 1
    )
    spec = DataSpec((5,), None, 0, "points")
    data = Given(spec, torch.cat([corner, torch.zeros(200, 3)], 1))
    picture = sample_sheet(model, data, points=50)
    assert readable(picture) and "the first two of 5 coordinates are shown" in texts(picture)
    pixels = cell(picture, 0).astype(int)[60:-60, 80:-20]
    blue = np.argwhere(pixels[..., 2] - pixels[..., 0] > 40).mean(0)
    orange = np.argwhere(pixels[..., 0] - pixels[..., 2] > 40).mean(0)
    assert blue[0] < orange[0] - 100 and blue[1] > orange[1] + 100  # above, and to the right


def test_points_that_are_not_finite_are_counted():
    model = Free(POINTS)
    model.sample = lambda n, generator=None: torch.tensor([[1.0, float("nan")], [0.0, 1.0]])[
        torch.arange(n) % 2
    ]
    picture = sample_sheet(model, None, points=10)
    assert "5 of 10 drawn points are not finite, and are left out" in texts(picture)
    line = scatter(torch.full((9, 1), float("inf")), torch.zeros(4, 1))
    assert line.size == (640, 640)


def test_originals_stand_above_their_reconstructions():
    model, batch = Painter(), squares().examples(16, "val")
    picture = reconstruction_sheet(model, batch)
    rows = ["original", "reconstruction"]
    assert len(picture.info["cells"]) == 32
    for i in range(32):
        group, again, column = i // 16, i // 8 % 2, i % 8
        x = batch["x"][8 * group + column]
        assert label_of(picture, i, rows) == rows[again]
        assert shows(picture, i, (x + again).clamp(max=4), 4)


def test_rows_that_are_not_full_are_shown_too():
    batch = halves().examples(11, "val")
    picture = reconstruction_sheet(Coder(), batch)
    assert len(picture.info["cells"]) == 22
    assert all(shows(picture, 16 + i, batch["x"][8 + i], 4) for i in range(3))
    assert label_of(picture, 19, ["original", "reconstruction"]) == "reconstruction"


def test_completions_stand_below_the_data_and_what_was_shown():
    data = halves()
    picture = completion_sheet(Coder(), data, 5)
    x = data.examples(5, split="val")["x"]
    known = outside("bottom", 4, 4)
    rows = ["original", "shown", "completed 1", "completed 2"]
    wanted = [x, torch.where(known, x, 2.0), *[torch.where(known, x, 4.0)] * 2]
    for i in range(20):
        assert label_of(picture, i, rows) == rows[i // 5]
        assert shows(picture, i, wanted[i // 5][i % 5], 4)
    assert any("the bottom half is hidden" in w for w in texts(picture))


@pytest.mark.parametrize(
    ("part", "kept"),
    [("bottom", 0.5), ("top", 0.5), ("left", 0.5), ("right", 0.5), ("centre", 0.75)],
)
def test_a_part_is_hidden_and_the_rest_is_known(part, kept):
    known = outside(part, 8, 8)
    assert known.shape == (1, 8, 8) and known.float().mean() == kept
    corner = {"bottom": (7, 0), "top": (0, 0), "left": (3, 0), "right": (3, 7), "centre": (4, 4)}[
        part
    ]
    assert not known[0][corner]


def test_an_unknown_part_is_named():
    with pytest.raises(ValueError, match="one of bottom, top, left, right, centre, got 'middle'"):
        outside("middle", 8, 8)


def test_paths_run_from_image_to_image():
    data = halves()
    picture = dict(interpolations(Coder(), data, 3, 5))["interpolation_images_linear"]
    x = data.examples(6, "val")["x"]
    a, b = x.chunk(2)
    heads, paths = ["image", "start", "end"], ["path 1", "path 2", "path 3"]
    for row in range(3):
        for column in range(7):
            at = min(max((column - 1) / 4, 0), 1)
            i = 7 * row + column
            assert shows(picture, i, a[row] + at * (b[row] - a[row]), 4)
            assert label_of(picture, i, paths) == paths[row]
    named = {column: head_of(picture, column, heads) for column in (0, 1, 5, 6)}
    assert named == {0: "image", 1: "start", 5: "end", 6: "image"}


def test_traversals_have_a_dimension_a_row_the_one_that_carries_most_first():
    data = halves()
    picture = traversals(Coder(), data, n=2, steps=3)
    labels = ["z1 · KL 0.50", "z0 · KL 0.01, unused"]
    assert [w for w in texts(picture) if w in labels] == labels
    z = Coder().encode(data.examples(2, "val")["x"])
    heads = ["−3", "0", "3"]
    for i in range(12):
        base, row, step = i // 6, i % 6 // 3, i % 3
        upper, lower = z[base].tolist()
        moved = min(max(-3 + 3 * step, 0), 4)
        want = (upper, moved) if row == 0 else (moved, lower)
        assert shade(picture, i) == (level(want[0]), level(want[1]))
        assert head_of(picture, i, heads) == heads[step]
        if base == 0:
            assert label_of(picture, i, labels) == labels[row]
    bases = ["decoded from validation image 1", "decoded from validation image 2"]
    assert [panel_of(picture, i, bases) for i in range(12)] == [bases[i // 6] for i in range(12)]


def test_the_manifold_has_the_first_dimension_to_the_right_and_the_second_upwards():
    picture, z = manifold_picture(Coder(), 4), manifold(4)
    for i in range(16):
        a, b = z[i // 4, i % 4].clamp(min=0).tolist()
        assert shade(picture, i) == (level(a), level(b))
    assert (
        shade(picture, 3)[0] > shade(picture, 0)[0] and shade(picture, 0)[1] > shade(picture, 12)[1]
    )
    assert [w for w in texts(picture) if w in ("1.6", "−1.6")] == ["−1.6", "1.6", "1.6", "−1.6"]


def test_arithmetic_shows_the_groups_their_means_the_result_and_the_way_to_it():
    model = Coder()
    given = groups(model)
    (_, a), (_, b), (_, c) = given.values()
    picture = arithmetic_picture(model, given)
    for row, (shown, z) in enumerate(given.values()):
        mean = z.mean(0).clamp(0, 4).tolist()
        assert shade(picture, 5 * row) == (level(mean[0]), level(mean[1]))
        assert all(shows(picture, 5 * row + 1 + i, shown[i], 4) for i in range(4))
    result = (a.mean(0) - b.mean(0) + c.mean(0)).clamp(0, 4).tolist()
    assert shade(picture, 15) == (level(result[0]), level(result[1]))
    signs = ["+ a", "− b", "+ c"]
    assert [label_of(picture, 5 * i, signs) for i in range(3)] == signs
    alphas = ["α = 0", "α = 0.5", "α = 1", "α = 1.5"]
    for i in range(16):
        alpha = i // 4 / 2
        want = (b[i % 4] + alpha * (a.mean(0) - b.mean(0))).clamp(0, 4).tolist()
        assert label_of(picture, 24 + i, alphas) == alphas[i // 4]
        assert shade(picture, 24 + i) == (level(want[0]), level(want[1]))


def test_samples_stand_before_their_nearest_training_images_with_distances():
    data, model = halves(), Coder()
    x = model.decode(torch.tensor([[1.0, 1], [4, 3], [0, 0.25]]))
    values, picture = panel(model, x, {"pixels": pixel_features}, data, 3, 2)
    train = data.examples(split="train")["x"]
    far = torch.cdist(x.flatten(1).double() / 4, train.flatten(1).double() / 4)
    order = [*range(3), *range(3, 6), *range(6, 9)]
    heads = ["sample", "near 1", "near 2"]
    for i in order:
        row, column = divmod(i, 3)
        assert head_of(picture, i, heads) == heads[column]
        if column == 0:
            assert shows(picture, i, x[row], 4)
        else:
            distance = far[row].sort().values[column - 1]
            left, _, right, bottom = picture.info["cells"][i]
            caption = next(
                w
                for w, b in picture.info["texts"]
                if left <= (b[0] + b[2]) / 2 <= right and bottom <= b[1] < bottom + 14
            )
            assert float(caption) == pytest.approx(float(distance), abs=0.006)
            assert any(
                shows(picture, i, t, 4)
                for t, d in zip(train, far[row], strict=True)
                if d <= distance + 1e-9
            )
    assert values["pixels"]["ratio"] >= 0


def test_samples_by_number_have_their_numbers():
    picture = numbered(Coder(), Coder().decode(codes(64)), MOMENT)
    z = codes(64)
    for i in (0, 7, 8, 63):
        left, _, right, bottom = picture.info["cells"][i]
        word = next(
            w
            for w, b in picture.info["texts"]
            if left <= (b[0] + b[2]) / 2 <= right and bottom <= b[1] < bottom + 14
        )
        assert word == str(i) and shade(picture, i) == (level(z[i, 0]), level(z[i, 1]))
