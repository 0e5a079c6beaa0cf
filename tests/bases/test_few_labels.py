"""A few labels stand for all rows."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import registry
from zoo.bases import FewLabels
from zoo.bases.few_labels import evenly
from zoo.core import Batch, DataSpec, Spec
from zoo.core.options import Count


class Reader(FewLabels):
    """It says of its labels what every model that reads few of them says."""

    def __init__(self, spec: Spec, labels: Count | None = None) -> None:
        super().__init__(spec)
        self.use_labels(labels)


def make(labels: int | None, rows: int = 12) -> FewLabels:
    model = Reader(DataSpec((2,), None, 3), labels)
    model.initialise_from(Batch({"x": torch.zeros(rows, 2)}))
    return model


@pytest.fixture
def batch() -> Batch:
    return Batch({"y": torch.arange(12) % 3, "index": torch.arange(12)})


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("labels", [4, 12, 40, None])
def test_of_all_rows_the_cost_is_the_mean_over_the_labelled_ones(labels, batch, logits):
    n = min(labels or 12, 12)  # more labels than rows are all of them
    torch.testing.assert_close(
        make(labels).label_cost(logits, batch), F.cross_entropy(logits[:n], batch["y"][:n])
    )


def test_over_minibatches_the_cost_is_on_average_that_of_all_labelled_rows(batch, logits):
    model, costs = make(2), []
    for rows in map(list, itertools.combinations(range(12), 3)):  # of which most hold no label
        costs.append(model.label_cost(logits[rows], batch.rows(rows)))
    torch.testing.assert_close(
        torch.stack(costs).mean(), F.cross_entropy(logits[:2], batch["y"][:2])
    )
    assert min(costs) == 0 and max(costs) > 2 * torch.stack(costs).mean()


@pytest.mark.parametrize("labels", [1, 5, 6, 7, 20, 30, 31, 60, 99])
def test_labels_are_read_of_as_many_rows_of_each_class_as_there_are(labels):
    y = torch.tensor([0] * 30 + [1] * 3 + [2] * 20 + [3] * 7)
    y = y[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    model = Reader(DataSpec((2,), None, 4), labels)
    rows = Batch({"x": torch.zeros(60, 2), "y": y, "index": torch.arange(60)})
    model.initialise_from(rows)
    read = model.labelled(rows)
    assert read.sum() == min(labels, 60) and torch.equal(read.nonzero()[:, 0], evenly(y, labels))
    shares = [(read & (y == c)).sum().item() for c in range(4)]
    for c, share in enumerate(shares):
        first = (y == c).nonzero()[:share, 0]
        assert read[first].all()  # the first ones of its class
        whole = share == (y == c).sum()
        assert whole or share >= max(shares) - 1  # no class has two more, unless it ran out
    # which rows are labelled does not depend on the labels of the others
    assert torch.equal(model.labelled(Batch(rows | {"y": (y + 1) % 4})), read)


def test_a_resumed_run_reads_the_same_labels():
    y = torch.tensor([0, 0, 0, 0, 1, 2, 0, 1, 2])
    model = Reader(DataSpec((2,), None, 3), 3)
    rows = Batch({"x": torch.zeros(9, 2), "y": y, "index": torch.arange(9)})
    model.initialise_from(rows)
    again = Reader(DataSpec((2,), None, 3), 3)
    again.load_state_dict(model.state_dict())
    assert again.labelled(rows).tolist() == [True, *[False] * 3, True, True, *[False] * 3]


def test_no_labels_at_all_are_refused():
    with pytest.raises(ValueError, match=r"labels is at least 1.*got 0"):
        make(0)


@pytest.mark.parametrize("name", ["aae", "catgan", "improved_gan"])
def test_every_model_of_few_labels_refuses_none_at_all(name):
    model = registry.get(name)
    assert issubclass(model, FewLabels)
    with pytest.raises(ValueError, match=rf"{name}: labels is at least 1.*got 0"):
        model(DataSpec((1, 16, 16), 17, 10), labels=0)
