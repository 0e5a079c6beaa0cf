"""One example as a small picture, by the kind of its field.

A kind of one's own gets a tile by ``@tile.register`` of a function of (field, row).
"""

from __future__ import annotations

import functools
import textwrap

import numpy as np
import torch
from PIL import Image as Picture
from PIL import ImageColor, ImageDraw
from torch import Tensor

from zoo.core.spec import (
    Attributes,
    Boxes,
    Field,
    Image,
    Keypoints,
    Quantity,
    Regions,
    Series,
    Tokens,
    Triples,
    Vector,
    Video,
    Volume,
)
from zoo.show.paint import COLOURS, FRAME, INK, PAPER, Shades, enlarged, font, rgb, width_of

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
def _(field: Regions, row: Tensor) -> Picture.Image:
    """Each region in a colour of its own, later ones over earlier ones, and beside them the names
    of those that are there.
    """
    pixels = torch.full((3, *row.shape[1:]), 255)
    for i, there in enumerate(row > 0):
        ink = torch.tensor(ImageColor.getrgb(COLOURS[i % len(COLOURS)]))
        pixels = torch.where(there, ink[:, None, None], pixels)
    regions = enlarged(pixels.to(torch.uint8), SIDE)
    names = [(name, i) for i, name in enumerate(field.names) if bool(row[i].any())]
    width = max((width_of(name, 11) + 8 for name, _ in names), default=0)
    picture = Picture.new("RGB", (regions.width + width, SIDE), PAPER)
    picture.paste(regions, (0, 0))
    pen = ImageDraw.Draw(picture)
    for line, (name, i) in enumerate(names):
        at = (regions.width + 4, line * SIDE // max(len(names), 5))
        pen.text(at, name, COLOURS[i % len(COLOURS)], font(11))
    return picture


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
    """The words or their numbers, a line a row; padding is left out."""
    if row.ndim == 0:
        return text(field.name(int(row)))
    lines = row.flatten(0, -2) if row.ndim > 1 else row[None]
    between = "" if field.names and all(len(name) < 2 for name in field.names) else " "
    said = [
        between.join(field.name(int(v)) for v in line).rstrip()
        for line in lines
        if bool((line != 0).any())
    ]
    return text("\n".join(said) or "-")


@tile.register
def _(field: Triples, row: Tensor) -> Picture.Image:
    """One a line: subject, relation, object."""
    said = [f"{s} {field.name(p)} {o}" for s, p, o in row.tolist() if p]
    return text("\n".join(said) or "-")


@tile.register
def _(field: Attributes, row: Tensor) -> Picture.Image:
    """The names (or numbers) of those that are 1."""
    names = field.names or tuple(map(str, range(field.dim)))
    return text("\n".join(n for n, v in zip(names, row.tolist(), strict=True) if v) or "-")


@tile.register
def _(field: Quantity, row: Tensor) -> Picture.Image:
    values = " ".join(f"{v:.3g}" for v in row.flatten().tolist())
    if field.names:
        values = "\n".join(map(" ".join, zip(field.names, values.split(), strict=True)))
    return text(f"{values} {field.unit}".strip())


@tile.register
def _(field: Boxes, row: Tensor) -> Picture.Image:
    """Their outlines in the unit square; boxes of no size are padding."""
    picture, pen = blank()
    boxes = [(i, box) for i, box in enumerate((row * (SIDE - 1)).tolist()) if box[:2] != box[2:]]
    for i, box in boxes:
        pen.rectangle(box, outline=COLOURS[i % len(COLOURS)])
        if len(boxes) > 1:
            pen.text((box[0] + 3, box[1] + 1), str(i), COLOURS[i % len(COLOURS)], font(9))
    return picture


@tile.register
def _(field: Keypoints, row: Tensor) -> Picture.Image:
    """Dots in the unit square, a colour an object, hollow where they are not seen; an object of
    zeros is padding.
    """
    picture, pen = blank()
    for i, points in enumerate(row.tolist()):
        ink = COLOURS[i % len(COLOURS)]
        for x, y, seen in points if any(map(any, points)) else ():
            x, y = x * (SIDE - 1), y * (SIDE - 1)
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), ink if seen > 0.5 else PAPER, ink)
    return picture


def blank() -> tuple[Picture.Image, ImageDraw.ImageDraw]:
    """The unit square with nothing in it, and a pen."""
    picture = Picture.new("RGB", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, SIDE - 1, SIDE - 1), outline=FRAME)
    return picture, pen


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
    lines = [part for line in words.split("\n") for part in _wrapped(line)]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"… {len(lines) - LINES + 1} lines more"]
    words = "\n".join(lines)
    pen = ImageDraw.Draw(Picture.new("RGB", (1, 1)))
    box = pen.multiline_textbbox((4, 4), words, font(size))
    size_of = (max(int(box[2]) + 4, SIDE // 2), max(int(box[3]) + 4, SIDE // 2))
    picture = Picture.new("RGB", size_of, PAPER)
    ImageDraw.Draw(picture).multiline_text((4, 4), words, INK, font(size))
    return picture


def _wrapped(line: str) -> list[str]:
    """A line in parts, all but the first set in."""
    return textwrap.wrap(line, LETTERS, subsequent_indent="   ") or [""]
