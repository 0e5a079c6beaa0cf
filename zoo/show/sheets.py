"""A sheet: panels of cells under headings, rows and columns labelled, within a screen. Every
picture of the project is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import torch
from PIL import Image as Picture
from PIL import ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from zoo.core.moment import Moment
from zoo.show.paint import INK, MUTED, PAPER, elided, enlarged, font, sized, width_of, wrapped

SCREEN = (1600, 1000)  # pixels that a sheet has at most
MARGIN, BETWEEN, GAP, GROUP = 16, 28, 2, 10  # around; between panels, cells, groups of rows
LINE = 16  # of text
QUICK = 3  # of zlib: half the time of the usual 6, for a tenth more bytes
LABEL, WORDS = 170, 620  # pixels of a label, and of a line of the narrowest sheet, at most
Cell = Tensor | Picture.Image | None  # bytes (3, H, W), to be enlarged; a picture, as it is
Word = str | tuple[str, str]  # a label, or one and its colour


@dataclass(frozen=True)
class Panel:
    """Cells, row by row.

    Args:
        columns: in a row; 0 is a square, or what there is room for.
        heading: says what the cells are. ink: its colour.
        rows, heads: labels of rows and of columns. captions: one a cell, below it.
        path: "across" or "both" where neighbours are steps of a path: if there is no room for all
            columns (or rows), some of them evenly, the ends included; else the first ones.
        together: rows that make one group, and are left out together.
    """

    cells: Sequence[Cell] | Tensor
    columns: int = 0
    heading: str = ""
    ink: str = MUTED
    rows: Sequence[Word] = ()
    heads: Sequence[Word] = ()
    captions: Sequence[str] = ()
    path: str = ""
    together: int = 0

    @property
    def count(self) -> int:
        """Rows."""
        return math.ceil(len(self.cells) / max(self.columns, 1))

    def of(self, rows: Sequence[int], columns: Sequence[int]) -> Panel:
        """The panel with some of its rows and columns."""
        at = [i * self.columns + j for i in rows for j in columns]
        return replace(
            self,
            cells=[self.cells[i] if i < len(self.cells) else None for i in at],
            columns=len(columns),
            rows=[self.rows[i] for i in rows] if self.rows else (),
            heads=[self.heads[j] for j in columns] if self.heads else (),
            captions=[self.captions[i] if i < len(self.captions) else "" for i in at]
            if self.captions
            else (),
        )


def about(model: Any, moment: Moment | None = None, *more: str) -> str:
    """The line below a title: the data, the step, whose weights; of a model from a checkpoint the
    step is the checkpoint's.
    """
    moment = moment or getattr(model, "moment", None)
    parts = (model.spec.name, str(moment) if moment else "", *more)
    return " · ".join(part for part in parts if part)


def sheet(
    title: str,
    said: str,
    panels: Sequence[Sequence[Panel]],
    notes: Sequence[str] = (),
    size: tuple[int, int] = SCREEN,
) -> Picture.Image:
    """Rows of panels under a title.

    Args:
        said: the line below the title. notes: lines below the panels; what finds no room is told
            there too.
        size: what the sheet's width and height are at most: cells shrink as far as they can be
            seen, then some are left out.

    Returns:
        RGB; its ``info`` has "title", "said", "description" (every text in order), which ``save``
        writes into the file, "cut": notes of what found no room, "texts": each with its box, and
        "cells": boxes in the panels' order.
    """
    notes, said_below = [note for note in notes if note], max(width_of(title, 17, True), 320)
    least = min(max(said_below, width_of(said), *map(width_of, notes), 0), WORDS)
    head = 25 * len(wrapped(title, least, 17, True)) + LINE * len(wrapped(said, least))
    foot = LINE * (2 + sum(len(wrapped(note, least)) for note in notes))
    room = (size[0] - 2 * MARGIN, size[1] - 2 * MARGIN - head - foot)
    laid, cut = _fitted(panels, room)
    notes = [*dict.fromkeys(cut), *notes]
    across = max(least, *map(_width, laid))
    canvas = _Canvas(across + 2 * MARGIN, size[1])
    top = MARGIN
    for line in wrapped(title, across, 17, True):
        top += canvas.write(MARGIN, top, line, INK, 17, True) + 4
    for line in wrapped(said, across):
        top += canvas.write(MARGIN, top, line, MUTED)
    for row in laid:
        top += LINE
        head, left = max(laid.above for laid in row), MARGIN
        for panel in row:
            panel.paint(canvas, left, top, head)
            left += panel.width + BETWEEN
        top += head + max(laid.below for laid in row)
    top += LINE // 2 if notes else 0
    for note in notes:
        for line in wrapped(note, across):
            top += canvas.write(MARGIN, top, line, MUTED)
    picture = canvas.picture.crop((0, 0, canvas.picture.width, top + MARGIN))
    texts = canvas.texts
    described = "\n".join(text for text, _ in texts)
    picture.info = {"title": title, "said": said, "description": described, "cut": cut}
    picture.info |= {"texts": texts, "cells": canvas.cells}
    return picture


def save(picture: Picture.Image, file: Any | IO[bytes]) -> None:
    """As a PNG that also says in words what is on it."""
    words = PngInfo()
    for key in ("title", "description"):
        if text := picture.info.get(key):
            words.add_itxt(key.capitalize(), text)
    picture.save(file, format="png", pnginfo=words, compress_level=QUICK)


# -- parts ----------------------------------------------------------------------------------------
class _Canvas:
    """A white page, and the boxes of its texts and cells."""

    def __init__(self, width: int, height: int) -> None:
        self.picture = Picture.new("RGB", (width, height), PAPER)
        self.pen = ImageDraw.Draw(self.picture)
        self.texts: list[tuple[str, tuple[float, float, float, float]]] = []
        self.cells: list[tuple[int, int, int, int]] = []

    def write(
        self, x: float, y: float, words: str, ink: str, size: int = 12, bold: bool = False
    ) -> int:
        """A line with its upper left corner at (x, y); returns its height."""
        if words:
            self.pen.text((x, y), words, ink, font(size, bold))
            self.texts.append((words, self.pen.textbbox((x, y), words, font(size, bold))))
        return LINE + max(size - 12, 0)

    def paste(self, x: int, y: int, picture: Picture.Image) -> None:
        self.picture.paste(picture, (x, y))
        self.cells.append((x, y, x + picture.width, y + picture.height))


class _Laid:
    """A panel with sizes.

    Attributes:
        width: of all of it. above: height of heading and column labels. below: of its cells.
    """

    def __init__(self, panel: Panel, side: int) -> None:
        self.panel, self.side = panel, side
        columns, count = panel.columns, panel.count
        self.heads = [_word(w) for w in panel.heads]
        self.captions = [elided(c, LABEL) for c in panel.captions]
        self.widths, self.heights = [1] * columns, [1] * count
        for i, cell in enumerate(panel.cells):
            w, h = (0, 0) if cell is None else size_of(cell, side)
            if self.captions:
                w, h = max(w, width_of(self.captions[i], 11) + 4), h + LINE
            self.widths[i % columns] = max(self.widths[i % columns], w)
            self.heights[i // columns] = max(self.heights[i // columns], h, LINE * bool(panel.rows))
        for j, (head, _) in enumerate(self.heads):
            self.widths[j] = max(self.widths[j], width_of(head) + 4 if head else 0)
        self.labels = [_word(w) for w in panel.rows]
        self.margin = max((width_of(w) + 8 for w, _ in self.labels), default=0)
        self.gap = GAP if any(isinstance(c, Tensor) for c in panel.cells[:columns]) else GROUP
        inner = self.margin + sum(self.widths) + self.gap * (columns - 1)
        self.heading = wrapped(panel.heading, max(inner, 240), 12, True)[:3]
        self.width = max(inner, *(width_of(line, 12, True) for line in self.heading), 0)
        self.above = LINE * len(self.heading) + 7 + LINE * any(h for h, _ in self.heads)
        self.tops = [GAP * i + GROUP * (i // (panel.together or count)) for i in range(count)]
        self.tops = [top + sum(self.heights[:i]) for i, top in enumerate(self.tops)]
        self.below = (self.tops[-1] if count else 0) + sum(self.heights[-1:])

    def paint(self, canvas: _Canvas, left: int, top: int, above: int) -> None:
        panel = self.panel
        for k, line in enumerate(self.heading):
            canvas.write(left, top + k * LINE, line, panel.ink, bold=True)
        heads = LINE * any(h for h, _ in self.heads)
        ruler = top + above - heads - 5
        canvas.pen.rectangle((left, ruler, left + self.width - 1, ruler + 1), panel.ink)
        x = left + self.margin
        for (head, ink), w in zip(self.heads, self.widths, strict=False):
            canvas.write(x + (w - width_of(head)) // 2, top + above - LINE, head, ink)
            x += w + self.gap
        for i, h in enumerate(self.heights):
            y = top + above + self.tops[i]
            if self.labels:
                words, ink = self.labels[i]
                canvas.write(left, y + (h - LINE) // 2, words, ink)
            x = left + self.margin
            for j, w in enumerate(self.widths):
                at = i * panel.columns + j
                if at < len(panel.cells) and (cell := panel.cells[at]) is not None:
                    picture = enlarged(cell, self.side) if isinstance(cell, Tensor) else cell
                    inset = (w - picture.width) // 2 if isinstance(cell, Tensor) else 0
                    canvas.paste(x + inset, y, picture)
                    if self.captions and (words := self.captions[at]):
                        middle = x + (w - width_of(words, 11)) // 2
                        canvas.write(middle, y + picture.height, words, MUTED, 11)
                x += w + self.gap


def _word(word: Word) -> tuple[str, str]:
    words, ink = (word, MUTED) if isinstance(word, str) else word
    return elided(words, LABEL), ink


def size_of(cell: Tensor | Picture.Image, side: int) -> tuple[int, int]:
    """Width and height of a cell."""
    return sized(cell, side) if isinstance(cell, Tensor) else cell.size


def _width(row: Sequence[_Laid]) -> int:
    return sum(laid.width for laid in row) + BETWEEN * (len(row) - 1)


def _height(rows: Sequence[Sequence[_Laid]]) -> int:
    return sum(max(p.above for p in r) + max(p.below for p in r) + LINE for r in rows)


def _fitted(
    rows: Sequence[Sequence[Panel]], size: tuple[int, int]
) -> tuple[list[list[_Laid]], list[str]]:
    """The panels with the largest cells with which they are within ``size``, or else cut; and what
    was left out.
    """
    across, high = size
    native = [
        max(c.shape[1:]) for r in rows for p in r for c in p.cells[:1] if isinstance(c, Tensor)
    ]
    largest = max(native, default=40)
    least, wanted = min(max(largest, 40), 112), min(max(largest * 3 // 2, 80), 160)
    for side in (*range(wanted, least, -4), least):
        shaped = [[_shaped(p, side, across // len(r), high // len(rows)) for p in r] for r in rows]
        if any(p.count * p.columns > across * high // least**2 for r in shaped for p in r):
            continue  # more than a sheet can have: not worth measuring
        laid = [[_Laid(p, side) for p in r] for r in shaped]
        if max(map(_width, laid)) <= across and _height(laid) <= high:
            return laid, []
    cuts: list[str] = []
    found = []
    for r in shaped:
        cut = _cut(r, least, across, high // len(rows))
        cuts += [_left_out(a, b) for a, b in zip(r, cut, strict=True)]
        found.append([_Laid(p, least) for p in cut])
    return found, [note for note in dict.fromkeys(cuts) if note]


def _shaped(panel: Panel, side: int, across: int, high: int) -> Panel:
    """A panel of no given columns as a square, or wider where its rows would not find room."""
    if panel.columns or not len(panel.cells):
        return replace(panel, columns=max(panel.columns, 1))
    w, h = size_of(next(c for c in panel.cells if c is not None), side)
    n, h = len(panel.cells), h + LINE * bool(panel.captions)
    room = max((across - BETWEEN) // (w + GAP), 1)
    rows = max((high - 4 * LINE) // (h + GAP), 1)
    columns = min(max(math.ceil(math.sqrt(n)), math.ceil(n / rows)), room, n)
    return replace(panel, columns=columns)


def _first(panel: Panel, rows: int, columns: int) -> Panel:
    """At most so many rows and columns."""
    group = panel.together or 1
    rows = min(panel.count, max(rows // group, 1) * group)
    columns = min(panel.columns, columns)
    if rows == panel.count and columns == panel.columns:
        return panel
    down = _evenly(panel.count, rows) if panel.path == "both" else [*range(rows)]
    right = _evenly(panel.columns, columns) if panel.path else [*range(columns)]
    return panel.of(down, right)


def _evenly(n: int, k: int) -> list[int]:
    return torch.linspace(0, n - 1, k).round().long().tolist() if k > 1 else [0]


def _cut(panels: list[Panel], side: int, across: int, high: int) -> list[Panel]:
    """Panels that stand side by side with as many columns and rows as find room."""
    rows = min(max(p.count for p in panels), high // side + 1)
    columns = min(max(p.columns for p in panels), across // side + 1)
    together = max(p.together or 1 for p in panels)
    while True:
        cut = [_first(p, rows, columns) for p in panels]
        laid = [_Laid(p, side) for p in cut]
        if _width(laid) > across and columns > 1:
            columns -= 1
        elif _height([laid]) > high and rows > together:
            rows -= together
        else:
            return cut


def _left_out(whole: Panel, shown: Panel) -> str:
    """A line that says which part of a panel is shown."""
    if not (whole.rows or whole.heads):
        n, k = len(whole.cells), min(len(shown.cells), len(whole.cells))
        return f"the first {k:,} of {n:,} are shown" if k < n else ""
    parts = []
    for what, of, k, even in (
        ("rows", whole.count, shown.count, whole.path == "both"),
        ("columns", whole.columns, shown.columns, bool(whole.path)),
    ):
        if k < of:
            parts.append(f"{k:,} of {of:,} {what}" + (", evenly" if even else " (the first)"))
    return f"shown: {' and '.join(parts)}" if parts else ""
