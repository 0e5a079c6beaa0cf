"""Two domains of images without pairs: images of a base, and other images of it that were changed.

What the change does is known, so a model that was never shown a pair can be told how right it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from zoo.core.batch import ROWS, Batch
from zoo.core.noise import Noise
from zoo.core.options import Count, Whole
from zoo.core.spec import Image, Label, Spec
from zoo.data import head, pointers, portrait, scene
from zoo.data.base import Split, ZooDataModule, apart, made_of
from zoo.data.once import drawn_once
from zoo.data.pointers import angle
from zoo.data.scene import COLOURS, MUTED, SPLITS
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


def hashed(x: Tensor) -> Tensor:
    """A whole number of each image, (B,), by its first channel: equal images have equal ones."""
    h, w = x.shape[2:]
    at = torch.arange(1, h * w + 1, dtype=torch.float64)
    return (x[:, 0].flatten(1).double() * (at.sin() * 1e4).round()).sum(1).long().abs()


def palette(x: Tensor) -> tuple[Tensor, Tensor]:
    """8 inks and 6 grounds, (n, 3, 1, 1) in [0, 1]."""
    inks, grounds = (
        torch.tensor(of, dtype=x.dtype)[..., None, None] / 255
        for of in ([*COLOURS.values()], [*MUTED])
    )
    return inks, 0.6 * grounds


def colour(x: Tensor, levels: int) -> Tensor:
    """Grey in three channels, (B, 3, H, W), as ink of one of 8 colours on one of 6 muted grounds.
    Which they are is a hash of the image, so that the same one always has the same colours.
    """
    sums, (inks, grounds) = hashed(x), palette(x)
    ink, ground = inks[sums % len(inks)], grounds[sums // len(inks) % len(grounds)]
    share = x / (levels - 1)
    return ((ground + share * (ink - ground)) * (levels - 1)).round()


def cluttered(x: Tensor, levels: int) -> Tensor:
    """Grey in three channels, (B, 3, H, W), as ink of one of 8 colours in front of clutter: one of
    6 muted grounds that turns into another from one side to the other, and half as strong, in
    another ink, the image itself upside down, moved sideways by half its width. Which they are is a
    hash of the image.
    """
    sums, (inks, grounds) = hashed(x), palette(x)
    n, m, w = len(inks), len(grounds), x.shape[-1]
    first, other = sums % n, (sums + 1 + sums // n % (n - 1)) % n
    left, right = sums // n**2 % m, (sums // n**2 + 1 + sums // (n**2 * m) % (m - 1)) % m
    slope = torch.linspace(0, 1, w, dtype=x.dtype)
    ground = grounds[left] + slope * (grounds[right] - grounds[left])
    share = x / (levels - 1)
    behind = 0.5 * share.flip(-2).roll(w // 2, -1)
    ground = ground + behind * (inks[other] - ground)
    return ((ground + share * (inks[first] - ground)) * (levels - 1)).round()


CHANGES = {"invert": invert, "edges": edges, "rot90": rot90, "colour": colour}


@dataclass(frozen=True)
class Drawing:
    """A change of what is drawn, of which the pixels of an image do not tell.

    Args:
        base: whose factors it changes. options: of the base, unless others are given. a: factors of
            domain a. b: of domain b; None where that is another picture.
    """

    base: str
    options: dict[str, Any]
    a: dict[str, Any]
    b: dict[str, Any] | None


WITHOUT, WITH = 1.0, 0.0  # numbers of heads that do not wear something, and that do
DRAWINGS = {
    "stripes": Drawing("shapes", {}, {"striped": False}, {"striped": True}),
    "glasses": Drawing("heads", {}, {"glasses": WITHOUT}, {"glasses": WITH}),
    "yaw": Drawing("heads", {"pose": "free", "label": "pose"}, {}, None),
}
KEPT = 20_000_000  # values from which a progress bar is shown, and what was drawn is kept


@register(
    "unpaired",
    about="two domains without pairs: images a of a base (digits), and b, other ones inverted, "
    "turned, reduced to edges, without clutter, or drawn otherwise",
)
class Unpaired(ZooDataModule):
    """Half of the images of each split of a base are a; the other half, changed, are b.

    No image is in both domains, so that no pair exists, and each is shuffled on its own. The class
    y, where the base has one, is that of a. In validation and test a further field, ``oracle_b``,
    is a itself, changed.

    Args:
        base: a data module of images, by its name.
        kind: what becomes of b: "invert", "edges", "rot90" (square images) or "colour" (grey ones:
            a has three equal channels, b is drawn in one colour on another); "clean" is the
            other way: a is in colour, in front of clutter, b is as it was. Of shapes "stripes":
            objects of a are plain, of b striped. Of heads "glasses": those of a wear none, those of
            b do; or "yaw": a are heads that look to all sides, b is a square that is turned by as
            much, with a white dot that points.
        size: pixels of the base's images; 0 is its default.
        options: further ones of the base, by name.
        batch_size: rows of one minibatch on one process, of each domain.
        num_workers: loader processes.
        seed: of the order and of what the base draws.
    """

    def __init__(
        self,
        base: str = "digits",
        kind: Literal[
            "invert", "edges", "rot90", "colour", "clean", "stripes", "glasses", "yaw"
        ] = "invert",
        size: Whole = 0,
        options: dict[str, Any] | None = None,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.drawing = DRAWINGS.get(kind)
        if self.drawing is not None and base != self.drawing.base:
            raise ValueError(
                f"unpaired: {kind} is a change of what {self.drawing.base} draw, got base={base}; "
                f"set --data.base={self.drawing.base}"
            )
        self.given: dict[str, Any] = {
            "seed": seed,
            **({"size": size} if size else {}),
            **(self.drawing.options if self.drawing else {}),
            **(options or {}),
        }
        self.base: Any = made_of("unpaired", base, self.given)
        spec = self.base.spec
        spec.require("unpaired", x=Image, levels=True, square=kind == "rot90")
        if kind in ("colour", "clean") and spec.shape[0] != 1:
            raise ValueError(
                f"unpaired: colour is given to grey images, got {spec}; set --data.kind=invert"
            )
        self.kind, self.levels = kind, spec.levels or 0
        self.looks = kind == "glasses" and self.base.label == "look"  # half of them have glasses

    @cached_property
    def spec(self) -> Spec:
        spec = self.base.spec
        label: dict[str, Any] = {"y": spec["y"]} if spec.num_classes else {}
        if self.looks:
            label["y"] = Label(len(self.class_names))
        plain, in_colour = (Image((c, *spec.shape[1:]), self.levels) for c in (spec.shape[0], 3))
        a = in_colour if self.kind in ("colour", "clean") else plain
        b = in_colour if self.kind == "colour" else plain
        return Spec(f"{spec.name} unpaired ({self.kind})", a=a, b=b, **label)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.base.class_names[:: 2 if self.looks else 1]  # glasses are the lowest bit

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return (("a", "y"), ("b",)) if "y" in self.spec else (("a",), ("b",))

    @property
    def oracle(self) -> Callable[[Tensor], Tensor]:
        """Of images in levels, (B, C, H, W), of domain a: as they would be in b. Data that are
        drawn have none, since that is not in the pixels (``answers``).
        """
        if self.drawing is not None or self.kind == "clean":
            raise AttributeError(f"{self.kind}: what belongs to an image is not a function of it")
        return lambda a: CHANGES[self.kind](a, self.levels)

    def answers(self, split: str, batch: Batch) -> Tensor:
        """What belongs in b to the a of an evaluation batch of any split."""
        if self.kind == "clean":
            own = batch[ROWS] % self.count(split)
            return self.base.evaluation_batch(split, self.split(split)["a"][own])["x"]
        if self.drawing is None:
            return self.oracle(batch["a"])
        kept = self.split(split)["oracle_b"]
        return kept[batch[ROWS] % len(kept)].to(batch["a"].dtype)

    @property
    def angles(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Angles, by name, that can be read off images of b in [0, 1]: radians, (B,)."""
        return {"yaw": angle} if self.kind == "yaw" else {}

    # -- rows -------------------------------------------------------------------------------------
    def load(self) -> dict[str, Split]:
        """Row numbers of the base's images, and the classes of those of a; or what is drawn."""
        if self.drawing is not None:
            return self._drawn(self.drawing)
        splits = {}
        for name in SPLITS:
            if (n := self.base.count(name)) < 2:
                raise ValueError(
                    f"unpaired: {name} of {self.base.spec.name} has {n} image, and a and b need "
                    "one each; add some"
                )
            of_a, of_b = apart(torch.arange(n))
            splits[name] = {"a": of_a, "b": of_b}
            if "y" in self.spec:
                splits[name]["y"] = self.base.split(name)["y"][of_a]
        return splits

    def _drawn(self, drawing: Drawing) -> dict[str, Split]:
        """a, b, what belongs to an a, and the classes of a; where much is drawn, once for all
        runs.
        """
        sizes = self.base.sizes
        values = 3 * sum(sizes.values()) // 2 * self.spec["a"].dim
        if values < KEPT:
            found = self._pictures(drawing, quiet=True)
        else:
            what = f"{self.spec} {self.given} {sizes} {drawing}"
            make = partial(self._pictures, drawing)
            found = drawn_once("unpaired", what, (head, portrait, scene, pointers), make)
        return {
            name: {k: found[f"{name} {k}"] for k in (*self.spec, "oracle_b")} for name in SPLITS
        }

    def _pictures(self, drawing: Drawing, quiet: bool = False) -> dict[str, Tensor]:
        """The fields of all splits, by split and field."""
        found: dict[str, Tensor] = {}
        for name in tqdm(SPLITS, "drawing two domains", disable=quiet, leave=False):
            of_a, of_b = (v.tolist() for v in apart(torch.arange(self.base.sizes[name])))
            a = self.base.drawn(name, of_a, **drawing.a)
            if "y" in self.spec:
                found[f"{name} y"] = a["y"] // 2 if self.looks else a["y"]
            found[f"{name} a"] = a["x"]
            for field, items in (("b", of_b), ("oracle_b", of_a)):
                found[f"{name} {field}"] = self._answer(drawing, name, items)
        return found

    def _answer(self, drawing: Drawing, split: str, items: list[int]) -> Tensor:
        """Items of the base as they are in b."""
        if drawing.b is not None:
            return self.base.drawn(split, items, **drawing.b)["x"]
        return pointers.pointers(self.base.factors(split).rows(items).yaw, self.base.size)

    def rows_of(self, split: str, numbers: Any, index: Tensor) -> Batch:
        """As of any data module; b is not changed yet, unless it is drawn so."""
        if self.drawing is not None:
            return super().rows_of(split, numbers, index)
        rows, source = self.split(split), self.base.split(split)
        a, b = (
            self.base.fetch(source, rows[domain][own])
            for domain, own in zip(("a", "b"), numbers, strict=True)
        )
        label = {"y": a["y"]} if "y" in self.spec else {}
        return Batch({"a": a["x"], "b": b["x"], **label, "index": index}, len(index))

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        """What the base does to its images, to those of each domain, and then the change of b."""
        if self.drawing is not None:
            return batch
        a, b = (
            self.base.transform(Batch({"x": batch[domain]}, batch.n), noise, training)["x"]
            for domain in ("a", "b")
        )
        if self.kind == "clean":
            return Batch({**batch, "a": cluttered(a, self.levels), "b": b}, batch.n)
        a, b = (v.expand(-1, self.spec["a"].shape[0], -1, -1) for v in (a, b))
        return Batch({**batch, "a": a, "b": self.oracle(b)}, batch.n)

    def evaluation_batch(self, split: str, rows: Tensor) -> Batch:
        batch = super().evaluation_batch(split, rows)
        if split == "train":
            return batch
        return Batch({**batch, "oracle_b": self.answers(split, batch)}, batch.n)
