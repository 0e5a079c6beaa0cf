"""Your own two domains of images without pairs: a folder each."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from zoo.core.options import Count, Whole
from zoo.core.spec import Spec
from zoo.data.base import Split
from zoo.data.pictures.sides import SPLITS, TwoSides, images_in
from zoo.registry import register


@register(
    "unpaired_folder",
    about="your own two domains: --data.root=FOLDER with trainA/ and trainB/ of images",
)
class UnpairedFolder(TwoSides):
    """The images of ``trainA`` are a, those of ``trainB`` are b; each domain is shuffled on its
    own. Without val and test a tenth of each domain is cut off for either; without one of the two
    the other serves as both.

    What cannot be read is counted, named and skipped. The images are kept in memory.

    Args:
        root: the folder.
        size: height and width of what a model is shown.
        jitter: images are read this many pixels larger and cut, in training at random.
        flip: mirror images in training at random.
        channels: 3 colour or 1 grey.
        max_pixels: images that state more are skipped.
        batch_size, num_workers, seed: as for every data module.
    """

    expected = "trainA/ and trainB/ (and testA/, testB/, valA/, valB/) with images"

    def __init__(
        self,
        root: str,
        size: Count = 64,
        jitter: Whole = 0,
        flip: bool = False,
        channels: Literal[1, 3] = 3,
        max_pixels: Count = 50_000_000,
        batch_size: Count = 4,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.begin(root, size, jitter, flip, channels, max_pixels)
        for side in "AB":
            if not images_in(self.root / f"train{side}"):
                raise ValueError(
                    f"unpaired_folder: no images in {self.root / f'train{side}'}; "
                    f"--data.root holds {self.expected}"
                )
        self.reader.look_over(self.root, [f"{s}{side}" for s in SPLITS for side in "AB"])

    @cached_property
    def spec(self) -> Spec:
        name = f"{self.root.name} {self.size}x{self.size}"
        return Spec(name, a=self.image, b=self.image)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return (("a",), ("b",))

    def load(self) -> dict[str, Split]:
        splits: dict[str, Split] = {name: {} for name in SPLITS}
        for field, side in (("a", "A"), ("b", "B")):
            parts: dict[str, Split] = {}
            for name in SPLITS:
                files = [(path,) for path in images_in(self.root / f"{name}{side}")]
                if files and (found := self.reader.rows(files)):
                    parts[name] = {field: found[0]}
            whole = self.completed(parts, "image", self.root / f"train{side}")
            splits = {name: rows | whole[name] for name, rows in splits.items()}
        return splits
