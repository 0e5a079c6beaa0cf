"""Your own pairs of images: two in one file, side by side, or two folders of files with the same
names.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from zoo.core.batch import Batch
from zoo.core.noise import Noise
from zoo.core.options import Count, Whole
from zoo.core.spec import Image, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.data.pictures.sides import SPLITS, Reader, by_stem, check_root, cut, images_in
from zoo.data.transforms import LEVELS, cropped, flipped
from zoo.registry import register

EXPECTED = "train/ (and val/, test/) with both images side by side in each file, or trainA/ and "
EXPECTED += "trainB/ (and valA/, valB/, testA/, testB/) with files of the same names"
LEAST = 3  # pairs, of which train, val and test need one each


@register(
    "paired_folder",
    about="your own pairs: --data.root=FOLDER with train/ of images side by side, or trainA/ and "
    "trainB/ of the same names",
)
class PairedFolder(ZooDataModule):
    """Pairs under ``root``: ``train/NAME.jpg`` with A in the left half and B in the right one, or
    ``trainA/NAME.*`` and ``trainB/NAME.*``. Without val and test a tenth of the pairs each is cut
    off; without one of the two the other serves as both.

    What cannot be used (damaged, without its other half) is counted, named and skipped. The images
    are kept in memory.

    Args:
        root: the folder.
        direction: "AtoB" makes B of A, which is the source; "BtoA" the other way.
        size: height and width of what a model is shown.
        jitter: images are read this many pixels larger and cut, in training at random, at the same
            place in both.
        flip: mirror pairs in training, both images alike, at random.
        channels: 3 colour or 1 grey.
        max_pixels: images that state more are skipped.
        batch_size, num_workers, seed: as for every data module.
    """

    def __init__(
        self,
        root: str,
        direction: Literal["AtoB", "BtoA"] = "AtoB",
        size: Count = 64,
        jitter: Whole = 0,
        flip: bool = False,
        channels: Literal[1, 3] = 3,
        max_pixels: Count = 50_000_000,
        batch_size: Count = 16,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.root, self.direction, self.size = Path(root).expanduser(), direction, size
        self.jitter, self.flip, self.channels = jitter, flip, channels
        check_root("paired_folder", self.root, EXPECTED)
        self.reader = Reader(size + jitter, channels, max_pixels)
        self.files = {split: self._files(split) for split in SPLITS}
        if not self.files["train"]:
            raise ValueError(f"paired_folder: no pairs in {self.root}; it holds {EXPECTED}")

    @cached_property
    def spec(self) -> Spec:
        image = Image((self.channels, self.size, self.size), LEVELS)
        name = f"{self.root.name} {self.size}x{self.size} ({self.direction})"
        return Spec(name, x=image, source=image)

    @property
    def found(self) -> dict[str, Any]:
        """That of every data module, ``root``, and number and names of what was ``skipped``."""
        return {**super().found, "root": str(self.root), "skipped": self.reader.found}

    def _files(self, split: str) -> list[tuple[Path, ...]]:
        """Of each pair of a split its one file or its two, A's first."""
        if whole := images_in(self.root / split):
            return [(path,) for path in whole]
        a, b = (by_stem(images_in(self.root / f"{split}{side}")) for side in "AB")
        for side, own, other in (("A", a, b), ("B", b, a)):
            for stem in sorted(own.keys() - other.keys()):
                missing = f"{split}{'B' if side == 'A' else 'A'}"
                self.reader.skip(f"no partner in {missing}", own[stem].name)
        return [(a[stem], b[stem]) for stem in sorted(a.keys() & b.keys())]

    def load(self) -> dict[str, Split]:
        splits: dict[str, Split] = {}
        for name, files in self.files.items():
            if files:
                halves = ("left", "right") if len(files[0]) == 1 else ("",)
                found = self.reader.rows(files, halves)
                splits |= {name: self._named(found)} if found else {}
        if "train" not in splits:
            raise ValueError(f"paired_folder: no pair of {self.root} can be read")
        for one, other in (("val", "test"), ("test", "val")):
            if one not in splits and other in splits:
                splits[one] = splits[other]
        if "val" not in splits:
            rows, n = splits["train"], len(splits["train"]["x"])
            if n < LEAST:
                raise ValueError(
                    f"paired_folder: {self.root} has {n} pairs that can be read, of which train, "
                    f"val and test need one each; add some"
                )
            splits = {s: {k: v[at] for k, v in rows.items()} for s, at in cut(n, 0.1).items()}
        return splits

    def _named(self, found: list[Tensor]) -> Split:
        a, b = found
        return {"source": a, "x": b} if self.direction == "AtoB" else {"source": b, "x": a}

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        pair = ("x", "source")
        if self.jitter:
            batch = cropped(batch, self.size, noise if training else None, *pair)
        return flipped(batch, noise, *pair) if self.flip and training else batch
