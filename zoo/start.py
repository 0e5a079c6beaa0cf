"""How a process of the zoo starts and ends: the garbage collector, the allocator, the exit.

Importing torch and Lightning makes half a million objects that stay for good. A collector that
looks at them again and again takes a fifth of the start, and taking them apart one by one at the
end more than a second. And glibc gives the memory of every large tensor back to the system when it
is freed, which then hands it out again page by page, zeroed: up to half of a training step of a
convolutional net on a CPU.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import platform
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
LARGEST = 2**31 - 1


def command() -> list[int]:
    """To be called before libraries are imported: no garbage is collected until ``running``, and
    the process ends as soon as all exit handlers have run.

    Returns:
        a list whose last element is the exit status; append what it is to be.
    """
    gc.disable()
    status = [1]
    atexit.register(_leave, status)  # the first to be registered is the last to run
    return status


def _leave(status: list[int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that has gone
            stream.flush()
    os._exit(status[-1])


def running() -> None:
    """What there is stays; from here on garbage is collected as ever. Nothing in a process that no
    ``command`` began.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next tensors: steps are quicker, and its memory
    stays at its peak (at most 1.8 times the peak without).

    Returns:
        whether it does: glibc alone can.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))
