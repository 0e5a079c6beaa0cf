"""What a run says when it has ended: its scores by what they are about, beside the documented
default's, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config import read
from zoo.metrics.meanings import ORDER, Meaning, extractor_of, meaning, number
from zoo.next_steps import next_steps
from zoo.standards import Standard, standard, verdict

GROUPS = {
    "likelihood": "likelihood",
    "reconstruction": "reconstruction",
    "fidelity": "do samples look like the data?",
    "diversity": "do they cover the data?",
    "classes": "classes",
    "novelty": "are they new?",
    "codes": "codes",
    "game": "the game",
    "training": "more",
}


def farewell(
    model: Any,
    data: str,
    steps: int,
    seconds: float,
    folder: Path,
    values: Mapping[str, float],
    best: tuple[str, float | None] = ("", None),
    page: str = "",
) -> str:
    """All lines.

    Args:
        model: the trained module. data: what its data are called. values: its last scores, by
            ``val/NAME``. best: the metric that best.ckpt follows, and its value there. page: the
            line about the page.
    """
    name = model.model_name
    usual = standard(name, data)
    took = f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.1f} minutes"
    lines = [f"\n{name}: {steps:,} steps on {data} in {took}"]
    lines += scores(values, usual)
    if usual and values:
        lines.append(f"  beside {usual}; alike: within a tenth")
    metric, value = best
    if metric in values and value is not None:
        at = meaning(metric).title + (f" ({of})" if (of := _of(metric)) else "")
        lines.append(f"  best.ckpt    {at} {number(value)}, in the end {number(values[metric])}")
    return "\n".join([*lines, page, *commands(model, folder, steps)])


def scores(values: Mapping[str, float], usual: Standard | None) -> list[str]:
    """A line a measure, under what they are about; extractors side by side."""
    groups: dict[str, dict[str, list[str]]] = {group: {} for group in GROUPS}
    for key in sorted(values, key=_place):
        found = meaning(key)
        aim = f", {found.aim}" if found.aim else ""
        said = groups[found.group].setdefault(f"{found.title}{aim}", [])
        said.append(_value(key, values[key], found, usual))
    lines = []
    wide = max((len(t) for said in groups.values() for t in said), default=0)
    for group, measures in groups.items():
        if measures:
            lines.append(f"  {GROUPS[group]}")
            lines += [f"    {t:<{wide}}  {'   '.join(v)}" for t, v in measures.items()]
    return lines


def commands(model: Any, folder: Path, steps: int) -> list[str]:
    """What to paste next, as far as there is a checkpoint."""
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        return ["  no checkpoint was written"]
    cls, config = type(model), folder / "config.yaml"
    own = {"model": f"{cls.__module__}.{cls.__name__}"}
    said = next_steps(
        folder,
        cls.entry,
        read(config) if config.is_file() else own,
        steps,
        images=_has_images(model),
        features=_has_features(model),
    )
    return [f"  {what:<12} {command}" for what, command in said]


def _has_images(model: Any) -> bool:
    from zoo.core import Image

    return hasattr(model, "spec") and model.spec.has(x=Image)


def _has_features(model: Any) -> bool:
    """Whether ``zoo.probe`` has anything to measure."""
    from zoo.core.transfer import features

    try:
        features(model)
    except (ValueError, AttributeError):
        return False
    return {"x", "y"} <= {*model.spec}


def _of(key: str) -> str:
    return extractor_of(key.rpartition("/")[2])


def _place(key: str) -> tuple[int, bool, str]:
    """By measure, pixels last."""
    of, name = _of(key), key.rpartition("/")[2]
    measure = name.removesuffix(f"_{of}") if of else name
    return ORDER.get(measure, len(ORDER)), of == "pixels", key


def _value(key: str, value: float, found: Meaning, usual: Standard | None) -> str:
    normal = usual.values.get(key) if usual else None
    said = number(value)
    if normal is not None and (word := verdict(value, normal, found.better)):
        said += f" {word}" + ("" if word == "alike" else f" than {number(normal)}")
    of = _of(key)
    return f"{of} {said}" if of else said
