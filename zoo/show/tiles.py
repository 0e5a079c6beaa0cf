"""One example as a small picture, by the kind of its field.

A kind of one's own gets a tile by ``@tile.register`` of a function of (field, row).
"""

from __future__ import annotations

import functools
import textwrap

import numpy as np
import torch
from PIL import Image as Picture
from PIL import ImageDraw
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
from zoo.show.paint import COLOURS, FRAME, INK, PAPER, Shades, enlarged, font, rgb

SIDE = 64  # pixels of a tile's longer side
FRAMES = 8  # of a clip, at most
LETTERS, LINES = 40, 8  # of a tile of text, at most


@functools.singledispatch
def tile(field: Field, row: Tensor) -> Picture.Image:
    """One row of a field, (*shape), as a picture; of a kind without a tile its numbers as text."""
    return text(" ".join(f"{v:.3g}" for v in row.flatten().tolist()))


@tile.register
def _(field: Image, row: Tensor) -> Picture.Image:
    return shaded(field, row[None])[0]


@tile.register
def _(field: Video, row: Tensor) -> Picture.Image:
    """Frames from left to right, evenly spaced."""
    at = torch.linspace(0, len(row) - 1, min(FRAMES, len(row))).round().long()
    return strip(shaded(field.frame, row[at]))


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
    return strip(shaded(image, torch.stack(views)))


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
    picture = Picture.new("RGB", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, SIDE - 1, SIDE - 1), outline=FRAME)
    for i, box in enumerate((row * (SIDE - 1)).tolist()):
        if box[2] > box[0] or box[3] > box[1]:
            pen.rectangle(box, outline=COLOURS[i % len(COLOURS)])
    return picture


def shaded(field: Image, rows: Tensor) -> list[Picture.Image]:
    """Images (N, C, H, W) of one tile, real values in one range."""
    return [enlarged(pixels, SIDE) for pixels in rgb(rows, Shades(field, rows))]


def strip(pictures: list[Picture.Image], gap: int = 2) -> Picture.Image:
    """Pictures of one size from left to right."""
    width, height = pictures[0].size
    sheet = Picture.new("RGB", (len(pictures) * (width + gap) - gap, height), PAPER)
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i * (width + gap), 0))
    return sheet


def plotted(lines: Tensor) -> Picture.Image:
    """Lines (K, N) over their index."""
    picture = Picture.new("RGB", (2 * SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(picture)
    low, high = float(lines.min()), float(lines.max())
    across = np.linspace(2, 2 * SIDE - 3, max(lines.shape[1], 2))
    for i, line in enumerate(lines.tolist()):
        heights = [SIDE - 3 - (v - low) / max(high - low, 1e-12) * (SIDE - 6) for v in line]
        heights = heights * 2 if len(heights) == 1 else heights
        points = [*zip(across.tolist(), heights, strict=True)]
        pen.line(points, fill=COLOURS[i % len(COLOURS)])
    return picture


def text(words: str, size: int = 12) -> Picture.Image:
    """Words on white, as large as they need, at least half a tile; of many the first ones."""
    lines = [part for line in words.split("\n") for part in textwrap.wrap(line, LETTERS) or [""]]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"… {len(lines) - LINES + 1} lines more"]
    words = "\n".join(lines)
    pen = ImageDraw.Draw(Picture.new("RGB", (1, 1)))
    box = pen.multiline_textbbox((4, 4), words, font(size))
    size_of = (max(int(box[2]) + 4, SIDE // 2), max(int(box[3]) + 4, SIDE // 2))
    picture = Picture.new("RGB", size_of, PAPER)
    ImageDraw.Draw(picture).multiline_text((4, 4), words, INK, font(size))
    return picture
