"""The same draws through a training, a row a moment."""

from pathlib import Path

import torch
from PIL import Image as Picture

from callbacks import EMA, Film
from tests.callbacks.fakes import POINTS, Pair, Recorder, Witness, run, squares
from tests.support import Given
from zoo.core import DataSpec
from zoo.core.draw import draw
from zoo.gan.gogan import GoGAN
from zoo.gan.progan import ProGAN
from zoo.show.paint import Shades, rgb

SPEC = DataSpec((1, 4, 4), 256, 3, "squares 4x4")


def rows(callback):
    return {step: words for step, (words, _) in callback.shot.items()}


def drawn(weight, n=2, seed=5):
    """What the pair draws with this weight, as bytes."""
    model = Pair(SPEC)
    model.g.weight.data.fill_(weight)
    x = draw(model, n, seed)
    return rgb(x, Shades(SPEC["x"], x))


def test_a_row_is_what_the_same_codes_gave_at_its_step():
    data, callback, logger = squares(spec=SPEC), Film(True, rows=3, n=2, seed=5), Recorder()
    witness = Witness(callback)
    run(Pair(SPEC), data, 5, callback, logger=logger)
    assert rows(callback) == {0: "step 0", 2: "step 2", 5: "step 5"} and witness.calls == 6
    for step, (_, made) in callback.shot.items():  # each step takes a tenth of g's weight
        assert torch.equal(made, drawn(0.9**step))
    assert [(step, key) for step, key, _ in logger.images] == [(5, "film")]
    assert Picture.open("samples/film_000005.png").text["Title"].endswith("through its training")


def test_a_resumed_run_ends_with_the_film_of_one_that_was_not_stopped():
    data, whole, first, rest = squares(spec=SPEC), *(Film(True, rows=5, n=2) for _ in range(3))
    run(Pair(SPEC), data, 8, whole)
    wanted = Path("samples/film_000008.png").read_bytes()
    trainer = run(model := Pair(SPEC), data, 8, first, limit_train_batches=4, max_epochs=1)
    trainer.save_checkpoint("half.ckpt")
    assert list(rows(first)) == [0, 2, 4]
    Path("samples/film_000008.png").unlink(missing_ok=True)
    run(model, data, 8, rest, ckpt_path="half.ckpt")
    assert list(rows(rest)) == [0, 2, 4, 6, 8]
    assert Path("samples/film_000008.png").read_bytes() == wanted


def test_averaged_weights_are_shown_where_there_are_some():
    callback = Film(True, rows=2, n=2, seed=5)
    run(Pair(SPEC), squares(spec=SPEC), 2, EMA(decay=0.5), callback)
    ((_, start), (_, end)) = callback.shot.values()
    assert torch.equal(start, drawn(1.0)) and not torch.equal(end, drawn(0.81))


def test_no_film_unless_it_is_wanted_or_where_nothing_is_an_image():
    run(Pair(SPEC), squares(spec=SPEC), 2, Film())
    run(Pair(POINTS), Given(POINTS, torch.randn(20, 2)), 2, Film(True))
    assert not Path("samples").exists()


def test_games_that_grow_or_have_stages_say_where_they_stand():
    model = ProGAN(DataSpec((1, 32, 16), 17), fade=100, steady=100)
    said = []
    for shown in (0, 100, 150, 200, 300, 400):
        model.shown.fill_(shown)
        said.append(model.stands)
    grown = ["8x4", "16x8 at 0%", "16x8 at 50%", "16x8", "32x16 at 0%", "32x16"]
    assert said == grown
    staged = GoGAN(DataSpec((2,)), stages=3, stage_steps=5)
    staged.stage.fill_(2)
    assert staged.stands == "stage 2 of 3"
