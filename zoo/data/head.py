"""A drawn head and what can be said of it: numbers, of which images, labels and masks are
functions.

Item i of split s with seed q depends on (q, s, i) alone: its numbers are the first uniform ones of
``SeedSequence(q, spawn_key=(s, i, 0))``, in the order of ``ITEM``; those of identity j come from
``SeedSequence(q, spawn_key=(9, j))``, in the order of ``IDENTITY``. All are taken, whether used or
not, so that neither the number of items nor their order nor an option changes another factor.

A head is a textured ellipsoid seen from afar. For the point (X, Y) of the image, X to the right, Y
down, both in [-1, 1]: x = X/a, y = -Y/b, inside where x² + y² <= 1, z = √(1 - x² - y²). Yaw ψ turns
the head to the image's right: x' = x cos ψ - z sin ψ, z' = x sin ψ + z cos ψ. The texture has the
longitude u = atan2(x', z') = atan2(x, z) - ψ and the latitude v = arcsin y.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.keyed import numbers

Array = NDArray[Any]

SPLITS = ("train", "val", "test")
PEOPLE = 9  # begins an identity's key
OWN = "who yaw age glasses smile hat beard"
ITEM = tuple(f"{OWN} light backdrop hat_colour hat_kind shirt".split())
COEFFICIENTS = tuple("skin red green blue hairline eye_spacing eye_size mouth nose brow".split())
IDENTITY = ("skin", "hair", *COEFFICIENTS[1:], "iris", "length")
SHARES = {"glasses": 0.3, "smile": 0.5, "hat": 0.2, "beard": 0.25}  # of the heads
ATTRIBUTES = (*SHARES, "dark hair")
DARK = 0.35  # luminance below which hair is dark
AGES = ("0-18", "19-29", "30-39", "40-49", "50-59", "60+")
DIRECTIONS = ("far left", "left", "front", "right", "far right")  # equal fifths of the yaw
CHILD = 0.85  # size of a head of the first age group

SKINS = np.array([(0.98, 0.86, 0.75), (0.94, 0.77, 0.63), (0.81, 0.61, 0.46)])
SKINS = np.array([*SKINS, (0.62, 0.43, 0.31), (0.43, 0.30, 0.22)])
HAIRS = np.array([(0.09, 0.07, 0.06), (0.26, 0.16, 0.09), (0.42, 0.25, 0.13)])
HAIRS = np.array([*HAIRS, (0.66, 0.28, 0.10), (0.90, 0.74, 0.42)])
JITTER = 0.03  # of each channel of the hair, to both sides
GREY = 0.82
IRISES = np.array([(0.27, 0.16, 0.08), (0.24, 0.40, 0.60), (0.28, 0.44, 0.28)])
HATS = np.array([(0.80, 0.16, 0.17), (0.16, 0.32, 0.70), (0.13, 0.52, 0.37), (0.92, 0.70, 0.16)])
HATS = np.array([*HATS, (0.50, 0.22, 0.60), (0.90, 0.45, 0.12), (0.20, 0.62, 0.72)])
SHIRTS = np.array([(0.24, 0.36, 0.56), (0.60, 0.24, 0.26), (0.30, 0.48, 0.36), (0.80, 0.74, 0.62)])
SHIRTS = np.array([*SHIRTS, (0.25, 0.25, 0.30), (0.50, 0.38, 0.58), (0.85, 0.85, 0.86)])
LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Pose:
    """How heads stand in the frame: half axes, largest yaw in radians, and the ranges of features
    in radians of the texture.
    """

    axes: tuple[float, float]
    yaw: float
    eye_spacing: tuple[float, float]
    eye_size: tuple[float, float]
    mouth: tuple[float, float]
    lips: float  # half the mouth's height
    lens: float  # inner radius of the glasses


POSES = {
    "aligned": Pose((0.86, 1.02), 0.3, (0.36, 0.46), (0.15, 0.21), (0.28, 0.48), 0.075, 0.22),
    "free": Pose((0.72, 0.92), 1.2, (0.25, 0.45), (0.08, 0.14), (0.20, 0.45), 0.05, 0.17),
}
HAIRLINE, NOSE, BROW = (0.35, 0.75), (0.15, 0.34), (0.02, 0.05)


@dataclass(frozen=True)
class Factors:
    """N heads: uniform numbers by name, each (N,), and what they mean."""

    pose: Pose
    person: Array  # (N,) numbers of the identities
    u: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.person)

    def rows(self, which: Any) -> Factors:
        return replace(self, person=self.person[which], u={k: v[which] for k, v in self.u.items()})

    def but(self, **u: float) -> Factors:
        """The same heads with some numbers set: ``but(yaw=0.5)`` looks straight ahead."""
        return replace(self, u={**self.u, **{k: np.full(len(self), v) for k, v in u.items()}})

    def has(self, name: str) -> Array:
        """(N,) whether there are glasses, a smile, a hat, a beard."""
        return self.u[name] < SHARES[name]

    def within(self, name: str, ends: tuple[float, float]) -> Array:
        return ends[0] + (ends[1] - ends[0]) * self.u[name]

    def one_of(self, name: str, things: Array) -> Array:
        return things[(self.u[name] * len(things)).astype(int)]

    @cached_property
    def yaw(self) -> Array:
        """(N,) radians, positive to the image's right."""
        return self.within("yaw", (-self.pose.yaw, self.pose.yaw))

    @property
    def direction(self) -> Array:
        """(N,) which fifth of the yaw's range, as in ``DIRECTIONS``."""
        return (self.u["yaw"] * len(DIRECTIONS)).astype(int)

    @cached_property
    def age(self) -> Array:
        """(N,) group, as in ``AGES``."""
        return (self.u["age"] * len(AGES)).astype(int)

    @property
    def scale(self) -> Array:
        """(N,) size of the head."""
        return np.where(self.age == 0, CHILD, 1.0)

    @cached_property
    def skin(self) -> Array:
        """(N, 3) RGB in [0, 1]."""
        return _between(SKINS, self.u["skin"])

    @cached_property
    def born_hair(self) -> Array:
        """(N, 3) before it greys."""
        jitter = np.stack([self.u[c] for c in ("red", "green", "blue")], 1)
        return _between(HAIRS, self.u["hair"]) + JITTER * (2 * jitter - 1)

    @cached_property
    def hair(self) -> Array:
        """(N, 3) as it is seen: with each age group paler, and lighter."""
        t = (self.age / 5)[:, None]
        pale = (self.born_hair * LUMINANCE).sum(1, keepdims=True)
        pale = pale + (1 - t) * (self.born_hair - pale)
        return pale + 0.8 * t * (GREY - pale)

    @property
    def attributes(self) -> Array:
        """(N, 5) 0 or 1 for each of ``ATTRIBUTES``."""
        dark = (self.hair * LUMINANCE).sum(1) < DARK
        return np.stack([*(self.has(a) for a in SHARES), dark], 1).astype(np.float32)

    @property
    def coefficients(self) -> Array:
        """(N, 12): those of ``COEFFICIENTS``, each with mean 0 and variance 1 over all identities,
        then smile (0 or 1) and yaw (radians).
        """
        standard = {k: (self.u[k] - 0.5) * math.sqrt(12) for k in COEFFICIENTS}
        mean, deviation = _moments(HAIRS, JITTER)
        hair = (self.born_hair - mean) / deviation
        standard |= {"red": hair[:, 0], "green": hair[:, 1], "blue": hair[:, 2]}
        return np.stack([*standard.values(), self.has("smile"), self.yaw], 1)


