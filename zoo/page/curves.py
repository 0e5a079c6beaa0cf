"""Curves of what was logged, as lines of an SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.metrics.meanings import Meaning
from zoo.page.run import Run
from zoo.page.scores import best_of, meaning_of, number, place

POINTS = 200  # of a curve, evenly; the best and the last always among them
LEFT, RIGHT, TOP, BOTTOM = 60.0, 308.0, 12.0, 118.0  # of the plot in a chart of 320 x 140


@dataclass(frozen=True)
class Chart:
    """A curve: where its line runs, which points are marked, and the points themselves."""

    key: str
    meaning: Meaning
    line: str
    marks: list[tuple[str, float, float, str]]  # what, x, y, value
    levels: list[tuple[float, str]]  # y and text of a grid line
    first: str
    last: str
    steps: str
    values: str
    note: str


def charts(run: Run) -> dict[str, list[Chart]]:
    """Scores, then losses and the rest; curves of one point have none."""
    groups: dict[str, list[Chart]] = {"Scores": [], "Training": []}
    series = sorted(run.series.items(), key=lambda item: (*place(meaning_of(item[0])), item[0]))
    for key, points in series:
        if len(points) > 1 and (key.startswith("val/") or key.startswith("train/")):
            group = "Scores" if key.startswith("val/") else "Training"
            groups[group].append(_chart(key, points))
    return {name: found for name, found in groups.items() if found}


def _chart(key: str, points: list[tuple[int, float]]) -> Chart:
    meaning = meaning_of(key)
    best = best_of(points, meaning)
    kept = _thinned(points, best)
    values = [v for _, v in kept]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > 50
    scale = math.log10 if logarithmic else float
    bottom, top = scale(low), scale(high)
    if top - bottom < 1e-12 * max(abs(top), 1):
        bottom, top = bottom - 1, top + 1
    first, last = kept[0][0], kept[-1][0]

    def at(step: int, value: float) -> tuple[float, float]:
        x = LEFT + (RIGHT - LEFT) * (step - first) / max(last - first, 1)
        y = BOTTOM - (BOTTOM - TOP) * (scale(value) - bottom) / (top - bottom)
        return round(x, 1), round(y, 1)

    places = [at(*point) for point in kept]
    marks = [("last", *places[-1], number(values[-1]))]
    if best and best[0] != last:
        marks.insert(0, ("best", *at(*best), number(best[1])))
    heights = [low, high] if low < high else [low]
    return Chart(
        key,
        meaning,
        " ".join(f"{x},{y}" for x, y in places),
        marks,
        [(at(first, v)[1], number(v, 3)) for v in heights],
        f"{first:,}",
        f"{last:,}",
        " ".join(str(step) for step, _ in kept),
        " ".join(number(v) for v in values),
        "logarithmic" if logarithmic else "",
    )


def _thinned(
    points: list[tuple[int, float]], best: tuple[int, float] | None
) -> list[tuple[int, float]]:
    if len(points) <= POINTS:
        return points
    at = {round(i * (len(points) - 1) / (POINTS - 1)) for i in range(POINTS)}
    if best:
        at.add(points.index(best))
    return [points[i] for i in sorted(at)]
