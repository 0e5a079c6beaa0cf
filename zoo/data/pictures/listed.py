"""Images of one's own that a list names, with what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from tqdm.auto import tqdm

from zoo.core.batch import Batch
from zoo.core.noise import Noise
from zoo.core.spec import Field, Image, Label, Spec
from zoo.data.base import Split, ZooDataModule, split_rows
from zoo.data.pictures.sides import LEAST, NAMED, SLOW, SPLITS, Reader
from zoo.data.pictures.source import fingerprint
from zoo.data.transforms import LEVELS, flipped


@dataclass(frozen=True)
class Listing:
    """What a list says.

    Args:
        paths: of the images. known: fields by name, a row for each path. fields: their kinds.
        splits: one of train, val, test for each path; none: a tenth each is cut for val and test.
    """

    paths: list[Path]
    known: Mapping[str, Tensor]
    fields: Mapping[str, Field]
    splits: list[str] | None = None


class Listed(ZooDataModule):
    """Base of the data modules of such images. A constructor calls ``begin``."""

    def begin(
        self, listing: Listing, size: int, flip: bool, limit: int, label: str, max_pixels: int
    ) -> None:
        """For the constructor.

        Args:
            limit: images of each split, the first ones of the list; 0 is all. label: the field, or
                the attribute, that is y; "" is none.
        """
        self.listing, self.size, self.flip, self.limit = listing, size, flip, limit
        self.label = label
        self.reader = Reader(size, 3, max_pixels)
        self._used: list[str] = []

    @cached_property
    def spec(self) -> Spec:
        name = f"{self.where.name} {self.size}x{self.size}"
        y: dict[str, Field] = {}
        if self.label:
            own = self.listing.fields.get(self.label)
            y["y"] = (
                own if isinstance(own, Label) else Label(2, names=(f"not {self.label}", self.label))
            )
        return Spec(name, x=Image((3, self.size, self.size), LEVELS), **y, **self.listing.fields)

    @property
    def where(self) -> Path:
        """The folder or list, for messages."""
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...]:
        y: Any = self.spec.get("y")
        return () if y is None else tuple(y.names) or tuple(map(str, range(y.words)))

    @property
    def found(self) -> dict[str, Any]:
        """That of every data module, number and first names of what was ``skipped``, ``notes``, and
        the ``fingerprint`` of the names and sizes of the images that are used.
        """
        return {
            **super().found,
            "root": str(self.where),
            **self.reader.found,
            "fingerprint": fingerprint(self._used),
        }

    def load(self) -> dict[str, Split]:
        listing = self.listing
        at = self._numbers()
        images: dict[int, Tensor] = {}
        for i in tqdm(at, desc="reading images", disable=len(at) < SLOW):
            if (image := self.reader.read(listing.paths[i])) is not None:
                images[i] = image
        if skipped := [name for names in self.reader.skipped.values() for name in names]:
            first = ", ".join(skipped[:NAMED])
            if not images:
                raise ValueError(
                    f"{self.entry.name}: no image of {self.where} can be read: {first}"
                )
            rank_zero_warn(
                f"{len(skipped)} of {len(at)} images cannot be read and are skipped: {first}"
            )
        good = [i for i in at if i in images]
        paths = [listing.paths[i] for i in good]
        self._used = [f"{p.name} {p.stat().st_size}" for p in paths]
        rows = {"x": torch.stack([images[i] for i in good])}
        rows |= {k: v[torch.tensor(good)] for k, v in listing.known.items()}
        if self.label:
            rows["y"] = self._classes(rows)
        return {s: {k: v[own] for k, v in rows.items()} for s, own in self._cut(good).items()}

    def _classes(self, rows: Split) -> Tensor:
        if self.label in self.listing.fields:
            return rows[self.label]
        field: Any = self.listing.fields["attributes"]
        return rows["attributes"][:, field.names.index(self.label)].long()

    def _numbers(self) -> list[int]:
        """Those of the images that are read, in the list's order."""
        splits = self.listing.splits
        every = range(len(self.listing.paths))
        if not self.limit:
            return [*every]
        if splits is None:
            return [*every][: self.limit]
        kept = {s: [i for i in every if splits[i] == s][: self.limit] for s in SPLITS}
        return sorted(i for of in kept.values() for i in of)

    def _cut(self, good: list[int]) -> dict[str, Tensor]:
        """Rows of each split among the images that could be read."""
        name, splits = self.entry.name, self.listing.splits
        if splits is None:
            if len(good) < LEAST:
                raise ValueError(
                    f"{name}: {len(good)} images of {self.where} can be read; train, val and test "
                    "need one each"
                )
            tenth = max(1, round(0.1 * len(good)))
            return split_rows(len(good), 0, tenth, tenth)
        rows = {
            s: torch.tensor([r for r, i in enumerate(good) if splits[i] == s], dtype=torch.long)
            for s in SPLITS
        }
        if empty := [s for s in SPLITS if not len(rows[s])]:
            raise ValueError(
                f"{name}: no image of the split {empty[0]} of {self.where} can be read"
            )
        return rows

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        return flipped(batch, noise, "x") if self.flip and training else batch


def lines_of(path: Path, name: str, what: str) -> list[str]:
    """The lines of a list that must be there.

    Raises:
        ValueError: it is not, or it is no text.
    """
    if not path.is_file():
        raise ValueError(f"{name}: there is no {path}; {what}")
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {path} is no text ({error.reason}); {what}") from None


def parsed(text: str, kind: Callable[[str], Any], where: str, what: str) -> Any:
    """A value of a list.

    >>> parsed("7", int, "faces.csv, line 3", "an age in years")
    7
    """
    try:
        return kind(text.strip())
    except ValueError:
        raise ValueError(f"{where}: {text.strip()!r} is not {what}") from None
