"""The kind of place that a path is."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from zoo.data.pictures.archives import Tar, Zip
from zoo.data.pictures.arrays import Arrays
from zoo.data.pictures.folder import Folder
from zoo.data.pictures.rows import Columns
from zoo.data.pictures.source import Source
from zoo.data.pictures.tables import Binary, Listed, holds_tables

KINDS = (
    "a folder of images, a .zip or .tar(.gz, .bz2, .xz), a .npz or .npy, a .parquet, .csv, .tsv, "
    ".jsonl or .json file, or a folder that datasets.save_to_disk wrote"
)


def open_source(root: Path, columns: Columns | None = None) -> Source:
    """What lies at a path, by its kind.

    Raises:
        FileNotFoundError: nothing does. ValueError: it is none of the kinds, holds no images, or
            cannot be read.
    """
    columns = columns or Columns()
    if not root.exists():
        raise FileNotFoundError(f"no images at {root}; --data.root takes {KINDS}")
    try:
        return _of_its_kind(root, columns)
    except Exception as error:  # whatever a damaged file makes a library raise
        said = " ".join(str(error).split())
        if isinstance(error, ValueError) and str(root) in said:
            raise
        raise ValueError(
            f"{root} cannot be read ({type(error).__name__}: {said}); --data.root takes {KINDS}"
        ) from None


def _of_its_kind(root: Path, columns: Columns) -> Source:
    suffix = root.suffix.lower()
    if root.is_dir():
        return Binary(root, columns) if holds_tables(root) else Folder(root, columns)
    if suffix in (".npz", ".npy"):
        return Arrays(root, columns)
    if suffix in (".parquet", ".arrow"):
        return Binary(root, columns)
    if suffix in (".csv", ".tsv", ".jsonl", ".json"):
        return Listed(root, columns)
    if zipfile.is_zipfile(root):
        return Zip(root, columns)
    if tarfile.is_tarfile(root):
        return Tar(root, columns)
    raise ValueError(f"{root} is neither a folder nor a readable zip or tar file, nor {KINDS}")
