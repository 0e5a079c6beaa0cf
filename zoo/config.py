"""From a command line to layered configuration: names become classes, files become one document. No
torch import here.

Layers, each winning over those before it: configs/base.yaml, configs/FAMILY/NAME.yaml (or, for data
of which there is one, configs/FAMILY/NAME.DATA.yaml in its place),
configs/FAMILY/NAME.PRESET.yaml (``--preset``), every ``--config`` file in order, the other options
of the command line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from zoo import registry, runs, trust

SECTIONS = ("model", "data")
CALLBACKS = {  # by class path: the callbacks import the zoo, not the zoo them
    "sample_grid": "callbacks.SampleGrid",
    "film": "callbacks.Film",
    "fidelity": "callbacks.Fidelity",
    "mode_coverage": "callbacks.ModeCoverage",
    "pair_agreement": "callbacks.PairAgreement",
    "bits_per_dim": "callbacks.BitsPerDim",
    "targets": "callbacks.Targets",
    "anomaly": "callbacks.Anomaly",
    "memorisation": "callbacks.Memorisation",
    "latent_space": "callbacks.LatentSpace",
    "ema": "callbacks.EMA",
    "nan_guard": "callbacks.NaNGuard",
    "checkpoints": "callbacks.Checkpoints",
}
GROUPS = ("trainer", "wandb", *CALLBACKS)
KEYS = (
    *SECTIONS,
    *GROUPS,
    "seed_everything",
    "threads",
    "reuse_memory",
    "compile",
    "run_dir",
    "ckpt_path",
)
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
        checkpoint: what to resume from.
        changes: whether a resumed run may be another one (``--allow_changes``).
    """

    model: str
    data: str
    document: dict[str, Any]
    options: list[str] = field(default_factory=list)
    checkpoint: Path | None = None
    changes: bool = False

    @property
    def arguments(self) -> list[str]:
        """For a jsonargparse parser."""
        return [f"--config={json.dumps(self.document)}", *self.options]

    def says(self, key: str) -> bool:
        """Whether the command line itself sets this dotted key of the document."""
        return any(_dotted(option) == key for option in self.options)

    def asked(self) -> dict[str, Any]:
        """Every interpolation, by dotted key, as it was written and not as it is resolved."""
        out: dict[str, Any] = dict(_leaves(self.document))
        for option in self.options:
            out[_dotted(option)] = option.partition("=")[2]
        return {key: value for key, value in out.items() if "${" in str(value)}


def folder() -> Path:
    """The configs that come with the zoo: in the wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def layer(arguments: list[str]) -> Layered:
    """Read a command line.

    Raises:
        UsageError: unknown model or data, unknown parameter (with the nearest), missing or broken
            file, a file that names what it may not, no model.
    """
    words = _split(arguments)
    named = words.named
    try:
        trust.bring(words.modules)
    except ImportError as error:
        raise UsageError(str(error)) from None
    user: dict[str, Any] = {}
    for path in words.configs:
        user = merge(user, _checked(path, words))
    name = named.get("model") or _name_in(user, "model")
    wanted = named.get("ckpt_path") or user.get("ckpt_path")
    checkpoint = _checkpoint(wanted, name, named.get("run_dir"))
    run = _run_config(checkpoint, words)
    name = name or _name_in(run, "model")
    if not name:
        raise UsageError("which model? --model NAME; `python -m zoo.ls` lists them")
    model = _known(name, "model")

    document = read(folder() / "base.yaml")
    if model is None or named.get("preset"):
        document["threads"] = None  # the one thread is for the zoo's small default runs
    own = folder() / model.family / f"{model.name}.yaml" if model else None
    if run:
        document = _overlay(document, run)
    elif own is not None and own.is_file():
        wanted_data = named.get("data") or _name_in(user, "data")
        document = _overlay(document, read(_on(own, wanted_data)))
    if own is not None and (preset := named.get("preset")):
        document = _overlay(document, read(_preset(own, preset)))
    if "data" in named:  # before the files, whose data options are of these
        document = _overlay(document, {"data": {"class_path": named["data"]}})
    document = _overlay(document, user)
    if "max_epochs" in user.get("trainer", {}) and "max_steps" not in user.get("trainer", {}):
        document["trainer"]["max_steps"] = -1

    data_name = named.get("data") or _name_in(document, "data") or (model.data if model else "")
    if not data_name:
        raise UsageError(
            f"which data for {name}? --data NAME, one of "
            f"{', '.join(e.name for e in registry.data())}"
        )
    data = _known(data_name, "data")
    for section, said, entry in (("model", name, model), ("data", data_name, data)):
        path = entry.class_path if entry else said
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
    if run or user:
        _check_trust(document, words, " and ".join(words.configs) or str(wanted))
    if any(o.startswith("--trainer.max_epochs") for o in words.options) and not any(
        o.startswith("--trainer.max_steps") for o in words.options
    ):
        document["trainer"]["max_steps"] = -1
    _check_options(words.options, {"model": model, "data": data})
    document.pop("ckpt_path", None)
    options = [option for option in words.options if not _is_null(option)]
    for option in words.options:  # a null below an option's dots does not survive the parser
        if _is_null(option):
            document = merge(document, _nested(_dotted(option)))
    return Layered(
        model.name if model else name,
        data.name if data else data_name,
        document,
        options,
        checkpoint,
        words.changes,
    )


def _checkpoint(given: str | None, model: str, run_dir: str | None) -> Path | None:
    """The checkpoint that ``--ckpt_path`` means; in a process that another one started, of that
    one's folder."""
    if not given:
        return None
    if runs.is_child():
        run_dir = os.environ.get(runs.FOLDER) or run_dir
    try:
        return runs.checkpoint_of(given, label(model), run_dir)
    except runs.NoRun as error:
        raise UsageError(f"--ckpt_path={given}: {error}") from None


