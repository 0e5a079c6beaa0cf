"""Your own pairs of images: two in one file, side by side, or two folders of files with the same
names.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import Tensor

from zoo.core.options import Count, Whole
from zoo.core.spec import Spec
from zoo.data.base import Split
from zoo.data.pictures.sides import SPLITS, TwoSides, by_stem, images_in
from zoo.registry import register


@register(
    "paired_folder",
    about="your own pairs: --data.root=FOLDER with train/ of images side by side, or trainA/ and "
    "trainB/ of the same names",
)
class PairedFolder(TwoSides):
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

    expected = (
        "train/ (and val/, test/) with both images side by side in each file, or trainA/ and "
        "trainB/ (and valA/, valB/, testA/, testB/) with files of the same names"
    )

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
        self.begin(root, size, jitter, flip, channels, max_pixels)
        self.direction = direction
        self.files = {split: self._files(split) for split in SPLITS}
        if not self.files["train"]:
            raise ValueError(f"paired_folder: no pairs in {self.root}; it holds {self.expected}")
        read = {path.parent.name for files in self.files.values() for row in files for path in row}
        self.reader.look_over(self.root, sorted(read))

    @cached_property
    def spec(self) -> Spec:
        name = f"{self.root.name} {self.size}x{self.size} ({self.direction})"
        return Spec(name, x=self.image, source=self.image)

    def _files(self, split: str) -> list[tuple[Path, ...]]:
        """Of each pair of a split its one file or its two, A's first."""
        if whole := images_in(self.root / split):
            return [(path,) for path in whole]
        a, b = (by_stem(images_in(self.root / f"{split}{side}")) for side in "AB")
        for side, own, other in (("A", a, b), ("B", b, a)):
            for stem in sorted(own.keys() - other.keys()):
                missing = f"{split}{'B' if side == 'A' else 'A'}"
                self.reader.skip(f"no partner in {missing}", own[stem][0].name)
            for first, *more in own.values():
                for path in more:
                    self.reader.skip(f"named as {first.name} is", f"{split}{side}/{path.name}")
        return [(a[stem][0], b[stem][0]) for stem in sorted(a.keys() & b.keys())]

    def load(self) -> dict[str, Split]:
        splits: dict[str, Split] = {}
        for name, files in self.files.items():
            if files:
                halves = ("left", "right") if len(files[0]) == 1 else ("",)
                found = self.reader.rows(files, halves)
                splits |= {name: self._named(found)} if found else {}
        return self.completed(splits, "pair", self.root)

    def _named(self, found: list[Tensor]) -> Split:
        a, b = found
        return {"source": a, "x": b} if self.direction == "AtoB" else {"source": b, "x": a}
