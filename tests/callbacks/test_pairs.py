"""Pairs agree where b is what a would be in its domain, pixel for pixel and by their classes."""

import pytest
import torch

from callbacks import Fidelity, PairAgreement
from tests.callbacks.fakes import Painter, entry, run
from zoo.core import Batch
from zoo.core.column import Column
from zoo.data.unpaired import Unpaired
from zoo.metrics import extractors


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 300)


class Pairs(Painter):
    """Validation images and what becomes of them, or of the ``off``-th image after."""

    entry = entry("pairs", can={"sample"}, makes=("a", "b"))
    accepts: dict = {}

    def __init__(self, data, off=0):
        super().__init__(data.spec)
        rows = data.examples(split="val")
        self.a, self.b = rows["a"], rows["oracle_b"].roll(-off, 0)

    def sample(self, n, *, generator=None):
        at = torch.randint(len(self.a), (n,), generator=generator)
        return Batch({"a": self.a[at], "b": self.b[at]}, n)


def found(model, data, *callbacks):
    trainer = run(model, data, 1, *callbacks, every=1)
    return {k: v.item() for k, v in trainer.callback_metrics.items()}


def test_true_pairs_agree_and_strangers_do_less():
    data = Unpaired(kind="invert")
    values = found(Pairs(data), data, PairAgreement(n=300))
    assert values["val/pair_agree"] == 1 and 0.55 < values["val/pair_random"] < 0.8
    assert values["val/pair_labels"] > 0.85
    other = found(Pairs(data, off=1), data, PairAgreement(n=300))
    assert other["val/pair_agree"] == pytest.approx(other["val/pair_random"], abs=0.03)
    assert other["val/pair_labels"] < 0.3


def test_agreement_is_counted_over_pixels_at_the_middle_level():
    data = Unpaired(kind="invert")
    model = Pairs(data)
    model.a, model.b = torch.zeros_like(model.a), torch.full_like(model.a, 9)
    model.b[..., :2] = 7  # two columns of eight are dark
    values = found(model, data, PairAgreement(n=10))
    assert values["val/pair_agree"] == values["val/pair_random"] == 0.75


def test_models_without_pairs_and_data_that_do_not_know_are_left_alone(caplog):
    data = Unpaired(kind="invert")
    callback, trainer = PairAgreement(), type("T", (), {"datamodule": data})
    assert callback.unserved(trainer, Pairs(data)) == ""
    assert callback.concerns(Pairs(data)) and not callback.concerns(Painter())
    assert not callback.serves(trainer, Painter())
    callback.on_fit_start(trainer, Painter())  # no word to a model of another kind
    assert not caplog.records
    trainer.datamodule = object()
    assert "do not publish" in callback.unserved(trainer, Pairs(data))


def test_each_domain_is_scored_against_its_own_data():
    data = Unpaired(kind="invert")
    model = Pairs(data)
    model.a = model.b  # images of b in both places
    values = found(model, data, Fidelity("pixels", n_fake=100, precision_recall_n=50))
    assert values["val/fid_pixels"] > 5 and values["val/fid_pixels_b"] < 1
    assert "val/is_pixels" in values and "val/is_pixels_b" not in values  # classes are of a


def test_a_domain_without_pairs_has_no_labels_of_another():
    data = Unpaired(kind="invert")
    assert Column(data, "a").spec.num_classes == 10 and Column(data, "b").spec.num_classes == 0
    assert "y" not in Column(data, "b").examples(3)
