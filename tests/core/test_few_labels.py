"""A few labels stand for all rows."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core import DataSpec
from zoo.core.few_labels import FewLabels


def make(labels: int | None, rows: int = 12) -> FewLabels:
    model = FewLabels(DataSpec((2,), None, 3))
    model.use_labels(labels)
    model.initialise_from(torch.zeros(rows, 2))
    return model


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return {"y": torch.arange(12) % 3, "index": torch.arange(12)}


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
        costs.append(model.label_cost(logits[rows], {k: v[rows] for k, v in batch.items()}))
    torch.testing.assert_close(
        torch.stack(costs).mean(), F.cross_entropy(logits[:2], batch["y"][:2])
    )
    assert min(costs) == 0 and max(costs) > 2 * torch.stack(costs).mean()


def test_no_labels_at_all_are_refused():
    with pytest.raises(ValueError, match="labels is at least 1"):
        make(0)
