"""Drawn heads of many people: colour images whose identity, pose, age and attributes are known. No
download.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from zoo.core.options import Count, Whole
from zoo.core.spec import Attributes, Field, Image, Label, Quantity, Spec, Vector
from zoo.data import head, portrait
from zoo.data.base import Split, ZooDataModule
from zoo.data.head import AGES, ATTRIBUTES, COEFFICIENTS, DIRECTIONS, POSES, Array, Factors, draw
from zoo.data.once import drawn_once
from zoo.data.portrait import render, visible
from zoo.data.transforms import LEVELS
from zoo.registry import register

WORN = ("glasses", "hat", "beard")  # the bits of a look, lowest first
LOOKS = tuple(
    " + ".join(name for bit, name in enumerate(WORN) if look >> bit & 1) or "plain"
    for look in range(1 << len(WORN))
)
Also = Literal["identity", "pose", "yaw", "age", "attributes", "coefficients", "frontal", "visible"]
DRAWN = ("x", "frontal")
CHUNK = 500  # heads from one step of the progress bar to the next
SLOW = 20_000_000  # values from which it is shown, and what was drawn is kept


@register(
    "heads",
    about="drawn heads of different people 32x32 RGB, 8 looks; identity, pose, age and attributes "
    "known; no download",
)
class Heads(ZooDataModule):
    """Portraits of people who do not exist. Each head has, independently, glasses (30 %), a smile
    (50 %), a hat (20 %), a beard (25 %), an age, a yaw and a light; each identity a skin, hair,
    eyes, nose, mouth and brows.

    Args:
        size: 32 or 64 pixels.
        pose: "aligned" heads fill the frame and turn by up to 0.3 radians; "free" ones are smaller
            and turn by up to 1.2.
        n: training heads. n_val: validation heads. n_test: test heads.
        identities: number of people, the same ones in all splits; 0 makes each head a person of its
            own.
        label: the class: "look", one of 8 combinations of glasses, hat and beard; "pose", one of 5
            directions (equal fifths of the yaw's range); "age", one of 6 groups; "identity", the
            person.
        fields: more of what is known: identity, pose, age (classes), yaw (radians, positive to the
            image's right), attributes (glasses, smile, hat, beard, dark hair), coefficients (the
            identity's 10, standardised; smile; yaw), frontal (the same head looking straight
            ahead), visible (the pixels of frontal that can be seen in x).
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes.
        seed: of the heads and of their order.
    """

    def __init__(
        self,
        size: Literal[32, 64] = 32,
        pose: Literal["aligned", "free"] = "aligned",
        n: Count = 8000,
        n_val: Count = 1000,
        n_test: Count = 1000,
        identities: Whole = 0,
        label: Literal["look", "pose", "age", "identity", "none"] = "look",
        fields: tuple[Also, ...] = (),
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if not identities and "identity" in (label, *fields):
            raise ValueError(
                "heads: identity is asked for, but each head is a person of its own; set the "
                "number of people, e.g. --data.identities=100"
            )
        self.size, self.pose, self.identities = size, pose, identities
        self.label, self.fields = label, tuple(fields)
        self.sizes = {"train": n, "val": n_val, "test": n_test}

    @property
    def class_names(self) -> tuple[str, ...]:
        people = tuple(f"person {j}" for j in range(self.identities))
        names = {"look": LOOKS, "pose": DIRECTIONS, "age": AGES, "identity": people}
        return names.get(self.label, ())

    @cached_property
    def spec(self) -> Spec:
        picture, yaw = (3, self.size, self.size), POSES[self.pose].yaw
        kinds: dict[str, Field] = {
            "identity": Label(max(self.identities, 1)),
            "pose": Label(len(DIRECTIONS)),
            "yaw": Quantity((), "rad", -yaw, yaw),
            "age": Label(len(AGES)),
            "attributes": Attributes((len(ATTRIBUTES),), ATTRIBUTES),
            "coefficients": Vector(len(COEFFICIENTS) + 2),
            "frontal": Image(picture, LEVELS),
            "visible": Image((1, self.size, self.size), 2),
        }
        people = f", {self.identities} people" if self.identities else ""
        name = f"heads {self.size}x{self.size} ({self.pose}{people})"
        y = {"y": Label(len(self.class_names))} if self.label != "none" else {}
        return Spec(name, x=Image(picture, LEVELS), **y, **{k: kinds[k] for k in self.fields})

    def factors(self, split: str = "train") -> Factors:
        """All that is known of the heads of a split."""
        return draw(self.seed, split, range(self.sizes[split]), self.pose, self.identities)

    def load(self) -> dict[str, Split]:
        pictures = self._pictures()
        splits: dict[str, Split] = {}
        for name in self.sizes:
            heads = self.factors(name)
            splits[name] = {
                k: pictures[f"{name} {k}"]
                if k in DRAWN
                else torch.from_numpy(self._field(k, heads))
                for k in self.spec
            }
        return splits

    def drawn(self, split: str, items: Sequence[int], **but: float) -> Split:
        """Items of a split, all of their heads with some numbers set: ``drawn("val", range(9),
        glasses=0.0)`` (``Factors.but``), of which the first shares wear what they may.
        """
        heads = self.factors(split).rows(np.array(items, int)).but(**but)
        return {k: torch.from_numpy(self._seen(k, heads)) for k in self.spec}

    def _seen(self, name: str, heads: Factors) -> Array:
        """One field of some heads, as it is stored."""
        if name not in DRAWN:
            return self._field(name, heads)
        return render(heads if name == "x" else heads.but(yaw=0.5), self.size)

    def _pictures(self) -> dict[str, Tensor]:
        """Every picture by split and field; many are drawn once, and kept for later runs."""
        fields = [k for k in self.spec if k in DRAWN]
        if sum(self.sizes.values()) * len(fields) * self.spec.dim < SLOW:
            return self._drawn(fields)
        what = f"{self.spec.name} {self.sizes} {fields} {self.seed}"
        return drawn_once("heads", what, (head, portrait), lambda: self._drawn(fields))

    def _drawn(self, fields: list[str]) -> dict[str, Tensor]:
        total = sum(self.sizes.values())
        quick = total * len(fields) * self.spec.dim < SLOW
        found: dict[str, Tensor] = {}
        with tqdm(total=total, desc="drawing heads", disable=quick, leave=False) as bar:
            for name in self.sizes:
                heads = self.factors(name)
                parts: dict[str, list[Array]] = {k: [] for k in fields}
                for start in range(0, len(heads), CHUNK):
                    part = heads.rows(slice(start, start + CHUNK))
                    for k in fields:
                        parts[k].append(self._seen(k, part))
                    bar.update(len(part))
                for k in fields:
                    found[f"{name} {k}"] = torch.from_numpy(np.concatenate(parts[k]))
        return found

    def _field(self, name: str, heads: Factors) -> Array:
        """One field of some heads that is no picture of them, as it is stored."""
        if name == "y":
            return self._label(heads)
        if name == "visible":
            return visible(heads, self.size)
        return getattr(heads, {"identity": "person", "pose": "direction"}.get(name, name))

    def _label(self, heads: Factors) -> Array:
        if self.label == "look":
            return sum(
                (heads.has(name).astype(int) << k for k, name in enumerate(WORN)), np.array(0)
            )
        return self._field(self.label, heads)
