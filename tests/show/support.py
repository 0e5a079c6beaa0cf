"""What the tests of pictures share: a model whose codes are shades, and where a sheet has its texts
and cells.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from tests.callbacks.fakes import Painter, entry
from zoo.core import DataSpec
from zoo.show.sheets import SCREEN

HALVES = DataSpec((1, 4, 4), 5, 3, "halves 4x4")


class Coder(Painter):
    """Images of two shades: code 0 is the level of the upper half, code 1 that of the lower."""

    entry = entry("coder", can={"sample", "encode", "decode", "reconstruct", "inpaint"})
    latent = 2

    def __init__(self, spec=HALVES):
        super().__init__(spec)

    def encode(self, x):
        return torch.stack([x[:, 0, :2].mean((1, 2)), x[:, 0, 2:].mean((1, 2))], 1)

    def decode(self, z):
        return z.clamp(0, 4).repeat_interleave(2, 1)[:, None, :, None].expand(-1, 1, 4, 4)

    def draw_codes(self, n, source):
        return source.normal(n, 2)

    def from_codes(self, z):
        return self.decode(z)

    def kl_of_each(self, x):
        return torch.tensor([0.01, 0.5]).expand(len(x), 2)

    def sample(self, n, *, generator=None):
        return self.decode(torch.randn(n, 2, generator=generator))

    def reconstruct(self, x):
        return x

    def inpaint(self, x, known, *, generator=None):
        return torch.where(known, x, 4.0)


def texts(picture: Image.Image) -> list[str]:
    return [words for words, _ in picture.info["texts"]]


def readable(picture: Image.Image, least: int = 40) -> bool:
    """Whether a sheet is within a screen, and each text is there, whole, beside all others and
    beside the cells, none of which is small.
    """
    pixels = np.asarray(picture)
    boxes = [box for _, box in picture.info["texts"]]
    for left, top, right, bottom in boxes:
        inside = left >= 0 and top >= 0 and right <= picture.width and bottom <= picture.height
        ink = pixels[int(top) : int(bottom) + 1, int(left) : int(right) + 1]
        if not inside or ink.min() > 160:
            return False
    cells = picture.info["cells"]
    apart = all(
        a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        for i, a in enumerate(boxes)
        for b in (*boxes[:i], *cells)
    )
    large = all(max(c[2] - c[0], c[3] - c[1]) >= least for c in cells)
    within = picture.width <= SCREEN[0] and picture.height <= SCREEN[1]
    return apart and within and large and bool(cells)


def cell(picture: Image.Image, i: int) -> np.ndarray:
    """The pixels of the ith cell, (H, W, 3)."""
    return np.asarray(picture.crop(picture.info["cells"][i]))


def shows(picture: Image.Image, i: int, x: torch.Tensor, top: float) -> bool:
    """Whether the ith cell is image x (C, H, W), of shades 0 to ``top``, enlarged smoothly."""
    found = torch.from_numpy(cell(picture, i).copy()).permute(2, 0, 1).double()
    wanted = (x.double() / top * 255).round()[None].expand(1, 3, -1, -1)
    h, w = found.shape[1:]
    for size in ((x.shape[1], w), (h, w)):  # in bytes after each axis, as Pillow has them
        wanted = F.interpolate(wanted, size, mode="bicubic", antialias=True)
        wanted = wanted.round().clamp(0, 255)
    return bool((found - wanted[0]).abs().max() <= 2)


def shade(picture: Image.Image, i: int) -> tuple[int, int]:
    """The shades in the middles of the upper and of the lower half of a cell."""
    pixels = cell(picture, i)[..., 0]
    h, w = pixels.shape
    return int(pixels[h // 8, w // 2]), int(pixels[-h // 8, w // 2])


def label_of(picture: Image.Image, i: int, labels: list[str]) -> str:
    """Which of the labels stands in the ith cell's row, next to its left."""
    left, top, _, bottom = picture.info["cells"][i]
    found = [
        (box[2], words)
        for words, box in picture.info["texts"]
        if words in labels and box[2] <= left and top <= (box[1] + box[3]) / 2 <= bottom
    ]
    return max(found)[1]


def head_of(picture: Image.Image, i: int, heads: list[str]) -> str:
    """Which of the headings stands above the ith cell, nearest."""
    left, top, right, _ = picture.info["cells"][i]
    found = [
        (box[3], words)
        for words, box in picture.info["texts"]
        if words in heads and box[3] <= top and box[0] < right and box[2] > left
    ]
    return max(found)[1]


def panel_of(picture: Image.Image, i: int, headings: list[str]) -> str:
    """Under which panel's heading the ith cell stands."""
    left, top, _, _ = picture.info["cells"][i]
    found = [
        (box[0], words)
        for words, box in picture.info["texts"]
        if words in headings and box[3] <= top and box[0] <= left
    ]
    return max(found)[1]
