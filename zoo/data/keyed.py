"""Numbers that depend on a seed and a key alone: the root of every drawn world."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def numbers(seed: int, key: tuple[int, ...], n: int) -> NDArray[Any]:
    """The first n uniform numbers in [0, 1) of a key, such as (split, item, group)."""
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=key)
    return np.random.Generator(np.random.PCG64(sequence)).random(n)
