"""What takes its time is named while it does, and nothing is said of what is quick."""

import threading
import time

import pytest

from callbacks import patience
from callbacks.patience import Patience, waiting
from callbacks.report import Observer


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(patience, "rank_zero_info", lines.append)
    monkeypatch.setattr(patience, "SECONDS", 0.05)
    return lines


class Run:
    is_global_zero, global_step, world_size = True, 1200, 1
    state = type("State", (), {"fn": None})


def test_a_long_stage_is_named_again_and_again_and_a_short_one_is_not(said):
    with waiting("the scores"):
        time.sleep(0.18)
    assert 2 <= len(said) <= 3 and all(line.startswith("the scores ... ") for line in said)
    with waiting("quick"):
        pass
    assert not [line for line in said if "quick" in line]


def test_it_falls_silent_when_the_stage_fails(said):
    def failing():
        with waiting("what fails"):
            time.sleep(0.07)
            raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        failing()
    heard = len(said)
    time.sleep(0.12)
    assert len(said) == heard and threading.active_count() == before


def test_every_evaluation_is_named(said):
    with Observer().spared(Run(), "the nearest training images"):
        time.sleep(0.07)
    assert said[0].startswith("the nearest training images ... ")


def test_validations_are_named_from_their_start_to_their_end(said):
    callback = Patience()
    for end in ("on_validation_epoch_end", "on_exception"):
        said.clear()
        callback.on_validation_start(Run(), None)
        time.sleep(0.07)
        getattr(callback, end)(Run(), None, *([KeyboardInterrupt()] if "exc" in end else []))
        assert said and said[0].startswith("validation at step 1,200 ... ")
        heard = len(said)
        time.sleep(0.07)
        assert len(said) == heard
    other = type("Other", (Run,), {"is_global_zero": False})
    said.clear()
    callback.on_validation_start(other(), None)
    time.sleep(0.07)
    assert not said


def test_until_the_first_step_is_done_a_run_says_what_it_waits_for(said):
    callback = Patience()
    for stage, begin, end in (
        ("data and weights", lambda: callback.wait("data and weights"), lambda: callback.rest()),
        (
            "the first step",
            lambda: callback.on_train_start(Run(), None),
            lambda: callback.on_train_batch_end(),
        ),
    ):
        said.clear()
        begin()
        time.sleep(0.07)
        end()
        heard = len(said)
        time.sleep(0.07)
        assert heard == len(said) > 0 and all(x.startswith(f"{stage} ... ") for x in said)
