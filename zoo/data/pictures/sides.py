"""Folders of one's own that hold images of two sides, A and B: their names, all of them as levels,
and what the data modules over them share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from zoo.core.batch import Batch
from zoo.core.because import because
from zoo.core.noise import Noise
from zoo.core.spec import Image
from zoo.data.base import Split, ZooDataModule, split_rows
from zoo.data.pictures.decode import TooLarge, decode, read_file, suffixes
from zoo.data.pictures.files import HIDDEN
from zoo.data.pictures.source import fingerprint
from zoo.data.transforms import LEVELS, cropped, flipped

SPLITS = ("train", "val", "test")
NAMED = 3  # names that stand for each reason why images are skipped
SLOW = 2000  # images from which a progress bar is shown
LEAST = 3  # rows, of which train, val and test need one each


@dataclass
class Reader:
    """Reads images of one size, and remembers what it could not read and what it did to others.

    Args:
        size: height and width of what it gives. channels: 3 or 1. max_pixels: images that state
            more are skipped before they are decoded.
    """

    size: int
    channels: int
    max_pixels: int
    skipped: dict[str, list[str]] = field(default_factory=dict)
    remarks: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def read(self, path: Path, half: str = "") -> Tensor | None:
        """One image, (C, size, size) uint8, or None for one that cannot be used."""
        try:
            stored = read_file(path, self.max_pixels)
            image, remarks = decode(
                stored, self.size, self.channels, "centre", self.max_pixels, half
            )
        except TooLarge as error:
            limit = f"larger than --data.max_pixels={self.max_pixels}"
            self.skip(limit, f"{path.name} ({error})")
            return None
        except Exception as error:  # whatever a damaged file makes a decoder raise
            self.skip("cannot be read", f"{path.name} ({because(error)})")
            return None
        self.remarks.update(remarks)
        return image

    def skip(self, reason: str, name: str) -> None:
        self.skipped.setdefault(reason, []).append(name)

    def look_over(self, root: Path, folders: Sequence[str]) -> None:
        """Skip what lies in a folder beside the ``folders`` that are read, and in those that is no
        image.
        """
        for path in sorted(root.iterdir()):
            if path.name not in folders:
                self.skip(_why(path) or "beside the folders that are read", path.name)
        for folder in folders:
            taken = {*images_in(root / folder)}
            for path in sorted((root / folder).iterdir()) if (root / folder).is_dir() else ():
                if path not in taken:
                    why = _why(path) or ("folders inside" if path.is_dir() else "no images by name")
                    self.skip(why, f"{folder}/{path.name}")

    @property
    def found(self) -> dict[str, Any]:
        """Number and first names of what was ``skipped``, by reason, and ``notes`` on the rest."""
        return {
            "skipped": {k: {"number": len(v), "first": v[:NAMED]} for k, v in self.skipped.items()},
            "notes": [
                *self.notes,
                *(f"{n:,} images: {remark}" for remark, n in self.remarks.items()),
            ],
        }

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


class TwoSides(ZooDataModule):
    """Base of the data modules over such a folder. A constructor calls ``begin``; what belongs to
    one of ``groups`` is cut and mirrored alike.

    Attributes:
        expected: what the folder holds, for messages.
    """

    expected: ClassVar[str]

    def begin(
        self, root: str, size: int, jitter: int, flip: bool, channels: int, max_pixels: int
    ) -> None:
        """For the constructor.

        Raises:
            ValueError: there is no such folder.
        """
        self.root, self.size, self.jitter, self.flip = Path(root).expanduser(), size, jitter, flip
        if not self.root.is_dir():
            raise ValueError(
                f"{self.entry.name}: {self.root} is no folder; --data.root is one that holds "
                f"{self.expected}"
            )
        self.reader = Reader(size + jitter, channels, max_pixels)
        self.image = Image((channels, size, size), LEVELS)

    @property
    def found(self) -> dict[str, Any]:
        """That of every data module, ``root``, number and first names of what was ``skipped``,
        ``notes``, and the ``fingerprint`` of the names and sizes of all images.
        """
        paths = [
            p for s in SPLITS for end in ("", "A", "B") for p in images_in(self.root / f"{s}{end}")
        ]
        return {
            **super().found,
            "root": str(self.root),
            **self.reader.found,
            "fingerprint": fingerprint(
                f"{p.relative_to(self.root)} {p.stat().st_size}" for p in paths
            ),
        }

    def completed(self, parts: dict[str, Split], what: str, where: Path) -> dict[str, Split]:
        """Splits with those that are not there: a tenth of train each, or val for test and test for
        val.

        Args:
            what: a row is, and ``where`` it is from, for messages.

        Raises:
            ValueError: there is no train, or too little of it.
        """
        name = self.entry.name
        if "train" not in parts:
            raise ValueError(f"{name}: no {what} of {where} can be read")
        for one, other in (("val", "test"), ("test", "val")):
            if one not in parts and other in parts:
                parts = {**parts, one: parts[other]}
                self.reader.notes.append(
                    f"there is no split {one} of {where.name}: the {what}s of {other} serve as both"
                )
        if "val" in parts:
            return parts
        rows = parts["train"]
        n = len(next(iter(rows.values())))
        if n < LEAST:
            raise ValueError(
                f"{name}: of {where} {n} {what}s can be read, of which train, val and test need "
                f"one each; add some"
            )
        tenth = max(1, round(0.1 * n))
        cut = split_rows(n, 0, tenth, tenth)
        return {s: {k: v[at] for k, v in rows.items()} for s, at in cut.items()}

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        for fields in self.groups:
            if self.jitter:
                batch = cropped(batch, self.size, noise if training else None, *fields)
            if self.flip and training:
                batch = flipped(batch, noise, *fields)
        return batch


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder (not below it), sorted by name; none of one that is not there."""
    if not folder.is_dir():
        return []
    known = suffixes()
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in known and not p.name.startswith(HIDDEN) and p.is_file()
    )


def by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by their names without endings; several may differ by those alone."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem, []).append(path)
    return found


def _why(path: Path) -> str:
    return "hidden or system files" if path.name.startswith(HIDDEN) else ""
