"""Of which weights something is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """The weights after ``step`` generator steps, averaged over the run or as they were."""

    step: int
    averaged: bool

    def __str__(self) -> str:
        return f"step {self.step:,} · {'averaged' if self.averaged else 'raw'} weights"
