"""Files that are whole or not there, and folders that one process has to itself."""

from __future__ import annotations

import fcntl
import io
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

PART = ".*.part"  # what a process that was killed while it wrote leaves behind


@contextmanager
def written_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file to write to, which takes the place of ``path`` once all of it is on the disk:
    whoever reads ``path``, at whatever moment, finds the former content or the new one. It is
    written beside its target, since only within a file system is a replacement one act.

    Raises:
        OSError: of the disk or the folder; ``path`` is as it was, and no part is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    with suppress(OSError):  # the name is on the disk when the folder is, where folders can be
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save_whole(content: Any, path: str | Path) -> None:
    """As ``torch.save``, by ``written_whole``; an error of the disk cannot meet torch half way."""
    held = io.BytesIO()
    torch.save(content, held)
    with written_whole(path) as file:
        file.write(held.getbuffer())


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """Keep ``folder`` for this process: another that asks for it is refused.

    The lock is the system's, on the file ``.lock``: it ends with the process, however that ends,
    so none is ever stale. (A record lock, not ``flock``, which forked loader workers would keep
    for some seconds after their parent was killed.)

    Raises:
        ValueError: another process has it, or it cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to ({error.strerror}); name another folder with --run_dir"
        ) from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by {file.read().strip() or 'another process'}; wait for its "
                f"end or stop it, or name another folder with --run_dir"
            ) from None
        except OSError as error:
            warnings.warn(
                f"{folder} cannot be locked ({error.strerror}); see to it that one run at a time "
                f"uses it",
                stacklevel=3,
            )
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
