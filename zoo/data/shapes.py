"""Drawn scenes of coloured shapes: images whose every factor is known. No download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from zoo.core.options import Count, Whole
from zoo.core.spec import Attributes, Field, Image, Label, Quantity, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.data.layouts import LAYOUT, layout
from zoo.data.scene import (
    ATTRIBUTES,
    COLOURS,
    SHAPES,
    SIZES,
    TRANSIENTS,
    Options,
    Scene,
    ShapesDataset,
    attributes,
    class_id,
    identity,
    render,
)
from zoo.registry import register

LEVELS = 256
SLOW = 30_000_000  # pixels from which a progress bar is shown
Also = Literal["attributes", "identity", "transients", "layout"]
MADE: dict[str, Callable[[Scene, int], Any]] = {
    "attributes": attributes,
    "identity": identity,
    "transients": lambda scene, size: np.array(scene.transients, np.float32),
    "layout": layout,
}


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
        fields: more of what is known: attributes (24, of the first object and its background),
            identity (its shape and colour, 48 classes), transients (the five strengths in [0, 1]),
            layout (8 planes: sky, ground and the six shapes, by what is seen at a pixel's centre).
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
        fields: tuple[Also, ...] = (),
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if size not in SIZES:
            raise ValueError(f"shapes come in sizes {', '.join(map(str, SIZES))}, got {size}")
        self.fields = tuple(dict.fromkeys(fields))
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
        square = (self.size, self.size)
        kinds: dict[str, Field] = {
            "attributes": Attributes((len(ATTRIBUTES),), ATTRIBUTES),
            "identity": Label(len(SHAPES) * len(COLOURS)),
            "transients": Quantity((len(TRANSIENTS),), "", 0.0, 1.0),
            "layout": Image((len(LAYOUT), *square), 2),
        }
        return Spec(
            f"shapes {self.size}x{self.size}" + (f" ({how})" if how else ""),
            x=Image((3, *square), LEVELS),
            y=Label(len(SHAPES)),
            **{name: kinds[name] for name in self.fields},
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
        more: dict[str, list[Any]] = {name: [] for name in self.fields}
        for i in tqdm(range(len(data)), desc=f"shapes {name}", disable=x.size < SLOW, leave=False):
            scene = data.scene(i)
            x[i], y[i] = render(scene, self.size), class_id(scene, self.size)
            for name, rows in more.items():
                rows.append(MADE[name](scene, self.size))
        known = {name: torch.from_numpy(np.stack(rows)) for name, rows in more.items()}
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(y), **known}
