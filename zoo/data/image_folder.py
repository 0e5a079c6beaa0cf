"""Your own images: a folder, zip or tar, with or without class folders, any sizes and modes."""

from __future__ import annotations

import io
import tarfile
import threading
import warnings
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm.auto import tqdm

from zoo.core.batch import Batch
from zoo.core.noise import Noise
from zoo.core.options import Count, Range, Whole
from zoo.core.spec import DataSpec, Spec
from zoo.data.base import Split, ZooDataModule, split_rows
from zoo.data.transforms import flipped
from zoo.registry import register

Part = Annotated[float, Range(0, 1, above=True, below=True)]  # of all images
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
IN_MEMORY = 1 << 30  # bytes of decoded images that are kept in memory


@register(
    "image_folder",
    about="your own images: --data.root=FOLDER, .zip or .tar; class folders give labels",
)
class ImageFolder(ZooDataModule):
    """Images under ``root``, each resized so that its shorter side is ``size`` and centre-cropped
    to size x size.

    Files that cannot be decoded are counted, listed in a warning and skipped; none readable is an
    error. Splits are cut from a fixed permutation of the sorted file names, or are the top folders
    train, val and test, each in a fixed permutation: a split's first rows are of any class.

    Args:
        root: a folder, .zip or .tar(.gz) file of images. Where every image lies in a folder, the
            innermost folder's name is its class.
        size: height and width after resizing.
        channels: 3 colour or 1 grey.
        crop: "centre" crops to a square; "none" resizes both sides, distorting what is not square.
        flip: random horizontal flips in training.
        val, test: share of the images in the validation and test splits.
        batch_size, num_workers, seed: as for every data module.
    """

    def __init__(
        self,
        root: str,
        size: Count = 32,
        channels: Literal[1, 3] = 3,
        crop: str = "centre",
        flip: bool = False,
        val: Part = 0.1,
        test: Part = 0.1,
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if crop not in ("centre", "none"):
            raise ValueError(f"crop is centre or none, got {crop!r}")
        if val + test >= 1:
            raise ValueError(f"val and test are shares below 1 together, got {val} and {test}")
        self.root, self.size, self.channels, self.crop, self.flip, self.shares = (
            Path(root).expanduser(),
            size,
            channels,
            crop,
            flip,
            (val, test),
        )
        self._source = Source(self.root)
        self.names = self._source.names
        folders = [Path(n).parent.name for n in self.names]
        self.given_splits = _given_splits(self.names)
        labelled = (
            all(folders)
            and len(set(folders)) > 1
            and not (self.given_splits and set(folders) <= {"train", "val", "test"})
        )
        self.classes = sorted(set(folders)) if labelled else []

    @cached_property
    def spec(self) -> Spec:
        shape = (self.channels, self.size, self.size)
        return DataSpec(shape, 256, len(self.classes), f"{self.root.name} {self.size}x{self.size}")

    def load(self) -> dict[str, Split]:
        good, images, bad = [], [], []
        keep = len(self.names) * self.channels * self.size**2 <= IN_MEMORY
        for i, name in enumerate(
            tqdm(self.names, desc="reading images", disable=len(self.names) < 2000)
        ):
            try:
                image = self._decode(i)
            except (
                UnidentifiedImageError,
                OSError,
                ValueError,
                SyntaxError,
                Image.DecompressionBombError,
            ) as error:
                bad.append(f"{name} ({type(error).__name__})")
                continue
            good.append(i)
            if keep:
                images.append(image)
        if bad:
            warnings.warn(
                f"{len(bad)} of {len(self.names)} images cannot be read and are skipped: "
                f"{', '.join(bad[:10])}",
                stacklevel=2,
            )
        if not good:
            raise ValueError(
                f"none of the {len(self.names)} images under {self.root} can be read, e.g. {bad[0]}"
            )
        if len(good) < 3:
            raise ValueError(
                f"{self.root} has {len(good)} readable images; train, val and test need at least 3"
            )
        everything: Split = {"x": torch.stack(images) if keep else torch.tensor(good)}
        if self.classes:
            number = {name: i for i, name in enumerate(self.classes)}
            everything["y"] = torch.tensor([number[Path(self.names[i]).parent.name] for i in good])
        return {
            s: {k: v[rows] for k, v in everything.items()} for s, rows in self._rows(good).items()
        }

    def _rows(self, good: list[int]) -> dict[str, Tensor]:
        if self.given_splits:
            of = [self.given_splits[self.names[i]] for i in good]
            found = {
                s: torch.tensor([j for j, o in enumerate(of) if o == s], dtype=torch.long)
                for s in ("train", "val", "test")
            }
            if len(found["train"]) and (len(found["val"]) or len(found["test"])):
                for a, b in (("val", "test"), ("test", "val")):
                    found[a] = found[a] if len(found[a]) else found[b]
                return {
                    s: rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
                    for s, rows in found.items()
                }
        return split_rows(
            len(good), 0, *(max(1, round(share * len(good))) for share in self.shares)
        )

    def fetch(self, split: Split, rows: Tensor) -> dict[str, Tensor]:
        if split["x"].ndim > 1:
            return super().fetch(split, rows)
        x = torch.stack([self._decode(i) for i in split["x"][rows].tolist()])
        labels = {"y": split["y"][rows]} if "y" in split else {}
        return {"x": x.to(torch.get_default_dtype()), **labels}

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        return flipped(batch, noise, "x") if training and self.flip else batch

    def _decode(self, i: int) -> Tensor:
        """Image i as uint8 levels, (C, size, size)."""
        with Image.open(io.BytesIO(self._source.read(self.names[i]))) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            image = image.convert("RGB" if self.channels == 3 else "L")
            size = (self.size, self.size)
            resample = Image.Resampling.LANCZOS
            image = (
                ImageOps.fit(image, size, resample)
                if self.crop == "centre"
                else image.resize(size, resample)
            )
            return pil_to_tensor(image)


class Source:
    """The image files of a folder or archive by name; archives are opened once in each process."""

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise FileNotFoundError(
                f"no images at {root}; --data.root takes a folder, a .zip or a .tar file"
            )
        self.root, self._local = root, threading.local()
        try:
            if root.is_dir():
                names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
            elif zipfile.is_zipfile(root):
                with zipfile.ZipFile(root) as archive:
                    names = archive.namelist()
            else:
                with tarfile.open(root) as archive:
                    names = [m.name for m in archive if m.isfile()]
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(
                f"{root} is neither a folder nor a readable zip or tar file ({error})"
            ) from None
        self.names = sorted(
            n for n in names if n.lower().endswith(SUFFIXES) and not Path(n).name.startswith(".")
        )
        if not self.names:
            raise ValueError(
                f"{root} holds no images ({len(names)} files, none ending in {' '.join(SUFFIXES)})"
            )

    def read(self, name: str) -> bytes:
        if self.root.is_dir():
            return (self.root / name).read_bytes()
        archive = getattr(self._local, "archive", None)
        if archive is None:
            opened = zipfile.ZipFile if zipfile.is_zipfile(self.root) else tarfile.open
            archive = opened(self.root)
            self._local.archive = archive
        if isinstance(archive, zipfile.ZipFile):
            return archive.read(name)
        file = archive.extractfile(name)
        assert file is not None
        return file.read()

    def __getstate__(self) -> dict:
        return {"root": self.root, "names": self.names}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _local=threading.local())


def _given_splits(names: list[str]) -> dict[str, str]:
    """The split each name states by its top folder, if train and one more are there; empty
    otherwise.
    """
    tops = {n: Path(n).parts[0] for n in names}
    return (
        tops
        if set(tops.values()) <= {"train", "val", "test"}
        and len({*tops.values()}) > 1
        and "train" in tops.values()
        else {}
    )
