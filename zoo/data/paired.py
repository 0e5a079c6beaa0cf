"""Pairs of a source and the image that is wanted of it: images of a base, and what was made of
them.
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.core.batch import Batch
from zoo.core.noise import Noise
from zoo.core.options import Count, Whole
from zoo.core.spec import Field, Image, Spec
from zoo.data import keyed, spoiled
from zoo.data.base import Split, ZooDataModule, made_of
from zoo.data.once import drawn_once
from zoo.data.scene import SPLITS
from zoo.data.spoiled import grey, hole, outlines, rainy, streaks, summed, torn
from zoo.data.transforms import flipped
from zoo.registry import register

DRAWING = (keyed, spoiled, sys.modules[__name__])  # of the rain
SHRUNK = {"sr2": 2, "sr4": 4}
NEEDS = {"edges": ("layout", "shapes"), "labels": ("layout", "shapes")}  # a field, and whose
NEEDS["frontal"] = ("frontal", "heads")
NEEDS["blend"] = ("relit", "shapes")
OUTDOORS = {"background": "horizon", "transients": True}


@register(
    "paired",
    about="pairs: edges, grey, label maps, small, torn, rainy, patched or turned images, and the "
    "images that belong to them",
)
class Paired(ZooDataModule):
    """Every image x of a base with a ``source`` that was made of it, always the same one.

    Args:
        base: a data module of images, by its name.
        kind: what the source is: "edges", black lines where the scene's label map changes;
            "labels", that map, one plane a label; "colorize", the luminance; "sr2" and "sr4", the
            mean colour of each block of 2x2 or 4x4 pixels; "inpaint", x with a centre square in the
            mean colour of the rest (``mask`` is 1 there); "rain", x behind rain; "frontal", the
            head as it was turned, x being its frontal view; "blend", x outdoors with a centre
            square from the same scene under other transients (``pasted``; ``destination`` is x
            again, ``mask`` is 1 in the square).
        size: pixels of the base's images; 0 is its default.
        options: further options of the base, by name.
        flip: mirror pairs in training, source and image alike, at random.
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes.
        seed: of the order, of the rain, and of what the base draws.
    """

    def __init__(
        self,
        base: str = "shapes",
        kind: Literal[
            "edges", "labels", "colorize", "sr2", "sr4", "inpaint", "rain", "frontal", "blend"
        ] = "edges",
        size: Whole = 0,
        options: dict[str, Any] | None = None,
        flip: bool = False,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        given: dict[str, Any] = {
            "seed": seed,
            **({"size": size} if size else {}),
            **(OUTDOORS if kind == "blend" else {}),
            **(options or {}),
        }
        if kind in NEEDS:
            field, owner = NEEDS[kind]
            if base != owner:
                raise ValueError(
                    f"paired: {kind} are made of {owner}, whose {field} is known, got base={base}; "
                    f"set --data.base={owner}"
                )
            given["fields"] = (*given.get("fields", ()), field)
        self.base: ZooDataModule = made_of("paired", base, given)
        self.kind, self.flip = kind, flip
        spec = self.base.spec
        spec.require(f"paired ({kind})", x=Image, levels=True)
        channels, height, breadth = spec.shape
        if kind == "colorize" and channels != 3:
            raise ValueError(f"paired: only colour images have colours to find, got {spec}")
        shrunk = SHRUNK.get(kind, 1)
        if height % shrunk or breadth % shrunk:
            raise ValueError(
                f"paired: {kind} takes images whose sides are multiples of {shrunk}, got {spec}; "
                f"set --data.size to one"
            )

    @cached_property
    def spec(self) -> Spec:
        spec = self.base.spec
        x: Any = spec["frontal"] if self.kind == "frontal" else spec["x"]
        channels, height, breadth = x.shape
        s = SHRUNK.get(self.kind, 1)
        kinds: dict[str, Field] = {
            "edges": Image((1, height, breadth), 2),
            "labels": spec.get("layout", x),
            "colorize": Image((1, height, breadth), x.levels),
            "frontal": spec["x"],
        }
        small = Image((channels, height // s, breadth // s), s * s * (x.levels - 1) + 1)
        more: dict[str, Field] = {"y": spec["y"]} if spec.num_classes else {}
        if self.kind in ("inpaint", "blend"):
            more["mask"] = Image((1, height, breadth), 2)
        if self.kind == "blend":
            more |= {"pasted": x, "destination": x}
        source = kinds.get(self.kind, small)
        return Spec(f"{spec.name} paired ({self.kind})", x=x, source=source, **more)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.base.class_names

    # -- rows -------------------------------------------------------------------------------------
    def load(self) -> dict[str, Split]:
        """Row numbers of the base's images, their classes, and the rain over them."""
        splits: dict[str, Split] = {}
        for name in SPLITS:
            rows = self.base.split(name)
            splits[name] = {"x": torch.arange(self.base.count(name))}
            splits[name] |= {"y": rows["y"]} if "y" in self.spec else {}
        if self.kind == "rain":
            counts = {name: self.base.count(name) for name in SPLITS}
            what = f"{counts} {self.base.spec.shape} {self.seed}"

            def rain() -> dict[str, Tensor]:
                return {name: self._rain(s, counts[name]) for s, name in enumerate(SPLITS)}

            over = drawn_once("rain", what, DRAWING, rain)
            splits = {name: {**rows, "rain": over[name]} for name, rows in splits.items()}
        return splits

    def _rain(self, split: int, n: int) -> Tensor:
        """(N, 1, H, W) strengths, of each item its own."""
        _, height, breadth = self.base.spec.shape
        rows = (streaks(self.seed, split, i, max(height, breadth)) for i in range(n))
        cut = [torch.from_numpy(r[:height, :breadth]).to(torch.get_default_dtype()) for r in rows]
        return torch.stack(cut)[:, None]

    def rows_of(self, split: str, numbers: Any, index: Tensor) -> Batch:
        """As of any data module; the source is not made yet."""
        (own,) = numbers
        fields = self.base.fetch(self.base.split(split), own)
        if self.kind == "rain":
            fields["rain"] = self.split(split)["rain"][own]
        return Batch({**fields, "index": index}, len(index))

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        """What the base does to its images, the source, and the flip of both."""
        batch = self.base.transform(batch, noise, training)
        pair = {"x": batch["x"], "source": self.source(batch)}
        if self.kind == "frontal":
            pair["x"] = batch["frontal"]
        if self.kind == "blend":
            pair |= {"pasted": batch["relit"], "destination": batch["x"]}
        if self.kind in ("inpaint", "blend"):
            pair["mask"] = self.mask.expand(batch.n, -1, -1, -1)
        rest = {k: batch[k] for k in ("y", "index") if k in batch}
        made = Batch({**pair, **rest}, batch.n)
        return flipped(made, noise, *pair) if self.flip and training else made

    @property
    def mask(self) -> Tensor:
        """(1, 1, H, W): where images are torn or patched."""
        return hole(*self.base.spec.shape[1:]).to(torch.get_default_dtype())[None]

    def source(self, batch: Batch) -> Tensor:
        """What is made of rows of the base, in the levels of ``spec``."""
        x, levels = batch["x"], self.base.spec.levels or 0
        if self.kind in SHRUNK:
            return summed(x, SHRUNK[self.kind])
        if self.kind == "edges":
            return outlines(batch["layout"].argmax(1)).to(x.dtype)
        if self.kind == "rain":
            return rainy(x, batch["rain"], levels)
        if self.kind == "blend":
            return torch.where(self.mask.bool(), batch["relit"], x)
        made = {"colorize": lambda: grey(x), "inpaint": lambda: torn(x, self.mask)}
        plain = {"labels": "layout", "frontal": "x"}
        return made[self.kind]() if self.kind in made else batch[plain[self.kind]]
