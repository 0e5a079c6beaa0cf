"""Images as arrays: .npy files, and .npz files such as those of MedMNIST (train_images,
train_labels ...) and Keras (x_train, y_train ...).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.pictures.decode import ARRAYS, Span, span_of, to_levels
from zoo.data.pictures.layout import SPLITS
from zoo.data.pictures.rows import Columns, numbers_of
from zoo.data.pictures.source import Item, PerProcess, Source

IMAGES = set("x image images img imgs data pixels arr".split())
LABELS = set("y label labels class classes target targets".split())
CHANNELS = (1, 3, 4)


class Arrays(Source):
    """The rows of arrays (N, H, W), (N, H, W, C) or (N, C, H, W), of bytes, or of numbers in 0..1,
    0..255, 0..65535 or -1..1. An .npy is read where it lies, an .npz from first row to last.

    Raises:
        ValueError: there is no such array.
    """

    def __init__(self, root: Path, columns: Columns) -> None:
        super().__init__(root)
        self.sequential = root.suffix.lower() == ".npz"
        members = [root.stem + ".npy"]
        if self.sequential:
            with zipfile.ZipFile(root) as archive:
                members = archive.namelist()
        opener: Any = _Streamed if self.sequential else _mapped
        names = [m.removesuffix(".npy") for m in members if m.endswith(".npy")]
        self._arrays = {name: PerProcess(partial(opener, name), root) for name in names}
        self._ends: dict[str, Span] = {}  # the least and the largest value
        for split, images, labels in self._parts(columns):
            self._add(split, images, labels)

    def read(self, item: Item) -> np.ndarray:
        name, row = item.at
        array = self._arrays[name]()
        values = array[row]
        if values.dtype == np.bool_:
            values = values.astype(np.uint8) * 255
        elif values.dtype != np.uint8:
            values = to_levels(values, self._span(name, array, values))
        if values.ndim == 3 and values.shape[-1] not in CHANNELS:
            values = values.transpose(1, 2, 0)
        if values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
        return np.ascontiguousarray(values)

    def _span(self, name: str, array: Any, row: np.ndarray) -> Span:
        """Black and white of an array, from all of its values; one row's must be finite."""
        if not np.isfinite(row).all():
            raise ValueError("values that are not finite")
        if name not in self._ends:
            self._ends[name] = _ends(array)
        low, high = self._ends[name]
        black, white = span_of(low, high, ARRAYS)
        note = f"{name}: values {low:g}..{high:g} ({array.dtype}) are read as {black:g} black .. "
        note += f"{white:g} white"
        if note not in self.notes:
            self.notes.append(note)
        return black, white

    def _parts(self, columns: Columns) -> list[tuple[str | None, str, str | None]]:
        """(split, array of images, array of labels) by the arrays' names."""
        known = [*self._arrays]
        for asked, what in ((columns.image, "image"), (columns.label, "label")):
            if asked is not None and asked not in known:
                raise ValueError(
                    f"{self.root} has no array {asked!r}; --data.{what}_column is one of "
                    f"{', '.join(known)}"
                )
        words = {name: {*re.split(r"[^a-z]+", name.lower())} for name in known}
        of = {n: next((SPLITS[w] for w in words[n] if w in SPLITS), None) for n in known}
        images = {of[n]: n for n in reversed(known) if words[n] & IMAGES}
        labels = {of[n]: n for n in reversed(known) if words[n] & LABELS}
        if columns.image or (not images and len(known) == 1):
            only = columns.image or known[0]
            images = {of[only]: only}
        if len(images) > 1:
            images.pop(None, None)
        parts = [(s, n, columns.label or labels.get(s)) for s, n in images.items()]
        if not parts:
            raise ValueError(
                f"{self.root} has the arrays {', '.join(known) or '(none)'}; say which one holds "
                "the images: --data.image_column=NAME"
            )
        if unused := sorted({*known} - {n for _, *pair in parts for n in pair}):
            self.notes.append(f"arrays that are not used: {', '.join(unused)}")
        return parts if columns.labels else [(split, images, None) for split, images, _ in parts]

    def _add(self, split: str | None, name: str, labels: str | None) -> None:
        array = self._arrays[name]()
        shape, dtype = array.shape, array.dtype
        bounded = len(shape) == 3 or (
            len(shape) == 4 and (shape[-1] in CHANNELS or shape[1] in CHANNELS)
        )
        if not bounded or dtype.kind not in "buif" or 0 in shape:
            raise ValueError(
                f"{self.root}: images are numbers (N, H, W), (N, H, W, C) or (N, C, H, W) with "
                f"1, 3 or 4 channels; {name} is {dtype} {shape}"
            )
        of_class: Sequence[Any] = [None] * len(array)
        if labels is not None:
            column = self._arrays[labels]()
            if len(column.shape) > 2 or column.shape not in ((len(array),), (len(array), 1)):
                self.notes.append(f"{labels} {column.shape} is not one class for each of {name}")
            else:
                values = np.stack([column[i] for i in range(len(column))]).reshape(-1)
                of_class = numbers_of([_plain(v) for v in values.tolist()])
                self.notes.append(f"{self.root.name}: images from {name}, labels from {labels}")
        size = int(np.prod(shape[1:])) * dtype.itemsize
        for row, label in enumerate(of_class):
            self.items.append(Item(f"{name}[{row}]", size, (name, row), label, split))


class _Streamed:
    """Rows of one array of an .npz, from the first to the last; going back begins anew."""

    def __init__(self, name: str, path: Path) -> None:
        self.archive, self.member = zipfile.ZipFile(path), f"{name}.npy"
        self._rewind()
        stated = self.archive.getinfo(self.member).file_size
        if fortran := (self.columnwise and len(self.shape) > 1) or self.dtype.hasobject:
            how = "by columns (Fortran order)" if fortran else "as Python objects"
            raise ValueError(f"{path}: {name} is stored {how}; save it as a plain array")
        if not self.shape or stated < len(self) * self.row_bytes:
            raise ValueError(f"{path}: {name} is smaller than its shape {self.shape} says")

    def _rewind(self) -> None:
        self.file, self.position = self.archive.open(self.member), 0
        version = np.lib.format.read_magic(self.file)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        self.shape, self.columnwise, self.dtype = header(self.file)
        self.row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> np.ndarray:
        if row < self.position:
            self._rewind()
        while self.position <= row:
            data = self.file.read(self.row_bytes)
            self.position += 1
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])


def _ends(array: Any) -> Span:
    """The least and the largest value of the rows that can be read and are finite."""
    low, high = np.inf, -np.inf
    for row in range(len(array)):
        try:
            values = array[row]
        except Exception:  # it is counted when it is its turn
            continue
        if np.isfinite(values).all():
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _mapped(name: str, path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error})") from None


def _plain(value: Any) -> Any:
    """A label without NumPy's ways of writing it: 3.0 is 3, b"cat" is cat."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.decode() if isinstance(value, bytes) else value