def _run_config(checkpoint: Path | None, words: _Words) -> dict[str, Any]:
    """The configuration of the run that is resumed, as its folder has it; where it lies and what it
    was resumed from are no part of that."""
    inside = runs.folder_of(checkpoint) if checkpoint else None
    if inside is None or not (inside / "config.yaml").is_file():
        return {}
    said = _checked(inside / "config.yaml", words)
    return {k: v for k, v in said.items() if k not in ("run_dir", "ckpt_path")}


def _checked(path: str | Path, words: _Words) -> dict[str, Any]:
    """A file that the zoo did not write, or may not have written."""
    content = read(path)
    for key, value in content.items():
        if key not in KEYS:
            near = registry.suggest(str(key), KEYS)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(KEYS)}"
            raise UsageError(f"{path}: there is no option {key!r}; {hint}")
        if key in GROUPS and not isinstance(value, dict):
            raise UsageError(f"{path}: {key} holds its options by name, got {value!r}")
    _check_trust(content, words, str(path))
    return content


def _check_trust(document: dict[str, Any], words: _Words, where: str) -> None:
    try:
        trust.check(document, words.trusted)
    except trust.Untrusted as error:
        raise UsageError(f"{where}: {error}") from None


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
        trust.count(content)
    except trust.Untrusted as error:
        raise UsageError(f"{path}: {error}") from None
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
        elif isinstance(value, dict) and not set(value) & {*_NEST, "dict_kwargs"}:
            content[section] = {
                "init_args": value
            }  # the short form, parameters directly under the section
        elif value is not None and not _is_object(value):
            raise UsageError(
                f"{path}: {section} is a name, or class_path and init_args, got {value!r}"[:300]
            )
    return content


def _is_object(value: Any) -> bool:
    """Whether it is a class path with its arguments, both as they are written."""
    if not isinstance(value, dict) or not set(value) <= {*_NEST}:
        return False
    args = value.get("init_args") or {}
    return isinstance(value.get("class_path", ""), str) and isinstance(args, dict)


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


@dataclass
class _Words:
    """A command line, sorted: what is for the parser, ``--config`` files, trusted modules, and what
    was given by name."""

    options: list[str] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)
    changes: bool = False

    @property
    def trusted(self) -> list[str]:
        """Modules whose classes a file may name: those of ``--import``, and of the classes that the
        command line itself names."""
        spoken = (self.named.get(section, "") for section in SECTIONS)
        return [*self.modules, *(name.rpartition(".")[0] for name in spoken if "." in name)]


def _split(arguments: list[str]) -> _Words:
    words = _Words()
    rest = [*arguments]
    taken = ("--model", "--data", "--preset", "--config", "-c", "--import", "--ckpt_path")
    while rest:
        word = rest.pop(0)
        key, eq, value = word.partition("=")
        if key in taken:
            if not eq:
                if not rest or rest[0].startswith("--"):
                    raise UsageError(f"{key} needs a value")
                value = rest.pop(0)
            if key in ("--config", "-c"):
                words.configs.append(value)
            elif key == "--import":
                words.modules.append(value)
            else:
                words.named[key[2:]] = value
        elif key == "--allow_changes":
            words.changes = value.lower() not in ("false", "0", "no")
        elif key in ("--model.help", "--data.help"):
            name = value if eq else rest.pop(0) if rest and not rest[0].startswith("--") else ""
            section = key[2:-5]
            words.options += [key, _class_path(name, section)] if name else [key]
            words.named.setdefault(section, name) if name else None
        else:
            if not eq and word.startswith("--") and rest and not rest[0].startswith("--"):
                word = f"{word}={rest.pop(0)}" if word not in ("--help", "-h") else word
            words.options.append(word)
            if key == "--run_dir":
                words.named["run_dir"] = word.partition("=")[2]
            elif key.removeprefix("--") in GROUPS and "=" in word:
                raise UsageError(f"{key} is a group; say {key}.OPTION=VALUE, or --config FILE")
    return words


def _dotted(option: str) -> str:
    """Where an option stands in the document."""
    key = option.removeprefix("--").partition("=")[0]
    section, _, rest = key.partition(".")
    if section in SECTIONS and rest and rest.partition(".")[0] not in _NEST:
        return f"{section}.init_args.{rest}"
    return key


def _nested(key: str) -> dict[str, Any]:
    """A document with nothing but a null under this dotted key."""
    first, _, rest = key.partition(".")
    return {first: _nested(rest) if rest else None}


def _is_null(option: str) -> bool:
    """``--option=null``, or a sweep's ``--option=None``."""
    return option.partition("=")[2] in ("null", "None")


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """What is no mapping in a document, by dotted key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def label(model: str) -> str:
    """What a run's folder is named after: the registry name, or the class."""
    entry = _known(model, "model") if model else None
    return entry.name if entry else model.rsplit(".", 1)[-1]


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


def _on(own: Path, data: str) -> Path:
    """The default configuration on these data: one of their own, or the model's."""
    special = own.with_name(f"{own.stem}.{data}.yaml")
    return special if data and special.is_file() else own


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
