"""What a page tells of a run in words: the model's docstring, how it was run, what to do next."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from zoo import registry, sources
from zoo.config import UsageError, layer
from zoo.next_steps import next_steps
from zoo.page.run import Run

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
        ("machine", str(record.get("machine", ""))[:120]),
    ]
    if isinstance(rows, dict):
        said.insert(1, ("rows", ", ".join(f"{k} {_count(v)}" for k, v in [*rows.items()][:6])))
    return [(name, text) for name, text in said if text]


def sections(run: Run) -> list[tuple[str, list[tuple[str, bool]]]]:
    """The parts of the model's docstring: its first line, Paper, Model, Objective and so on; each
    in pieces, of which those that are code are marked.
    """
    found = sources.parts(sources.docstring(run.model) if run.model else "")
    whole = {name: [line for line in lines if line.strip()] for name, lines in found.items()}
    told = [(name, _joined(lines).split("``")) for name, lines in whole.items() if lines]
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
    found = run.protocol.get("data")
    fields = found.get("fields") if isinstance(found, dict) else None
    known = fields if isinstance(fields, dict) else {"x": "image"}
    said = next_steps(
        run.folder,
        run.model,
        run.config,
        run.steps,
        images=known.get("x") == "image",
        features={"x", "y"} <= {*known} and run.model is not None and "encode" in run.model.can,
    )
    again = f"python -m zoo.page --ckpt {shlex.quote(str(run.folder))}"
    return [*said, ("this page again", again)]


def sentence(words: str) -> str:
    """Words with a capital letter."""
    return words[:1].upper() + words[1:]


def breaks(key: str) -> Markup:
    """A key that may be broken after its strokes, escaped."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])", key))


# -- parts ----------------------------------------------------------------------------------------
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
