"""Your own images: a folder, archive, array file or table, with or without classes, any sizes and
modes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from tqdm.auto import tqdm

from zoo.core.batch import Batch
from zoo.core.because import because
from zoo.core.noise import Noise
from zoo.core.options import Count, Range, Whole
from zoo.core.spec import DataSpec, Spec
from zoo.data.base import Split, ZooDataModule, split_rows
from zoo.data.pictures import TooLarge, decode, open_source
from zoo.data.pictures.decode import BYTES_A_PIXEL
from zoo.data.pictures.layout import lay_out
from zoo.data.pictures.rows import Columns
from zoo.data.pictures.source import fingerprint
from zoo.data.transforms import LEVELS, binarise, check_binarise, visited
from zoo.registry import register

Part = Annotated[float, Range(0, 1, above=True, below=True)]  # of all images
IN_MEMORY = 1 << 30  # bytes of decoded images that are kept in memory
NAMED = 3  # names that stand for each reason why images are skipped


@register(
    "image_folder",
    about="your own images: --data.root=FOLDER, .zip, .tar, .npz, .parquet, .csv ...; class "
    "folders or columns give labels",
)
class ImageFolder(ZooDataModule):
    """Images under ``root``, each resized so that its shorter side is ``size`` and centre-cropped
    to size x size.

    What cannot be used is counted, listed and skipped, and stands in ``found``; none readable is an
    error. Splits are what ``root`` says (folders, names or a column train, val and test), else cut
    from a fixed permutation of the sorted names. A split's first rows are of any class.

    Args:
        root: a folder, .zip or .tar(.gz, .bz2, .xz) of images; a .npz or .npy of arrays; a .csv,
            .tsv, .jsonl or .json that lists paths; a .parquet; a folder that ``save_to_disk`` of
            Hugging Face's datasets wrote. A column of labels, metadata.csv or the innermost
            folder's name says an image's class.
        size: height and width after resizing.
        channels: 3 colour or 1 grey.
        crop: "centre" crops to a square; "none" resizes both sides, distorting what is not square.
        flip: random horizontal flips in training.
        val, test: share of the images in the validation and test splits.
        batch_size, num_workers, seed: as for every data module.
        binarize: none, threshold (x >= 128), stochastic (a fresh Bernoulli(x/255) draw at each
            visit), fixed (one draw for good).
        labels: whether classes are used; false takes images without a class too.
        image_column, label_column: columns of a table, or arrays of an .npz, that hold the images
            and their classes; by default those of the usual names.
        max_pixels: images that state more are counted and skipped before they are decoded.
    """

    def __init__(
        self,
        root: str,
        size: Count = 32,
        channels: Literal[1, 3] = 3,
        crop: Literal["centre", "none"] = "centre",
        flip: bool = False,
        val: Part = 0.1,
        test: Part = 0.1,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
        binarize: str = "none",
        labels: bool = True,
        image_column: str | None = None,
        label_column: str | None = None,
        max_pixels: Count = 50_000_000,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        check_binarise(binarize)
        if val + test >= 1:
            raise ValueError(f"val and test are shares below 1 together, got {val} and {test}")
        self.root = Path(root).expanduser()
        self.size, self.channels, self.crop, self.max_pixels = size, channels, crop, max_pixels
        self.flip, self.binarize, self.shares = flip, binarize, (val, test)
        self.source = open_source(self.root, Columns(image_column, label_column, labels))
        self.layout = lay_out(self.source, labels)
        self.names = [self.source.items[i].name for i in self.layout.kept]
        self.classes = self.layout.classes
        self._skipped: dict[str, list[str]] = {**self.source.skipped, **self.layout.skipped}
        self._notes: list[str] = []
        self._fingerprint, self._counts, self._used = "", Counter[int](), 0

    @cached_property
    def spec(self) -> Spec:
        shape = (self.channels, self.size, self.size)
        binary = self.binarize != "none"
        name = f"{self.root.name} {self.size}x{self.size}"
        name += f" binarised ({self.binarize})" if binary else ""
        return DataSpec(shape, 2 if binary else LEVELS, len(self.classes), name)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.classes)

    @property
    def found(self) -> dict[str, Any]:
        """That of every data module, and: ``root``, ``images`` (number of those used), ``classes``
        (images of each that are used), ``skipped`` (number and first names, by reason),
        ``fingerprint`` (of the names and sizes of each split's images), ``notes``.
        """
        return {
            **super().found,
            "root": str(self.root),
            "images": self._used,
            "classes": {name: self._counts[i] for i, name in enumerate(self.classes)},
            "skipped": {
                reason: {"number": len(names), "first": names[:NAMED]}
                for reason, names in self._skipped.items()
            },
            "fingerprint": self._fingerprint,
            "notes": [*self.source.notes, *self.layout.notes, *self._notes],
        }

    # -- loading ----------------------------------------------------------------------------------
    def load(self) -> dict[str, Split]:
        kept, n = self.layout.kept, len(self.layout.kept)
        decoded = n * self.channels * self.size**2
        keep = decoded <= IN_MEMORY or self.source.sequential
        if keep and decoded > IN_MEMORY:
            self._notes.append(
                f"{decoded / (1 << 30):.1f} GiB of decoded images are kept in memory: "
                f"{self.root.name} cannot be read out of order (a folder can)"
            )
        images, good = self._decode_all(keep)
        self._used = len(good)
        everything: Split = {"x": images if keep else torch.tensor(kept)}
        if self.classes:
            everything["y"] = torch.tensor(self.layout.labels)
            self._counts.update(self.layout.labels[j] for j in good)
        splits = self._rows(good)
        self._fingerprint = self._hashed({s: [good[r] for r in rows] for s, rows in splits.items()})
        at = torch.tensor(good)
        return {s: {k: v[at[rows]] for k, v in everything.items()} for s, rows in splits.items()}

    def _decode_all(self, keep: bool) -> tuple[Tensor, list[int]]:
        """The images as levels (where they are kept) and the numbers of those that can be read."""
        kept = self.layout.kept
        position = {i: j for j, i in enumerate(kept)}
        order = [position[i] for i in self.source.in_storage_order() if i in position]
        shape = (self.channels, self.size, self.size)
        images = torch.zeros(len(kept) if keep else 0, *shape, dtype=torch.uint8)
        good, bad, remarked = [], {}, Counter[str]()
        for j in tqdm(order, desc="reading images", disable=len(order) < 2000):
            try:
                levels, remarks = self._decode(kept[j])
            except Exception as error:  # whatever a damaged file makes a decoder raise
                bad[j] = error
                continue
            good.append(j)
            remarked.update(remarks)
            if keep:
                images[j] = levels
        self._notes += [f"{n:,} images: {remark}" for remark, n in remarked.items()]
        self._skip(dict(sorted(bad.items())))
        return images, sorted(good)

    def _skip(self, bad: dict[int, Exception]) -> None:
        """Count the images that cannot be used, and warn."""
        if not bad:
            return
        reasons: dict[str, list[str]] = defaultdict(list)
        for j, error in bad.items():
            large = isinstance(error, TooLarge)
            said = f"{self.names[j]} ({because(error)})"
            limit = f"larger than --data.max_pixels={self.max_pixels}"
            reasons[limit if large else "cannot be read"].append(said)
        self._skipped.update(reasons)
        first = ", ".join(said for names in reasons.values() for said in names[:NAMED])
        if len(bad) == len(self.names):
            raise ValueError(
                f"none of the {len(bad)} images under {self.root} can be read: {first}"
            )
        rank_zero_warn(
            f"{len(bad)} of {len(self.names)} images cannot be read and are skipped: {first}"
        )

    def _rows(self, good: list[int]) -> dict[str, Tensor]:
        """The rows of each split among the readable images."""
        if not self.layout.splits:
            return self._cut(torch.arange(len(good)))
        if self.shares != (0.1, 0.1):
            self._notes.append("--data.val and --data.test are not used: the data have splits")
        of = [self.layout.splits[j] for j in good]
        given = {
            s: torch.tensor([r for r, o in enumerate(of) if o == s], dtype=torch.long)
            for s in ("train", "val", "test")
        }
        if not len(given["train"]):
            raise ValueError(f"{self.root}: no image of the split train can be read")
        if not len(given["val"]) and not len(given["test"]):
            self._notes.append("no image of val and test can be read: they are cut from train")
            return self._cut(given["train"])
        for a, b in (("val", "test"), ("test", "val")):
            if not len(given[a]):
                self._notes.append(f"there is no split {a}: the images of {b} serve as both")
                given[a] = given[b]
        order = {s: torch.Generator().manual_seed(0) for s in given}
        return {s: rows[torch.randperm(len(rows), generator=order[s])] for s, rows in given.items()}

    def _cut(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows cut in train, val and test by their shares, each at least one."""
        if len(rows) < 3:
            raise ValueError(
                f"{self.root} has {len(rows)} readable images; train, val and test need at least 3"
            )
        sizes = [max(1, round(share * len(rows))) for share in self.shares]
        while sum(sizes) >= len(rows):
            sizes[sizes.index(max(sizes))] -= 1
        self._notes.append("splits are cut by a fixed permutation of the sorted names")
        return {s: rows[r] for s, r in split_rows(len(rows), 0, *sizes).items()}

    def _hashed(self, splits: dict[str, list[int]]) -> str:
        """A hash of the names and stated sizes of each split's images."""
        items = [
            (split, self.source.items[self.layout.kept[j]])
            for split, numbers in splits.items()
            for j in numbers
        ]
        return fingerprint(f"{split} {item.name} {item.size}" for split, item in items)

    # -- serving ----------------------------------------------------------------------------------
    def fetch(self, split: Split, rows: Tensor) -> dict[str, Tensor]:
        if split["x"].ndim > 1:
            return super().fetch(split, rows)
        x = torch.stack([self._again(i) for i in split["x"][rows].tolist()])
        labels = {"y": split["y"][rows]} if "y" in split else {}
        return {"x": x.to(torch.get_default_dtype()), **labels}

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        return visited(batch, noise, training and self.flip, self.binarize)

    def _decode(self, i: int) -> tuple[Tensor, list[str]]:
        """Image i as uint8 levels, (C, size, size), and remarks on how it was read."""
        item = self.source.items[i]
        if item.size > BYTES_A_PIXEL * self.max_pixels:
            raise TooLarge(f"{item.size:,} bytes")
        stored = self.source.read(item)
        levels, remarks = decode(stored, self.size, self.channels, self.crop, self.max_pixels)
        if self.binarize in ("threshold", "fixed"):
            how = "threshold" if self.binarize == "threshold" else "stochastic"
            noise = Noise(0, "fixed binarisation", item.name)
            levels = binarise(levels[None].float(), LEVELS, how, noise)[0].to(torch.uint8)
        return levels, remarks

    def _again(self, i: int) -> Tensor:
        """Image i, which could be read when the data were loaded."""
        try:
            return self._decode(i)[0]
        except Exception as error:
            raise ValueError(
                f"{self.root}: {self.source.items[i].name} could be read when the run began and "
                f"cannot be now ({because(error)}); put it back and "
                "resume the run"
            ) from None
