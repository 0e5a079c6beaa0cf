"""Drawn scenes of coloured shapes: images whose every factor is known. No download."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from zoo.core.options import Count, Whole
from zoo.core.spec import (
    Attributes,
    Boxes,
    Field,
    Image,
    Keypoints,
    Label,
    Quantity,
    Regions,
    Spec,
    Tokens,
    Triples,
)
from zoo.data import captions, keyed, layouts, scene, scene_graph
from zoo.data.base import Split, ZooDataModule
from zoo.data.once import drawn_once
from zoo.data.scene import (
    ATTRIBUTES,
    COLOURS,
    SHAPES,
    SIZES,
    SPLITS,
    TRANSIENTS,
    Array,
    Options,
    Scene,
    attributes,
    class_id,
    draw,
    factors,
    identity,
    image,
    relit,
    render,
    transients,
)
from zoo.registry import register

LEVELS = 256
SLOW = 30_000_000  # values of images from which a progress bar is shown
KEPT = 3_000_000  # from which what was drawn is kept
DRAWING = (captions, keyed, layouts, scene, scene_graph, sys.modules[__name__])
IDENTITIES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
Also = Literal[
    "identity",
    "attributes",
    "tokens",
    "chars",
    "boxes",
    "keypoints",
    "masks",
    "layout",
    "objs",
    "triples",
    "transients",
    "relit",
]
FIELDS: dict[str, Callable[[Scene, int], Any]] = {  # of a scene at a size
    "image": image,
    "factors": factors,
    "attributes": attributes,
    "class_id": class_id,
    "identity": identity,
    "captions": captions.captions,
    "tokens": captions.tokens,
    "chars": captions.chars,
    "boxes": layouts.boxes,
    "keypoints": layouts.keypoints,
    "masks": layouts.masks,
    "layout": layouts.layout,
    "graph": scene_graph.graph,
    "objs": scene_graph.objs,
    "triples": scene_graph.triples,
    "transients": transients,
    "relit": relit,
}
IN_BATCHES = {**FIELDS, "x": render, "y": class_id}


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
        fields: more of what is known: identity (shape and colour, a class), attributes (24),
            tokens and chars (words and letters of five captions), boxes, keypoints and masks (of
            each object), layout (the label map, one-hot), objs and triples (the scene graph),
            transients (their strengths), relit (the image under other ones). Of fewer objects than
            the largest number the rest is 0.
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
        if (asked := {"transients", "relit"} & {*fields}) and not transients:
            raise ValueError(
                f"shapes: {min(asked)} is asked for, but there are no transients; "
                "--data.transients=true makes some"
            )
        self.size, self.sizes = size, {"train": n, "val": n_val, "test": n_test}
        self.fields = tuple(fields)
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
        name = f"shapes {self.size}x{self.size}" + (f" ({how})" if how else "")
        known: dict[str, Field] = {
            "x": Image((3, self.size, self.size), LEVELS),
            "y": Label(len(SHAPES)),
        }
        return Spec(name, **known, **{k: self._kind(k) for k in self.fields})

    def _kind(self, name: str) -> Field:
        """Of one of ``fields``."""
        most, square = self.options.objects[1], (self.size, self.size)
        words, letters = captions.VOCABULARY, captions.ALPHABET
        things, relations = scene_graph.OBJECTS, scene_graph.RELATIONS
        kinds: dict[str, Field] = {
            "identity": Label(len(IDENTITIES), names=IDENTITIES),
            "attributes": Attributes((len(ATTRIBUTES),), ATTRIBUTES),
            "tokens": Tokens((captions.SAID, captions.LENGTH), len(words), words),
            "chars": Tokens((captions.SAID, captions.LETTERS), len(letters), letters),
            "boxes": Boxes(most),
            "keypoints": Keypoints((most, len(layouts.POINTS), 3)),
            "masks": Regions((most, *square)),
            "layout": Regions((len(layouts.AREAS), *square), names=layouts.AREAS),
            "objs": Tokens((most + 1,), len(things), things),
            "triples": Triples(
                (2 * most if most > 1 else 1, 3), len(relations), relations, most + 1
            ),
            "transients": Quantity((len(TRANSIENTS),), "", 0, 1, TRANSIENTS),
            "relit": Image((3, *square), LEVELS),
        }
        return kinds[name]

    def dataset(self, split: str = "train", fields: Sequence[str] = ("image",)) -> ShapesDataset:
        """The same scenes with any of ``FIELDS``, not padded: factors, captions, graph ..."""
        return ShapesDataset(self.sizes[split], self.size, split, fields, self.seed, self.options)

    def captions(self, split: str, i: int) -> tuple[str, ...]:
        """The five captions of an item, of which ``tokens`` and ``chars`` are the numbers."""
        return captions.captions(self.dataset(split).scene(i))

    def load(self) -> dict[str, Split]:
        """Many scenes are drawn once, and kept for later runs."""

        def draw() -> dict[str, Tensor]:
            splits = {name: self.drawn(name, range(n)) for name, n in self.sizes.items()}
            return {f"{name} {k}": v for name, rows in splits.items() for k, v in rows.items()}

        what = f"{self.spec} {self.sizes} {self.options} {self.seed}"
        many = sum(self.sizes.values()) * self.spec.dim >= KEPT
        found = drawn_once("shapes", what, DRAWING, draw) if many else draw()
        return {name: {k: found[f"{name} {k}"] for k in self.spec} for name in self.sizes}

    def drawn(self, split: str, items: Sequence[int], **but: Any) -> Split:
        """Items of a split, all of their scenes with other factors: ``drawn("val", range(9),
        striped=True)`` (``Scene.but``).
        """
        data = self.dataset(split)
        found = {k: _room(field, len(items)) for k, field in self.spec.items()}
        quick = found["x"].size < SLOW
        for i, item in enumerate(tqdm(items, f"shapes {split}", disable=quick, leave=False)):
            scene = data.scene(item).but(**but)
            for k, rows in found.items():
                value = np.asarray(IN_BATCHES[k](scene, self.size))
                rows[(i, slice(len(value))) if value.ndim else i] = value
        return {k: torch.from_numpy(rows) for k, rows in found.items()}


def _room(field: Field, n: int) -> Array:
    """Zeros for n rows of a field, in what they are stored in."""
    small = isinstance(field, (Image, Tokens)) and not isinstance(field, Label)
    kind = np.uint8 if small else np.int64 if isinstance(field, Label) else np.float32
    return np.zeros((n, *field.shape), kind)


class ShapesDataset(Dataset):
    """Items of a split as dicts of the fields asked for, each computed from the item's scene when
    it is read.

    Args:
        n: number of items. size: 16, 32, 64 or 128 pixels. split: train, val or test. fields: names
            in ``FIELDS``.
        seed: of the scenes. options: what may be in them.
    """

    def __init__(
        self,
        n: int,
        size: int = 32,
        split: str = "train",
        fields: Sequence[str] = ("image",),
        seed: int = 0,
        options: Options = Options(),
    ) -> None:
        for value, of, allowed in (
            (split, "split", SPLITS),
            (size, "size", SIZES),
            *((f, "a field", FIELDS) for f in fields),
        ):
            if value not in allowed:
                raise ValueError(f"{of} is one of {', '.join(map(str, allowed))}, got {value!r}")
        if n < 1 or seed < 0:
            raise ValueError(
                f"there is at least 1 scene, from a seed of at least 0, got {n} and {seed}"
            )
        self.n, self.size, self.split, self.fields, self.seed, self.options = (
            n,
            size,
            split,
            (*fields,),
            seed,
            options,
        )

    def __len__(self) -> int:
        return self.n

    def scene(self, i: int) -> Scene:
        return draw(self.seed, SPLITS.index(self.split), i, self.options)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < self.n:
            raise IndexError(f"item {i} of {self.n}")
        scene = self.scene(i)
        return {name: FIELDS[name](scene, self.size) for name in self.fields}
