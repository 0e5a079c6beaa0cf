"""A few labels stand for all rows."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import registry
from zoo.bases import FewLabels
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


def test_no_labels_at_all_are_refused():
    with pytest.raises(ValueError, match=r"labels is at least 1.*got 0"):
        make(0)


@pytest.mark.parametrize("name", ["aae", "catgan", "improved_gan"])
def test_every_model_of_few_labels_refuses_none_at_all(name):
    model = registry.get(name)
    assert issubclass(model, FewLabels)
    with pytest.raises(ValueError, match=rf"{name}: labels is at least 1.*got 0"):
        model(DataSpec((1, 16, 16), 17, 10), labels=0)
