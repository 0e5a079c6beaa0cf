"""CelebA from its files: faces with 40 attributes."""

from __future__ import annotations

from pathlib import Path

import torch

from zoo.core.options import Count, Whole
from zoo.core.spec import Attributes
from zoo.data.pictures.listed import Listed, Listing, lines_of, parsed
from zoo.data.pictures.sides import SPLITS
from zoo.registry import register

EXPECTED = (
    "--data.root holds img_align_celeba/NNNNNN.jpg, list_attr_celeba.txt and "
    "list_eval_partition.txt"
)


@register("celeba", about="CelebA from its files: faces, 40 attributes, the official splits")
class CelebA(Listed):
    """The aligned and cropped images of CelebA (Liu et al. 2015), centre-cropped to squares; field
    ``attributes`` has what the list says of each. Images stay in memory: 2.3 GiB of 64 pixels.

    Args:
        root: the folder of img_align_celeba, list_attr_celeba.txt and list_eval_partition.txt.
        size: height and width.
        label: the attribute that is the class y, by its name; "" is none.
        limit: images of each split, the first ones; 0 is all.
        flip: mirror images in training at random.
        max_pixels: images that state more are skipped.
        batch_size, num_workers, seed: as for every data module.
    """

    def __init__(
        self,
        root: str,
        size: Count = 64,
        label: str = "",
        limit: Whole = 0,
        flip: bool = True,
        max_pixels: Count = 50_000_000,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.root = Path(root).expanduser()
        listing, names = self._read()
        if label and label not in names:
            raise ValueError(
                f"celeba: label={label!r} is none of the attributes {', '.join(names)}"
            )
        self.begin(listing, size, flip, limit, label, max_pixels)

    @property
    def where(self) -> Path:
        return self.root

    def _read(self) -> tuple[Listing, tuple[str, ...]]:
        """What both lists say, and the names of the attributes."""
        file = self.root / "list_attr_celeba.txt"
        count, heading, *rows = [*lines_of(file, "celeba", EXPECTED), "", ""]
        names = tuple(heading.split())
        rows = [row for row in rows if row.strip()]
        if not names or not rows:
            raise ValueError(f"celeba: {file} names no attributes and images; {EXPECTED}")
        stated = parsed(count, int, f"{file}, line 1", "the number of images")
        if stated != len(rows):
            raise ValueError(
                f"celeba: {file} states {stated} images and lists {len(rows)}; fetch it again"
            )
        parts, values, files = self._partition(), [], []
        for n, row in enumerate(rows, 3):
            image, *signs = row.split()
            if len(signs) != len(names) or {*signs} - {"1", "-1"}:
                raise ValueError(
                    f"celeba: {file}, line {n}: {len(names)} values of 1 or -1 are expected, got "
                    f"{' '.join(signs)[:40]!r}"
                )
            if image not in parts:
                raise ValueError(
                    f"celeba: list_eval_partition.txt does not say the split of {image}"
                )
            files.append(image)
            values.append([sign == "1" for sign in signs])
        known = {"attributes": torch.tensor(values, dtype=torch.float32)}
        fields = {"attributes": Attributes((len(names),), names)}
        folder = self.root / "img_align_celeba"
        if not folder.is_dir():
            raise ValueError(f"celeba: there is no folder {folder}; {EXPECTED}")
        paths = [folder / image for image in files]
        return Listing(paths, known, fields, [parts[image] for image in files]), names

    def _partition(self) -> dict[str, str]:
        file = self.root / "list_eval_partition.txt"
        found = {}
        for n, row in enumerate(lines_of(file, "celeba", EXPECTED), 1):
            if row.strip():
                image, _, number = row.strip().partition(" ")
                where = f"celeba: {file}, line {n}"
                at = parsed(
                    number, lambda v: {"0": 0, "1": 1, "2": 2}.get(v, "x"), where, "a split"
                )
                if at == "x":
                    raise ValueError(f"{where}: a split is 0, 1 or 2, got {number.strip()!r}")
                found[image] = SPLITS[int(at)]
        return found
