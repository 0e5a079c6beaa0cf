"""Two domains of images without pairs: images of a base, and other images of it that were changed.

What the change does is known, so a model that was never shown a pair can be told how right it is.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from zoo import registry
from zoo.core.batch import Batch
from zoo.core.noise import Noise
from zoo.core.options import Count, Whole
from zoo.core.spec import Image, Spec
from zoo.data.base import Split, ZooDataModule, apart
from zoo.data.scene import COLOURS, MUTED
from zoo.registry import register


def invert(x: Tensor, levels: int) -> Tensor:
    """The negative of images in levels.

    >>> invert(torch.tensor([0, 3, 16]), 17).tolist()
    [16, 13, 0]
    """
    return levels - 1 - x


def edges(x: Tensor, levels: int) -> Tensor:
    """White outlines on black, (B, C, H, W): the pixels of the upper half of the levels that have a
    neighbour, above, below, left or right, in the lower half.

    >>> edges(torch.tensor([[[[0, 9, 9, 9]]]]), 17).tolist()
    [[[[0, 16, 0, 0]]]]
    """
    bright = x >= levels / 2
    dark = torch.zeros_like(bright)
    dark[..., 1:, :] |= ~bright[..., :-1, :]
    dark[..., :-1, :] |= ~bright[..., 1:, :]
    dark[..., 1:] |= ~bright[..., :-1]
    dark[..., :-1] |= ~bright[..., 1:]
    return (bright & dark).to(x.dtype) * (levels - 1)


def rot90(x: Tensor, levels: int) -> Tensor:
    """A quarter turn to the left.

    >>> rot90(torch.tensor([[[[1, 2], [3, 4]]]]), 17).tolist()
    [[[[2, 4], [1, 3]]]]
    """
    return x.rot90(1, (-2, -1))


def colour(x: Tensor, levels: int) -> Tensor:
    """Grey in three channels, (B, 3, H, W), as ink of one of 8 colours on one of 6 muted grounds.
    Which they are is a hash of the image, so that the same one always has the same colours.
    """
    h, w = x.shape[2:]
    at = torch.arange(1, h * w + 1, dtype=torch.float64)
    sums = (x[:, 0].flatten(1).double() * (at.sin() * 1e4).round()).sum(1).long().abs()
    inks, grounds = (
        torch.tensor(of, dtype=x.dtype) / 255 for of in ([*COLOURS.values()], [*MUTED])
    )
    ink, ground = inks[sums % len(inks)], grounds[sums // len(inks) % len(grounds)]
    share = x / (levels - 1)
    ink, ground = ink[:, :, None, None], 0.6 * ground[:, :, None, None]
    return ((ground + share * (ink - ground)) * (levels - 1)).round()


CHANGES = {"invert": invert, "edges": edges, "rot90": rot90, "colour": colour}


@register(
    "unpaired",
    about="two domains without pairs: images a of a base (digits), and b, other ones inverted, "
    "turned or reduced to edges",
)
class Unpaired(ZooDataModule):
    """Half of the images of each split of a base are a; the other half, changed, are b.

    No image is in both domains, so that no pair exists, and each is shuffled on its own. The class
    y, where the base has one, is that of a. In validation and test a further field, ``oracle_b``,
    is a itself, changed.

    Args:
        base: a data module of images, by its name.
        kind: what becomes of b: "invert", "edges", "rot90" (square images) or "colour" (grey ones:
            a has three equal channels, b is drawn in one colour on another).
        size: pixels of the base's images; 0 is its default.
        batch_size: rows of one minibatch on one process, of each domain.
        num_workers: loader processes.
        seed: of the order and of what the base draws.
    """

    def __init__(
        self,
        base: str = "digits",
        kind: Literal["invert", "edges", "rot90", "colour"] = "invert",
        size: Whole = 0,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        options: dict[str, Any] = {"size": size} if size else {}
        self.base: ZooDataModule = registry.get(base, "data")(seed=seed, **options)
        spec = self.base.spec
        spec.require("unpaired", x=Image, levels=True, square=kind == "rot90")
        if kind == "colour" and spec.shape[0] != 1:
            raise ValueError(
                f"unpaired: colour is given to grey images, got {spec}; set --data.kind=invert"
            )
        self.kind, self.levels = kind, spec.levels or 0

    @cached_property
    def spec(self) -> Spec:
        spec = self.base.spec
        label = {"y": spec["y"]} if spec.num_classes else {}
        shape = (3, *spec.shape[1:]) if self.kind == "colour" else spec.shape
        x = Image(shape, self.levels)
        return Spec(f"{spec.name} unpaired ({self.kind})", a=x, b=x, **label)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.base.class_names

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return (("a", "y"), ("b",)) if "y" in self.spec else (("a",), ("b",))

    def oracle(self, a: Tensor) -> Tensor:
        """Images in levels, (B, C, H, W), of domain a as they would be in b."""
        return CHANGES[self.kind](a, self.levels)

    # -- rows -------------------------------------------------------------------------------------
    def load(self) -> dict[str, Split]:
        """Row numbers of the base's images, and the classes of those of a."""
        splits = {}
        for name in ("train", "val", "test"):
            of_a, of_b = apart(torch.arange(self.base.count(name)))
            splits[name] = {"a": of_a, "b": of_b}
            if "y" in self.spec:
                splits[name]["y"] = self.base.split(name)["y"][of_a]
        return splits

    def rows_of(self, split: str, numbers: Any, index: Tensor) -> Batch:
        """As of any data module; b is not changed yet."""
        rows, source = self.split(split), self.base.split(split)
        a, b = (
            self.base.fetch(source, rows[domain][own])
            for domain, own in zip(("a", "b"), numbers, strict=True)
        )
        label = {"y": a["y"]} if "y" in self.spec else {}
        return Batch({"a": a["x"], "b": b["x"], **label, "index": index}, len(index))

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        """What the base does to its images, to those of each domain, and then the change of b."""
        a, b = (
            self.base.transform(Batch({"x": batch[domain]}, batch.n), noise, training)["x"]
            for domain in ("a", "b")
        )
        a, b = (v.expand(-1, self.spec["a"].shape[0], -1, -1) for v in (a, b))
        return Batch({**batch, "a": a, "b": self.oracle(b)}, batch.n)

    def evaluation_batch(self, split: str, rows: Tensor) -> Batch:
        batch = super().evaluation_batch(split, rows)
        return batch if split == "train" else Batch({**batch, "oracle_b": self.oracle(batch["a"])})
