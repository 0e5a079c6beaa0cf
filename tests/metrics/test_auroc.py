"""The area under the ROC curve is scikit-learn's, at any scale."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from zoo.metrics.auroc import auroc


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_it_is_scikit_learns_with_ties(scale):
    g = torch.Generator().manual_seed(0)
    scores = scale * torch.randint(12, (200,), generator=g).double()
    positive = torch.rand(200, generator=g) < 0.2
    assert auroc(scores, positive).item() == pytest.approx(roc_auc_score(positive, scores))


def test_rows_of_one_kind_have_none():
    assert math.isnan(auroc(torch.ones(3), torch.ones(3, dtype=torch.bool)))
