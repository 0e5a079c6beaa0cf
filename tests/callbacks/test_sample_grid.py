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
from zoo.core.moment import Moment
from zoo.data.digits import Digits
from zoo.gan.began import BEGAN
from zoo.show.samples import sample_sheet

FREE = DataSpec((1, 4, 4), 5, 0, "squares")


def pixels(path):
    return np.asarray(Image.open(path))


def said_of(picture):
    return [words for words, _ in picture.info["texts"]]


def said(path):
    """The texts on a picture, as its file has them."""
    return Image.open(path).text["Description"].splitlines()


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


def test_picture_is_of_the_seed_and_has_the_data_beside_it():
    model, data = Pair(SPEC), squares()
    run(model, data, 1, SampleGrid(n=9, seed=3))
    expected = sample_sheet(model, data, 9, 3, moment=Moment(1, False))
    found = pixels("samples/step_000001.png")
    assert np.array_equal(found, np.asarray(expected)) and found.shape[1] >= 512
    run(model, data, 1, SampleGrid(n=9, seed=3, real=False))
    alone = said("samples/step_000001.png")
    assert "data: squares 4x4 (training)" in said_of(expected)
    assert not any(words.startswith("data") for words in alone)


def test_noise_is_the_same_at_every_step():
    model = Pair(SPEC)
    model.configure_optimizers = lambda: (
        [torch.optim.SGD([p], 0.0) for p in (model.d.weight, model.g.weight)],
        [],
    )
    model._order, model._scheduled = ["d", "g"], {}
    run(model, squares(), 2, SampleGrid(every_n_steps=1, n=4))
    first, second = (pixels(f"samples/step_00000{i}.png")[64:] for i in (1, 2))
    assert np.array_equal(first, second)  # but for the step in the title


def test_conditional_models_have_one_class_a_row_on_both_sides():
    run(Painter(), squares(), 2, SampleGrid(n=12))
    words = said("samples/step_000002.png")
    assert [w for w in words if w.startswith("class ")] == ["class 0", "class 1", "class 2"] * 2
    found = pixels("samples/step_000002.png")[..., 0]
    for y in range(3):  # drawn levels are y, data y + 1
        assert (found == round(255 * y / 4)).sum() >= 4 * 80 * 80
    columns = draw(Painter(), 12, told={"y": torch.arange(3).repeat_interleave(4)})
    assert columns.flatten(1)[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_more_classes_than_images_show_the_first_ones():
    spec = DataSpec((1, 4, 4), 200, 150, "many")
    data = Given(spec, torch.zeros(10, 1, 4, 4), torch.zeros(10, dtype=torch.long))
    run(Painter(spec), data, 1, SampleGrid(n=9))
    assert names() == ["reconstructions_000001.png", "step_000001.png"]


def test_reconstructions_stand_below_their_originals():
    logger = Recorder()
    run(Painter(), squares(), 2, SampleGrid(n=16), logger=logger)
    rows = [
        w for w in said("samples/reconstructions_000002.png") if w in ("original", "reconstruction")
    ]
    assert rows == ["original", "reconstruction"] * 2
    assert (2, "reconstructions") in [(s, k) for s, k, _ in logger.images]


def test_vectors_are_plotted_over_the_data():
    points = Given(POINTS, torch.randn(100, 2), batch_size=8)
    run(Free(POINTS), points, 1, SampleGrid(points=50))
    assert min(pixels("samples/step_000001.png").shape[:2]) >= 600
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


def test_pictures_are_of_the_averaged_weights_and_say_so():
    model = Pair(SPEC)
    ema = EMA(decay=0.9, ramp=False)
    run(model, squares(), 20, SampleGrid(n=4, real=False), ema)
    raw = sample_sheet(model, None, 4, moment=Moment(20, True))
    with ema.average.applied():
        averaged = sample_sheet(model, None, 4, moment=Moment(20, True))
    found = pixels("samples/step_000020.png")
    assert np.array_equal(found, np.asarray(averaged)) and not np.array_equal(
        found, np.asarray(raw)
    )
    assert any("step 20 · averaged weights" in w for w in said("samples/step_000020.png"))
    run(model, squares(), 2, SampleGrid(n=4))
    assert any("step 2 · raw weights" in w for w in said("samples/step_000002.png"))


def test_loggers_that_take_captions_get_the_title():
    class Captioned(Recorder):
        def log_image(self, key, images, step=None, **more):
            super().log_image(key, images, step)
            self.captions = [*getattr(self, "captions", []), more["caption"]]

    logger = Captioned()
    run(Pair(SPEC), squares(), 1, SampleGrid(n=4), logger=logger)
    title = "Samples of pair beside the data"
    assert logger.captions == [[f"{title} · squares 4x4 · step 1 · raw weights · seed 0"]]
    assert len(logger.images) == 1


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


def test_completions_come_with_the_samples():
    logger = Recorder()
    run(Completer(FREE), squares(spec=FREE), 1, SampleGrid(n=9), logger=logger)
    assert names() == ["completions_000001.png", "step_000001.png"]
    assert {key for _, key, _ in logger.images} == {"samples", "completions"}
    words = said("samples/completions_000001.png")
    assert [w for w in words if w in ("original", "shown", "completed 1", "completed 2")] == [
        "original",
        "shown",
        "completed 1",
        "completed 2",
    ]
