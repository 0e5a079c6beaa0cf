"""A square that points: images of one object, in which nothing but its angle differs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from zoo.data.scene import COLOURS, SHAPES, Array, Scene, Thing, render

SQUARE, BLUE = SHAPES.index("square"), [*COLOURS].index("blue")
RADIUS = 0.45  # so that its corners reach nearly to the edges
SHARP = 4  # power of the brightness: only what is white weighs


def pointer(angle: float, size: int) -> Array:
    """A blue square on grey, turned clockwise by an angle in radians about the image's centre, with
    a white dot that is above the centre at 0; (3, S, S) uint8.
    """
    thing = Thing(SQUARE, BLUE, RADIUS, 0.5, 0.5, angle, False, False, False)
    return render(Scene((thing,), "plain", (0, 1), 0.6, (0.0,) * 5, True), size)


def pointers(angles: Iterable[float], size: int) -> Tensor:
    """One for each angle, (N, 3, S, S) uint8."""
    return torch.from_numpy(np.stack([pointer(angle, size) for angle in angles]))


def angle(x: Tensor) -> Tensor:
    """Where the white dot of images in [0, 1], (B, 3, H, W), stands, from the centre: radians,
    (B,), clockwise from above. It is the angle of the first moment of their whiteness, the least
    channel to the fourth power; a square and its ground, the same from either side, have none.

    >>> x = torch.zeros(1, 3, 8, 8)
    >>> x[:, :, 3:5, 7] = 1
    >>> angle(x).div(torch.pi).item()
    0.5
    """
    white = x.amin(1) ** SHARP
    right, down = (
        (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n - 0.5
        for n in (x.shape[3], x.shape[2])
    )
    return torch.atan2((white.sum(1) * right).sum(1), -(white.sum(2) * down).sum(1))
