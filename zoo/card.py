"""What is known of one model or of one kind of data: a card to read, and facts for programs.
Imports no torch.
"""

from __future__ import annotations

import textwrap
from typing import Any

from zoo import sources
from zoo.config import folder, layer
from zoo.registry import Entry, data
from zoo.sources import Parameter

COLUMNS, LABEL = 80, 12
GROUP = "loop."  # options that every game has: named on a card, not explained again on each


def facts(entry: Entry) -> dict[str, Any]:
    """An entry as plain values, the same keys for every model and all data (docs/command.md)."""
    paper, chosen = entry.paper, default_run(entry)
    return {
        "name": entry.name,
        "kind": _kind(entry),
        "family": entry.family,
        "taxonomy": entry.taxonomy,
        "about": entry.about,
        "paper": paper
        and {
            "authors": paper.authors,
            "title": paper.title,
            "year": paper.year,
            "where": paper.where,
            "url": paper.url,
        },
        "likelihood": entry.likelihood,
        "can": sorted(entry.can),
        "told": [*entry.told],
        "makes": [*entry.makes],
        "data": entry.data,
        "learns": [[*gate] for gate in entry.learns],
        "parameters": [
            {
                "name": p.name,
                "type": p.type,
                "default": p.default,
                "default_run": chosen.get(p.name, p.default),
                "required": p.required,
                "doc": p.doc,
            }
            for p in sources.parameters(entry)
        ],
        "waive": dict(entry.waive),
    }


def card(entry: Entry) -> str:
    """Everything that is known, at 80 columns."""
    parts = sources.sections(entry)
    lines = _wrapped(f"{entry.name}: {entry.about}", "", "  ")
    if entry.family == "data":
        lines += _row("class", entry.class_path)
        trains = f"zoo fit --model MODEL --data {entry.name}"
    else:
        lines += _model(entry)
        trains = f"zoo fit --model {entry.name}"
    if objective := parts.get("Objective"):
        lines += ["", "objective", *(x for p in objective for x in _wrapped(p, "  "))]
    given = sources.parameters(entry)
    section = _kind(entry)
    if given:
        lines += ["", f"parameters, --{section}.NAME=VALUE", *_table(given, default_run(entry))]
    needed = [f"--{section}.{p.name}=..." for p in given if p.required]
    return "\n".join([*lines, "", "train it", f"  {' '.join([trains, *needed])}"])


def _model(entry: Entry) -> list[str]:
    """The rows of a model's card."""
    document = layer(["--model", entry.name]).document
    options = document["data"].get("init_args") or {}
    told = ", ".join(f"{k}={v}" for k, v in options.items())
    presets, special = configs(entry)
    rows = {
        "family": entry.family,
        "taxonomy": entry.taxonomy,
        "likelihood": entry.likelihood.replace("_", " "),
        "can": ", ".join(sorted(entry.can)),
        "told": ", ".join(entry.told) or "nothing",
        "makes": ", ".join(entry.makes),
        "data": f"{entry.data} ({told})" if told else entry.data,
        "steps": f"{document['trainer']['max_steps']:,}",
        "reaches": "; ".join(f"{metric} {sign} {bound:g}" for metric, sign, bound in entry.learns)
        or "no gate",
        "presets": ", ".join(f"--preset {name}" for name in presets) or "none",
        "settings": ", ".join(f"of its own on --data {name}" for name in special),
    }
    lines = []
    if paper := entry.paper:
        lines += _row("paper", f"{paper.authors}. {paper.title}. {paper.year}.")
        lines += _row("", paper.url or paper.where)
    for label, text in rows.items():
        lines += _row(label, text) if text else []
    for i, (check, reason) in enumerate(entry.waive.items()):
        lines += _row("" if i else "waives", f"{check}: {reason}")
    return lines


def default_run(entry: Entry) -> dict[str, Any]:
    """The parameters that the default run of a model sets, by their dotted names."""
    if entry.family == "data":
        return {}
    given = layer(["--model", entry.name]).document["model"].get("init_args") or {}
    flat: dict[str, Any] = {}
    for key, value in given.items():
        inside = value if isinstance(value, dict) else None
        flat |= {f"{key}.{k}": v for k, v in inside.items()} if inside else {key: value}
    return flat


def configs(entry: Entry) -> tuple[list[str], list[str]]:
    """The presets of a model, and the data for which it has settings of its own."""
    kinds = {e.name for e in data()}
    files = (folder() / entry.family).glob(f"{entry.name}.*.yaml")
    names = sorted(path.name.split(".")[1] for path in files)
    return [n for n in names if n not in kinds], [n for n in names if n in kinds]


def _kind(entry: Entry) -> str:
    return "data" if entry.family == "data" else "model"


def _row(label: str, text: str) -> list[str]:
    """A label and its text, the text indented by the label's width."""
    first = f"  {label:<{LABEL}}" if label or text else ""
    return _wrapped(text, first, " " * (LABEL + 2))


def _wrapped(text: str, first: str, rest: str | None = None) -> list[str]:
    if rest is None:  # the text's own indentation, and a little more
        rest = first + " " * (len(text) - len(text.lstrip()) + 4)
    return textwrap.wrap(
        text.replace("``", ""),
        COLUMNS,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(given: list[Parameter], chosen: dict[str, Any]) -> list[str]:
    """Name, default, what the default run has instead, and type in one line, the sentence below it;
    a group of options by its names alone, but for what the default run sets."""
    own = [p for p in given if not p.name.startswith(GROUP) or p.name in chosen]
    group = [p.name.removeprefix(GROUP) for p in given if p not in own]
    wide = max(len(p.name) for p in own)
    lines = []
    for p in own:
        value = "required" if p.required else _said(p.default)
        if chosen.get(p.name, p.default) != p.default:
            value += f", {_said(chosen[p.name])} in the default run"
        lines += _wrapped(f"{p.name:<{wide}}  {value}  [{p.type}]", "  ")
        lines += _wrapped(p.doc, "      ", "      ")
    if group:
        lines += _wrapped(f"{GROUP}*  options of the adversarial loop: {', '.join(group)}", "  ")
    return lines


def _said(value: Any) -> str:
    """A default as the command line takes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_said, value))}]"
    return str(value)
