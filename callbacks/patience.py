"""Nothing is silent for long: what takes its time is named, again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info

SECONDS = 5.0  # of silence, at most


class Waiting:
    """From ``begin`` to ``end`` a line every ``SECONDS`` says what goes on, and for how long."""

    def __init__(self, what: str) -> None:
        self.what, self._over = what, threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _tell(self) -> None:
        began = time.monotonic()
        while not self._over.wait(SECONDS):
            rank_zero_info(f"{self.what} ... {time.monotonic() - began:.0f} seconds")


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """What is inside, by a name."""
    said = Waiting(what)
    said.begin()
    try:
        yield
    finally:
        said.end()


class Patience(Callback):
    """What a run does before its first step is done, and its validations, say so where they take
    their time.
    """

    def __init__(self) -> None:
        self._waiting: Waiting | None = None

    def wait(self, what: str) -> None:
        """From here on this is what takes its time."""
        self.rest()
        self._waiting = Waiting(what)
        self._waiting.begin()

    def rest(self) -> None:
        """Nothing does."""
        if self._waiting is not None:
            self._waiting.end()
            self._waiting = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.rest()
        if trainer.is_global_zero:
            self.wait("the first step")

    def on_train_batch_end(self, *_: Any) -> None:
        self.rest()  # from here on the bar moves

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        if trainer.is_global_zero:
            self.wait(f"validation at step {trainer.global_step:,}")

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        self.rest()  # what callbacks do now has a name of its own

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self.rest()
