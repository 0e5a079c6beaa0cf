"""Signals that end a run, taken note of at once and obeyed after a step; and the command that goes
on.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """While it listens, Ctrl-C (SIGINT), SIGTERM and a hangup (SIGHUP) are noted and raise nothing:
    an exception out of a handler surfaces wherever the program happens to be, and where that is
    code that swallows exceptions (pickling, in ``copyreg``) it is lost, and the training goes on.
    The second one in the first process ends it on the spot. Signals that are ignored, as by nohup,
    stay so.

    Attributes:
        noted: the signal, or 0.
    """

    def __init__(self) -> None:
        self.noted = 0
        self._former: dict[int, Any] = {}
        self._trainer: Any = None
        self._process = 0

    def listen(self, trainer: Any) -> None:
        """From now on; again, to be heard before a handler that was set since."""
        if threading.current_thread() is not threading.main_thread():
            return
        if self._trainer is None:
            self.noted, self._former = 0, {s: signal.getsignal(s) for s in ENDING}
        self._trainer, self._process = trainer, os.getpid()
        for s, former in self._former.items():
            if former is not signal.SIG_IGN:
                signal.signal(s, self._note)

    def leave(self) -> None:
        """Whatever comes now does what it did before, also where Lightning, which restores handlers
        after an exception, puts this one back.
        """
        self._trainer = None
        if threading.current_thread() is threading.main_thread():
            for s, former in self._former.items():
                if signal.getsignal(s) == self._note:
                    signal.signal(s, former)

    def _note(self, signum: int, frame: Any) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker; its parent ends it
        if self._trainer is not None and not self.noted:
            self.noted = signum
            if self._trainer.is_global_zero:
                _say(
                    f"\n{signal.Signals(signum).name}: the run stops after this step (a validation "
                    f"is finished first) and is saved; once more ends it on the spot\n"
                )
        elif self._trainer is None or self._trainer.is_global_zero:
            if self._trainer is not None and self._trainer.strategy.launcher is not None:
                self._trainer.strategy.launcher.kill(signal.SIGKILL)  # the other processes
            signal.signal(signum, self._former.get(signum) or signal.SIG_DFL)
            signal.raise_signal(signum)


def going_on(path: Path) -> str:
    """The command line that resumes this run from a checkpoint; of a program that is not
    ``zoo.fit``, the option."""
    option = f"--ckpt_path={shlex.quote(str(path))}"
    main = sys.modules.get("__main__")
    if getattr(getattr(main, "__spec__", None), "name", "") != "zoo.fit":
        return option
    words, rest = [], iter(sys.argv[1:])
    for word in rest:
        if word == "--ckpt_path":
            next(rest, None)
        elif not word.startswith("--ckpt_path="):
            words.append(word)
    return f"python -m zoo.fit {shlex.join(words)} {option}"


def _say(text: str) -> None:
    """Print from inside a signal handler, where ``print`` may be at work already."""
    with contextlib.suppress(OSError, ValueError):  # nobody is there to read it
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
