"""Heads as images: see ``zoo.data.head`` for what they are.

Every head of a size is drawn over one and the same grid of 3x3 sub-pixels a pixel. What is not a
sum, a product or a comparison (u, v, cosines) is computed once for the grid, since u = u₀ - ψ; so
the bytes do not depend on how heads are batched. Layers are painted from back to front, each with a
share between 0 and 1 that is soft over its edge; shading is ½ + ½ max(0, n·l) with n the point of
the unit sphere and l a light that stands in the room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from zoo.data.head import BROW, CHILD, HAIRLINE, HATS, IRISES, NOSE, SHIRTS, Array, Factors

SUB = 3  # sub-pixels along a side
BLOCK = 1 << 17  # sub-pixels drawn at a time: what stays in a core's cache
STRANDS = 16  # waves of hair round the head
EYE, MOUTH = 0.15, -0.42  # latitudes
WHITE, TEETH, INK = (0.97, 0.97, 0.97), (0.97, 0.95, 0.90), (0.07, 0.06, 0.07)
LIPS = (0.74, 0.26, 0.28)


@dataclass(frozen=True)
class Grid:
    """Points of the image, each field (R, C) float32: its own coordinates, the unit sphere's, and
    the texture's of a head that looks straight ahead.
    """

    X: Array
    Y: Array
    x: Array
    y: Array
    z: Array
    u: Array
    v: Array
    wave: Array  # cos and sin of 2 u and of STRANDS u, (4, R, C)
    inside: Array  # of the unit circle, bool

    def rows(self, low: float, high: float = 9.0) -> slice:
        """The rows with latitudes from low to high."""
        v = self.v[:, 0]
        return slice(int((v > high).sum()), int((v >= low).sum()))

    def below(self, down: float) -> slice:
        """The rows with Y of at least ``down``."""
        return slice(int((self.Y[:, 0] < down).sum()), None)


@cache
def grid(n: int, axes: tuple[float, float], scale: float = 1.0) -> Grid:
    """The centres of n x n cells under a head of these half axes."""
    at = (np.arange(n) + 0.5) / n * 2 - 1
    X, Y = np.meshgrid(at, at)
    x, y = X / (axes[0] * scale), -Y / (axes[1] * scale)
    inside = x * x + y * y <= 1
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    u, v = np.arctan2(x, z), np.arcsin(np.clip(y, -1, 1))
    wave = np.stack([f(k * u) for k in (2, STRANDS) for f in (np.cos, np.sin)])
    points = {"X": X, "Y": Y, "x": x, "y": y, "z": z, "u": u, "v": v, "wave": wave}
    return Grid(**{k: a.astype(np.float32) for k, a in points.items()}, inside=inside)


def painted_longitude(yaw: Array, g: Grid) -> Array:
    """u of the texture at each point, (N, R, C)."""
    return g.u - _each(yaw)


def visible(heads: Factors, size: int) -> Array:
    """(N, 1, S, S) of {0, 1}: which pixels of the head's frontal view can be seen at its yaw,
    h_z cos ψ > h_x sin ψ for the direction h of the pixel's centre.
    """
    masks = np.zeros((len(heads), 1, size, size), np.uint8)
    for n, (yaw, scale) in enumerate(zip(heads.yaw.tolist(), heads.scale.tolist(), strict=True)):
        g = grid(size, heads.pose.axes, scale)
        masks[n, 0] = g.inside & (g.z * math.cos(yaw) > g.x * math.sin(yaw))
    return masks


def render(heads: Factors, size: int) -> Array:
    """The images, (N, 3, S, S) uint8."""
    images = np.empty((len(heads), 3, size, size), np.uint8)
    step = max(1, BLOCK // (size * SUB) ** 2)
    for scale in (CHILD, 1.0):
        g = grid(size * SUB, heads.pose.axes, scale)
        which = np.flatnonzero(heads.scale == scale)
        for start in range(0, len(which), step):
            block = which[start : start + step]
            images[block] = _levels(_Painter(heads.rows(block), g).picture(), size)
    return images


def _levels(fine: Array, size: int) -> Array:
    """(3, N, 3 S, 3 S) in [0, 1] to the mean of each pixel's sub-pixels, (N, 3, S, S) uint8."""
    rows = fine[:, :, ::SUB] + fine[:, :, 1::SUB] + fine[:, :, 2::SUB]
    mean = (rows[..., ::SUB] + rows[..., 1::SUB] + rows[..., 2::SUB]) * (255 / SUB**2)
    return np.floor(mean.clip(0, 255) + 0.5).astype(np.uint8).transpose(1, 0, 2, 3)


