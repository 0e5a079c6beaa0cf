"""The base of every data module: deterministic splits, and training batches that are a pure
function of (seed, step).

Row order is a fresh permutation an epoch, dealt out to W processes in turn (process r takes rows r,
r+W, ... of each global batch). The position follows from ``trainer.global_step`` alone, so resuming
at any step continues the very same stream, with any number of workers, and W processes with batch B
see the rows of one process with batch W·B.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from zoo.core.noise import Noise, generator
from zoo.core.spec import DataSpec

Batch = dict[str, Tensor]
Split = dict[str, Tensor]  # "x" (N, ...) raw, "y" (N,) labels where there are any


class ZooDataModule(LightningDataModule):
    """Serves splits of one dataset. Subclasses define ``spec`` and ``load``, and may override
    ``fetch`` and ``transform``.

    Args:
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes; 0 is fastest for data that lie in memory.
        seed: of the order, the splits and the augmentation.
    """

    def __init__(self, batch_size: int = 64, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, got {batch_size}")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._splits: dict[str, Split] | None = None

    # -- what a subclass defines ------------------------------------------------------------------
    @property
    def spec(self) -> DataSpec:
        """Known from the constructor's arguments, before any data are read."""
        raise NotImplementedError

    def load(self) -> dict[str, Split]:
        """The splits "train", "val" and "test"."""
        raise NotImplementedError

    def fetch(self, split: Split, rows: Tensor) -> Batch:
        """The given rows of a split: ``x`` float in the units of ``spec``, ``y`` if labelled,
        ``index``.
        """
        batch = {"x": split["x"][rows].to(torch.get_default_dtype()), "index": rows}
        if "y" in split:
            batch["y"] = split["y"][rows]
        return batch

    def transform(self, x: Tensor, noise: Noise, training: bool) -> Tensor:
        """Augmentation and random binarisation; every random number from ``noise``."""
        return x

    # -- what callers use -------------------------------------------------------------------------
    def split(self, name: str) -> Split:
        if self._splits is None:
            self._splits = self.load()
        return self._splits[name]

    def setup(self, stage: str | None = None) -> None:
        self.split("train")

    def examples(self, n: int | None = None, split: str = "train", start: int = 0) -> Batch:
        """Rows start..start+n-1 of a split (all of them for None), as an evaluation batch."""
        data = self.split(split)
        size = len(data["x"])
        return self.evaluation_batch(
            split, torch.arange(start, size if n is None else min(start + n, size))
        )

    def evaluation_batch(self, split: str, rows: Tensor) -> Batch:
        """Rows of a split, not augmented; random binarisation drawn once for each row, whatever the
        batching.
        """
        batch = self.fetch(self.split(split), rows)
        noise = Noise(self.seed, "evaluation", split, dtype=batch["x"].dtype)
        batch["x"] = self.transform(
            batch["x"], _RowNoise(noise, rows, len(self.split(split)["x"])), training=False
        )
        return batch

    def train_dataloader(self) -> DataLoader:
        return TrainingLoader(self, self.trainer)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        rows = torch.arange(rank, len(self.split(split)["x"]), world).split(self.batch_size)
        return DataLoader(_Rows(self, split), batch_size=None, sampler=_Dealt(rows))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trainer": None}  # loader workers need the data, not the trainer


class _Rows(Dataset):
    """Batches by their row numbers; runs in the loader's workers."""

    def __init__(self, data: ZooDataModule, split: str, rank: int = 0, world: int = 1) -> None:
        self.data, self.split, self.rank, self.world = data, split, rank, world

    def __getitem__(self, rows: Any) -> Batch:
        if self.split != "train":
            return self.data.evaluation_batch(self.split, rows)
        step, rows = rows
        batch = self.data.fetch(self.data.split("train"), rows)
        noise = Noise(
            self.data.seed,
            "augmentation",
            step,
            rank=self.rank,
            world=self.world,
            dtype=batch["x"].dtype,
        )
        batch["x"] = self.data.transform(batch["x"], noise, training=True)
        return batch


