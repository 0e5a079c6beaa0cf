"""Your own two domains of images without pairs: a folder each."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from zoo.core.batch import Batch
from zoo.core.noise import Noise
from zoo.core.options import Count, Whole
from zoo.core.spec import Image, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.data.pictures.sides import SPLITS, Reader, check_root, cut, images_in
from zoo.data.transforms import LEVELS, cropped, flipped
from zoo.registry import register

EXPECTED = "trainA/ and trainB/ (and testA/, testB/, valA/, valB/) with images"
LEAST = 3  # images of a domain, of which train, val and test need one each


@register(
    "unpaired_folder",
    about="your own two domains: --data.root=FOLDER with trainA/ and trainB/ of images",
)
class UnpairedFolder(ZooDataModule):
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
        self.root, self.size = Path(root).expanduser(), size
        self.jitter, self.flip, self.channels = jitter, flip, channels
        check_root("unpaired_folder", self.root, EXPECTED)
        self.reader = Reader(size + jitter, channels, max_pixels)
        for side in "AB":
            if not images_in(self.root / f"train{side}"):
                raise ValueError(
                    f"unpaired_folder: no images in {self.root / f'train{side}'}; "
                    f"--data.root holds {EXPECTED}"
                )

    @cached_property
    def spec(self) -> Spec:
        image = Image((self.channels, self.size, self.size), LEVELS)
        return Spec(f"{self.root.name} {self.size}x{self.size}", a=image, b=image)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return (("a",), ("b",))

    @property
    def found(self) -> dict[str, Any]:
        """That of every data module, ``root``, and number and names of what was ``skipped``."""
        return {**super().found, "root": str(self.root), "skipped": self.reader.found}

    def load(self) -> dict[str, Split]:
        splits: dict[str, Split] = {name: {} for name in SPLITS}
        for field, side in (("a", "A"), ("b", "B")):
            parts = {}
            for name in SPLITS:
                files = [(path,) for path in images_in(self.root / f"{name}{side}")]
                if files and (found := self.reader.rows(files)):
                    parts[name] = found[0]
            if "train" not in parts:
                raise ValueError(
                    f"unpaired_folder: no image of {self.root / f'train{side}'} can be read"
                )
            for one, other in (("val", "test"), ("test", "val")):
                if one not in parts and other in parts:
                    parts[one] = parts[other]
            if "val" not in parts:
                whole = parts["train"]
                if len(whole) < LEAST:
                    raise ValueError(
                        f"unpaired_folder: {self.root / f'train{side}'} has {len(whole)} images "
                        f"that can be read, of which train, val and test need one each; add some"
                    )
                parts = {s: whole[at] for s, at in cut(len(whole), 0.1).items()}
            for name, images in parts.items():
                splits[name][field] = images
        return splits

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        for field in ("a", "b"):  # each on its own
            if self.jitter:
                batch = cropped(batch, self.size, noise if training else None, field)
            batch = flipped(batch, noise, field) if self.flip and training else batch
        return batch
