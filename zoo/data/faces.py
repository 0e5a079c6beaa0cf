"""Faces of one's own that a table lists with identity, pose or age."""

from __future__ import annotations

import csv
from bisect import bisect_left
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from zoo.core.options import Count, Whole
from zoo.core.spec import Label
from zoo.data.pictures.listed import Listed, Listing, lines_of, parsed
from zoo.data.pictures.sides import SPLITS
from zoo.registry import register

UP_TO = (18, 29, 39, 49, 59)  # years, of each group but the last
GROUPS = ("0-18", "19-29", "30-39", "40-49", "50-59", "60+")
OLDEST = 150
KNOWN = ("identity", "pose", "age")
EXPECTED = "--data.root is a .csv whose first line is path and any of identity, pose, age and split"


@register(
    "faces",
    about="your own faces: --data.root=TABLE.csv of path and identity, pose (a number) or age",
)
class Faces(Listed):
    """Images that a table lists, one a line, centre-cropped to squares; paths are relative to the
    table. Each column beside is a field of classes: ``identity``, the names of people; ``pose``,
    whole numbers; ``age``, years, in the groups 0-18, 19-29, 30-39, 40-49, 50-59 and 60+. A column
    ``split`` says train, val or test; without it a tenth each is cut for val and test.

    Args:
        root: the table.
        size: height and width.
        label: the column that is the class y; "none" is none, "first" the first there is.
        limit: images of each split, the first ones; 0 is all.
        flip: mirror images in training at random (not where there are poses).
        max_pixels: images that state more are skipped.
        batch_size, num_workers, seed: as for every data module.
    """

    def __init__(
        self,
        root: str,
        size: Count = 64,
        label: Literal["first", "identity", "pose", "age", "none"] = "first",
        limit: Whole = 0,
        flip: bool = False,
        max_pixels: Count = 50_000_000,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.root = Path(root).expanduser()
        listing = self._read()
        there = [*listing.fields]
        chosen = {"first": there[0], "none": ""}.get(label, label)
        if chosen and chosen not in there:
            raise ValueError(
                f"faces: label={label}, but {self.root} has no such column; it has "
                f"{', '.join(there)}"
            )
        if flip and "pose" in there:
            raise ValueError(
                "faces: a mirrored face looks the other way, and its pose says nothing of it; set "
                "--data.flip=false"
            )
        self.begin(listing, size, flip, limit, chosen, max_pixels)

    @property
    def where(self) -> Path:
        return self.root

    def _read(self) -> Listing:
        table = csv.DictReader(lines_of(self.root, "faces", EXPECTED))
        columns = [c.strip() for c in table.fieldnames or ()]
        there = [c for c in columns if c in KNOWN]
        if "path" not in columns or not there:
            raise ValueError(f"faces: {self.root} has the columns {columns}; {EXPECTED}")
        table.fieldnames = columns
        rows = [*table]
        if not rows:
            raise ValueError(f"faces: {self.root} lists no image")
        known: dict[str, Tensor] = {}
        fields: dict[str, Label] = {}
        for column in there:
            known[column], fields[column] = self._column(column, [r[column] or "" for r in rows])
        splits = None
        if "split" in columns:
            splits = [(row["split"] or "").strip() for row in rows]
            for n, split in enumerate(splits, 2):
                if split not in SPLITS:
                    raise ValueError(
                        f"faces: {self.root}, line {n}: a split is train, val or test, got "
                        f"{split!r}"
                    )
        paths = [self.root.parent / (row["path"] or "").strip() for row in rows]
        return Listing(paths, known, fields, splits)

    def _column(self, column: str, texts: list[str]) -> tuple[Tensor, Label]:
        """Class numbers of a column, and their names."""
        where = f"faces: {self.root}, line {{}}"
        if column == "age":
            years = [
                parsed(t, _years, where.format(n), "an age in years")
                for n, t in enumerate(texts, 2)
            ]
            groups = [bisect_left(UP_TO, int(age)) for age in years]
            return torch.tensor(groups), Label(len(GROUPS), names=GROUPS)
        values = [t.strip() for t in texts]
        if column == "pose":
            numbers = [
                parsed(t, int, where.format(n), "a pose, a whole number")
                for n, t in enumerate(texts, 2)
            ]
            names = [str(k) for k in sorted({*numbers})]
            values = [str(k) for k in numbers]
        else:
            names = sorted({*values})
        at = {name: k for k, name in enumerate(names)}
        return torch.tensor([at[v] for v in values]), Label(len(names), names=tuple(names))


def _years(text: str) -> float:
    if not 0 <= (years := float(text)) < OLDEST:
        raise ValueError
    return years
