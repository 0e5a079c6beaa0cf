"""Folders that hold two domains of images: what is in them, by name, and all of it as levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from zoo.core.because import because
from zoo.data.base import split_rows
from zoo.data.pictures.decode import decode, suffixes

SPLITS = ("train", "val", "test")
NAMED = 3  # names that stand for each reason why images are skipped
SLOW = 2000  # images from which a progress bar is shown


@dataclass
class Reader:
    """Reads images of one size, and remembers what it could not read.

    Args:
        size: height and width of what it gives. channels: 3 or 1. max_pixels: images that state
            more are skipped before they are decoded.
    """

    size: int
    channels: int
    max_pixels: int
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def read(self, path: Path, half: str = "") -> Tensor | None:
        """One image, (C, size, size) uint8, or None for one that cannot be used."""
        try:
            stored = path.read_bytes()
            return decode(stored, self.size, self.channels, "centre", self.max_pixels, half)[0]
        except Exception as error:  # whatever a damaged file makes a decoder raise
            self.skip("cannot be read", f"{path.name} ({because(error)})")
            return None

    def skip(self, reason: str, name: str) -> None:
        self.skipped.setdefault(reason, []).append(name)

    def rows(
        self, files: Sequence[tuple[Path, ...]], halves: Sequence[str] = ("",)
    ) -> list[Tensor]:
        """Images of each file of each row (or of each half of its one file): for each place in a
        row (N, C, size, size), N the rows that can be read whole.
        """
        kept: list[tuple[Tensor, ...]] = []
        for row in tqdm(files, desc="reading images", disable=len(files) < SLOW):
            found = [self.read(path, half) for path in row for half in halves]
            if not any(image is None for image in found):
                kept.append(tuple(image for image in found if image is not None))
        return [torch.stack(images) for images in zip(*kept, strict=True)]

    @property
    def found(self) -> dict[str, dict[str, Any]]:
        """Number and first names of what was skipped, by reason."""
        return {k: {"number": len(v), "first": v[:NAMED]} for k, v in self.skipped.items()}


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder (not below it), sorted by name; none of one that is not there."""
    if not folder.is_dir():
        return []
    known = suffixes()
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in known and not p.name.startswith(".") and p.is_file()
    )


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    return {path.stem: path for path in paths}


def check_root(owner: str, root: Path, expected: str) -> None:
    """A clear error for a folder that is not there."""
    if not root.is_dir():
        raise ValueError(f"{owner}: {root} is no folder; --data.root is one that holds {expected}")


def cut(n: int, share: float) -> dict[str, Tensor]:
    """Rows cut in train, val and test, each at least one, by a fixed permutation."""
    size = max(1, round(share * n))
    return split_rows(n, 0, size, size)
