"""Image files by name, in a folder, a zip or a tar: which are images, which are left out, and what
a metadata file beside them says of each.
"""

from __future__ import annotations

import mimetypes
import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from zoo.data.pictures.decode import suffixes
from zoo.data.pictures.rows import Columns, column, names_of, rows_of
from zoo.data.pictures.source import Item, Source

HIDDEN = (".", "__", "@eaDir", "$RECYCLE.BIN")  # how names of hidden and system folders begin
METADATA = ("metadata.csv", "metadata.jsonl")


class Files(Source):
    """Files by name. Subclasses list them and call ``sort_out``."""

    named = True

    def read(self, item: Item) -> bytes:
        raise NotImplementedError

    def sort_out(self, listed: Iterable[tuple[str, int, Any]], columns: Columns) -> None:
        """Fill ``items`` with the images among (name, bytes, where to read it), and count all else.
        Names have slashes and no "." or "..".

        Raises:
            ValueError: there is no image.
        """
        others: Counter[str] = Counter()
        tables: list[Item] = []
        for name, size, at in sorted(listed, key=lambda entry: entry[0]):
            parts = name.split("/")
            suffix = posixpath.splitext(parts[-1])[1].lower()
            if any(part.startswith(HIDDEN) for part in parts):
                self.skipped["hidden or system files"].append(name)
            elif suffix in suffixes():
                self.items.append(Item(name, size, at))
            elif parts[-1] in METADATA:
                tables.append(Item(name, size, at))
            elif suffix and (mimetypes.guess_type(name, strict=False)[0] or "").startswith("image"):
                hint = " (pip install pillow-heif)" if suffix in (".heic", ".heif") else ""
                self.skipped[f"no decoder for {suffix}{hint}"].append(name)
            else:
                others[suffix or "without a suffix"] += 1
        if others:
            said = ", ".join(f"{n} {suffix}" for suffix, n in others.most_common(5))
            self.notes.append(f"{sum(others.values())} files are no images by their names: {said}")
        if not self.items:
            raise ValueError(f"{self.root} holds no images{self._instead()}")
        if (columns.image or columns.label) and not tables:
            raise ValueError(
                f"{self.root} has no columns: --data.image_column and --data.label_column are of "
                f"tables, or of a {' or '.join(METADATA)} beside the images"
            )
        for table in tables:
            self._label(table, columns)

    def _instead(self) -> str:
        said = [f"{len(names)} {why}, e.g. {names[0]}" for why, names in self.skipped.items()]
        said += self.notes
        return f" ({'; '.join(said)})" if said else " (no files at all)"

    def _label(self, table: Item, columns: Columns) -> None:
        """Take labels and splits from a metadata file: rows of file_name, relative to its folder,
        and more.
        """
        try:
            rows = rows_of(table.name, self.read(table))
            found = columns.find(table.name, names_of(rows), partial(column, rows))
        except Exception as error:  # it may be a table of other things, or damaged
            if columns.image or columns.label:
                raise
            self.notes.append(f"{table.name} is not used: {error}")
            return
        folder = posixpath.dirname(table.name)
        number = {item.name: i for i, item in enumerate(self.items)}
        for row, name in enumerate(column(rows, found.image)):
            path = posixpath.normpath(posixpath.join(folder, str(name).replace("\\", "/")))
            if path not in number:
                self.skipped[f"listed in {table.name} but not there"].append(path)
                continue
            label = found.labels[row] if found.labels else None
            split = found.splits[row] if found.splits else None
            i = number[path]
            self.items[i] = replace(self.items[i], label=label, split=split)
        self.notes.append(f"{table.name}: {found.said}")
