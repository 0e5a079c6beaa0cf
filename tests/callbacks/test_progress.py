"""The bar is an ornament: a terminal or pipe that is closed costs it, not the run."""

import io
import sys

import pytest

from callbacks import Progress
from tests.callbacks.fakes import SPEC, Pair, run, squares


@pytest.mark.parametrize("error", [BrokenPipeError(32, "closed"), OSError(5, "hung up")])
def test_a_closed_terminal_does_not_end_the_run(monkeypatch, error):
    class Closed(io.StringIO):
        tried = 0

        def write(self, text=""):
            Closed.tried += 1
            raise error

        flush = write

    monkeypatch.setattr(sys, "stdout", Closed())
    bar = Progress(refresh_rate=1)
    assert run(Pair(SPEC), squares(), 5, bar, enable_progress_bar=True).global_step == 5
    assert Closed.tried > 0


def test_the_bar_names_the_model_and_counts_its_steps(capsys):
    run(Pair(SPEC), squares(), 5, Progress(refresh_rate=1), enable_progress_bar=True)
    assert "pair: 100%" in capsys.readouterr().out


def test_a_resumed_runs_bar_goes_on_in_the_whole(capsys, tmp_path):
    run(Pair(SPEC), squares(), 4).save_checkpoint(tmp_path / "at.ckpt")
    bar = Progress(refresh_rate=1)
    options = {"enable_progress_bar": True, "ckpt_path": tmp_path / "at.ckpt"}
    run(Pair(SPEC), squares(), 8, bar, **options)
    said = capsys.readouterr().out
    assert "pair:  50%" in said and "4/8" in said and "8/8" in said
    assert "/4 " not in said and "Training" not in said and "Epoch" not in said


def test_slow_steps_move_the_bar_before_twenty_are_done(capsys, monkeypatch):
    now = iter(range(1000, 2000, 2))  # two seconds a look
    monkeypatch.setattr("callbacks.progress.time.monotonic", lambda: next(now))
    run(Pair(SPEC), squares(), 19, Progress(refresh_rate=20), enable_progress_bar=True)
    said = capsys.readouterr().out
    assert [n for n in range(1, 19) if f" {n}/19" in said] == [1, 4, 7, 10, 13, 16]
