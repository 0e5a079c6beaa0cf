"""The embedded default: the 1,797 handwritten digits of scikit-learn (UCI), 8x8 with 17 grey
levels. No download.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from zoo.core.batch import Batch
from zoo.core.noise import Noise
from zoo.core.options import Count, Whole
from zoo.core.spec import DataSpec, Spec
from zoo.data.base import Split, ZooDataModule, split_rows
from zoo.data.left_out import check_left_out, said, without
from zoo.data.transforms import binarise, check_binarise, resize_levels, shift
from zoo.registry import register

LEVELS, SIZES = 17, (8, 16, 32)


@register(
    "digits",
    about="1,797 handwritten digits 8x8, 17 grey levels, 10 classes (scikit-learn); no download",
)
class Digits(ZooDataModule):
    """1,437 training, 180 validation and 180 test digits, split by a fixed permutation (seed 0,
    whatever ``seed``).

    Args:
        size: 8, 16 or 32 pixels; larger ones are resized bilinearly and re-quantised to 17 levels.
        binarize: "none"; "threshold" (x >= 8); "stochastic" (a fresh Bernoulli draw at each visit);
            "fixed" (one draw for good).
        shift: largest random translation in pixels, training only; 0 is off.
        left_out: classes that the training split has no row of.
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes.
        seed: of the order, the augmentation and the binarisation.
    """

    def __init__(
        self,
        size: Count = 8,
        binarize: str = "none",
        shift: Whole = 0,
        left_out: Sequence[Whole] = (),
        batch_size: Count = 64,
        num_workers: Whole = 0,
        seed: Whole = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if size not in SIZES:
            raise ValueError(f"digits come in sizes {', '.join(map(str, SIZES))}, got {size}")
        check_binarise(binarize)
        if shift >= size:
            raise ValueError(f"digits of {size} pixels are shifted by fewer, got shift={shift}")
        check_left_out("digits", left_out, 10)
        self.size, self.binarize, self.shift = size, binarize, shift
        self.left_out = tuple(left_out)

    @cached_property
    def spec(self) -> Spec:
        binary = self.binarize != "none"
        name = f"digits {self.size}x{self.size}" + (
            f" binarised ({self.binarize})" if binary else ""
        )
        name += said(self.left_out)
        return DataSpec((1, self.size, self.size), 2 if binary else LEVELS, 10, name)

    def load(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        x = resize_levels(torch.from_numpy(pixels).view(-1, 1, 8, 8), self.size, LEVELS)
        if self.binarize == "threshold":
            x = binarise(x, LEVELS, "threshold")
        elif self.binarize == "fixed":
            x = binarise(x.float(), LEVELS, "stochastic", Noise(self.seed, "fixed binarisation"))
        x, y = x.to(torch.uint8), torch.from_numpy(labels).long()
        splits = {
            name: {"x": x[rows], "y": y[rows]}
            for name, rows in split_rows(len(x), 0, 180, 180).items()
        }
        return without(splits, self.left_out)

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        if training and self.shift:
            batch["x"] = shift(batch["x"], self.shift, noise)
        if self.binarize == "stochastic":
            batch["x"] = binarise(batch["x"], LEVELS, "stochastic", noise)
        return batch
