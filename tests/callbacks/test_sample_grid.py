"""Sample grids come at the right steps, from the same noise, beside the data, and leave no
trace.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks import EMA, SampleGrid
from tests.callbacks.fakes import (
    POINTS,
    SPEC,
    Free,
    Painter,
    Pair,
    Recorder,
    Witness,
    entry,
    run,
    squares,
)
from tests.support import Given
from zoo.core import DataSpec
from zoo.core.draw import draw
from zoo.data.digits import Digits
from zoo.gan.began import BEGAN
from zoo.show.sheets import beside, grid, outside

FREE = DataSpec((1, 4, 4), 5, 0, "squares")


def pixels(path):
    return np.asarray(Image.open(path))


def names():
    return sorted(p.name for p in Path("samples").glob("*.png"))


def test_pictures_come_every_n_generator_steps_and_at_the_end():
    logger = Recorder()
    run(Pair(SPEC, k=2), squares(), 7, SampleGrid(every_n_steps=3, n=4), logger=logger)
    assert names() == ["step_000003.png", "step_000006.png", "step_000007.png"]
    assert [(step, key) for step, key, _ in logger.images] == [
        (3, "samples"),
        (6, "samples"),
        (7, "samples"),
    ]
    assert logger.images[0][2] == ["samples/step_000003.png"]


def test_the_last_step_is_drawn_once_also_when_it_is_a_multiple():
    logger = Recorder()
    run(Pair(SPEC), squares(), 4, SampleGrid(every_n_steps=2, n=4), logger=logger)
    assert [step for step, _, _ in logger.images] == [2, 4]


def test_picture_shows_samples_of_the_seed_left_and_data_right():
    model, data = Pair(SPEC), squares()
    run(model, data, 1, SampleGrid(n=9, seed=3))
    expected = beside(grid(draw(model, 9, 3), SPEC), grid(data.examples(9)["x"], SPEC))
    found = pixels("samples/step_000001.png")
    assert np.array_equal(found, np.asarray(expected)) and found.shape[0] >= 512
    run(model, data, 1, SampleGrid(n=9, seed=3, real=False))
    assert pixels("samples/step_000001.png").shape[1] < found.shape[1] / 2


def test_noise_is_the_same_at_every_step():
    model = Pair(SPEC)
    model.configure_optimizers = lambda: (
        [torch.optim.SGD([p], 0.0) for p in (model.d.weight, model.g.weight)],
        [],
    )
    model._order, model._scheduled = ["d", "g"], {}
    run(model, squares(), 2, SampleGrid(every_n_steps=1, n=4))
    assert np.array_equal(pixels("samples/step_000001.png"), pixels("samples/step_000002.png"))


def test_conditional_models_have_one_class_a_row_on_both_sides():
    run(Painter(), squares(), 2, SampleGrid(n=12))
    found = pixels("samples/step_000002.png")
    half = (found.shape[1] - 16) // 2
    row = found.shape[0] // 3
    for y in range(3):
        line = slice(y * row + row // 4, y * row + row // 2)
        left, right = found[line, half // 8], found[line, half + 16 + half // 8]
        assert (left == round(255 * y / 4)).all() and (right == round(255 * (y + 1) / 4)).all()
    columns = draw(Painter(), 12, told={"y": torch.arange(3).repeat_interleave(4)})
    assert columns.flatten(1)[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_more_classes_than_images_show_the_first_ones():
    spec = DataSpec((1, 4, 4), 200, 150, "many")
    data = Given(spec, torch.zeros(10, 1, 4, 4), torch.zeros(10, dtype=torch.long))
    run(Painter(spec), data, 1, SampleGrid(n=9))
    assert names() == ["reconstructions_000001.png", "step_000001.png"]


def test_reconstructions_alternate_with_their_originals():
    logger = Recorder()
    run(Painter(), squares(), 2, SampleGrid(n=16), logger=logger)
    found = pixels("samples/reconstructions_000002.png")
    rows = found.shape[0] // 4
    shades = [int(found[i * rows + rows // 2, rows // 2, 0]) for i in range(4)]
    assert shades == [
        round(255 * v / 4) for v in (1, 2, 3, 4)
    ]  # row 0 begins with level 1, row 2 with image 8: level 3
    assert (2, "reconstructions") in [(s, k) for s, k, _ in logger.images]


def test_vectors_are_plotted_over_the_data():
    points = Given(POINTS, torch.randn(100, 2), batch_size=8)
    run(Free(POINTS), points, 1, SampleGrid(points=50))
    assert pixels("samples/step_000001.png").shape == (600, 600, 3)
    line = DataSpec((1,), None, 0, "line")
    run(Free(line), Given(line, torch.randn(100, 1), batch_size=8), 2, SampleGrid(points=50))
    assert pixels("samples/step_000002.png").std() > 0


@pytest.mark.parametrize("options", [{"precision": "64-true"}, {}], ids=["float64", "one image"])
def test_one_image_and_float64_are_fine(options):
    run(Painter(SPEC), squares(), 1, SampleGrid(n=1), **options)
    run(Free(FREE), Given(FREE, torch.zeros(10, 1, 4, 4)), 1, SampleGrid(n=1), **options)
    assert "step_000001.png" in names()


def test_drawing_leaves_no_trace():
    for model, data in ((Painter(), squares()), (Free(POINTS), Given(POINTS, torch.randn(50, 2)))):
        grids = SampleGrid(every_n_steps=1, n=6, points=20)
        witness = Witness(grids)
        run(model, data, 3, EMA(), grids)
        assert witness.calls == 4


def test_training_is_the_same_with_and_without_pictures():
    weights = []
    for callbacks in ([], [SampleGrid(every_n_steps=1, n=3), EMA()]):
        torch.manual_seed(0)
        model = Painter()
        run(model, squares(), 5, *callbacks)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_pictures_are_of_the_averaged_weights():
    model = Pair(SPEC)
    ema = EMA(decay=0.9, ramp=False)
    run(model, squares(), 20, SampleGrid(n=4, real=False), ema)
    raw = np.asarray(grid(draw(model, 4), SPEC))
    with ema.average.applied():
        averaged = np.asarray(grid(draw(model, 4), SPEC))
    found = pixels("samples/step_000020.png")
    assert np.array_equal(found, averaged) and not np.array_equal(found, raw)


def test_a_folder_that_cannot_be_written_is_one_warning_and_training_goes_on():
    Path("samples").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="without pictures") as caught:
        trainer = run(Pair(SPEC), squares(), 3, SampleGrid(every_n_steps=1, n=4))
    assert trainer.global_step == 3
    assert sum("without pictures" in str(w.message) for w in caught) == 1


def test_began_on_digits_gives_both_pictures():
    data = Digits()
    run(BEGAN(data.spec, width=16), data, 2, SampleGrid(every_n_steps=2))
    assert names() == ["reconstructions_000002.png", "step_000002.png"]
    assert min(pixels("samples/step_000002.png").shape[:2]) >= 512


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="every_n_steps"):
        SampleGrid(every_n_steps=0)


class Completer(Free):
    """Fills what is hidden with level 4."""

    entry = entry("completer", can={"sample", "inpaint"})

    def inpaint(self, x, known, *, generator=None):
        assert not self.training and generator is not None
        return torch.where(known, x, 4.0)


def test_completions_stand_below_the_data_and_what_was_shown():
    logger = Recorder()
    run(Completer(FREE), squares(spec=FREE), 1, SampleGrid(n=9), logger=logger)
    assert names() == ["completions_000001.png", "step_000001.png"]
    assert {key for _, key, _ in logger.images} == {"samples", "completions"}
    picture, data = (
        pixels("samples/completions_000001.png"),
        squares(spec=FREE).examples(8, split="val")["x"],
    )
    shown, full = data.clone(), data.clone()
    shown[:, :, 2:], full[:, :, 2:] = 2, 4
    assert (picture == np.asarray(grid(torch.cat([data, shown, full, full]), FREE, 8))).all()


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
