"""Training batches are a function of (seed, step): the same for any workers, after resuming, and
shared out over processes.
"""

import itertools

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given
from zoo.core import Batch, DataSpec, Image, Quantity, Spec, Vector
from zoo.data.base import TrainingRows, ZooDataModule
from zoo.data.digits import Digits
from zoo.data.transforms import cropped, flipped


def rows(size=50, batch=4, k=lambda step: 1, seed=0, rank=0, world=1, start=0, n=30):
    sampler = TrainingRows([size], batch, k, seed, rank, world)
    sampler.start = start
    return [(step, r.tolist()) for step, (r,) in itertools.islice(sampler, n)]


def test_an_epoch_visits_every_row_once():
    seen = [r for _, batch in rows(size=48, n=12) for r in batch]
    assert sorted(seen) == list(range(48))


def test_epochs_differ_in_order_and_seeds_too():
    first, second = rows(size=48, n=24)[:12], rows(size=48, n=24)[12:]
    assert [b for _, b in first] != [b for _, b in second]
    assert rows(seed=1) != rows(seed=0)


@pytest.mark.parametrize("start", [1, 11, 12, 13, 29])
@pytest.mark.parametrize(
    "k", [lambda s: 1, lambda s: 3, lambda s: 5 if s % 4 == 0 else 1], ids=["1", "3", "bursts"]
)
def test_starting_at_a_step_continues_the_very_same_sequence(start, k):
    assert rows(k=k, start=start, n=10) == rows(k=k, n=start + 10)[start:]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_deal_out_the_rows_of_one(world):
    whole = rows(size=97, batch=2 * world, n=20)
    for rank in range(world):
        part = rows(size=97, batch=2, rank=rank, world=world, n=20)
        assert part == [(step, batch[rank::world]) for step, batch in whole]


def test_chunks_of_k_agree_between_one_process_and_two():
    whole = rows(batch=8, k=lambda s: 3, n=5)
    parts = [rows(batch=4, k=lambda s: 3, rank=r, world=2, n=5) for r in range(2)]
    for step in range(5):
        for j in range(3):
            together = {x for p in parts for x in p[step][1][j * 4 : (j + 1) * 4]}
            assert together == set(whole[step][1][j * 8 : (j + 1) * 8])


def test_a_step_larger_than_the_data_repeats_rows_but_stays_a_function_of_the_step():
    big = rows(size=10, batch=8, k=lambda s: 3, n=6)
    assert all(len(batch) == 24 and set(batch) == set(range(10)) for _, batch in big)
    assert rows(size=10, batch=8, k=lambda s: 3, start=4, n=2) == big[4:]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    data = Digits(num_workers=workers, shift=1, binarize="stochastic", batch_size=16)
    batches = [*itertools.islice(data.train_dataloader(), 5)]
    alone = [
        *itertools.islice(
            Digits(shift=1, binarize="stochastic", batch_size=16).train_dataloader(), 5
        )
    ]
    for a, b in zip(batches, alone, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in ("x", "y", "index"))


def test_evaluation_covers_each_row_once_without_padding():
    data = Given(DataSpec((2,)), torch.randn(11, 2), batch_size=4)
    seen = torch.cat([b["index"] for b in data.val_dataloader()])
    assert seen.tolist() == list(range(11))


def test_random_binarisation_of_validation_is_drawn_once_for_each_row():
    small, large = (Digits(binarize="stochastic", batch_size=b) for b in (7, 64))
    a = torch.cat([b["x"] for b in small.val_dataloader()])
    b = torch.cat([b["x"] for b in large.val_dataloader()])
    assert torch.equal(a, b)
    assert set(a.unique().tolist()) == {0, 1}


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="batch_size is at least 1, got 0"):
        Digits(batch_size=0)


class Paired(ZooDataModule):
    """A source and its target, pixel for pixel the same; the values say row and place."""

    spec = Spec("pairs", source=Image((1, 6, 6), 256), x=Image((1, 4, 4), 256))

    def load(self):
        at = torch.arange(36).view(1, 1, 6, 6) + torch.arange(20)[:, None, None, None]
        return {name: {"source": at, "x": at.clone()} for name in ("train", "val", "test")}

    def transform(self, batch, noise, training):
        batch = flipped(batch, noise, "source", "x") if training else batch
        both = cropped(batch, 4, noise if training else None, "x", "source")
        return Batch({**both, "source": F.pad(both["source"], (1, 1, 1, 1))}, batch.n)


def test_a_pair_is_cropped_and_flipped_as_one():
    data = Paired(batch_size=10)
    loader = iter(data.train_dataloader())
    places, mirrored = set(), set()
    for _, batch in zip(range(20), loader, strict=False):
        inner = batch["source"][:, :, 1:-1, 1:-1]
        assert torch.equal(inner, batch["x"])
        first = batch["x"][:, 0, 0, 0] - batch["index"]
        places |= set(first.tolist())
        mirrored |= set((batch["x"][:, 0, 0, 1] - batch["x"][:, 0, 0, 0]).tolist())
    assert mirrored == {1.0, -1.0} and len(places) > 10
    still = data.examples(20)
    assert torch.equal(still["x"][:, 0, 0, 0], still["index"] + 7.0)  # the centre, not mirrored


def test_a_crop_that_does_not_fit_is_refused():
    batch = Batch({"x": torch.zeros(2, 1, 4, 4)})
    with pytest.raises(ValueError, match="5 pixels does not fit in images of 4x4"):
        cropped(batch, 5, None, "x")


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"x": torch.full((5, 1, 2, 2), 17.0)}, r"x of the split train should be .* has values"),
        ({"y": torch.full((5,), 10)}, "y of the split train should be 10 classes"),
        ({"y": None}, "y of the split train .* no such field"),
        ({"x": torch.zeros(5, 2, 2)}, "rows of shape"),
        ({"y": torch.zeros(4, dtype=torch.long)}, "equally many rows"),
    ],
)
def test_data_that_are_not_what_they_say_are_refused_before_training(split, said):
    good = {"x": torch.zeros(5, 1, 2, 2), "y": torch.zeros(5, dtype=torch.long)}
    fields = {k: v for k, v in {**good, **split}.items() if v is not None}
    data = Given(DataSpec((1, 2, 2), 17, 10), fields=fields)
    with pytest.raises(ValueError, match=said):
        data.setup()


def test_energies_stay_as_they_are_on_their_way_to_the_model():
    spec = Spec("showers", x=Vector(2), energy=Quantity(unit="GeV", low=0.1, high=100.0))
    energy = torch.tensor([0.3, 12.9, 99.5, 0.7])
    data = Given(spec, fields={"x": torch.zeros(4, 2), "energy": energy})
    assert torch.equal(data.examples()["energy"], energy)
    assert torch.equal(next(iter(data.train_dataloader()))["energy"].sort()[0], energy.sort()[0])
