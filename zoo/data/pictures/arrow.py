"""Columns of Parquet and Arrow files, by pyarrow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

AT_ONCE = 16  # rows of a Parquet file that are held at once


class ArrowTable:
    """An Arrow file, mapped into memory: the stream format of ``datasets``, or the file format."""

    def __init__(self, path: Path) -> None:
        file = pa.memory_map(str(path))
        try:
            self.table = pa.ipc.open_stream(file).read_all()
        except pa.ArrowInvalid:
            self.table = pa.ipc.open_file(file).read_all()
        self.schema = self.table.schema

    @property
    def names(self) -> list[str]:
        return self.schema.names

    def values(self, column: str) -> list[Any]:
        return self.table.column(column).to_pylist()

    def sizes(self, column: str) -> list[int]:
        """Bytes of each row, where rows hold bytes; else 0."""
        cells = self.table.column(column)
        if pa.types.is_struct(cells.type) and cells.type.get_field_index("bytes") >= 0:
            cells = pc.struct_field(cells, "bytes")
        if not (pa.types.is_binary(cells.type) or pa.types.is_large_binary(cells.type)):
            return [0] * len(cells)
        return [size or 0 for size in pc.binary_length(cells).to_pylist()]

    def class_names(self, column: str | None) -> list[str]:
        return _class_names(self.schema, column)


class ParquetTable:
    """A Parquet file, of which only what is asked for is read."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        self.schema = self.file.schema_arrow

    @property
    def names(self) -> list[str]:
        return self.schema.names

    def values(self, column: str) -> list[Any]:
        return self.file.read(columns=[column]).column(0).to_pylist()

    def sizes(self, column: str) -> list[int]:
        """Stated bytes of each row, on average over its row group."""
        sizes: list[int] = []
        for number in range(self.file.num_row_groups):
            group = self.file.metadata.row_group(number)
            parts = [group.column(i) for i in range(group.num_columns)]
            own = [p for p in parts if p.path_in_schema.split(".")[0] == column]
            stated = sum(p.total_uncompressed_size for p in own)
            sizes += [stated // max(group.num_rows, 1)] * group.num_rows
        return sizes

    def class_names(self, column: str | None) -> list[str]:
        return _class_names(self.schema, column)


class _InOrder:
    """The cells of one column of a Parquet file, from the first to the last; going back begins
    anew.
    """

    def __init__(self, path: Path, column: str) -> None:
        self.file, self.column = pq.ParquetFile(path), column
        self._begin()

    def _begin(self) -> None:
        self.batches = self.file.iter_batches(AT_ONCE, columns=[self.column])
        self.start, self.held = 0, pa.chunked_array([[]])

    def __getitem__(self, row: int) -> Any:
        if row < self.start:
            self._begin()
        while row >= self.start + len(self.held):
            self.start += len(self.held)
            self.held = next(self.batches).column(0)
        return self.held[row - self.start].as_py()


class _Mapped:
    def __init__(self, path: Path, column: str) -> None:
        self.cells = ArrowTable(path).table.column(column)

    def __getitem__(self, row: int) -> Any:
        return self.cells[row].as_py()


def open_table(path: Path) -> ArrowTable | ParquetTable:
    """A table by its path.

    Raises:
        ValueError: it is none.
    """
    try:
        return ParquetTable(path) if path.suffix == ".parquet" else ArrowTable(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None


def cells(column: str, path: Path) -> _InOrder | _Mapped:
    """One column's cells by row."""
    return (_InOrder if path.suffix == ".parquet" else _Mapped)(path, column)


def _class_names(schema: Any, column: str | None) -> list[str]:
    """The names of a column's classes, where ``datasets`` wrote them; empty otherwise."""
    stated = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(stated)["info"]["features"] if stated else {}
    return (features.get(column) or {}).get("names") or []
