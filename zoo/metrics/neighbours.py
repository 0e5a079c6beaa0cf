"""Nearest neighbours in the training set, and whether a model copies it.

Distances are euclidean, between pixels in [0, 1] or between features of a named extractor. The
search reads the references block by block and keeps the k best, so its memory does not grow with
the data; processes share the blocks and merge what they found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm.auto import tqdm

from zoo.core.spec import Spec
from zoo.metrics.base import rounding

BLOCK = 512  # references compared at a time
SPARE = 4  # candidates beyond k, whose order rounding may have changed


def nearest(queries: Tensor, blocks: Iterable[tuple[int, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The k nearest references of each query: distances and row numbers, (Q, k), nearest first,
    equal distances in row order. A copy is at distance 0.

    Args:
        queries: (Q, F). blocks: (number of the first row, rows (B, F)) of the references, those of
            this process; the results of all processes are merged. All together hold at least k
            rows.

    >>> blocks = [(0, torch.tensor([[3.0], [1.0]])), (2, torch.tensor([[2.0]]))]
    >>> [v.tolist() for v in nearest(torch.zeros(1, 1), blocks, 2)]
    [[[1.0, 2.0]], [[1, 2]]]
    """
    best = (
        torch.full((len(queries), 0), 0.0, dtype=torch.float64),
        torch.zeros(len(queries), 0, dtype=torch.long),
    )
    queries = queries.double()
    for start, rows in blocks:
        rows = rows.double()
        # a matrix product finds the candidates; their distances are computed pair by pair, so that
        # they depend on no block and a copy has 0
        index = torch.cdist(queries, rows, compute_mode="use_mm_for_euclid_dist").topk(
            min(k + SPARE, len(rows)), largest=False
        )[1]
        far = torch.stack([(rows[i] - q).norm(dim=1) for q, i in zip(queries, index, strict=True)])
        best = _smallest(
            torch.cat([best[0], far.cpu()], 1), torch.cat([best[1], index.cpu() + start], 1), k
        )
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, best)
        best = _smallest(
            torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1), k
        )
    far, index = best
    return torch.where(far <= rounding(queries).cpu(), 0.0, far), index


def _smallest(far: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    by_row = index.argsort(1)
    far, index = far.gather(1, by_row), index.gather(1, by_row)
    order = far.argsort(dim=1, stable=True)[:, :k]
    return far.gather(1, order), index.gather(1, order)


def copying(
    fake: Tensor, held_out: Tensor, fake_to_held_out: Tensor, fake_to_as_many: Tensor
) -> dict[str, float]:
    """Whether samples lie nearer to the training images than fresh data do, from distances to the
    nearest neighbour, (N,) each.

    Args:
        fake: sample to training set. held_out: validation image to training set. fake_to_held_out:
            sample to validation set.
        fake_to_as_many: sample to as many training images as there are validation images.

    Returns:
        ratio: of the medians of ``fake`` and ``held_out``; 1 for fresh data, 0 for copies. Where
            most held-out images are themselves in the training set it is 1 for samples that are,
            and not a number for others. rate: share of samples at least as near as the 1st
            percentile of ``held_out``; .01 for fresh data (or the share of held-out images that are
            in the training set, where that is more), 1 for copies. auc: how often a sample is
            nearer to the training than to the validation images (a tie counts one half); .5 without
            memory.

    >>> copies, fresh = torch.zeros(100), torch.linspace(1, 2, 100)
    >>> copying(copies, fresh, fresh, copies)
    {'ratio': 0.0, 'rate': 1.0, 'auc': 1.0}
    """
    closer, tie = fake_to_as_many < fake_to_held_out, fake_to_as_many == fake_to_held_out
    near, usual = float(fake.median()), float(held_out.median())
    return {
        "ratio": near / usual if usual else math.nan if near else 1.0,
        "rate": float((fake <= held_out.quantile(0.01)).double().mean()),
        "auc": float(closer.double().mean() + tie.double().mean() / 2),
    }


def pixel_features(x: Tensor, spec: Spec) -> Tensor:
    """Pixels in [0, 1], (B, D).

    >>> from zoo.core import DataSpec
    >>> pixel_features(torch.full((1, 1, 1, 2), 8.0), DataSpec((1, 1, 2), 17)).tolist()
    [[0.5, 0.5]]
    """
    return spec.to_unit(x).flatten(1)


class TrainingSet:
    """The training images of a data module, searched by pixels or by an extractor's features.

    Args:
        data: a data module with ``spec``, ``split`` and ``examples``. features: images in levels
            and spec to (B, F).
        rank: number of this process. world: of how many.
    """

    def __init__(
        self,
        data: Any,
        features: Callable[[Tensor, Spec], Tensor],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.data, self.features, self.rank, self.world = data, features, rank, world

    def nearest(
        self, x: Tensor, k: int = 5, split: str = "train", limit: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distances and row numbers in the split of the k nearest images of each image of x (Q,
        *shape), (Q, k).

        Args:
            limit: compare with the first so many images of the split only.
        """
        size = self.data.count(split)
        size = size if limit is None else min(limit, size)
        if k > size:
            raise ValueError(
                f"{k} neighbours are wanted of {size} images of the {split} split; ask for fewer"
            )
        starts = tqdm(
            range(0, size, BLOCK)[self.rank :: self.world],
            desc="nearest neighbours",
            delay=10,
            leave=False,
            disable=self.rank > 0,
        )
        blocks = (
            (
                s,
                self.features(
                    self.data.examples(min(BLOCK, size - s), split, s)["x"], self.data.spec
                ),
            )
            for s in starts
        )
        return nearest(self.features(x.cpu(), self.data.spec), blocks, k)

    def search(self, x: Tensor, k: int = 5) -> tuple[dict[str, float], Tensor, Tensor]:
        """``copying`` of samples x (Q, *shape) against the first validation images (as many as
        there are samples, at least 200), and distances and rows of each sample's k nearest training
        images, (Q, k)."""
        held_out = self.data.examples(max(len(x), 200), "val")["x"]
        far, index = self.nearest(torch.cat([x.cpu().to(held_out.dtype), held_out]), k)
        n = len(held_out)
        values = copying(
            far[: len(x), 0],
            far[len(x) :, 0],
            self.nearest(x, 1, "val", n)[0][:, 0],
            self.nearest(x, 1, "train", n)[0][:, 0],
        )
        return values, far[: len(x)], index[: len(x)]
