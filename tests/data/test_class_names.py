"""Classes have the names that their data give them, and a run says how many of each there are."""

import numpy as np
import pytest
import torchvision
from PIL import Image

from zoo.data.cifar10 import CIFAR10
from zoo.data.digits import Digits
from zoo.data.fashion_mnist import FashionMNIST
from zoo.data.image_folder import ImageFolder
from zoo.data.mnist import MNIST
from zoo.data.scene import SHAPES
from zoo.data.shapes import Shapes


def test_names_are_those_of_the_source():
    assert Shapes().class_names == SHAPES
    published = torchvision.datasets.FashionMNIST.classes
    assert FashionMNIST().class_names == tuple(map(_lower, published))
    assert len({*CIFAR10().class_names}) == 10 and CIFAR10().class_names[3] == "cat"


def _lower(name: str) -> str:
    return name if name.startswith("T-") else name.lower()


@pytest.mark.parametrize("data", [Digits, MNIST])
def test_classes_that_are_but_numbers_have_no_names(data):
    assert data().class_names == ()
    assert data is MNIST or "classes" not in data().found


def test_own_folders_name_their_classes(tmp_path):
    for name, count in (("cats", 5), ("dogs", 7)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(np.full((8, 8, 3), 9 * i, np.uint8)).save(tmp_path / name / f"{i}.png")
    data = ImageFolder(str(tmp_path), size=8)
    assert data.class_names == ("cats", "dogs")
    assert data.found["classes"] == {"cats": 5, "dogs": 7}


def test_named_classes_are_counted_over_all_splits():
    data = Shapes(size=16, n=30, n_val=6, n_test=6)
    every = [i for s in ("train", "val", "test") for i in data.split(s)["y"].tolist()]
    assert data.found["classes"] == {name: every.count(k) for k, name in enumerate(SHAPES)}
