"""What the documented default run of each model reaches, and what the data themselves and trivial
samplers score: "is this normal?"

The values stand in ``configs/defaults.json`` and ``trivial.json``, which ``benchmarks/defaults.py``
and ``benchmarks/trivial.py`` write.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass

from zoo.config import folder
from zoo.metrics.meanings import HIGHER

FILE, TRIVIAL = "defaults.json", "trivial.json"
HELD_OUT, HALF, SPREAD = "held-out data", "half against half", "deviation over halvings"
ALIKE = 0.1  # within this share of the standard two values are about the same


@dataclass(frozen=True)
class Standard:
    """A default run: its data as the spec names them, its steps, its seed, its last values, and the
    machine, "" where nobody noted it."""

    data: str
    steps: int
    seed: int
    values: Mapping[str, float]
    machine: str = ""

    def __str__(self) -> str:
        where = f", {self.machine}" if self.machine else ""
        return f"the documented default: {self.steps:,} steps on {self.data}{where}"


@functools.cache
def every() -> dict[str, dict[str, Standard]]:
    """By model and data."""
    path = folder() / FILE
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    return {
        model: {data: Standard(data, **said) for data, said in runs.items()}
        for model, runs in content.items()
    }


def standard(model: str, data: str) -> Standard | None:
    """The default run of a model on data of this name, if it has one."""
    return every().get(model, {}).get(data)


@functools.cache
def trivial(data: str) -> dict[str, dict[str, float]]:
    """Scores on data of this name, by what was scored: held-out data, half of the training data
    against the other, samplers that know next to nothing; nothing where nobody measured.
    """
    path = folder() / TRIVIAL
    return json.loads(path.read_text()).get(data, {}) if path.is_file() else {}


def verdict(value: float, usual: float, better: str | float | None) -> str:
    """How a value compares with the usual one: "better", "worse", "alike" (within a tenth), or ""
    where neither direction is better.

    >>> verdict(-10.0, -20.0, "higher"), verdict(1.05, 1.0, "lower"), verdict(0.9, 0.5, 0.5)
    ('better', 'alike', 'worse')
    """
    if better is None:
        return ""
    if isinstance(better, str):
        sign = 1 if better == HIGHER else -1
        return _than(sign * value, sign * usual, abs(usual))
    scale = max(abs(usual), abs(better))
    return _than(-abs(value - better), -abs(usual - better), scale)


def _than(value: float, usual: float, scale: float) -> str:
    if abs(value - usual) <= ALIKE * scale:
        return "alike"
    return "better" if value > usual else "worse"
