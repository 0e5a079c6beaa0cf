"""One example as a small picture, by the kind of its field.

A kind of one's own gets a tile by ``@tile.register`` of a function of (field, row).
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from torch import Tensor

from zoo.core.spec import (
    Attributes,
    Boxes,
    Field,
    Image,
    Quantity,
    Series,
    Tokens,
    Vector,
    Video,
    Volume,
)
from zoo.show.sheets import to_bytes

SIDE = 72  # pixels, at least, of a tile's longer side
FRAMES = 8  # of a clip, at most


@functools.singledispatch
def tile(field: Field, row: Tensor) -> Picture.Image:
    """One row of a field, (*shape), as a picture; of a kind without a tile its numbers as text."""
    return text(" ".join(f"{v:.3g}" for v in row.flatten().tolist()))


@tile.register
def _(field: Image, row: Tensor) -> Picture.Image:
    return enlarged(rgb(field, row[None])[0])


@tile.register
def _(field: Video, row: Tensor) -> Picture.Image:
    """Frames from left to right, evenly spaced."""
    at = torch.linspace(0, len(row) - 1, min(FRAMES, len(row))).round().long()
    return strip([enlarged(frame) for frame in rgb(field.frame, row[at])])


@tile.register
def _(field: Volume, row: Tensor) -> Picture.Image:
    """The largest value along each of the three axes, side by side."""
    c, d, h, w = field.shape
    side = max(d, h, w)
    views = []
    for axis in (1, 2, 3):
        flat = row.amax(axis)
        room = flat.new_zeros(c, side, side)
        room[:, : flat.shape[1], : flat.shape[2]] = flat
        views.append(room)
    image = Image((c, side, side), field.levels)
    return strip([enlarged(view) for view in rgb(image, torch.stack(views))])


@tile.register
def _(field: Series, row: Tensor) -> Picture.Image:
    """A line a dimension."""
    return plotted(row.T)


@tile.register
def _(field: Vector, row: Tensor) -> Picture.Image:
    """One line over the entries."""
    return plotted(row[None])


@tile.register
def _(field: Tokens, row: Tensor) -> Picture.Image:
    """The numbers of the words, a line a row; padding is left out."""
    if row.ndim == 0:
        return text(str(int(row)))
    lines = row.flatten(0, -2) if row.ndim > 1 else row[None]
    said = [" ".join(str(int(v)) for v in line) for line in lines if bool((line != 0).any())]
    return text("\n".join(said) or "-")


@tile.register
def _(field: Attributes, row: Tensor) -> Picture.Image:
    """The names (or numbers) of those that are 1."""
    names = field.names or tuple(map(str, range(field.dim)))
    return text("\n".join(n for n, v in zip(names, row.tolist(), strict=True) if v) or "-")


@tile.register
def _(field: Quantity, row: Tensor) -> Picture.Image:
    values = " ".join(f"{v:.3g}" for v in row.flatten().tolist())
    return text(f"{values} {field.unit}".strip())


@tile.register
def _(field: Boxes, row: Tensor) -> Picture.Image:
    """Their outlines in the unit square; boxes of no size are padding."""
    picture = Picture.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(picture)
    for i, box in enumerate((row * (SIDE - 1)).tolist()):
        if box[2] > box[0] or box[3] > box[1]:
            pen.rectangle(box, outline=COLOURS[i % len(COLOURS)])
    return picture


COLOURS = ("red", "blue", "green", "orange", "purple", "teal", "black", "brown")


def rgb(field: Image, rows: Tensor) -> Tensor:
    """Images (N, C, H, W) as bytes (N, 3, H, W): grey, RGB, or the first three channels (the first
    alone where there are two).
    """
    pixels = to_bytes(rows, field if field.levels else unit_range(rows))
    if pixels.shape[1] in (1, 2):
        return pixels[:, :1].expand(-1, 3, -1, -1)
    return pixels[:, :3]


class unit_range:  # noqa: N801
    """The units of real-valued pictures: their own range as [0, 1]."""

    def __init__(self, rows: Tensor) -> None:
        self.low, self.high = rows.min(), rows.max()

    def to_unit(self, x: Tensor) -> Tensor:
        return (x - self.low) / (self.high - self.low).clamp(min=1e-12)


def enlarged(pixels: Tensor, side: int = SIDE) -> Picture.Image:
    """Bytes (3, H, W) as a picture, its longer side enlarged by a whole factor to ``side``."""
    factor = max(1, -(-side // max(pixels.shape[1:])))
    picture = Picture.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Picture.Resampling.NEAREST)


def strip(pictures: list[Picture.Image], gap: int = 2) -> Picture.Image:
    """Pictures of one size from left to right."""
    width, height = pictures[0].size
    sheet = Picture.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i * (width + gap), 0))
    return sheet


def plotted(lines: Tensor) -> Picture.Image:
    """Lines (K, N) over their index."""
    picture = Picture.new("RGB", (2 * SIDE, SIDE), "white")
    pen = ImageDraw.Draw(picture)
    low, high = float(lines.min()), float(lines.max())
    across = np.linspace(2, 2 * SIDE - 3, max(lines.shape[1], 2))
    for i, line in enumerate(lines.tolist()):
        heights = [SIDE - 3 - (v - low) / max(high - low, 1e-12) * (SIDE - 6) for v in line]
        heights = heights * 2 if len(heights) == 1 else heights
        points = [*zip(across.tolist(), heights, strict=True)]
        pen.line(points, fill=COLOURS[i % len(COLOURS)])
    return picture


def text(words: str, size: int = 11) -> Picture.Image:
    """Black words on white, as large as they need, at least one tile."""
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(Picture.new("RGB", (1, 1)))
    box = pen.multiline_textbbox((4, 4), words, font)
    size_of = (max(int(box[2]) + 4, SIDE // 2), max(int(box[3]) + 4, SIDE // 2))
    picture = Picture.new("RGB", size_of, "white")
    ImageDraw.Draw(picture).multiline_text((4, 4), words, "black", font)
    return picture


def table(columns: dict[str, list[Picture.Image]], gap: int = 6) -> Picture.Image:
    """Tiles in rows, each column under its heading."""
    font, head = ImageFont.load_default(12), 20
    pen = ImageDraw.Draw(Picture.new("RGB", (1, 1)))
    widths = {
        name: max(int(pen.textlength(name, font)) + 2, *(p.width for p in column))
        for name, column in columns.items()
    }
    rows = [*zip(*columns.values(), strict=True)]
    heights = [max(p.height for p in row) for row in rows]
    size = (sum(widths.values()) + gap * (len(widths) + 1), head + sum(heights) + gap * len(rows))
    sheet = Picture.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    left = gap
    for name, column in columns.items():
        pen.text((left, 3), name, "black", font)
        top = head
        for picture, height in zip(column, heights, strict=True):
            sheet.paste(picture, (left, top))
            top += height + gap
        left += widths[name] + gap
    return sheet
