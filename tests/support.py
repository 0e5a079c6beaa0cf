"""What the tests share."""

from __future__ import annotations

from typing import Any

from zoo import check
from zoo.check import fit

__all__ = ["TOYS", "Given", "fit"]

# Models of kinds of data that no model of the zoo has, each with its data module (tests/toys).
TOYS = ["toy_domains.TwoWay", "toy_clips.ClipGAN", "toy_graphs.GraphPainter"]


class Given(check.Given):
    """The contract's data module over given tensors, in minibatches of four."""

    def __init__(self, *tensors: Any, batch_size: int = 4, **options: Any) -> None:
        super().__init__(*tensors, batch_size=batch_size, **options)
