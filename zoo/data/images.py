"""What the torchvision datasets have in common: finding or downloading the files, a validation
split, binarisation, resizing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from zoo.core.batch import Batch
from zoo.core.noise import Noise
from zoo.core.options import Count, Whole
from zoo.core.spec import DataSpec, Spec
from zoo.data.base import Split, ZooDataModule
from zoo.data.left_out import check_left_out, said, without
from zoo.data.transforms import LEVELS, binarise, check_binarise, resize_levels, visited


class TorchvisionImages(ZooDataModule):
    """8-bit images of a torchvision dataset; its test split is the test split, of a fixed
    permutation of its training split the last rows are validation, ``val_size`` of them but at most
    a sixth.

    Args:
        root: folder that holds (or will hold) the files; ZOO_DATA or ~/.cache/generative-zoo/data
            by default.
        size: resize to size x size pixels; 0 keeps the original.
        binarize: none, threshold (x >= 128), stochastic (a fresh Bernoulli(x/255) draw at each
            visit), fixed (one draw for good).
        flip: random horizontal flips in training.
        left_out: classes that the training split has no row of.
        batch_size, num_workers, seed: as for every data module.
    """

    name = ""
    dataset = ""
    shape: tuple[int, int, int] = (1, 28, 28)
    classes = 10
    class_names: tuple[str, ...] = ()
    val_size = 10_000

    def __init__(
        self,
        root: str | None = None,
        size: Whole = 0,
        binarize: str = "none",
        flip: bool = False,
        left_out: Sequence[Whole] = (),
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        check_binarise(binarize)
        check_left_out(self.name, left_out, self.classes)
        self.root, self.size, self.binarize, self.flip = root, size, binarize, flip
        self.left_out = tuple(left_out)

    @cached_property
    def spec(self) -> Spec:
        c, h, w = self.shape
        h, w = (self.size, self.size) if self.size else (h, w)
        binary = self.binarize != "none"
        name = f"{self.name} {h}x{w}" + (f" binarised ({self.binarize})" if binary else "")
        name += said(self.left_out)
        return DataSpec((c, h, w), 2 if binary else LEVELS, self.classes, name)

    def load(self) -> dict[str, Split]:
        train, test = self._open(True), self._open(False)
        order = torch.randperm(len(train["x"]), generator=torch.Generator().manual_seed(0))
        cut = len(order) - min(self.val_size, len(order) // 6)
        parts = {
            "train": (train, order[:cut]),
            "val": (train, order[cut:]),
            "test": (test, torch.arange(len(test["x"]))),
        }
        splits = {
            name: {key: value[rows] for key, value in split.items()}
            for name, (split, rows) in parts.items()
        }
        return without(splits, self.left_out)

    def _open(self, train: bool) -> Split:
        import torchvision

        root = Path(
            self.root or os.environ.get("ZOO_DATA") or "~/.cache/generative-zoo/data"
        ).expanduser()
        build: Any = getattr(torchvision.datasets, self.dataset)
        try:
            source = build(root, train=train, download=False)
        except (AssertionError, EOFError, OSError, ValueError) as error:
            raise ValueError(
                f"the files of {self.name} under {root} are damaged "
                f"({type(error).__name__}: {str(error)[:120]}); delete them and they are "
                "downloaded again"
            ) from None
        except RuntimeError:
            try:
                source = build(root, train=train, download=True)
            except Exception as error:
                raise FileNotFoundError(
                    f"{self.name} is not under {root} and cannot be downloaded "
                    f"({str(error).splitlines()[0][:120]}); "
                    f"point --data.root or ZOO_DATA at a folder that "
                    f"torchvision.datasets.{self.dataset} can read"
                ) from None
        x = torch.as_tensor(source.data)
        x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
        if self.size:
            x = resize_levels(x, self.size, LEVELS)
        if self.binarize in ("threshold", "fixed"):
            how = "threshold" if self.binarize == "threshold" else "stochastic"
            x = torch.cat(
                [
                    binarise(b.float(), LEVELS, how, Noise(0, "fixed", train, i))
                    for i, b in enumerate(x.split(1000))
                ]
            )
        return {"x": x.to(torch.uint8), "y": torch.as_tensor(source.targets).long()}

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        return visited(batch, noise, training and self.flip, self.binarize)
