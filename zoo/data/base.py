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
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from zoo import registry
from zoo.core.batch import ROWS, Batch
from zoo.core.noise import Noise, seeded
from zoo.core.options import Count, Whole, bound, check_options
from zoo.core.processes import own_group
from zoo.core.spec import Spec, Tokens

Split = dict[str, Tensor]  # one tensor a field, (N, ...), as it is stored
LOOKED_AT = 64  # rows of each split that are tested against the spec when they are loaded


class ZooDataModule(LightningDataModule):
    """Serves splits of one dataset. Subclasses define ``spec`` and ``load``, and may override
    ``fetch``, ``transform`` and ``groups``.

    Args:
        batch_size: rows of one minibatch on one process.
        num_workers: loader processes; 0 is fastest for data that lie in memory.
        seed: of the order, the splits and the augmentation.
    """

    entry: ClassVar[Any] = None  # set by @register

    def __new__(cls, *args: Any, **kwargs: Any):
        module = super().__new__(cls)
        if args or kwargs:  # copy and pickle call without arguments
            name = cls.entry.name if cls.entry else cls.__name__
            check_options(name, cls.__init__, bound(cls, module, args, kwargs))
        return module

    def __init__(self, batch_size: Count = 64, num_workers: Whole = 0, seed: Whole = 0) -> None:
        super().__init__()
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._splits: dict[str, Split] | None = None
        self._told = False

    # -- what a subclass defines ------------------------------------------------------------------
    @property
    def spec(self) -> Spec:
        """Known from the constructor's arguments, before any data are read."""
        raise NotImplementedError

    def load(self) -> dict[str, Split]:
        """The splits "train", "val" and "test": the fields of ``spec``, and whatever else ``fetch``
        needs.
        """
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes of y are called, in their order; none where they are but numbers."""
        return ()

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The fields that belong together row by row. More than one group are domains without
        pairs: in training each is shuffled by a permutation of its own, and the shorter ones begin
        anew before the longest is through. ``apart`` cuts items so that no pair ever exists.
        """
        return (tuple(self.spec),)

    def fetch(self, split: Split, rows: Tensor) -> dict[str, Tensor]:
        """The given rows of (a group's part of) a split, by field, in the units of ``spec``."""
        spec, dtype = self.spec, torch.get_default_dtype()
        return {
            name: value[rows].to(torch.long if isinstance(spec[name], Tokens) else dtype)
            for name, value in split.items()
            if name in spec
        }

    def transform(self, batch: Batch, noise: Noise, training: bool) -> Batch:
        """Augmentation and random binarisation of whole rows, so that what belongs together is
        cropped and flipped alike (``zoo.data.transforms``); every random number from ``noise``.
        """
        return batch

    # -- what callers use -------------------------------------------------------------------------
    def split(self, name: str) -> Split:
        """A split as it is stored; the first call loads all."""
        if self._splits is None:
            self._splits = self.load()
            for part in self._splits:
                self._look_at(part)
        return self._splits[name]

    def count(self, split: str = "train", group: int | None = None) -> int:
        """Rows of a split: of one group, or of the longest."""
        data = self.split(split)
        sizes = [len(data[fields[0]]) for fields in self.groups]
        return max(sizes) if group is None else sizes[group]

    @property
    def found(self) -> dict[str, Any]:
        """What was loaded, as plain values: ``name``, ``spec``, the kind of each of its ``fields``,
        ``rows`` of each split, and rows of each of the ``classes`` that have names. Data from files
        add what they skipped and a ``fingerprint`` by which a changed file is noticed; so do data
        that are made of theirs.
        """
        self.split("train")
        splits, base = self._splits or {}, getattr(self, "base", None)
        rows = {split: self.count(split) for split in splits}
        found: dict[str, Any] = {"name": self.spec.name, "spec": str(self.spec), "rows": rows}
        found["fields"] = {name: type(self.spec[name]).__name__.lower() for name in self.spec}
        if self.class_names:
            labels = torch.cat([part["y"] for part in splits.values()])
            counts = labels.bincount(minlength=len(self.class_names)).tolist()
            found["classes"] = dict(zip(self.class_names, counts, strict=True))
        if isinstance(base, ZooDataModule) and base._splits is not None:  # made of another's images
            found = {**base.found, **found}
        return found

    def setup(self, stage: str | None = None) -> None:
        """Load the data, and print once what was found."""
        self.split("train")
        if not self._told:
            rank_zero_info(told(self.found))
        self._told = True

    def examples(self, n: int | None = None, split: str = "train", start: int = 0) -> Batch:
        """Rows start..start+n-1 of a split (all of them for None), as an evaluation batch."""
        size = self.count(split)
        end = size if n is None else min(start + n, size)
        return self.evaluation_batch(split, torch.arange(start, end))

    def evaluation_batch(self, split: str, rows: Tensor) -> Batch:
        """Rows of a split, not augmented; random binarisation drawn once for each row, whatever the
        batching. Of several groups the shorter ones wrap.
        """
        numbers = [rows % self.count(split, g) for g in range(len(self.groups))]
        batch = self.rows_of(split, numbers, rows)
        noise = Noise(self.seed, "evaluation", split, dtype=torch.get_default_dtype())
        return self.transform(batch, _RowNoise(noise, rows, self.count(split)), training=False)

    def rows_of(self, split: str, numbers: Sequence[Tensor], index: Tensor) -> Batch:
        """One set of row numbers for each group, as a batch that is not transformed."""
        data = self.split(split)
        fields: dict[str, Tensor] = {}
        if len(self.groups) == 1:
            fields |= self.fetch(data, numbers[0])
        else:
            for names, own in zip(self.groups, numbers, strict=True):
                fields |= self.fetch({k: data[k] for k in names}, own)
        return Batch({**fields, ROWS: index}, len(index))

    def train_dataloader(self) -> DataLoader:
        return TrainingLoader(self, self.trainer)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        rows = torch.arange(rank, self.count(split), world).split(self.batch_size)
        return DataLoader(_Rows(self, split), batch_size=None, sampler=_Dealt(rows))

    def _look_at(self, part: str) -> None:
        """Test the first rows of a split against the spec.

        Raises:
            ValueError: a field is missing, or holds what it may not.
        """
        name, data = type(self).__name__, (self._splits or {})[part]
        for fields in self.groups:
            sizes = {k: len(data[k]) for k in fields if k in data}
            if len({*sizes.values()}) > 1:
                raise ValueError(
                    f"{name}: fields that belong together have equally many rows, got {sizes} in "
                    f"{part}; fields of unpaired domains are groups of their own"
                )
        if any(self.count(part, g) < 1 for g in range(len(self.groups))):
            raise ValueError(f"{name}: the split {part} is empty")
        batch = self.evaluation_batch(part, torch.arange(min(LOOKED_AT, self.count(part))))
        for key, field in self.spec.items():
            said = field.faults(batch[key]) if key in batch else "no such field"
            if said:
                raise ValueError(f"{name}: {key} of the split {part} should be {field}, has {said}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trainer": None}  # loader workers need the data, not the trainer


