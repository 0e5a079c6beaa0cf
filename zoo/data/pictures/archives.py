"""Images in a zip or tar file."""

from __future__ import annotations

import io
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from zoo.data.pictures.files import Files
from zoo.data.pictures.rows import Columns
from zoo.data.pictures.source import Item, PerProcess

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError)
BLOCK, PIECE = tarfile.BLOCKSIZE, 1 << 20  # bytes


class Zip(Files):
    """The image files of a zip file.

    Raises:
        ValueError: it holds none. zipfile.BadZipFile: its directory is damaged.
    """

    def __init__(self, root: Path, columns: Columns) -> None:
        super().__init__(root)
        self._archive = PerProcess(zipfile.ZipFile, root)
        members = [m for m in self._archive().infolist() if not m.is_dir()]
        listed = [(_plain(m.filename.replace("\\", "/")), m.file_size, m) for m in members]
        self.sort_out(listed, columns)

    def read(self, item: Item) -> bytes:
        return self._archive().read(item.at)


class Tar(Files):
    """The image files of a tar file, compressed or not; what lies behind a damaged header is found
    too, and the damage counted.

    Raises:
        ValueError: it holds no images. tarfile.TarError: it is no tar file.
    """

    def __init__(self, root: Path, columns: Columns) -> None:
        super().__init__(root)
        with tarfile.open(root) as archive:
            self.sequential = not isinstance(archive.fileobj, io.BufferedReader)
        self._file = PerProcess(_contents, root)
        self.sort_out(self._listed(), columns)

    def read(self, item: Item) -> bytes:
        file = self._file()
        file.seek(item.at)
        data = file.read(item.size)
        if len(data) < item.size:
            raise EOFError("the archive ends within it")
        return data

    def in_storage_order(self) -> list[int]:
        return sorted(range(len(self.items)), key=lambda i: self.items[i].at)

    def _listed(self) -> list[tuple[str, int, int]]:
        """(name, bytes, offset) of each file; links within the archive are followed."""
        found: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        with tarfile.open(self.root, ignore_zeros=True) as archive:
            end, last = 0, "the beginning"
            while (member := self._next(archive, last)) is not None:
                self._look_for_damage(archive, end, member.offset, last)
                name = _plain(member.name)
                if member.isreg() and not member.issparse():
                    found[name] = (member.size, member.offset_data)
                elif member.islnk() or member.issym():
                    beside = "" if member.islnk() else posixpath.dirname(name)
                    links[name] = posixpath.normpath(posixpath.join(beside, member.linkname))
                elif not member.isdir():
                    self.skipped["no regular files"].append(name)
                holds = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
                last, end = name, member.offset_data + _padded(member.size if holds else 0)
            self._look_for_damage(archive, end, None, last)
        for name, target in links.items():
            if target in found:
                found[name] = found[target]
            else:
                self.skipped["links to nothing"].append(name)
        return [(name, *where) for name, where in found.items()]

    def _next(self, archive: tarfile.TarFile, last: str) -> tarfile.TarInfo | None:
        try:
            return archive.next()
        except DAMAGED as error:
            self.skipped["damaged parts of the archive"].append(f"behind {last} ({error})")
            return None

    def _look_for_damage(
        self, archive: tarfile.TarFile, start: int, end: int | None, last: str
    ) -> None:
        """Count what lies between two members, or behind the last, and is neither padding nor a
        header of the archive as a whole.
        """
        if start == end:
            return
        file: Any = archive.fileobj
        lost = length = 0
        try:
            while common := _common_header(file, start):
                start += common
            file.seek(start)
            while piece := file.read(PIECE if end is None else min(PIECE, end - start - length)):
                length += len(piece)
                lost += len(piece) if piece.strip(b"\0") else 0
        except DAMAGED as error:
            self.skipped["damaged parts of the archive"].append(f"behind {last} ({error})")
            return
        if lost:
            self.skipped["damaged parts of the archive"].append(f"{lost:,} bytes behind {last}")
        elif end is None and length < BLOCK:
            self.skipped["damaged parts of the archive"].append(f"it ends behind {last}, unmarked")


def _plain(name: str) -> str:
    return posixpath.normpath(name.lstrip("/"))


def _common_header(file: Any, start: int) -> int:
    """The bytes of a header that is of all members, such as git archive writes; 0 for any other."""
    file.seek(start)
    try:
        header = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "surrogateescape")
    except tarfile.TarError:
        return 0
    return BLOCK + _padded(header.size) if header.type == tarfile.XGLTYPE else 0


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _contents(root: Path) -> Any:
    """The contents of a tar file, decompressed."""
    return tarfile.open(root).fileobj
