"""From a command line to layered configuration: names become classes, files become one document. No
torch import here.

Layers, each winning over those before it: configs/base.yaml, configs/FAMILY/NAME.yaml,
configs/FAMILY/NAME.PRESET.yaml (``--preset``), every ``--config`` file in order, the other options
of the command line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from zoo import registry

SECTIONS = ("model", "data")
_NEST = ("class_path", "init_args")


class UsageError(Exception):
    """A mistake on the command line or in a config file; the message is one line that names the
    remedy.
    """


@dataclass
class Layered:
    """What a command line asks for.

    Attributes:
        model, data: registry names (or dotted class paths of a user's own classes).
        document: the merged configuration, interpolations unresolved.
        options: the command line's other options, names replaced by class paths.
    """

    model: str
    data: str
    document: dict[str, Any]
    options: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> list[str]:
        """For a jsonargparse parser."""
        return [f"--config={json.dumps(self.document)}", *self.options]


def folder() -> Path:
    """The configs that come with the zoo: in the wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def layer(arguments: list[str]) -> Layered:
    """Read a command line.

    Raises:
        UsageError: unknown model or data, unknown parameter (with the nearest), missing or broken
            file, no model.
    """
    options, configs, named = _split(arguments)
    user: dict[str, Any] = {}
    for path in configs:
        user = merge(user, read(path))
    model = named.get("model") or _name_in(user, "model")
    if not model:
        raise UsageError("which model? --model NAME; `python -m zoo.ls` lists them")
    model_entry = _known(model, "model")

    document = read(folder() / "base.yaml")
    if model_entry is None or named.get("preset"):
        document["threads"] = None  # the one thread is for the zoo's small default runs
    if model_entry is not None:
        own = folder() / model_entry.family / f"{model_entry.name}.yaml"
        layers = [own] if own.is_file() else []
        if preset := named.get("preset"):
            layers.append(_preset(own, preset))
        for file in layers:
            document = _overlay(document, read(file))
    document = _overlay(document, user)
    if "max_epochs" in user.get("trainer", {}) and "max_steps" not in user.get("trainer", {}):
        document["trainer"]["max_steps"] = -1

    data = (
        named.get("data") or _name_in(document, "data") or (model_entry.data if model_entry else "")
    )
    if not data:
        raise UsageError(
            f"which data for {model}? --data NAME, one of "
            f"{', '.join(e.name for e in registry.data())}"
        )
    data_entry = _known(data, "data")
    for section, name, entry in (("model", model, model_entry), ("data", data, data_entry)):
        path = entry.class_path if entry else name
        here = document.get(section) or {}
        if _class_path(_name_in(document, section), section) not in ("", path):
            here = {
                "init_args": {
                    k: v for k, v in here.get("init_args", {}).items() if k == "batch_size"
                }
            }
        document[section] = {
            "class_path": path,
            **({"init_args": here["init_args"]} if here.get("init_args") else {}),
        }
        if entry is not None:
            _check_names(section, entry, [*here.get("init_args", {})])
    if any(o.startswith("--trainer.max_epochs") for o in options) and not any(
        o.startswith("--trainer.max_steps") for o in options
    ):
        document["trainer"]["max_steps"] = -1
    _check_options(options, {"model": model_entry, "data": data_entry})
    return Layered(model, data, document, options)


def read(path: str | Path) -> dict[str, Any]:
    """A YAML file as a dict, with model and data in the form {class_path, init_args}."""
    path = Path(path)
    if not path.is_file():
        near = (
            registry.suggest(path.name, [p.name for p in path.parent.glob("*.yaml")])
            if path.parent.is_dir()
            else []
        )
        raise UsageError(
            f"no config file {path}" + (f"; did you mean {path.parent / near[0]}?" if near else "")
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UsageError(
            f"{path} is not valid YAML{where}: {getattr(error, 'problem', None) or error}"
        ) from None
    if not isinstance(content, dict):
        raise UsageError(
            f"{path} must hold a mapping such as 'model: began', got {type(content).__name__}"
        )
    for section in SECTIONS:
        value = content.get(section)
        if isinstance(value, str):
            content[section] = {"class_path": value}
        elif isinstance(value, dict) and not set(value) <= {*_NEST, "dict_kwargs"}:
            content[section] = {
                "init_args": value
            }  # the short form, parameters directly under the section
    return content


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts merged; lists and scalars of ``above`` replace those below."""
    out = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merge(out[key], value) if both else value
    return out


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``merge``, but a section of another class does not inherit the old one's parameters
    (batch_size apart).
    """
    for section in SECTIONS:
        was, now = _name_in(below, section), _name_in(above, section)
        if was and now and _class_path(was, section) != _class_path(now, section):
            kept = {
                k: v for k, v in below[section].get("init_args", {}).items() if k == "batch_size"
            }
            below = {**below, section: {"init_args": kept}}
    return merge(below, above)


def _split(arguments: list[str]) -> tuple[list[str], list[str], dict[str, str]]:
    """Options kept for the parser, --config paths, and the names given to --model, --data and
    --preset.
    """
    options: list[str] = []
    configs: list[str] = []
    named: dict[str, str] = {}
    rest = [*arguments]
    while rest:
        word = rest.pop(0)
        key, eq, value = word.partition("=")
        if key in ("--model", "--data", "--preset", "--config", "-c"):
            if not eq:
                if not rest or rest[0].startswith("--"):
                    raise UsageError(f"{key} needs a value")
                value = rest.pop(0)
            if key in ("--config", "-c"):
                configs.append(value)
            else:
                named[key[2:]] = value
        elif key in ("--model.help", "--data.help"):
            name = value if eq else rest.pop(0) if rest and not rest[0].startswith("--") else ""
            section = key[2:-5]
            options += [key, _class_path(name, section)] if name else [key]
            named.setdefault(section, name) if name else None
        else:
            options.append(word)
            if not eq and word.startswith("--") and rest and not rest[0].startswith("--"):
                options[-1] = f"{word}={rest.pop(0)}" if word not in ("--help", "-h") else word
    return options, configs, named


def _known(name: str, kind: str) -> registry.Entry | None:
    if "." in name:  # a class path: one of ours, or a user's own
        return next(
            (e for e in (*registry.entries(), *registry.data()) if e.class_path == name), None
        )
    try:
        return registry.entry(name, kind)
    except (registry.UnknownName, ImportError) as error:
        raise UsageError(str(error)) from None


def _class_path(name: str, kind: str) -> str:
    if not name or "." in name:
        return name
    entry = _known(name, kind)
    return entry.class_path if entry else name


def _name_in(document: dict[str, Any], section: str) -> str:
    value = document.get(section) or {}
    return value if isinstance(value, str) else value.get("class_path", "")


def _preset(own: Path, preset: str) -> Path:
    path = own.with_name(f"{own.stem}.{preset}.yaml")
    if not path.is_file():
        there = sorted(p.name.split(".")[1] for p in own.parent.glob(f"{own.stem}.*.yaml"))
        raise UsageError(
            f"{own.stem} has no preset {preset!r}; it has {', '.join(there) or 'none'}"
        )
    return path


def _check_options(options: list[str], entries: dict[str, registry.Entry | None]) -> None:
    for option in options:
        section, _, rest = option.partition("=")[0].removeprefix("--").partition(".")
        if section in entries and rest and rest != "help":
            parts = [p for p in rest.split(".") if p != "init_args"]
            entry = entries[section]
            if entry is not None and parts and parts[0] not in _NEST:
                _check_names(section, entry, [parts[0].rstrip("+")])


def _check_names(section: str, entry: registry.Entry, names: list[str]) -> None:
    known = [*entry.parameters]
    for name in names:
        if known and name not in known:
            near = registry.suggest(name, known)
            hint = (
                f"did you mean --{section}.{near[0]}?" if near else f"it takes {', '.join(known)}"
            )
            raise UsageError(f"--{section}.{name}: {entry.name} has no such parameter; {hint}")
