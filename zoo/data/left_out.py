"""Classes left out of the training split, for models that are to find strange what they never saw.
Validation and test keep every class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from zoo.data.base import Split


def check_left_out(name: str, left_out: Sequence[int], classes: int) -> None:
    """A clear error for classes that cannot be left out.

    >>> check_left_out("digits", [10], 10)
    Traceback (most recent call last):
    ValueError: digits has the classes 0..9, and left_out=[10] names another
    """
    if left_out and not classes:
        raise ValueError(f"{name} has no labels, so no class can be left out; leave left_out empty")
    if any(not 0 <= c < classes for c in left_out):
        raise ValueError(
            f"{name} has the classes 0..{classes - 1}, and left_out={[*left_out]} names another"
        )
    if len({*left_out}) == classes > 0:
        raise ValueError(f"{name}: left_out={[*left_out]} leaves no class to train on")


def said(left_out: Sequence[int]) -> str:
    """What the data's name says of it.

    >>> said([3, 0]), said([])
    (' without 0, 3', '')
    """
    return f" without {', '.join(map(str, sorted({*left_out})))}" if left_out else ""


def without(splits: dict[str, Split], left_out: Sequence[int]) -> dict[str, Split]:
    """The splits, "train" without rows of these classes.

    >>> parts = {"train": {"y": torch.tensor([0, 1, 2, 1])}, "val": {"y": torch.tensor([1])}}
    >>> {name: part["y"].tolist() for name, part in without(parts, [1]).items()}
    {'train': [0, 2], 'val': [1]}
    """
    if not left_out:
        return splits
    train = splits["train"]
    kept = ~torch.isin(train["y"], torch.tensor([*left_out]))
    return {**splits, "train": {k: v[kept] for k, v in train.items()}}