def draw(
    seed: int, split: str, items: Iterable[int], pose: str = "aligned", identities: int = 0
) -> Factors:
    """Heads by their numbers in a split, of ``identities`` people; 0: each is a person of its own,
    item i of split s being number 3 i + s.
    """
    s, items = SPLITS.index(split), [*items]
    u = np.array([numbers(seed, (s, i, 0), len(ITEM)) for i in items]).reshape(-1, len(ITEM))
    person = (u[:, 0] * identities).astype(int) if identities else 3 * np.array(items, int) + s
    people, at = np.unique(person, return_inverse=True)
    known = np.array([numbers(seed, (PEOPLE, int(j)), len(IDENTITY)) for j in people])
    known = known.reshape(-1, len(IDENTITY))[at]
    columns = zip((*ITEM, *IDENTITY), (*u.T, *known.T), strict=True)
    return Factors(POSES[pose], person, {name: column.copy() for name, column in columns})


def _between(palette: Array, u: Array) -> Array:
    """Colours on the way through a palette, (N, 3)."""
    t = u * (len(palette) - 1)
    i = np.minimum(t.astype(int), len(palette) - 2)
    return palette[i] + (t - i)[:, None] * (palette[i + 1] - palette[i])


def _moments(palette: Array, jitter: float) -> tuple[Array, Array]:
    """Mean and deviation, each (3,), of a colour anywhere on the way through a palette, with
    uniform noise of ±jitter.
    """
    a, b = palette[:-1], palette[1:]
    mean = ((a + b) / 2).mean(0)
    square = ((a * a + a * b + b * b) / 3).mean(0)
    return mean, np.sqrt(square - mean**2 + jitter**2 / 3)