def _each(values: Any) -> Array:
    """One number a head, to broadcast over its points."""
    return np.asarray(values, np.float32)[:, None, None]


def _soft(distance: Array, width: float) -> Array:
    """0 to 1 over an edge of this width around distance 0."""
    distance = distance * (1 / width)
    distance += 0.5
    return distance.clip(0, 1, out=distance)


def _colour(colour: Any) -> Array:
    """(3,) or (N, 3) to broadcast over (3, N, R, C)."""
    return np.atleast_2d(np.asarray(colour, np.float32)).T[:, :, None, None]


def _paint(canvas: Array, share: Array, colour: Any, tone: Any = 1.0) -> None:
    """Lay a colour, (3,) or (N, 3), of brightness ``tone`` over (3, N, R, C)."""
    change = _colour(colour) * tone - canvas
    change *= share
    canvas += change


def _darken(canvas: Array, share: Array, by: tuple[float, float, float]) -> None:
    """Multiply (3, N, R, C) by a colour where share is 1."""
    canvas *= 1 - _colour([1 - c for c in by]) * share


class _Painter:
    """A block of heads over one grid, from back to front."""

    def __init__(self, heads: Factors, g: Grid) -> None:
        self.h, self.g, self.pose = heads, g, heads.pose
        self.u = painted_longitude(heads.yaw, g)
        self.a = abs(self.u)
        self.size = _each(heads.within("eye_size", heads.pose.eye_size))
        self.apart = _each(heads.within("eye_spacing", heads.pose.eye_spacing))
        self.wide = heads.pose.lips / 0.05  # of what stands in the face's middle, 1 in "free"
        self.long = np.clip(heads.u["length"] - 0.6, 0, 1) / 0.4  # of the hair, 0 to 1
        self.light = self._light()

    def _light(self) -> Array:
        """(N, R, C) of [½, 1]."""
        g, azimuth = self.g, self.h.within("light", (-1.0, 1.0)).tolist()
        at = np.array([(math.sin(a), 0.35, math.cos(a)) for a in azimuth]) / math.sqrt(1 + 0.35**2)
        shade = g.x * _each(at[:, 0])
        shade += g.y * _each(at[:, 1])
        shade += g.z * _each(at[:, 2])
        shade.clip(0, 1, out=shade)
        shade *= 0.5
        shade += 0.5
        return shade

    def picture(self) -> Array:
        """(3, N, R, C) in [0, 1]."""
        canvas = self._backdrop()
        self._shoulders(canvas)
        self._hair_behind(canvas)
        face = self._face()
        face *= self.light
        np.copyto(canvas, face, where=self.g.inside)
        self._ears(canvas)
        self._hat(canvas)
        return canvas

    def _backdrop(self) -> Array:
        grey = self.h.within("backdrop", (0.25, 0.8))
        return _colour(grey[:, None] * np.array([1.0, 0.98, 0.95])) * (1 - 0.08 * self.g.Y)

    def _shoulders(self, canvas: Array) -> None:
        rows = self.g.below(0.5)
        X, Y, part = self.g.X[rows], self.g.Y[rows], canvas[:, :, rows]
        cloth, skin = self.h.one_of("shirt", SHIRTS), self.h.skin
        _paint(part, _soft(1 - (X / 1.08) ** 2 - ((Y - 1.32) / 0.6) ** 2, 0.06), cloth)
        neck = (X / 0.42) ** 2 + ((Y - 0.74) / 0.24) ** 2
        _paint(part, _soft(1.35 - neck, 0.06) * (Y > 0.74), 0.78 * cloth)
        _paint(part, _soft(1 - np.where(Y < 0.74, (X / 0.42) ** 2, neck), 0.06), 0.62 * skin)

    # -- hair --------------------------------------------------------------------------------------
    def _wave(self, k: int, shift: Any = 0.0) -> Array:
        """cos(k u + shift), for the k of the grid's waves."""
        cos, sin = self.g.wave[:2] if k == 2 else self.g.wave[2:]
        turn = (k * self.h.yaw - shift).tolist()
        return cos * _each([math.cos(t) for t in turn]) + sin * _each([math.sin(t) for t in turn])

    def _line(self, a: Array, wave: Array) -> Array:
        """Latitude of the hair's lower edge, from |u| and cos 2u: level over the forehead, falling
        round the temples.
        """
        top = _each(self.h.within("hairline", HAIRLINE)) + np.float32(0.12) * wave
        fall = a - _each(1.02 - 0.22 * self.long)
        fall *= np.float32(1 / 0.4)
        fall.clip(0, 1, out=fall)
        fall *= fall * (3 - 2 * fall)
        top += fall * (_each(-0.2 - 0.85 * self.long) - top)
        return top

    def _hair_behind(self, canvas: Array) -> None:
        """Hair is thicker than the skull: what stands out at its sides and top."""
        g, yaw = self.g, self.h.yaw
        ends = np.array([[-math.pi / 2 - t, math.pi / 2 - t] for t in yaw.tolist()])
        wave = np.array([[math.cos(2 * e) for e in pair] for pair in ends.tolist()])
        lows = self._line(_each(abs(ends[:, 0])), _each(wave[:, 0]))
        highs = self._line(_each(abs(ends[:, 1])), _each(wave[:, 1]))
        edge = np.where(g.x < 0, lows, highs)
        share = _soft(g.y - edge, 0.12)
        share *= _soft(1.15 - g.x**2 - np.where(g.y > 0, g.y**2, 0.35 * g.y**2), 0.05)
        _paint(canvas, share, self.h.hair, 0.55 + 0.12 * g.y)

    def _hair(self, face: Array) -> None:
        strand = self._wave(STRANDS, 6.28 * self.h.u["iris"])
        share = _soft(self.g.v - self._line(self.a, self._wave(2)) + 0.03 * strand, 0.07)
        strand *= 0.07
        strand += 1
        _paint(face, share, self.h.hair, strand)

    # -- the face ----------------------------------------------------------------------------------
    def _face(self) -> Array:
        face = np.empty((3, *self.u.shape), np.float32)
        face[:] = _colour(self.h.skin)
        self._cheeks(face)
        self._wrinkles(face)
        self._hair(face)
        self._eyes(face)
        self._brows(face)
        self._nose(face)
        self._beard(face)
        self._mouth(face)
        self._glasses(face)
        return face

    def _part(self, face: Array, low: float, high: float) -> tuple[Array, Array, Array, Array]:
        """The rows between two latitudes: of the face, u, |u| and v."""
        rows = self.g.rows(low, high)
        return face[:, :, rows], self.u[:, rows], self.a[:, rows], self.g.v[rows]

    def _cheeks(self, face: Array) -> None:
        part, _, a, v = self._part(face, -0.40, 0.04)
        share = 1 - ((a - 0.55) / 0.3) ** 2 - ((v + 0.18) / 0.2) ** 2
        _darken(part, np.clip(share, 0, 1, out=share), (1.0, 0.84, 0.82))

    def _wrinkles(self, face: Array) -> None:
        part, _, a, v = self._part(face, 0.4, 0.85)
        step = (v[:, :1] - 0.47) / 0.075  # lines 0, 1 ... below the age group are drawn
        line = _soft(0.014 - 0.075 * abs(step - step.round()), 0.024)
        line = line * ((step.round() >= 0) & (step.round() < _each(self.h.age)))
        _darken(part, _soft(0.46 - a, 0.16) * line, (0.86, 0.82, 0.80))

    def _eyes(self, face: Array) -> None:
        reach = 1.3 * 0.6 * self.pose.eye_size[1] + 0.03
        part, _, a, v = self._part(face, EYE - reach, EYE + reach)
        across, up = (a - self.apart) / self.size, (v - EYE) / self.size
        lid = across**2 + (up / 0.6) ** 2
        _paint(part, _soft(1.45 - lid, 0.3) * (up > 0), 0.32 * self.h.skin)
        white = _soft(1 - lid, 0.3)
        _paint(part, white, WHITE)
        ball = across**2 + up**2
        _paint(part, _soft(0.60**2 - ball, 0.12) * white, self.h.one_of("iris", IRISES))
        _paint(part, _soft(0.33**2 - ball, 0.08), INK)
        _paint(part, _soft(0.16**2 - across**2 - (up - 0.24) ** 2, 0.04), WHITE)

    def _brows(self, face: Array) -> None:
        part, _, a, v = self._part(face, EYE, 0.55)
        across = a - self.apart
        line = EYE + 0.6 * self.size + (0.10 - 0.01 * self.wide) - 0.3 * across**2
        half = _each(self.h.within("brow", BROW)) * (
            1.15 - 0.4 * (across / (1.35 * self.size)) ** 2
        )
        share = _soft(half - abs(v - line), 0.03) * _soft(1.35 * self.size - abs(across), 0.06)
        _paint(part, share, 0.65 * self.h.hair)

    def _nose(self, face: Array) -> None:
        tip = _each(EYE - 0.05 - self.h.within("nose", NOSE))
        part, u, a, v = self._part(face, EYE - 0.2 - NOSE[1], EYE)
        w = 0.7 + 0.3 * self.wide
        side = _each(-np.sign(self.h.u["light"] - 0.5))  # the ridge's shadow is away from the light
        ridge = 1 - abs(u - 0.065 * w * side) / (0.07 * w)
        ridge = np.clip(ridge, 0, 1) * _soft(v - tip, 0.08) * _soft(0.1 - v, 0.12)
        _darken(part, ridge, (0.80, 0.77, 0.76))
        wing = 1 - (u / (0.14 * w)) ** 2 - ((v - tip) / 0.06) ** 2
        _darken(part, _soft(wing, 0.6), (0.84, 0.78, 0.76))
        hole = 1 - ((a - 0.065 * w) / (0.04 * w)) ** 2 - ((v - tip + 0.035) / 0.03) ** 2
        _darken(part, _soft(hole, 0.8), (0.45, 0.38, 0.38))

    def _beard(self, face: Array) -> None:
        with_beard = np.flatnonzero(self.h.has("beard"))
        rows = self.g.rows(-1.6, -0.1)
        a, v = self.a[with_beard][:, rows], self.g.v[rows]
        part = face[:, with_beard, rows]
        upper = np.maximum(-0.29 - 0.4 * a**2, -0.78 + 0.52 * a)
        share = _soft(upper - v, 0.07) * _soft(1.36 - a, 0.15)
        colour = 0.88 * self.h.hair[with_beard] + 0.08 * self.h.skin[with_beard]
        _paint(part, share, colour)
        face[:, with_beard, rows] = part

    def _mouth(self, face: Array) -> None:
        part, u, _, v = self._part(face, MOUTH - 0.16, MOUTH + 0.24)
        smile = self.h.has("smile")
        along = (u / _each(self.h.within("mouth", self.pose.mouth))) ** 2
        half = _each(self.pose.lips * np.where(smile, 1.1, 0.8))
        up = (v - MOUTH - _each(np.where(smile, 0.12, -0.02)) * along) / half
        shape = 1 - along - up**2
        _paint(part, _soft(shape, 0.3), 0.72 * np.array(LIPS) + 0.2 * self.h.skin)
        gap = _soft(0.16 - abs(up), 0.15) * _soft(0.8 - along, 0.2) * _each(~smile)
        _darken(part, gap, (0.5, 0.4, 0.4))
        _paint(part, _soft(0.72 - 1.15 * along - 2.2 * (up - 0.06) ** 2, 0.3) * _each(smile), TEETH)

    def _glasses(self, face: Array) -> None:
        with_glasses = np.flatnonzero(self.h.has("glasses"))
        lens, apart = self.pose.lens, self.apart[with_glasses]
        rows = self.g.rows(EYE - lens - 0.1, EYE + lens + 0.1)
        a, v = self.a[with_glasses][:, rows], self.g.v[rows]
        part = face[:, with_glasses, rows]
        far = np.sqrt((a - apart) ** 2 + (v - EYE) ** 2)
        rim = _soft(0.03 - abs(far - lens - 0.03), 0.03)
        bar = _soft(0.024 - abs(v - EYE - 0.03), 0.03)
        bar = bar * ((a < apart - lens) | ((a > apart + lens) & (a < 1.5)))
        _paint(part, 0.10 * _soft(lens - far, 0.03), WHITE)
        _paint(part, np.maximum(rim, bar), INK)
        face[:, with_glasses, rows] = part

    # -- what stands out of it ---------------------------------------------------------------------
    def _ears(self, canvas: Array) -> None:
        """One at each side; the farther one behind the head, long hair over both."""
        rows = self.g.rows(-0.22, 0.28)
        x, y, part = self.g.x[rows], self.g.y[rows], canvas[:, :, rows]
        cos, sin = (np.array([f(t) for t in self.h.yaw.tolist()]) for f in (math.cos, math.sin))
        side = np.where(x < 0, -1, 1).astype(np.float32)
        depth = -side * _each(sin)  # towards the eye
        wide = 0.075 + 0.09 * np.maximum(depth, 0)
        ring = 1 - ((x - side * _each(1.01 * cos)) / wide) ** 2 - ((y - 0.03) / 0.19) ** 2
        share = _soft(ring, 0.3) * _each(np.clip(1 - 3 * self.long, 0, 1))
        share *= ~self.g.inside[rows] | (depth > -0.01)
        tone = self.light[:, rows]
        _paint(part, share, 0.95 * self.h.skin, tone)
        _paint(part, _soft(ring - 0.5, 0.5) * share, 0.8 * self.h.skin, tone)

    def _hat(self, canvas: Array) -> None:
        """A woollen cap with a turned-up edge, or a hat with a ribbon and a brim."""
        with_hat = np.flatnonzero(self.h.has("hat"))
        h = self.h.rows(with_hat)
        rows = self.g.rows(0.15)
        x, y, part = self.g.x[rows], self.g.y[rows], canvas[:, with_hat, rows]
        colour, brimmed = h.one_of("hat_colour", HATS), _each(h.u["hat_kind"] < 0.5)
        light = self.light[with_hat][:, rows]
        edge = _each(0.22 + 0.6 * h.within("hairline", HAIRLINE))
        low = y - edge + np.where(brimmed, 0, 0.10 * x**2 - 0.04)
        crown = _soft(1.17 - x**2 - np.where(brimmed, 0.72, 0.92) * y**2, 0.06) * _soft(low, 0.03)
        ribs = np.where(brimmed, 0, self._wave(STRANDS)[with_hat][:, rows])
        _paint(part, crown, colour, light * (1 + 0.05 * ribs))
        band = _soft(1.24 - x**2 - 0.9 * y**2, 0.06) * _soft(low, 0.03) * _soft(0.17 - low, 0.03)
        tone = np.where(brimmed, 0.4, 1.0 + 0.08 * ribs) * light
        cuff = np.where(h.u["hat_kind"][:, None] < 0.5, colour, 0.5 * colour + 0.48)
        _paint(part, np.where(brimmed, np.minimum(band, crown), band), cuff, tone)
        brim = _soft(1 - (x / 1.32) ** 2 - ((y - edge) / 0.085) ** 2, 0.3) * brimmed
        _paint(part, brim, colour, 0.9 - 1.6 * np.clip(edge - y, 0, 0.2))
        canvas[:, with_hat, rows] = part
