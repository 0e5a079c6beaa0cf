"""Leaving quietly: a reader that has gone (``python -m zoo.ls | head``), or Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from zoo import start


def quietly(main: Callable[[], int]) -> Any:
    """Run a command; returns its exit status, or that of the signal that ended it."""
    ends = start.command()
    status = _status(main)
    ends.append(status if isinstance(status, int) else 0 if status is None else 1)
    return status


def _status(main: Callable[[], int]) -> Any:
    try:
        try:
            status: Any = main()
        except SystemExit as end:  # of --help
            status = end.code
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to be flushed
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
