"""Where things are in a scene: visible masks and label maps, by single points at the centres of
pixels.
"""

from __future__ import annotations

import numpy as np

from zoo.data.scene import SHAPES, Array, Scene, centres, mask

LAYOUT = ("sky", "ground", *SHAPES)  # planes of a layout


def masks(scene: Scene, size: int) -> Array:
    """What can be seen of each object, without its hat, (K, S, S) uint8 0/1: later objects cover
    earlier ones.
    """
    at = centres(size)
    covered = np.zeros((size, size), bool)
    seen = []
    for thing in reversed(scene.things):
        own = mask(thing, at[None, :], at[:, None])
        seen.append(own & ~covered)
        covered |= own
    return np.stack(seen[::-1]).astype(np.uint8)


def layout(scene: Scene, size: int) -> Array:
    """What is at each pixel, one-hot over ``LAYOUT``, (8, S, S) uint8: below the horizon, where
    there is one, is ground; all else behind the objects is sky.
    """
    planes = np.zeros((len(LAYOUT), size, size), np.uint8)
    below = scene.background == "horizon" and centres(size)[:, None] > scene.horizon
    planes[0], planes[1] = np.broadcast_to(~np.asarray(below), (size, size)), below
    for thing, own in zip(scene.things, masks(scene, size), strict=True):
        planes[:, own == 1] = 0
        planes[2 + thing.shape][own == 1] = 1
    return planes
