"""One stored image as uint8 levels of the wanted size, whatever its format and mode."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from zoo.data.pictures.source import Stored

# EPS would start Ghostscript, the others are recognised but not decoded by Pillow itself.
NOT_DECODED = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
BYTES_A_PIXEL = 8  # of the largest uncompressed format, 16 bits of four channels

Span = tuple[float, float]  # the values of black and of white
WHOLE = ((0, 65535), (0, 2**31 - 1))  # of 32-bit integer pixels: Pillow's form of 16-bit ones too
REAL = ((0, 1), (0, 255), (0, 65535))
ARRAYS = (*REAL, (-1, 1))


class TooLarge(ValueError):
    """An image states more pixels or bytes than the limit allows."""


def read_file(path: Path, max_pixels: int) -> bytes:
    """The bytes of an image's file.

    Raises:
        TooLarge: there are more than those of ``max_pixels`` pixels. OSError: it cannot be read.
    """
    if (size := path.stat().st_size) > BYTES_A_PIXEL * max_pixels:
        raise TooLarge(f"{size:,} bytes")
    return path.read_bytes()


@cache
def suffixes() -> dict[str, str]:
    """The file name endings that can be decoded, and their formats: those of Pillow, and of
    pillow-heif where it is installed.
    """
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    Image.preinit()
    Image.init()
    known = Image.registered_extensions()
    return {s: f for s, f in known.items() if f in Image.OPEN and f not in NOT_DECODED}


def decode(
    stored: Stored, size: int, channels: int, crop: str, max_pixels: int, half: str = ""
) -> tuple[Tensor, list[str]]:
    """An image as uint8 levels, (channels, size, size), and remarks on what was done to it.

    EXIF rotation is applied, transparency laid on white, 16-bit and float values scaled by their
    full range, the shorter side resized to ``size`` and the rest cropped (``crop="none"`` resizes
    both sides; ``crop="keep"`` keeps the rest, and 0 the size). Of several frames the first is
    taken.

    Args:
        half: "left" or "right", to be taken for the whole.

    Raises:
        TooLarge: it states more than ``max_pixels``, or would have more by ``crop="keep"``.
            Exception: whatever a damaged file makes a decoder raise.
    """
    with _opened(stored, max_pixels) as file:
        several = getattr(file, "is_animated", False)
        remarks = ["only the first of several frames is used"] if several else []
        ImageOps.exif_transpose(file, in_place=True)
        image = file
        if image.mode == "F" or image.mode.startswith("I"):
            image = _eight_bit(image, remarks)
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB" if channels == 3 else "L")
        if half:
            w, h = image.size
            image = image.crop((0, 0, w // 2, h) if half == "left" else (w - w // 2, 0, w, h))
        resample = Image.Resampling.LANCZOS
        if crop == "keep":
            scale = size / min(image.size) if size else 1
            w, h = (max(1, round(side * scale)) for side in image.size)
            if w * h > max_pixels:
                raise TooLarge(f"{w:,}x{h:,} pixels")
            image = image.resize((w, h), resample)
        elif crop == "centre":
            image = ImageOps.fit(image, (size, size), resample)
        else:
            image = image.resize((size, size), resample)
        return pil_to_tensor(image), remarks


def to_levels(values: np.ndarray, span: Span) -> np.ndarray:
    """Values of a span as uint8 levels, rounded.

    Example:
        >>> to_levels(np.array([0, 257, 65535]), (0, 65535)).tolist()
        [0, 1, 255]
    """
    low, high = span
    scaled = values.astype(np.float32)
    scaled -= low
    scaled *= 255 / (high - low)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def span_of(lowest: float, highest: float, spans: Sequence[Span]) -> Span:
    """The first of some spans that holds all values.

    Raises:
        ValueError: none does.
    """
    for low, high in spans:
        if low <= lowest and highest <= high:
            return low, high
    known = ", ".join(f"{low:g}..{high:g}" for low, high in spans)
    raise ValueError(f"values {lowest:g}..{highest:g} do not say what is white (known: {known})")


@contextmanager
def _opened(stored: Stored, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its stated size within the limit; Pillow tests that of every inner frame and
    icon too.
    """
    before = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = max_pixels
            if isinstance(stored, np.ndarray):
                if stored.shape[0] * stored.shape[1] > max_pixels:
                    raise TooLarge(f"more than {max_pixels:,} pixels")
                yield Image.fromarray(stored)
            else:
                suffixes()
                formats = [f for f in Image.ID if f in Image.OPEN and f not in NOT_DECODED]
                with Image.open(io.BytesIO(stored), formats=formats) as file:
                    yield file
    except UnidentifiedImageError:
        raise ValueError("it is no image that can be decoded") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise TooLarge(f"more than {max_pixels:,} pixels") from None
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _eight_bit(image: Image.Image, remarks: list[str]) -> Image.Image:
    """An image of 16-bit, 32-bit or float pixels in 8 bits; what is transparent is white."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        span: Span = (0, 65535)
    else:
        span = span_of(values.min(), values.max(), REAL if image.mode == "F" else WHOLE)
        kind = "float" if image.mode == "F" else "integer"
        remarks.append(f"{kind} pixels are read as {span[0]:g}..{span[1]:g}")
    levels = to_levels(values, span)
    clear = image.info.get("transparency")
    return Image.fromarray(levels if clear is None else np.where(values == clear, 255, levels))
