"""Many examples on one sheet: levels to 8-bit RGB, grids, captions, completions, scatter plots."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


class Units(Protocol):
    """What turns levels into [0, 1]: a spec, or a field."""

    def to_unit(self, x: Tensor) -> Tensor: ...


def to_bytes(x: Tensor, spec: Units) -> Tensor:
    """Images in levels (N, C, H, W) to uint8 0..255 of the same shape."""
    return (spec.to_unit(x.detach().float()).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def grid(x: Tensor, spec: Units, columns: int | None = None, height: int = 512) -> Image.Image:
    """Images (N, C, H, W) in levels as one picture, row by row, a pixel of grey between; small ones
    are enlarged by whole factors.

    Args:
        columns: images in a row; about √N by default. height: enlarge until the picture is at least
            this high (pixels).
    """
    pixels = to_bytes(x, spec)
    n, _, h, w = pixels.shape
    pixels = pixels.expand(n, 3, h, w) if pixels.shape[1] == 1 else pixels[:, :3]
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    factor = max(1, math.ceil(height / (rows * h)))
    pixels = F.interpolate(pixels.float(), scale_factor=factor, mode="nearest").to(torch.uint8)
    h, w, line = h * factor, w * factor, max(1, factor // 4)
    sheet = torch.full(
        (3, rows * (h + line) + line, columns * (w + line) + line), 128, dtype=torch.uint8
    )
    for i, image in enumerate(pixels):
        top, left = line + (i // columns) * (h + line), line + (i % columns) * (w + line)
        sheet[:, top : top + h, left : left + w] = image
    return Image.fromarray(sheet.permute(1, 2, 0).numpy())


def captioned(
    x: Tensor, spec: Units, columns: int, captions: list[str], title: str = "", cell: int = 72
) -> Image.Image:
    """Images (N, C, H, W) in levels with a line of text under each, row by row, and a title above.

    Args:
        captions: one a picture; "" for none. cell: width and height of one image, at least
            (pixels).
    """
    from PIL import ImageDraw, ImageFont

    font, line, gap = ImageFont.load_default(11), 14 if any(captions) else 0, 4
    pixels = to_bytes(x, spec)
    n, _, h, w = pixels.shape
    pixels = (pixels.expand(n, 3, h, w) if pixels.shape[1] == 1 else pixels[:, :3]).permute(
        0, 2, 3, 1
    )
    factor = max(1, math.ceil(cell / max(h, w)))
    high, wide, top = h * factor + line + gap, w * factor + gap, 20 if title else 0
    sheet = Image.new(
        "RGB", (columns * wide + gap, math.ceil(n / columns) * high + gap + top), "white"
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((gap, gap), title, "black", ImageFont.load_default(13))
    for i, image in enumerate(pixels):
        left, upper = gap + (i % columns) * wide, top + gap + (i // columns) * high
        sheet.paste(
            Image.fromarray(image.numpy()).resize(
                (w * factor, h * factor), Image.Resampling.NEAREST
            ),
            (left, upper),
        )
        pen.text((left, upper + h * factor), captions[i], "black", font)
    return sheet


def below(*pictures: Image.Image, gap: int = 12) -> Image.Image:
    """Pictures from top to bottom on white."""
    sheet = Image.new(
        "RGB",
        (
            max(p.width for p in pictures),
            sum(p.height for p in pictures) + gap * (len(pictures) - 1),
        ),
        "white",
    )
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + gap
    return sheet


PARTS = ("bottom", "top", "left", "right", "centre")


def outside(part: str, height: int, width: int) -> Tensor:
    """What is known when a part of an image is hidden, booleans (1, H, W): False in its bottom,
    top, left or right half, or its centre.

    Raises:
        ValueError: there is no such part.
    """
    if part not in PARTS:
        raise ValueError(f"the part to complete is one of {', '.join(PARTS)}, got {part!r}")
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    middle = (
        (rows >= height // 4)
        & (rows < height - height // 4)
        & (columns >= width // 4)
        & (columns < width - width // 4)
    )
    hidden = {
        "bottom": rows >= height // 2,
        "top": rows < height // 2,
        "left": columns < width // 2,
        "right": columns >= width // 2,
    }
    return ~hidden.get(part, middle).expand(height, width)[None]


def completions(
    x: Tensor, known: Tensor, completed: list[Tensor], spec: Units, columns: int
) -> Image.Image:
    """Rows of images, each above what was shown of it (the rest in the middle grey) and its
    completions.
    """
    shown = torch.where(known, x, (getattr(spec, "levels", None) or 2) / 2 - 0.5)
    rows = [
        part
        for group in zip(*(t.split(columns) for t in (x, shown, *completed)), strict=True)
        for part in group
    ]
    return grid(torch.cat(rows), spec, columns)


def beside(*pictures: Image.Image, gap: int = 16) -> Image.Image:
    """Pictures from left to right on white, scaled to no common size."""
    sheet = Image.new(
        "RGB",
        (
            sum(p.width for p in pictures) + gap * (len(pictures) - 1),
            max(p.height for p in pictures),
        ),
        "white",
    )
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


def scatter(x: Tensor, real: Tensor | None = None) -> Image.Image:
    """Points (N, 2) over the data as a square plot, or a histogram for (N, 1); the first two
    coordinates of longer vectors.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for points, name, colour in ((real, "data", "0.75"), (x, "samples", "tab:blue")):
        if points is None:
            continue
        points = points.detach().float().cpu()
        if points.shape[1] == 1:
            axes.hist(
                points[:, 0].numpy(), bins=80, density=True, alpha=0.6, color=colour, label=name
            )
        else:
            axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=4, color=colour, label=name)
            axes.set_aspect("equal")
    axes.legend(loc="upper right")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
