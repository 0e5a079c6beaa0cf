"""Images in a folder, at any depth."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

from zoo.data.pictures.files import Files
from zoo.data.pictures.rows import Columns
from zoo.data.pictures.source import Item


class Folder(Files):
    """The image files below a folder; links to folders are followed.

    Raises:
        ValueError: it holds none. OSError: it cannot be listed.
    """

    def __init__(self, root: Path, columns: Columns) -> None:
        super().__init__(root)
        os.listdir(root)
        self.sort_out(self._listed(), columns)

    def read(self, item: Item) -> bytes:
        return (self.root / item.name).read_bytes()

    def _listed(self) -> Iterator[tuple[str, int, None]]:
        seen: set[str] = set()
        for folder, below, files in os.walk(self.root, followlinks=True, onerror=self._unlistable):
            inside = Path(folder).relative_to(self.root).as_posix()
            if (real := os.path.realpath(folder)) in seen:
                self.skipped["links to folders that are listed already"].append(inside)
                below.clear()
                continue
            seen.add(real)
            for file in files:
                name = posixpath.normpath(f"{inside}/{file}")
                try:
                    stated = os.stat(os.path.join(folder, file))
                except OSError:
                    self.skipped["links to nothing"].append(name)
                    continue
                if stat.S_ISREG(stated.st_mode):
                    yield name, stated.st_size, None
                else:
                    self.skipped["no regular files"].append(name)

    def _unlistable(self, error: OSError) -> None:
        self.skipped["folders that cannot be listed"].append(str(error.filename))
