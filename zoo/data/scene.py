"""A drawn scene and what can be said of it: one sampled world, of which images, factors and labels
are functions.

Item i of a split depends on (seed, split, i) and the options alone: each group of random numbers of
an item has a generator of its own, ``SeedSequence(seed, spawn_key=(split, i, group))``, and takes
every number of the group in a fixed order whether it is used or not. So neither the number of items
nor their order nor an option that is switched off changes another factor.

Coordinates: x to the right, y down, both in [0, 1]; pixel (row i, column j) of S covers [j/S,
(j+1)/S] x [i/S, (i+1)/S]. Images are evaluated at the centres of 4x4 sub-pixels, painted back to
front, averaged, and rounded to 8 bits (half up) once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.keyed import numbers

Array = NDArray[Any]

SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (235, 205, 50),
    "magenta": (200, 60, 190),
    "cyan": (60, 200, 210),
    "white": (240, 240, 240),
    "orange": (240, 140, 40),
}
MUTED = (
    (70, 80, 95),
    (190, 175, 145),
    (130, 150, 120),
    (150, 125, 150),
    (205, 210, 215),
    (95, 75, 65),
)  # backgrounds
BACKGROUNDS = ("plain", "gradient", "stripes", "checker", "horizon")
TRANSIENTS = ("night", "fog", "warm", "snow", "wet")
SPLITS = ("train", "val", "test")
SIZES = (16, 32, 64, 128)
SUB = 4  # sub-pixels along a side
SCENE, BACKGROUND, CAPTIONS, PAIRING, GRAPH = 0, 1, 2, 5, 6  # groups; 3 and 4 are tasks' own
CANDIDATES = 20  # centres tried for an object
SMALL, MEDIUM = 0.18, 0.24  # radii from which an object is medium, large
RADII = (0.12, 0.30)
REACH = {"square": 1.0, "cross": math.hypot(1, 0.33)}  # largest |q| inside, where it is not 1
TOP = {
    "square": 0.7071
}  # height of the upright shape above its centre, in radii, where it is not 1
PER_OBJECT = 3 + 2 * CANDIDATES + 4


@dataclass(frozen=True)
class Options:
    """What may be in a scene.

    Args:
        objects: least and largest number of objects. background: one of ``BACKGROUNDS``.
            transients: night, fog, warm light, snow and wet ground act on the image (snow and wet
                on a horizon's ground only). hats, stripes, outlines: whether objects have them.
            pointer: a white dot in each object that shows its angle.
    """

    objects: tuple[int, int] = (1, 1)
    background: str = "plain"
    transients: bool = False
    hats: bool = True
    stripes: bool = True
    outlines: bool = True
    pointer: bool = False

    def __post_init__(self) -> None:
        if len(self.objects) != 2 or not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError(
                f"objects are a least and a largest number, at least 1, got {[*self.objects]}"
            )
        if self.background not in BACKGROUNDS:
            raise ValueError(
                f"background is one of {', '.join(BACKGROUNDS)}, got {self.background!r}"
            )


@dataclass(frozen=True)
class Thing:
    """One object: what it is, its circumscribed circle, its angle (radians, clockwise on the
    screen), what it wears.
    """

    shape: int
    colour: int
    radius: float
    x: float
    y: float
    angle: float
    hat: bool
    striped: bool
    outlined: bool


@dataclass(frozen=True)
class Scene:
    """Objects from back to front, before a background. ``transients`` are the strengths in the
    order of ``TRANSIENTS``; ``key`` is (seed, split, item), by which captions and graphs draw.
    """

    things: tuple[Thing, ...]
    background: str
    colours: tuple[int, int]
    horizon: float
    transients: tuple[float, ...]
    pointer: bool = False
    key: tuple[int, int, int] = (0, 0, 0)

    def but(self, only: int | None = None, **changes: Any) -> Scene:
        """The same scene with other factors: ``scene.but(pointer=True, angle=0.3)``.

        Args:
            only: number of the one object that changes; all do by default. changes: of the scene,
                or of its objects.
        """
        own = {k: v for k, v in changes.items() if k in Thing.__dataclass_fields__}
        rest = {k: v for k, v in changes.items() if k not in own}
        things = (
            replace(thing, **own) if only in (None, k) else thing
            for k, thing in enumerate(self.things)
        )
        return replace(self, **{"things": (*things,), **rest})


# -- drawing -------------------------------------------------------------------------------------
def draw(seed: int, split: int, index: int, options: Options = Options()) -> Scene:
    """Item ``index`` of a split. Each number is one uniform draw; of n things the u-th part of n is
    taken.
    """
    low, high = options.objects
    u = numbers(seed, (split, index, SCENE), 1 + high * PER_OBJECT)
    things: list[Thing] = []
    for k in range(low + int(u[0] * (high - low + 1))):
        shape, colour, radius, *centres = u[1 + k * PER_OBJECT :][: 3 + 2 * CANDIDATES]
        angle, hat, striped, outlined = u[1 + k * PER_OBJECT + 3 + 2 * CANDIDATES :][:4]
        r = float(RADII[0] + (RADII[1] - RADII[0]) * radius)
        x, y = _place(r + (1 - 2 * r) * np.reshape(centres, (-1, 2)), r, things)
        things.append(
            Thing(
                int(shape * len(SHAPES)),
                int(colour * len(COLOURS)),
                r,
                x,
                y,
                float(angle * math.tau),
                bool(options.hats and hat < 0.5),
                bool(options.stripes and striped < 0.3),
                bool(options.outlines and outlined < 0.3),
            )
        )
    b = numbers(seed, (split, index, BACKGROUND), 3 + 2 * len(TRANSIENTS))
    first = int(b[0] * len(MUTED))
    second = (first + 1 + int(b[1] * (len(MUTED) - 1))) % len(MUTED)  # another one
    transients = strengths(b[3:]) if options.transients else (0.0,) * len(TRANSIENTS)
    return Scene(
        tuple(things),
        options.background,
        (first, second),
        float(0.45 + 0.3 * b[2]),
        transients,
        options.pointer,
        (seed, split, index),
    )


def strengths(u: Array) -> tuple[float, ...]:
    """Transients from two numbers each: whether it is there, and how strong it is."""
    return tuple(float(value) if there >= 0.5 else 0.0 for there, value in u.reshape(-1, 2))


def _place(centres: Array, r: float, things: Sequence[Thing]) -> tuple[float, float]:
    """The candidate that keeps farthest from the objects that are there; the first of equals."""
    room = np.full(len(centres), np.inf)
    for other in things:
        room = np.minimum(
            room, np.hypot(centres[:, 0] - other.x, centres[:, 1] - other.y) - (r + other.radius)
        )
    x, y = centres[int(room.argmax())]
    return float(x), float(y)


# -- geometry ------------------------------------------------------------------------------------
def inside(shape: str, qx: Array, qy: Array) -> Array:
    """Whether points, in the upright shape's own coordinates with radius 1, lie in it."""
    if shape in ("circle", "ring"):
        squared = qx * qx + qy * qy
        return (squared <= 1) & (squared >= 0.55**2) if shape == "ring" else squared <= 1
    if shape == "square":
        return np.maximum(abs(qx), abs(qy)) <= 0.7071
    if shape == "triangle":
        return np.logical_and.reduce(
            [math.cos(a) * qx + math.sin(a) * qy <= 0.5 for a in np.radians([90, 210, 330])]
        )
    if shape == "cross":
        ax, ay = abs(qx), abs(qy)
        return ((ax <= 0.33) & (ay <= 1)) | ((ay <= 0.33) & (ax <= 1))
    if shape == "star":
        angles = np.radians(np.arange(10) * 36 - 90)
        radii = np.where(np.arange(10) % 2, 0.45, 1.0)
        return _even_odd(radii * np.cos(angles), radii * np.sin(angles), qx, qy)
    raise ValueError(f"a shape is one of {', '.join(SHAPES)}, got {shape!r}")


def _even_odd(vx: Array, vy: Array, qx: Array, qy: Array) -> Array:
    """Whether points lie in a polygon, by the parity of its edges to their right."""
    found = np.zeros(np.broadcast_shapes(qx.shape, qy.shape), bool)
    for x0, y0, x1, y1 in zip(vx, vy, np.roll(vx, -1), np.roll(vy, -1), strict=True):
        if y0 != y1:
            found ^= ((y0 > qy) != (y1 > qy)) & (qx < x0 + (qy - y0) * (x1 - x0) / (y1 - y0))
    return found


def centres(n: int) -> Array:
    """Centres of n equal cells of [0, 1]."""
    return (np.arange(n) + 0.5) / n


def window(at: Array, centre: float, reach: float) -> slice:
    """The points within reach of a centre."""
    return slice(*np.searchsorted(at, [centre - reach - 1e-9, centre + reach + 1e-9]))


def around(thing: Thing, at: Array) -> tuple[slice, slice]:
    """Rows and columns of points beyond which a thing's shape does not reach."""
    reach = thing.radius * REACH.get(SHAPES[thing.shape], 1.0)
    return window(at, thing.y, reach), window(at, thing.x, reach)


def own(thing: Thing, x: Array, y: Array) -> tuple[Array, Array]:
    """Points of the scene in a thing's own coordinates, q = R(-θ)(p - c)/r."""
    dx, dy = (x - thing.x) / thing.radius, (y - thing.y) / thing.radius
    c, s = math.cos(thing.angle), math.sin(thing.angle)
    return c * dx + s * dy, c * dy - s * dx


def mask(thing: Thing, x: Array, y: Array) -> Array:
    """Whether points of the scene lie in a thing's shape, without its hat."""
    return inside(SHAPES[thing.shape], *own(thing, x, y))


# -- rendering -----------------------------------------------------------------------------------
def render(scene: Scene, size: int) -> Array:
    """The image, (3, S, S) uint8."""
    fine = size * SUB
    canvas = backdrop(scene, fine)
    at = centres(fine)
    for thing in scene.things:
        _paint(canvas, thing, at, scene.pointer)
    small = canvas.reshape(size, SUB, fine * 3).sum(1).reshape(size, size, SUB, 3).sum(2) / SUB**2
    return np.floor(255 * _light(small, scene) + 0.5 + 1e-9).astype(np.uint8).transpose(2, 0, 1)


def backdrop(scene: Scene, n: int) -> Array:
    """The background at n x n points with what lies on its ground, (n, n, 3) in [0, 1]."""
    a, b = (np.array(MUTED[i]) / 255 for i in scene.colours)
    at = centres(n)
    x, y = at[None, :, None], at[:, None, None]
    share: Any = 0.0  # of the second colour
    if scene.background == "gradient":
        share = y
    elif scene.background == "stripes":
        share = np.floor(8 * x) % 2
    elif scene.background == "checker":
        share = (np.floor(4 * x) + np.floor(4 * y)) % 2
    elif scene.background == "horizon":
        share = y > scene.horizon
        snow, wet = scene.transients[3:]
        b = ((1 - 0.8 * snow) * b + 0.8 * snow) * (1 - 0.3 * wet)
    canvas = np.empty((n, n, 3))
    canvas[:] = a + share * (b - a)
    return canvas


def _light(image: Array, scene: Scene) -> Array:
    """Warm light, fog and night over (H, W, 3). They act on a pixel's mean as on its parts: but for
    the clip at 1 they are affine.
    """
    night, fog, warm = scene.transients[:3]
    image = image * np.array([1 + 0.3 * warm, 1, 1 - 0.3 * warm])
    image = (1 - 0.7 * fog) * image + 0.56 * fog
    return ((1 - 0.75 * night) * image).clip(0, 1)


def _paint(canvas: Array, thing: Thing, at: Array, pointer: bool) -> None:
    """Lay a thing over a canvas of sub-pixels, in place."""
    shape, r = SHAPES[thing.shape], thing.radius
    rows, columns = around(thing, at)
    part = canvas[rows, columns]
    qx, qy = own(thing, at[None, columns], at[rows, None])
    body = inside(shape, qx, qy)
    colour = np.array([*COLOURS.values()][thing.colour]) / 255
    part[body] = colour
    if thing.striped:
        part[body & (np.floor(4 * qx) % 2 == 1)] = colour + 0.5 * (1 - colour)
    if thing.outlined:
        part[body & ~inside(shape, qx / 0.88, qy / 0.88)] = 0.0
    if pointer:
        part[np.hypot(qx, qy + 0.6) <= 0.18] = 1.0
    if thing.hat:
        base = thing.y - TOP.get(shape, 1.0) * r  # the hat's lower edge
        rows, columns = window(at, base - 0.3 * r, 0.3 * r), window(at, thing.x, 0.45 * r)
        up = (base - at[rows, None]) / (0.6 * r)  # 0 at the base, 1 at the tip
        canvas[rows, columns][
            (up >= 0) & (up <= 1) & (abs(at[None, columns] - thing.x) <= 0.45 * r * (1 - up))
        ] = 0.0


# -- fields --------------------------------------------------------------------------------------
def image(scene: Scene, size: int) -> Array:
    """(3, S, S) float32 in [0, 1], multiples of 1/255."""
    return render(scene, size).astype(np.float32) / np.float32(255)


def factors(scene: Scene, size: int) -> dict[str, Array]:
    """All that was drawn: one value an object (shape, colour, radius, x, y, angle, hat, striped,
    outlined), and the background's.
    """
    each = {
        name: np.array([getattr(t, name) for t in scene.things])
        for name in Thing.__dataclass_fields__
    }
    ground = {
        "background": BACKGROUNDS.index(scene.background),
        "colours": scene.colours,
        "horizon": scene.horizon,
    }
    return each | {k: np.array(v) for k, v in {**ground, "transients": scene.transients}.items()}


ATTRIBUTES = (
    *SHAPES,
    *COLOURS,
    "small",
    "medium",
    "large",
    "hat",
    "striped",
    "outlined",
    "dark background",
    "left",
    "top",
    "several",
)


def attributes(scene: Scene, size: int) -> Array:
    """0/1 for each of ``ATTRIBUTES``, (24,) float32, of the first object; dark: the background's
    mean luminance is below 1/2.
    """
    thing = scene.things[0]
    n = size * SUB
    luminance = float((_light(backdrop(scene, n), scene) @ np.array([0.299, 0.587, 0.114])).mean())
    one_hot = [
        i == k
        for k, of in (
            (thing.shape, SHAPES),
            (thing.colour, COLOURS),
            (size_word(thing.radius), range(3)),
        )
        for i in range(len(of))
    ]
    rest = [
        thing.hat,
        thing.striped,
        thing.outlined,
        luminance < 0.5,
        thing.x < 0.5,
        thing.y < 0.5,
        len(scene.things) > 1,
    ]
    return np.array([*one_hot, *rest], np.float32)


def size_word(radius: float) -> int:
    """0 small, 1 medium, 2 large."""
    return int(radius >= SMALL) + int(radius >= MEDIUM)


def transients(scene: Scene, size: int) -> Array:
    """How strong each of ``TRANSIENTS`` is, (5,) float32."""
    return np.array(scene.transients, np.float32)


def relit(scene: Scene, size: int) -> Array:
    """The same scene under transients of its own group of numbers, (3, S, S) uint8."""
    u = numbers(scene.key[0], (*scene.key[1:], PAIRING), 2 * len(TRANSIENTS))
    return render(scene.but(transients=strengths(u)), size)


def class_id(scene: Scene, size: int) -> int:
    """The first object's shape, 0..5."""
    return scene.things[0].shape


def identity(scene: Scene, size: int) -> int:
    """The first object's shape and colour, 0..47."""
    return scene.things[0].shape * len(COLOURS) + scene.things[0].colour
