"""Drawn scenes of coloured shapes: images whose every factor is known. No download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from tqdm.auto import tqdm

from zoo.core.options import Count, Whole
from zoo.core.spec import DataSpec, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.data.scene import SHAPES, SIZES, Options, ShapesDataset, class_id, render
from zoo.registry import register

LEVELS = 256
SLOW = 30_000_000  # pixels from which a progress bar is shown


@register(
    "shapes",
    about="drawn scenes of coloured shapes 32x32 RGB, 6 classes, every factor known; no download",
)
class Shapes(ZooDataModule):
    """Scenes of circles, squares, triangles, crosses, stars and rings; the class is the first
    object's shape.

    Args:
        size: 16, 32, 64 or 128 pixels.
        n: training scenes. n_val: validation scenes. n_test: test scenes.
        objects: least and largest number of objects in a scene.
        background: plain, gradient, stripes, checker or horizon (sky and ground).
        transients: night, fog, warm light, snow and wet ground, each in half of the scenes.
        hats: half of the objects wear a hat. stripes: three in ten are striped. outlines: three in
            ten have a black rim.
        pointer: a white dot in each object that shows its angle.
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes.
        seed: of the scenes and of their order.
    """

    def __init__(
        self,
        size: Count = 32,
        n: Count = 4096,
        n_val: Count = 512,
        n_test: Count = 512,
        objects: tuple[Count, Count] = (1, 1),
        background: str = "plain",
        transients: bool = False,
        hats: bool = True,
        stripes: bool = True,
        outlines: bool = True,
        pointer: bool = False,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if size not in SIZES:
            raise ValueError(f"shapes come in sizes {', '.join(map(str, SIZES))}, got {size}")
        self.size, self.sizes = size, {"train": n, "val": n_val, "test": n_test}
        low, high = objects
        self.options = Options(
            (low, high), background, transients, hats, stripes, outlines, pointer
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return SHAPES

    @cached_property
    def spec(self) -> Spec:
        o = self.options
        low, high = o.objects
        said = [
            f"{low}-{high} objects" if high > 1 else "",
            o.background if o.background != "plain" else "",
            "transients" if o.transients else "",
            *(f"no {name}" for name in ("hats", "stripes", "outlines") if not getattr(o, name)),
            "pointer" if o.pointer else "",
        ]
        how = ", ".join(filter(None, said))
        return DataSpec(
            (3, self.size, self.size),
            LEVELS,
            len(SHAPES),
            f"shapes {self.size}x{self.size}" + (f" ({how})" if how else ""),
        )

    def dataset(self, split: str = "train", fields: Sequence[str] = ("image",)) -> ShapesDataset:
        """The same scenes with any fields of ``zoo.data.scene.FIELDS``: factors, attributes,
        identity ...
        """
        return ShapesDataset(self.sizes[split], self.size, split, fields, self.seed, self.options)

    def load(self) -> dict[str, Split]:
        return {name: self._render(name) for name in self.sizes}

    def _render(self, name: str) -> Split:
        data = self.dataset(name)
        x, y = np.empty((len(data), *self.spec.shape), np.uint8), np.empty(len(data), np.int64)
        for i in tqdm(range(len(data)), desc=f"shapes {name}", disable=x.size < SLOW, leave=False):
            scene = data.scene(i)
            x[i], y[i] = render(scene, self.size), class_id(scene, self.size)
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}
