"""Patches of two real photographs that scikit-learn ships: a temple and a flower. No download."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.core.options import Count, Whole
from zoo.core.spec import Image, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.data.keyed import numbers
from zoo.data.transforms import LEVELS
from zoo.registry import register

Array = NDArray[Any]

STRIPS = {  # columns of both photographs, 427 x 640 pixels each
    "train": ((0, 128), (192, 320), (384, 640)),
    "val": ((128, 192),),
    "test": ((320, 384),),
}
WIDEST = 64  # the width of the narrowest strip
GREY = np.array([0.299, 0.587, 0.114])


@register(
    "patches",
    about="patches 8x8 of two photographs (scikit-learn), grey or colour, raw, centred or "
    "whitened; no download",
)
class Patches(ZooDataModule):
    """Square patches at random places of two photographs. Training, validation and test patches
    come from strips of columns of their own, so that no pixel is in two splits. Patch i depends on
    the seed, the split and i alone.

    Args:
        size: height and width, at most 64.
        channels: "grey" (luminance) or "colour".
        whiten: "raw" patches have 256 levels. The others are real-valued: y = (x + u)/256 with u
            uniform in [0, 1), less the patch's own mean ("centred"), or less the mean patch and
            times Σ^-½ of the training patches ("whitened", ZCA).
        n: training patches. n_val: validation patches. n_test: test patches.
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes.
        seed: of the places and of the order.
    """

    def __init__(
        self,
        size: Count = 8,
        channels: Literal["grey", "colour"] = "grey",
        whiten: Literal["raw", "centred", "whitened"] = "raw",
        n: Count = 20_000,
        n_val: Count = 2_000,
        n_test: Count = 2_000,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if size > WIDEST:
            raise ValueError(
                f"patches: size is at most {WIDEST}, the width of the strips that are kept for "
                f"validation and test, got {size}"
            )
        self.size, self.channels, self.whiten = size, channels, whiten
        self.sizes = {"train": n, "val": n_val, "test": n_test}
        dim = size**2 * (3 if channels == "colour" else 1)
        if whiten == "whitened" and n <= dim:
            raise ValueError(
                f"patches: whitening {dim} values takes more training patches than that, got "
                f"n={n}; set --data.n={10 * dim}, or lower --data.size"
            )

    @cached_property
    def spec(self) -> Spec:
        shape = (3 if self.channels == "colour" else 1, self.size, self.size)
        how = f"{self.channels}, {self.whiten}" if self.whiten != "raw" else self.channels
        levels = LEVELS if self.whiten == "raw" else None
        return Spec(f"patches {self.size}x{self.size} ({how})", x=Image(shape, levels))

    def load(self) -> dict[str, Split]:
        photographs = self._photographs()
        cut = {s: self._cut(photographs, s) for s in self.sizes}
        if self.whiten == "raw":
            return {s: {"x": torch.from_numpy(x)} for s, (x, _) in cut.items()}
        real = {s: (x + u) / LEVELS for s, (x, u) in cut.items()}
        if self.whiten == "centred":
            real = {s: y - y.mean((1, 2, 3), keepdims=True) for s, y in real.items()}
        else:
            mean, matrix = whitening(real["train"].reshape(len(real["train"]), -1))
            real = {
                s: ((y.reshape(len(y), -1) - mean) @ matrix).reshape(y.shape)
                for s, y in real.items()
            }
        return {s: {"x": torch.from_numpy(y.astype(np.float32))} for s, y in real.items()}

    def _photographs(self) -> list[Array]:
        """(C, H, W) uint8 each."""
        from sklearn.datasets import load_sample_images

        pictures = load_sample_images().images
        if self.channels == "grey":
            pictures = [np.floor(p @ GREY + 0.5)[..., None].astype(np.uint8) for p in pictures]
        return [p.transpose(2, 0, 1) for p in pictures]

    def _cut(self, photographs: list[Array], split: str) -> tuple[Array, Array]:
        """Patches (N, C, S, S) uint8 of a split, and for each value a number in [0, 1)."""
        s, n = self.size, self.sizes[split]
        where, u = self._numbers(split)
        windows = [  # of each strip of each photograph, by place, (places, C, S, S) but for a copy
            np.lib.stride_tricks.sliding_window_view(p[:, :, a:b], (s, s), (1, 2))
            for p in photographs
            for a, b in STRIPS[split]
        ]
        ends = np.cumsum([w.shape[1] * w.shape[2] for w in windows])
        places = (where * ends[-1]).astype(int)
        x = np.empty((n, *self.spec.shape), np.uint8)
        strips = np.searchsorted(ends, places, side="right")
        for k, (strip, end) in enumerate(zip(windows, ends, strict=True)):
            here = strips == k
            place = places[here] - (end - strip.shape[1] * strip.shape[2])
            top, left = np.divmod(place, strip.shape[2])
            x[here] = strip[:, top, left].transpose(1, 0, 2, 3)
        return x, u

    def _numbers(self, split: str) -> tuple[Array, Array]:
        """For each patch where it lies, (N,), and the noise of its values, none of raw ones."""
        n, shape = self.sizes[split], self.spec.shape if self.whiten != "raw" else (0,)
        where, u = np.empty(n), np.empty((n, *shape), np.float32)
        key = [*self.sizes].index(split)
        for i in range(n):
            drawn = numbers(self.seed, (key, i, 0), 1 + math.prod(shape))
            where[i], u[i] = drawn[0], drawn[1:].reshape(shape)
        return where, u


def whitening(rows: Array) -> tuple[Array, Array]:
    """Mean, (D,), and Σ^-½, (D, D), of rows (N, D)."""
    mean = rows.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(rows.T).reshape(len(mean), -1))
    return mean, vectors / np.sqrt(values) @ vectors.T
