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