class _Rows(Dataset):
    """Batches by their row numbers; runs in the loader's workers."""

    def __init__(self, data: ZooDataModule, split: str, rank: int = 0, world: int = 1) -> None:
        self.data, self.split, self.rank, self.world = data, split, rank, world

    def __getitem__(self, rows: Any) -> Batch | Exception:
        if self.split != "train":
            return self.data.evaluation_batch(self.split, rows)
        try:
            return self._training_batch(*rows)
        except (ValueError, OSError) as error:
            return error  # a loader would wrap its message in the worker's traceback

    def _training_batch(self, step: int, numbers: Sequence[Tensor]) -> Batch:
        batch = self.data.rows_of("train", numbers, numbers[0])
        dtype = torch.get_default_dtype()
        noise = Noise(
            self.data.seed, "augmentation", step, rank=self.rank, world=self.world, dtype=dtype
        )
        return self.data.transform(batch, noise, training=True)


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

    Args:
        sizes: rows of each group of fields; each has a permutation of its own.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        batches_per_step: Callable[[int], int],
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.sizes, self.batch_size, self.per_step = sizes, batch_size, batches_per_step
        self.seed, self.rank, self.world = seed, rank, world
        self.start = 0

    def wanted(self, step: int) -> int:
        """Rows of a step's global batch."""
        return self.batch_size * self.per_step(step) * self.world

    def __iter__(self) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        sequences = [self._sequence(g) for g in range(len(self.sizes))]
        for step, rows in enumerate(zip(*sequences, strict=True), self.start):
            yield step, tuple(r[self.rank :: self.world] for r in rows)

    def _sequence(self, group: int) -> Iterator[Tensor]:
        """Each step's global batch of rows, from ``start`` on."""
        size, epoch, offset = self.sizes[group], 0, 0
        orders: dict[int, Tensor] = {}
        for step in itertools.count():
            wanted = self.wanted(step)
            if offset and offset + wanted > size:
                epoch, offset = epoch + 1, 0
            passes = -(-(offset + wanted) // size)
            if step >= self.start:  # the rows before are only counted
                epochs = range(epoch, epoch + passes)
                orders = {e: orders[e] if e in orders else self._order(group, e) for e in epochs}
                every = torch.cat([*orders.values()]) if passes > 1 else orders[epoch]
                yield every[offset : offset + wanted]
            epoch, offset = (epoch + passes, 0) if passes > 1 else (epoch, offset + wanted)

    def _order(self, group: int, epoch: int) -> Tensor:
        key = ("order", epoch) if group == 0 else ("order", f"group {group}", epoch)
        return torch.randperm(self.sizes[group], generator=seeded(self.seed, *key))


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
        sizes = [data.count("train", g) for g in range(len(data.groups))]
        sampler = TrainingRows(sizes, data.batch_size, per_step, data.seed, rank, world)
        rows = _Rows(data, "train", rank, world)
        super().__init__(
            rows,
            batch_size=None,
            sampler=sampler,
            num_workers=data.num_workers,
            worker_init_fn=own_group,
        )
        self.clock = trainer
        wanted = sampler.wanted(0)
        if wanted > min(sizes):
            warnings.warn(
                f"one training step takes {wanted} rows but there are {min(sizes)}: rows repeat "
                f"within "
                "a step; lower --data.batch_size or --model.k to avoid it",
                stacklevel=2,
            )
        self.per_epoch = max(max(sizes) // wanted, 1)

    def __len__(self) -> int:
        clock = self.clock
        if clock is not None and clock.max_epochs in (None, -1) and clock.max_steps > 0:
            return clock.max_steps * clock.accumulate_grad_batches
        return self.per_epoch

    def __iter__(self) -> Any:
        self.sampler.start = self._position()
        return _raised(super().__iter__())

    def _position(self) -> int:
        """Batches consumed so far, from the clock alone."""
        if self.clock is None:
            return 0
        accumulate, step = self.clock.accumulate_grad_batches, self.clock.global_step
        if self.clock.max_epochs in (None, -1):
            return step * accumulate
        epoch, within = divmod(step, -(-self.per_epoch // accumulate))
        return epoch * self.per_epoch + within * accumulate


def _raised(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches; what went wrong with the data in a loader's worker is raised here, as it was said
    there.
    """
    for batch in batches:
        if isinstance(batch, Exception):
            raise batch
        yield batch


class _RowNoise(Noise):
    """Noise whose row i belongs to row i of the dataset, so that a validation example is the same
    in every batching.
    """

    def __init__(self, noise: Noise, rows: Tensor, size: int) -> None:
        super().__init__(*noise.key, dtype=noise.dtype)
        self._wanted, self._size = rows, size

    def _rows(self, draw: Any, n: int, shape: tuple[int, ...]) -> Tensor:
        g = seeded(*self.key, self.draws)
        self.draws += 1
        return draw((self._size, *shape), g)[self._wanted]


def told(found: dict[str, Any]) -> str:
    """What a data module found, one line each."""
    rows = ", ".join(f"{split} {n:,}" for split, n in found["rows"].items())
    lines = [f"data: {found['spec']}; {rows}"]
    if classes := found.get("classes"):
        counts = [f"{name} {n:,}" for name, n in classes.items()]
        more = f" ... ({len(counts)} classes)" if len(counts) > 10 else ""
        lines.append(f"  classes: {', '.join(counts[:10])}{more}")
    for reason, names in found.get("skipped", {}).items():
        lines.append(f"  skipped {names['number']:,}: {reason}: {', '.join(names['first'])}")
    lines += [f"  {note}" for note in found.get("notes", ())]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def made_of(owner: str, base: str, options: dict[str, Any]) -> Any:
    """The data module of this name, for another one that is made of its images.

    Raises:
        ValueError: there is none, or it does not take the options; owner and base are named.
    """
    if idle := [key for key in options if key in ("batch_size", "num_workers")]:
        raise ValueError(f"{owner}: set --data.{idle[0]} itself, of its base it does nothing")
    kind: Any = registry.get(base, "data")
    try:
        made = kind(**options)
    except TypeError as error:
        raise ValueError(f"{owner}: its base {base}, by --data.options: {error}") from None
    if type(made).rows_of is not ZooDataModule.rows_of:
        raise ValueError(f"{owner} is made of single images, and not of {base}; set --data.base")
    return made


def split_rows(size: int, seed: int, val: int, test: int) -> dict[str, Tensor]:
    """A fixed permutation of ``size`` rows cut in train, val and test."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    train = size - val - test
    return {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}


def apart(rows: Tensor, parts: int = 2, seed: int = 0) -> list[Tensor]:
    """Items dealt out to domains that are to have no pair: each item to one of them alone."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return [rows[order[part::parts]] for part in range(parts)]
