"""What the scores say: in words, at the end and at their best, beside the documented default's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from zoo.metrics.meanings import Meaning
from zoo.metrics.meanings import meaning as meaning_of
from zoo.page.run import Run
from zoo.standards import standard, verdict


def usual_of(run: Run) -> dict[str, float]:
    """The documented default's final values, where this model has them on these data."""
    found = standard(run.name, run.data_name)
    return dict(found.values) if found else {}


@dataclass
class Line:
    """One logged score."""

    key: str
    last: str
    best: str
    step: str
    usual: str
    verdict: str  # "better", "worse", "alike" or ""


@dataclass
class Card:
    """One measure, and its scores under every extractor."""

    meaning: Meaning
    lines: list[Line] = field(default_factory=list)

    @property
    def aim(self) -> str:
        """What is better, in a word."""
        return aim(self.meaning.better)


def cards(run: Run) -> list[Card]:
    """The validation's scores, one card a measure."""
    usual, found = usual_of(run), dict[str, Card]()
    for key, points in sorted(run.series.items()):
        if not key.startswith("val/"):
            continue
        meaning = meaning_of(key)
        card = found.setdefault(meaning.title, Card(meaning))
        last, best = points[-1], best_of(points, meaning.better)
        value = usual.get(key)
        card.lines.append(
            Line(
                key,
                number(last[1]),
                number(best[1]) if best else "",
                f"{best[0]:,}" if best else "",
                number(value) if value is not None else "",
                verdict(last[1], value, meaning.better) if value is not None else "",
            )
        )
    return [*found.values()]


def best_of(points: list[tuple[int, float]], better: Any) -> tuple[int, float] | None:
    """The best point, the first of equals; None where neither direction is better."""
    if better is None:
        return None
    if better == "higher":
        return max(points, key=lambda p: p[1])
    if better == "lower":
        return min(points, key=lambda p: p[1])
    return min(points, key=lambda p: abs(p[1] - float(better)))


def aim(better: Any) -> str:
    """What is better, in a word."""
    if better in ("higher", "lower"):
        return f"{better} is better"
    return "" if better is None else f"{number(float(better))} is best"


def number(value: float) -> str:
    """Four digits."""
    return f"{value:.4g}".replace("-", "−")
