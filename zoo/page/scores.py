"""What the scores say: in words, at the end and at their best, beside the documented default's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zoo.metrics import meanings
from zoo.metrics.meanings import Meaning
from zoo.metrics.meanings import meaning as meaning_of
from zoo.page.run import Run
from zoo.standards import HALF, HELD_OUT, SPREAD, Standard, standard, trivial, verdict

ORDER = ["likelihood", "fidelity", "diversity", "classes", "reconstruction", "novelty"]


@dataclass
class Line:
    """One logged score; ``best`` is empty where the last value is it."""

    key: str
    last: str
    best: str
    step: str
    usual: str
    verdict: str  # "better", "worse", "alike" or ""
    trivial: str  # what the data themselves and trivial samplers have


@dataclass
class Card:
    """One measure, and its scores under every extractor."""

    meaning: Meaning
    lines: list[Line] = field(default_factory=list)


def usual_of(run: Run) -> Standard | None:
    """The documented default run of this model on these data."""
    return standard(run.name, run.data_name)


def cards(run: Run) -> dict[str, list[Card]]:
    """The validation's scores by what they are about, one card a measure."""
    usual, rows = usual_of(run), trivial(run.data_name)
    values = usual.values if usual else {}
    found = dict[str, Card]()
    for key, points in sorted(run.series.items()):
        if key.startswith("val/"):
            meaning = meaning_of(key)
            card = found.setdefault(meaning.title, Card(meaning))
            line = _line(key, points, meaning, values.get(key), _others(key, rows))
            card.lines.append(line)
    groups: dict[str, list[Card]] = {}
    for card in sorted(found.values(), key=lambda card: place(card.meaning)):
        groups.setdefault(card.meaning.group, []).append(card)
    return groups


def _others(key: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """What the data themselves and trivial samplers have, the spread beside its mean."""
    said = {what: number(of[key], 3) for what, of in rows.items() if key in of}
    if spread := said.pop(SPREAD, ""):
        said[HALF] += f" ± {spread}"
    first = [what for what in (HELD_OUT, HALF) if what in said]
    return " · ".join(f"{what} {said[what]}" for what in dict.fromkeys([*first, *said]))


def place(meaning: Meaning) -> tuple[int, str]:
    """Where a measure stands among all: what most ask for first."""
    known = meaning.group in ORDER
    return (ORDER.index(meaning.group) if known else len(ORDER), meaning.group)


def _line(
    key: str, points: list[tuple[int, float]], meaning: Meaning, usual: float | None, others: str
) -> Line:
    last, best = points[-1], best_of(points, meaning)
    elsewhere = best is not None and best[1] != last[1]
    return Line(
        key,
        number(last[1]),
        number(best[1]) if best and elsewhere else "",
        f"{best[0]:,}" if best and elsewhere else "",
        number(usual) if usual is not None else "",
        verdict(last[1], usual, meaning.better) if usual is not None else "",
        others,
    )


def best_of(points: list[tuple[int, float]], meaning: Meaning) -> tuple[int, float] | None:
    """The best point, the first of equals; None where neither direction is better."""
    return None if meaning.better is None else min(points, key=lambda p: meaning.cost(p[1]))


def number(value: float, digits: int = 4) -> str:
    """A value in a few digits, with a true minus."""
    return meanings.number(value, digits).replace("-", "−")
