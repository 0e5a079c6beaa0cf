"""Where the objects of a drawn scene are: boxes, keypoints, masks and label maps.

All are of the shapes alone, by their inside test: hats have no box and cover nothing. Masks and
label maps are evaluated at the pixels' centres, boxes at those of 4x4 sub-pixels.
"""

from __future__ import annotations

import math

import numpy as np

from zoo.data.scene import SHAPES, SUB, Array, Scene, Thing, around, centres, mask

AREAS = ("sky", "ground", *SHAPES)  # of a label map; any background but a horizon's is all sky
POINTS = ("centre", "top", "right", "bottom", "left")  # the sides turn with the object
OWN = np.array([(0, 0), (0, -0.9), (0.9, 0), (0, 0.9), (-0.9, 0)])  # in its own coordinates


def boxes(scene: Scene, size: int) -> Array:
    """x0, y0, x1, y1 of each object in [0, 1], (K, 4) float32: tight around the whole of it that is
    in the frame, whatever covers it. Zeros where nothing is.
    """
    return np.array([_box(thing, size * SUB) for thing in scene.things], np.float32)


def _box(thing: Thing, n: int) -> tuple[float, float, float, float]:
    at = centres(n)
    rows, columns = around(thing, at)
    y, x = mask(thing, at[None, columns], at[rows, None]).nonzero()
    if not len(x):
        return 0.0, 0.0, 0.0, 0.0
    left, top = columns.start, rows.start
    ends = left + x.min(), top + y.min(), left + x.max() + 1, top + y.max() + 1
    return ends[0] / n, ends[1] / n, ends[2] / n, ends[3] / n


def keypoints(scene: Scene, size: int = 0) -> Array:
    """x, y and v of the ``POINTS`` of each object, (K, 5, 3) float32; v is 1 where a point is in
    the frame and no later object covers it.
    """
    found = np.empty((len(scene.things), len(POINTS), 3), np.float32)
    for k, thing in enumerate(scene.things):
        c, s = math.cos(thing.angle), math.sin(thing.angle)
        x = thing.x + thing.radius * (c * OWN[:, 0] - s * OWN[:, 1])
        y = thing.y + thing.radius * (s * OWN[:, 0] + c * OWN[:, 1])
        seen = (np.minimum(x, y) >= 0) & (np.maximum(x, y) <= 1)
        for later in scene.things[k + 1 :]:
            seen &= ~mask(later, x, y)
        found[k] = np.stack([x, y, seen], 1)
    return found


def owners(scene: Scene, size: int) -> Array:
    """The number of the object that each pixel shows, -1 for none, (S, S) int64."""
    at, found = centres(size), np.full((size, size), -1)
    for k, thing in enumerate(scene.things):
        rows, columns = around(thing, at)
        found[rows, columns][mask(thing, at[None, columns], at[rows, None])] = k
    return found


def masks(scene: Scene, size: int) -> Array:
    """The visible part of each object, (K, S, S) uint8 of 0 and 1."""
    numbers = np.arange(len(scene.things))[:, None, None]
    return (owners(scene, size) == numbers).astype(np.uint8)


def label_map(scene: Scene, size: int) -> Array:
    """The place in ``AREAS`` of what each pixel shows, (S, S) int64."""
    owner = owners(scene, size)
    ground = (centres(size) > scene.horizon) & (scene.background == "horizon")
    shapes = np.array([AREAS.index(SHAPES[thing.shape]) for thing in scene.things])
    return np.where(owner < 0, ground[:, None], shapes[owner])


def layout(scene: Scene, size: int) -> Array:
    """The label map one-hot, (8, S, S) uint8."""
    return (label_map(scene, size) == np.arange(len(AREAS))[:, None, None]).astype(np.uint8)
