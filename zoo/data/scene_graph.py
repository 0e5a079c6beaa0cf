"""The graph of a drawn scene: its objects, and how they lie to one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from zoo.data.keyed import numbers
from zoo.data.layouts import boxes
from zoo.data.scene import GRAPH, SHAPES, Array, Scene, Thing

IMAGE, IN_IMAGE = "__image__", "__in_image__"  # the object around all, and how they lie to it
OBJECTS = ("", *SHAPES, IMAGE)  # "" is padding
RELATIONS = ("", "left of", "right of", "above", "below", "inside", "surrounding", IN_IMAGE)


def relation(s: Thing, o: Thing, box_s: Sequence[float], box_o: Sequence[float]) -> str:
    """How s lies to o: around it or in it where one box strictly contains the other, else by the
    quarter in which its centre lies.
    """
    if _contains(box_s, box_o):
        return "surrounding"
    if _contains(box_o, box_s):
        return "inside"
    angle = math.atan2(s.y - o.y, s.x - o.x)
    if abs(angle) >= 3 * math.pi / 4:
        return "left of"
    if abs(angle) <= math.pi / 4:
        return "right of"
    return "above" if angle < 0 else "below"


def _contains(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[0] and a[1] < b[1] and a[2] > b[2] and a[3] > b[3]


def objs(scene: Scene, size: int = 0) -> Array:
    """The places in ``OBJECTS`` of the objects and, last, of the image, (K + 1,) int64."""
    names = [*(SHAPES[thing.shape] for thing in scene.things), IMAGE]
    return np.array([OBJECTS.index(name) for name in names])


def triples(scene: Scene, size: int) -> Array:
    """Subject, relation, object, (T, 3) int64: the ends are places in ``objs``, relations in
    ``RELATIONS``. One of each object and another one drawn at random, in a random direction; then
    one that says that each is in the image.
    """
    count, where = len(scene.things), boxes(scene, size)
    seed, *item = scene.key
    u = numbers(seed, (*item, GRAPH), 2 * count).reshape(count, 2)
    found = []
    for k, (which, direction) in enumerate(u if count > 1 else ()):
        other = (k + 1 + int(which * (count - 1))) % count
        s, o = (k, other) if direction < 0.5 else (other, k)
        name = relation(scene.things[s], scene.things[o], where[s], where[o])
        found.append((s, RELATIONS.index(name), o))
    found += [(k, RELATIONS.index(IN_IMAGE), count) for k in range(count)]
    return np.array(found)


def graph(scene: Scene, size: int) -> dict[str, Array]:
    """Objects and triples."""
    return {"objs": objs(scene, size), "triples": triples(scene, size)}