class _Dealt(DistributedSampler):
    """A sampler that already holds this process's share; its class tells Lightning to leave it
    alone.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        pass


class TrainingRows(_Dealt):
    """The endless sequence of (step, row numbers) of this process; element j depends on nothing but
    the seed and j.

    ``start`` is the step to begin with. A step takes ``batch_size * batches_per_step(step)`` rows
    on each process. An epoch's last rows are dropped where they do not fill a step, so that no row
    comes twice in one.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        batches_per_step: Callable[[int], int],
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.size, self.batch_size, self.per_step, self.seed, self.rank, self.world = (
            size,
            batch_size,
            batches_per_step,
            seed,
            rank,
            world,
        )
        self.start = 0

    def wanted(self, step: int) -> int:
        """Rows of a step's global batch."""
        return self.batch_size * self.per_step(step) * self.world

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        epoch = offset = 0
        orders: dict[int, Tensor] = {}
        for step in itertools.count():
            wanted = self.wanted(step)
            if offset and offset + wanted > self.size:
                epoch, offset = epoch + 1, 0
            passes = -(-(offset + wanted) // self.size)
            if step >= self.start:
                orders = {
                    e: orders[e] if e in orders else self._order(e)
                    for e in range(epoch, epoch + passes)
                }
                rows = (
                    torch.cat([*orders.values()])[offset : offset + wanted]
                    if passes > 1
                    else orders[epoch][offset : offset + wanted]
                )
                yield step, rows[self.rank :: self.world]
            epoch, offset = (epoch + passes, 0) if passes > 1 else (epoch, offset + wanted)

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(self.size, generator=generator(self.seed, "order", epoch))


class TrainingLoader(DataLoader):
    """Training batches that begin where the trainer's clock stands.

    Its length is the whole run (``max_steps``), or one pass over the data where ``max_epochs`` is
    set.
    """

    sampler: TrainingRows

    def __init__(self, data: ZooDataModule, trainer: Any) -> None:
        module: Any = getattr(trainer, "lightning_module", None)
        per_step = (
            module.batches_per_step if hasattr(module, "batches_per_step") else lambda step: 1
        )
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        size = len(data.split("train")["x"])
        sampler = TrainingRows(size, data.batch_size, per_step, data.seed, rank, world)
        super().__init__(
            _Rows(data, "train", rank, world),
            batch_size=None,
            sampler=sampler,
            num_workers=data.num_workers,
        )
        self._trainer = trainer
        wanted = sampler.wanted(0)
        if wanted > size:
            warnings.warn(
                f"one training step takes {wanted} rows but there are {size}: rows repeat within "
                f"a step; "
                "lower --data.batch_size or --model.k to avoid it",
                stacklevel=2,
            )
        self.per_epoch = max(size // wanted, 1)

    def __len__(self) -> int:
        trainer = self._trainer
        if trainer is not None and trainer.max_epochs in (None, -1) and trainer.max_steps > 0:
            return trainer.max_steps * trainer.accumulate_grad_batches
        return self.per_epoch

    def __iter__(self) -> Any:
        self.sampler.start = self._position()
        return super().__iter__()

    def _position(self) -> int:
        """Batches consumed so far, from the clock alone."""
        if self._trainer is None:
            return 0
        accumulate, step = self._trainer.accumulate_grad_batches, self._trainer.global_step
        if self._trainer.max_epochs in (None, -1):
            return step * accumulate
        epoch, within = divmod(step, -(-self.per_epoch // accumulate))
        return epoch * self.per_epoch + within * accumulate


class _RowNoise(Noise):
    """Noise whose row i belongs to row i of the dataset, so that a validation example is the same
    in every batching.
    """

    def __init__(self, noise: Noise, rows: Tensor, size: int) -> None:
        super().__init__(*noise.key, dtype=noise.dtype)
        self._wanted, self._size = rows, size

    def _rows(self, draw: Any, n: int, shape: tuple[int, ...]) -> Tensor:
        g = generator(*self.key, self.draws)
        self.draws += 1
        return draw((self._size, *shape), g)[self._wanted]


def split_rows(size: int, seed: int, val: int, test: int) -> dict[str, Tensor]:
    """A fixed permutation of ``size`` rows cut in train, val and test."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    train = size - val - test
    return {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}
