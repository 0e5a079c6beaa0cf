"""Estimators iterate over all the data, keep the trainer's clock, and need no gradient."""

import math

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.bases import DensityEstimator, EstimatorModule
from zoo.core import DataSpec

SPEC = DataSpec((1, 2, 2), 3, 2)
X, Y = (
    torch.randint(3, (10, 1, 2, 2), generator=torch.Generator().manual_seed(0)),
    torch.arange(10) % 2,
)


class Counting(EstimatorModule):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.total = nn.Parameter(torch.zeros(()))
        self.calls = []

    def start(self, rows, y=None):
        self.calls.append("start")
        self.total.zero_()

    def iterate(self, rows, y=None):
        self.calls.append((rows, y))
        self.total.add_(rows.sum())
        return {"total": self.total.clone()}


def test_each_step_reads_all_examples_and_ticks_once():
    model = Counting(SPEC)
    trainer = fit(model, Given(SPEC, X, Y), 3)
    assert trainer.global_step == 3 and model.calls[0] == "start" and len(model.calls) == 4
    for rows, y in model.calls[1:]:
        torch.testing.assert_close(rows, X.flatten(1).double() / 2)
        assert torch.equal(y, Y)
    assert model.total.item() == pytest.approx(3 * X.sum().item() / 2)
    assert model.terms["total"] == model.total and model.total.grad is None and model._rows is None


def test_resuming_does_not_start_again(tmp_path):
    model = Counting(SPEC)
    fit(model, Given(SPEC, X, Y), 2).save_checkpoint(tmp_path / "2.ckpt")
    again = Counting(SPEC)
    fit(again, Given(SPEC, X, Y), 5, ckpt_path=tmp_path / "2.ckpt")
    assert "start" not in again.calls and again.total.item() == pytest.approx(
        2.5 * model.total.item()
    )


def test_loaders_without_the_whole_data_are_refused():
    loader = torch.utils.data.DataLoader([{"x": x} for x in X.float()], batch_size=5)
    with pytest.raises(ValueError, match="all training examples at once"):
        fit(Counting(SPEC), loader, 1)


def test_dequantisation_noise_is_drawn_once_and_lies_within_the_level():
    torch.manual_seed(0)
    model = DensityEstimator(SPEC)
    rows = model.prepared(X)
    assert torch.equal(rows, model.prepared(X)) and torch.equal(
        (rows * 3).floor().long(), X.flatten(1)
    )
    assert torch.equal(model.data_units(rows), X.double())
    assert torch.equal(model.data_units(model.middle(X)), X.float())
    torch.testing.assert_close(6 * model.middle(X), 2.0 * X.flatten(1) + 1)  # of sixths
    torch.manual_seed(1)
    assert not torch.equal(DensityEstimator(SPEC).prepared(X), rows)


def test_a_uniform_density_gives_every_image_the_same_mass():
    class Uniform(DensityEstimator):
        def log_density(self, y):
            return y.new_zeros(len(y))

    model = Uniform(SPEC)
    assert model.nll(model.prepared(X)).item() == pytest.approx(math.log(3**4))
    points = Uniform(DataSpec((4,)))
    assert points.nll(points.prepared(torch.rand(5, 4))).item() == 0
