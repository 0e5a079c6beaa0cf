"""Classes left out of training: of the training split alone, and said."""

import pytest
import torch

from zoo.data.digits import Digits
from zoo.data.fashion_mnist import FashionMNIST


def test_the_training_split_alone_lacks_them_and_the_name_says_so():
    some, every = Digits(left_out=[8, 3]), Digits()
    assert not {3, 8} & {*some.split("train")["y"].tolist()}
    kept = ~torch.isin(every.split("train")["y"], torch.tensor([3, 8]))
    assert torch.equal(some.split("train")["x"], every.split("train")["x"][kept])
    for name in ("val", "test"):
        assert torch.equal(some.split(name)["y"], every.split(name)["y"])
    assert some.spec.name == "digits 8x8 without 3, 8" and every.spec.name == "digits 8x8"


def test_torchvisions_images_leave_classes_out_too(monkeypatch):
    stored = {"x": torch.zeros(60, 1, 28, 28, dtype=torch.uint8), "y": torch.arange(60) % 10}
    monkeypatch.setattr(FashionMNIST, "_open", lambda self, train: stored)
    data = FashionMNIST(left_out=[7])
    assert {*data.split("train")["y"].tolist()} == {*range(10)} - {7}
    assert 7 in data.split("test")["y"] and data.spec.name.endswith(" without 7")
    with pytest.raises(ValueError, match=r"fashion_mnist has the classes 0\.\.9"):
        FashionMNIST(left_out=[12])


@pytest.mark.parametrize(
    ("left_out", "said"),
    [([10], "left_out=.10. names another"), ([-1], "-1"), ([*range(10)], "leaves no class")],
)
def test_classes_that_cannot_be_left_out_are_refused(left_out, said):
    with pytest.raises(ValueError, match=said):
        Digits(left_out=left_out)
