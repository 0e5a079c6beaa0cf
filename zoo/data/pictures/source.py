"""What every place that stores images has in common: its items, what was left out of them, and the
reading of one.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Stored = bytes | np.ndarray  # an encoded image, or uint8 levels (H, W) or (H, W, C)


@dataclass(frozen=True)
class Item:
    """One image as its place states it, before it is decoded.

    Attributes:
        name: by which messages call it. size: stated bytes. at: where to read it.
        label, split: as a table or array file states them; None for what follows from the name.
    """

    name: str
    size: int
    at: Any = None
    label: str | int | None = None
    split: str | None = None


class Source:
    """Images of one file or folder. Subclasses fill ``items`` and define ``read``.

    Attributes:
        items: by number; files in the order of their names, rows of arrays and tables as they come.
        skipped: names of what was left out, by the reason. notes: what else is worth a line.
        class_names: of integer labels, where the place states them.
        named: whether folders in the items' names say splits and classes.
        sequential: reading out of order is slow, as in a compressed tar.
    """

    named = False
    sequential = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.items: list[Item] = []
        self.skipped: dict[str, list[str]] = defaultdict(list)
        self.notes: list[str] = []
        self.class_names: list[str] = []

    def read(self, item: Item) -> Stored:
        """The stored image. Raises whatever a damaged file makes a library raise."""
        raise NotImplementedError

    def in_storage_order(self) -> list[int]:
        """The items' numbers in the order in which reading them is quickest."""
        return [*range(len(self.items))]


class PerProcess:
    """A handle that each process opens for itself: forked processes that share one would share its
    file offset.
    """

    def __init__(self, opener: Callable[[Path], Any], path: Path) -> None:
        self.opener, self.path = opener, path
        self._owner, self._handle = 0, None

    def __call__(self) -> Any:
        if self._owner != os.getpid():
            self._owner, self._handle = os.getpid(), self.opener(self.path)
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owner": 0, "_handle": None}


def extra(module: str, why: str) -> Any:
    """An optional library.

    Raises:
        ValueError: it is not installed; the message has the command that installs it.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ValueError(f"{why} needs {package}: pip install {package}") from None


def fingerprint(lines: Iterable[str]) -> str:
    """A hash of lines, whatever their order."""
    digest = hashlib.sha256()
    for said in sorted(lines):
        digest.update(f"{said}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
