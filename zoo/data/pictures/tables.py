"""Images that a table lists or holds: CSV and JSON with paths, Parquet and Arrow with bytes,
folders that ``datasets.save_to_disk`` wrote.
"""

from __future__ import annotations

import base64
import json
import re
from functools import partial
from pathlib import Path

from zoo.data.pictures.layout import SPLITS
from zoo.data.pictures.rows import Columns, column, names_of, rows_of
from zoo.data.pictures.source import Item, PerProcess, Source, extra

SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # train-00000-of-00004.parquet


class Listed(Source):
    """The images that a .csv, .tsv, .jsonl or .json file lists: paths relative to its folder, or
    base64.

    Raises:
        ValueError: it lists none.
    """

    def __init__(self, root: Path, columns: Columns) -> None:
        super().__init__(root)
        rows = rows_of(str(root), root.read_bytes())
        found = columns.find(str(root), names_of(rows), partial(column, rows))
        self.notes.append(f"{root.name}: {found.said}")
        for number, cell in enumerate(column(rows, found.image)):
            label = found.labels[number] if found.labels else None
            split = found.splits[number] if found.splits else None
            cell = str(cell or "")
            path = root.parent / cell.replace("\\", "/")
            if re.search("bytes|64", found.image) or cell.startswith("data:"):
                text = cell.rpartition(",")[2]
                self.items.append(Item(f"row {number}", len(text) * 3 // 4, text, label, split))
            elif cell and path.is_file():
                self.items.append(Item(cell, path.stat().st_size, path, label, split))
            else:
                self.skipped[f"listed in {root.name} but not there"].append(cell or "(empty)")
        if not self.items:
            raise ValueError(
                f"none of the {len(rows)} rows of {root} names an image: {found.image} says e.g. "
                f"{str(rows[0].get(found.image))[:80]!r}; paths are relative to {root.parent}"
            )

    def read(self, item: Item) -> bytes:
        if isinstance(item.at, Path):
            return item.at.read_bytes()
        return base64.b64decode(item.at, validate=True)


class Binary(Source):
    """The rows of Parquet or Arrow files whose column of images holds bytes, paths, or both, as
    ``datasets.Image`` does. Arrow files are read where they lie, Parquet files from first to last.

    Raises:
        ValueError: pyarrow is not installed, or there is no such column.
    """

    def __init__(self, root: Path, columns: Columns) -> None:
        super().__init__(root)
        extra("pyarrow", f"{root} (Parquet or Arrow)")
        from zoo.data.pictures import arrow

        files = [(root, None)] if root.is_file() else _saved(root) or _shards(root)
        self.sequential = any(path.suffix == ".parquet" for path, _ in files)
        self._cells: list[PerProcess] = []
        for number, (path, of_file) in enumerate(files):
            table = arrow.open_table(path)
            found = columns.find(str(path), table.names, table.values)
            self._cells.append(PerProcess(partial(arrow.cells, found.image), path))
            self.class_names = table.class_names(found.label) or self.class_names
            for row, size in enumerate(table.sizes(found.image)):
                label = found.labels[row] if found.labels else None
                label = None if self.class_names and label == -1 else label  # datasets' "none"
                split = found.splits[row] if found.splits else of_file
                name = f"{path.relative_to(root.parent)}[{row}]"
                self.items.append(Item(name, size, (number, row), label, split))
            if (note := f"{root.name}: {found.said}") not in self.notes:
                self.notes.append(note)

    def read(self, item: Item) -> bytes:
        number, row = item.at
        cell = self._cells[number]()[row]
        if isinstance(cell, dict):  # datasets.Image
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, str):
            return (self._cells[number].path.parent / cell).read_bytes()
        if not isinstance(cell, bytes):
            raise ValueError(f"holds {type(cell).__name__}, neither bytes nor a path")
        return cell


def holds_tables(root: Path) -> bool:
    """Whether a folder is one that ``save_to_disk`` wrote, or holds the Parquet files of a hub."""
    return bool(_saved(root) or _shards(root))


def _saved(root: Path) -> list[tuple[Path, str | None]]:
    """The Arrow files that ``save_to_disk`` wrote, each with its split."""
    parts = [(root, None)]
    if (index := root / "dataset_dict.json").is_file():
        parts = [(root / name, name) for name in json.loads(index.read_text())["splits"]]
    return [
        (folder / file["filename"], split)
        for folder, split in parts
        if (state := folder / "state.json").is_file()
        for file in json.loads(state.read_text())["_data_files"]
    ]


def _shards(root: Path) -> list[tuple[Path, str | None]]:
    """The Parquet files in a folder, or in its folder data, that are named after a split."""
    files = sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])
    named = [(path, SHARD.sub("", path.stem).lower()) for path in files]
    return [(path, SPLITS[word]) for path, word in named if word in SPLITS]
