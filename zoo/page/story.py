"""What a page tells of a run in words: the model's docstring, how it was run, what to do next."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from zoo import registry
from zoo.config import UsageError, layer
from zoo.page.run import Run

PART = re.compile(r"([A-Z][\w ]{0,10}?) +(?<=.{11})(\S.*)")  # "Objective  D: ...", in column 12
ELSEWHERE = ("wandb", "run_dir", "ckpt_path")  # options that no number depends on


@dataclass(frozen=True)
class Option:
    """An option that is not the default's."""

    key: str
    value: str
    default: str


def facts(run: Run) -> list[tuple[str, str]]:
    """How it was run, in short."""
    record, found = run.record, run.protocol.get("data")
    seconds = record.get("seconds")
    found = found if isinstance(found, dict) else {}
    rows = found.get("rows")
    said = [
        ("data", run.data_name),
        ("steps", f"{run.steps:,}"),
        ("seed", str(run.config.get("seed_everything", ""))[:40]),
        ("time", _minutes(seconds) if isinstance(seconds, int | float) else ""),
        ("ended", str(record.get("ended", ""))[:40]),
    ]
    if isinstance(rows, dict):
        said.insert(1, ("rows", ", ".join(f"{k} {_count(v)}" for k, v in [*rows.items()][:6])))
    return [(name, text) for name, text in said if text]


def sections(run: Run) -> list[tuple[str, list[tuple[str, bool]]]]:
    """The parts of the model's docstring: its first line, Paper, Model, Objective and so on; each
    in pieces, of which those that are code are marked.
    """
    text = _docstring(run.model)
    first, _, rest = text.partition("\n")
    parts: list[tuple[str, list[str]]] = [("", [first.strip()])]
    for line in rest.splitlines():
        if found := PART.match(line):
            parts.append((found[1], [found[2]]))
        elif line.strip():
            parts[-1][1].append(line)
    told = [(name, _joined(lines).split("``")) for name, lines in parts if any(lines)]
    return [(name, [(p, i % 2 == 1) for i, p in enumerate(pieces)]) for name, pieces in told]


def changed(run: Run) -> list[Option] | None:
    """The options that differ from the default run of the model on these data; None where that is
    not known.
    """
    if run.model is None or run.model.module.split(".")[0] != "zoo":
        return None
    try:
        base = layer(shlex.split(default(run))[3:]).document
    except UsageError:
        return None
    usual = {**_signatures(run), **_flat(base)}
    found = []
    for key, value in _flat(run.config).items():
        if key.split(".")[0] not in ELSEWHERE and _said(value) != _said(usual.get(key)):
            found.append(Option(key, _said(value), _said(usual.get(key))))
    return found


def default(run: Run) -> str:
    """The command of the default run of this model on these data."""
    data = f" --data {run.data.name}" if run.data else ""
    return f"python -m zoo.fit --model {run.model.name}{data}"


def commands(run: Run) -> list[tuple[str, str]]:
    """What to paste: draw more, look inside, go on."""
    folder = shlex.quote(str(run.folder))
    can = run.model.can if run.model else frozenset()
    module = run.class_path("model").rpartition(".")[0]
    more = "" if module.startswith("zoo.") or not module else f" --import {shlex.quote(module)}"
    said = [
        ("train on", f"python -m zoo.fit --ckpt_path {folder} --trainer.max_steps={2 * run.steps}"),
    ]
    if "sample" in can:
        said.insert(
            0, ("draw more", f"python -m zoo.sample --ckpt {folder}{more} --n 64 --out samples.png")
        )
    if "inpaint" in can:
        out = "completed.png"
        said.append(
            (
                "complete images",
                f"python -m zoo.sample --ckpt {folder}{more} --inpaint top --out {out}",
            )
        )
    if run.model:
        said.append(("look inside", f"python -m zoo.explore --ckpt {folder}{more}"))
        said.append(("what its features know", f"python -m zoo.probe --ckpt {folder}{more}"))
    return [*said, ("this page again", f"python -m zoo.page --ckpt {folder}")]


def sentence(words: str) -> str:
    """Words with a capital letter."""
    return words[:1].upper() + words[1:]


def breaks(key: str) -> Markup:
    """A key that may be broken after its strokes, escaped."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])", key))


# -- parts ----------------------------------------------------------------------------------------
def _docstring(entry: Any) -> str:
    """Of the model's file, which is read and not run; of one's own class, where it is imported."""
    if entry is None:
        return ""
    if entry.module in sys.modules:
        return inspect.getdoc(sys.modules[entry.module]) or ""
    if not entry.module.startswith("zoo."):
        return ""
    path = registry.ROOT.joinpath(*entry.module.split(".")[1:]).with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _joined(lines: list[str]) -> str:
    """Lines without the common indentation of all but the first."""
    deep = min((len(s) - len(s.lstrip()) for s in lines[1:] if s.strip()), default=0)
    return "\n".join([lines[0], *(line[deep:] for line in lines[1:])]).strip()


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)[:40]


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _signatures(run: Run) -> dict[str, Any]:
    """Defaults of the zoo's own constructors, by option."""
    from lightning.pytorch import Trainer

    from zoo.cli import named
    from zoo.config import CALLBACKS

    found: dict[str, Any] = {}
    classes: dict[str, Any] = {"model.init_args": registry.get(run.model.name)}
    if run.data is not None:
        classes["data.init_args"] = registry.get(run.data.name, "data")
    found["ema.decay"] = 0.0  # zoo.cli's: averaging is asked for
    classes |= {key: named(path) for key, path in CALLBACKS.items()}
    classes["trainer"] = Trainer
    for prefix, kind in classes.items():
        for name, parameter in inspect.signature(kind).parameters.items():
            value: Any = parameter.default
            if value is not parameter.empty:
                options = dataclasses.is_dataclass(value) and not isinstance(value, type)
                plain = dataclasses.asdict(value) if options else value
                found = _flat({name: plain}, f"{prefix}.") | found
    return found


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _said(value: Any) -> str:
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, tuple):
        value = [*value]
    return "none" if value in (None, {}) else str(value)[:200]
