"""Rows of a table as text, CSV or JSON, and which of its columns hold images, labels and splits."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from zoo.data.pictures.layout import SPLITS

IMAGE_COLUMNS = (
    "image img picture file_name filename file filepath file_path path image_path image_file "
    "image_id bytes image_bytes base64 image_base64 pixels x"
).split()
LABEL_COLUMNS = "label labels class classes class_name category target fine_label y".split()
SPLIT_COLUMNS = ["split", "subset", "partition"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """The columns that were asked for; None looks for the usual names.

    Args:
        image, label: of the images (paths or bytes), of their classes.
        labels: whether classes are wanted at all.
    """

    image: str | None = None
    label: str | None = None
    labels: bool = True

    def __post_init__(self) -> None:
        if self.label and not self.labels:
            raise ValueError(
                f"label_column={self.label} says which classes, labels=false that there are none; "
                "leave one out"
            )

    def find(
        self, table: str, known: Sequence[str], values: Callable[[str], Sequence[Any]]
    ) -> Found:
        """The columns of images, labels and splits of a table.

        Args:
            known: names of its columns. values: all values of a column by its name.

        Raises:
            ValueError: there is none of images, or not the one that was asked for.
        """
        image = self._one("image", self.image, IMAGE_COLUMNS, table, known)
        if image is None:
            raise ValueError(
                f"{table} has the columns {', '.join(known) or '(none)'}; say which one holds the "
                "images: --data.image_column=NAME"
            )
        label = self._one("label", self.label, LABEL_COLUMNS, table, known)
        split = self._one("split", None, SPLIT_COLUMNS, table, known)
        splits = [str(v) for v in values(split)] if split else []
        if not {v.lower() for v in splits} & {*SPLITS}:
            split, splits = None, []
        label = label if self.labels else None
        labels = numbers_of(values(label)) if label else []
        said = f"images from {image}, "
        said += f"labels from {label}" if label else "no labels"
        if self.labels and not label and len(known) > 1:
            said += " (--data.label_column=NAME takes some)"
        return Found(image, label, labels, splits, said + f", splits from {split}" * bool(split))

    @staticmethod
    def _one(
        what: str, asked: str | None, usual: Sequence[str], table: str, known: Sequence[str]
    ) -> str | None:
        if asked is not None and asked not in known:
            raise ValueError(
                f"{table} has no column {asked!r}; --data.{what}_column is one of "
                f"{', '.join(known) or '(none)'}"
            )
        lower = {name.lower(): name for name in reversed(known)}
        return asked or next((lower[name] for name in usual if name in lower), None)


@dataclass(frozen=True)
class Found:
    """The columns of images and labels, and what each row says; empty where there is no column."""

    image: str
    label: str | None
    labels: Sequence[str | int | None]
    splits: Sequence[str]
    said: str


def rows_of(name: str, data: bytes) -> list[Row]:
    """The rows of a .csv, .tsv, .jsonl or .json file.

    Raises:
        ValueError: it is not such a file.
    """
    suffix = PurePosixPath(name).suffix.lower()
    try:
        text = data.decode("utf-8-sig")
        if suffix in (".csv", ".tsv"):
            csv.field_size_limit(sys.maxsize)  # an image in base64 is a long field
            mark = "\t" if suffix == ".tsv" else ","
            rows: Any = [*csv.DictReader(io.StringIO(text), delimiter=mark)]
        elif suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{name} is not a readable {suffix} file ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{name} is not a list of rows with named columns")
    if not rows:
        raise ValueError(f"{name} has no rows")
    return rows


def numbers_of(labels: Sequence[Any]) -> list[Any]:
    """Labels as a table states them: whole numbers where all are, else words; empty ones None."""
    given = [None if v is None or v != v or v == "" else v for v in labels]
    given = [int(v) if isinstance(v, float) and v.is_integer() else v for v in given]
    try:
        return [None if v is None else int(str(v)) for v in given]
    except ValueError:
        return [None if v is None else str(v) for v in given]


def column(rows: Sequence[Row], name: str) -> list[Any]:
    """A column's values; None where a row has none."""
    return [row.get(name) for row in rows]


def names_of(rows: Sequence[Row]) -> list[str]:
    """The columns that any row has."""
    return [*dict.fromkeys(str(key) for row in rows for key in row)]
