"""What every picture is painted with: colours, letters, and pixels from levels."""

from __future__ import annotations

import functools
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image as Picture
from PIL import ImageFont
from torch import Tensor

from zoo.core.spec import Image

INK, MUTED, FRAME, PAPER = "#1b1f24", "#5b6470", "#c9ced6", "white"
DRAWN, DATA = "#2160a8", "#b3590e"  # what a model made; what it was trained on
COLOURS = (DRAWN, DATA, "#2e7d4f", "#8e4aa8", "#a8243c", "#0f7c86", "#5b6470", "#7a6a12")


@functools.cache
def font(size: int = 12, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings and draws with: it has the Greek letters and the signs
    that Pillow's own font has not.
    """
    found = find_spec("matplotlib")
    assert found is not None and found.origin is not None  # it is required
    letters = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(letters / f"DejaVuSans{'-Bold' * bold}.ttf", size)


def width_of(words: str, size: int = 12, bold: bool = False) -> int:
    """Pixels of a line."""
    return int(font(size, bold).getlength(words)) + 1


def elided(words: str, width: int, size: int = 12) -> str:
    """Words on one line of at most ``width`` pixels, the last of them left out where need be."""
    words = " ".join(words.split())
    if width_of(words, size) <= width:
        return words
    while words and width_of(words + "…", size) > width:
        words = words[:-1]
    return words + "…"


def wrapped(words: str, width: int, size: int = 12, bold: bool = False) -> list[str]:
    """Words in lines of at most ``width`` pixels."""
    if not words:
        return []
    letters = len(words)
    while True:
        lines = textwrap.wrap(words, letters)
        widest = max((width_of(line, size, bold) for line in lines), default=0)
        if widest <= width or letters == 1:
            return lines
        letters = max(min(letters - 1, letters * width // widest), 1)


class Units(Protocol):
    """What turns levels into [0, 1]: a spec, or a field."""

    def to_unit(self, x: Tensor) -> Tensor: ...


class Shades:
    """The units of images, data and samples alike: levels are what they are, and real values that
    are not all in [0, 1] go from the least to the largest of ``rows``.

    Attributes:
        note: what a reader must know of them; "" where nothing.
    """

    def __init__(self, field: Image, rows: Tensor) -> None:
        self.field, self.low, self.high, self.note = field, 0.0, 1.0, ""
        rows = rows[rows.isfinite()] if field.levels is None else rows[:0]
        if rows.numel() and not (rows.min() >= 0 and rows.max() <= 1):
            self.low, self.high = float(rows.min()), float(rows.max())
            self.note = f"shades from {self.low:.3g} to {self.high:.3g}"
        if (channels := field.shape[0]) not in (1, 3):
            shown = "the first" if channels == 2 else "the first three, as red, green and blue,"
            self.note = f"{shown} of {channels} channels shown" + "; " * bool(self.note) + self.note

    def to_unit(self, x: Tensor) -> Tensor:
        return (self.field.to_unit(x) - self.low) / max(self.high - self.low, 1e-12)


def to_bytes(x: Tensor, units: Units) -> Tensor:
    """Images in levels (N, C, H, W) to uint8 0..255 of the same shape."""
    return (units.to_unit(x.detach().float()).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def rgb(rows: Tensor, units: Units) -> Tensor:
    """Images (N, C, H, W) as bytes (N, 3, H, W): grey, RGB, or the first three channels (the first
    alone where there are two).
    """
    pixels = to_bytes(rows, units)
    if pixels.shape[1] in (1, 2):
        return pixels[:, :1].expand(-1, 3, -1, -1)
    return pixels[:, :3]


def enlarged(pixels: Tensor, side: int) -> Picture.Image:
    """Bytes (3, H, W) as a picture whose longer side is ``side``."""
    picture = Picture.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    # Smooth: of digits of 8x8 pixels more can be read than from blocks; Lanczos adds rims.
    return picture.resize(sized(pixels, side), Picture.Resampling.BICUBIC)


def sized(pixels: Tensor, side: int) -> tuple[int, int]:
    """Width and height of ``enlarged``."""
    h, w = pixels.shape[1:]
    return max(round(w * side / max(h, w)), 1), max(round(h * side / max(h, w)), 1)
