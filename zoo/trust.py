"""What a file may name. A config that somebody shares, or a run folder, is data: it chooses among
the zoo's own classes, Lightning's, and those of modules that the user names by ``--import``.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zoo import registry

LIGHTNING = "lightning.pytorch"
OPEN = ("callbacks", *(f"{LIGHTNING}.{part}" for part in ("callbacks", "loggers", "profilers")))
OBJECT = {"class_path", "init_args"}
INERT = (int, float, bool, str, bytes, type(None), os.PathLike, Path)  # no object is made of them
PLAIN = (*INERT, Any, list, tuple, dict)  # nor of these, but of what a text in their place says
DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
WORD = re.compile(r"[\w:-]*")
ENVIRONMENT = re.compile(r"\$\{oc\.env:\w+\}")  # what the user has there
STRUCTURED = re.compile(r"[{\[\n]|:(\s|$)")  # a text that may be read as more than a text
NODES = 100_000  # of a config file, aliases counted wherever they are used


class Untrusted(ValueError):
    """A file names what it may not; the message says how to allow it."""


def class_of(path: str, kind: str, modules: Iterable[str] = ()) -> type:
    """The model or data module of this class path, imported only if it may be.

    Args:
        kind: "model" or "data". modules: the user's own that count as trusted.

    Raises:
        Untrusted: it is neither registered nor of a trusted module, or not of that kind.
    """
    from lightning.pytorch import LightningDataModule, LightningModule

    entries = registry.entries() if kind == "model" else registry.data()
    for entry in entries:
        if entry.class_path == path:
            return registry.get(entry.name, kind)
    _allow(path, modules)
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name, None)
    base = LightningModule if kind == "model" else LightningDataModule
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise Untrusted(f"{path} is no {base.__name__}")
    return cls


def bring(modules: Iterable[str]) -> None:
    """Import modules of the user's own, from the working directory too.

    Raises:
        ImportError: one cannot be, with its name.
    """
    for module in modules:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(module)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ImportError(f"--import {module}: it cannot be imported ({said})") from error


def check(document: dict[str, Any], modules: Iterable[str] = ()) -> None:
    """Raise ``Untrusted`` if a config file names a class or function that it may not, or one hides
    in a text, or in another file, that the parser would read. Nothing is imported but Lightning's,
    the zoo's and ``modules``. Arguments of a section that names no class are left for the document
    that it becomes part of.
    """
    for section, entries in (("model", registry.entries()), ("data", registry.data())):
        value = document.get(section) or {}
        path = value.get("class_path", "")
        known = {e.name: e.class_path for e in entries}
        if path and path not in (*known, *known.values()):
            _allow(path, modules)
        if path:
            _arguments(value.get("init_args") or {}, known.get(path, path), modules)
    for key, value in document.items():
        if key == "trainer":
            _arguments(value, f"{LIGHTNING}.Trainer", modules)
        elif key not in ("model", "data"):
            _value(value, str, modules)


def count(document: Any) -> None:
    """Raise ``Untrusted`` for a document that aliases blow up beyond ``NODES`` values."""
    waiting, seen = [document], 0
    while waiting:
        seen += 1
        value = waiting.pop()
        if seen > NODES:
            raise Untrusted(f"it has more than {NODES:,} values, by aliases of aliases")
        if isinstance(value, (dict, list)):
            waiting += value.values() if isinstance(value, dict) else value


def _arguments(args: dict[str, Any], path: str, modules: Iterable[str]) -> None:
    """Arguments of a class: a string may not stand where an object or a function belongs."""
    _options(args, lambda name: _hint(path, name.rstrip("+")), modules)


def _options(given: dict[Any, Any], hint_of: Callable[[str], Any], modules: Iterable[str]) -> None:
    """Values by the names of options, each where the type that its name has is expected."""
    for name, value in given.items():
        if not isinstance(name, str) or "." in name:
            raise Untrusted(f"{name!r} is no option; options below options are indented")
        _value(value, hint_of(name), modules)


def _value(value: Any, hint: Any, modules: Iterable[str]) -> None:
    """A value where this type is expected."""
    if isinstance(value, dict) and OBJECT & {*value}:
        _object(value, modules)
    elif isinstance(value, dict):
        _options(value, lambda name: _inside(hint, name), modules)
    elif isinstance(value, list):
        for item in value:
            _value(item, hint, modules)
    elif isinstance(value, str) and not _of(hint, INERT):
        rest = ENVIRONMENT.sub("", value)
        if "$" in rest or STRUCTURED.search(rest):
            raise Untrusted(
                f"a config may not name {value!r} here; write it out, as a mapping or a list"
            )
        if not _of(hint, PLAIN):
            _word(value, modules)


def _word(value: str, modules: Iterable[str]) -> None:
    """A text where an object belongs: a class, or a plain name of Lightning's."""
    if os.path.isfile(value):
        raise Untrusted(f"a config brings in no other file, got {value!r}")
    if not WORD.fullmatch(value):
        _allow(value, modules)


def _object(item: dict[str, Any], modules: Iterable[str]) -> None:
    """One class-typed value: a class path or a plain name, with its arguments."""
    path, args = item.get("class_path"), item.get("init_args") or {}
    if not isinstance(path, str) or not isinstance(args, dict) or {*item} - OBJECT:
        raise Untrusted(f"an object is given by class_path and init_args, got {item}")
    if not WORD.fullmatch(path):
        _allow(path, modules)
    _arguments(args, path, modules)


def _class(path: str) -> Any:
    """What a class path, or the plain name of a class of Lightning's, stands for; None: nothing."""
    module, _, name = path.rpartition(".")
    try:
        places = [importlib.import_module(at) for at in ([module] if module else OPEN)]
    except Exception:  # whatever a module of one's own raises
        return None
    return next(filter(None, (getattr(place, name, None) for place in places)), None)


def _hint(path: str, name: str) -> Any:
    """The type that a class gives a parameter; ``object`` of one that it does not speak of."""
    if (found := _class(path)) is None:
        return object
    try:
        known = inspect.signature(found.__init__).parameters
        return typing.get_type_hints(found.__init__).get(name, Any if name in known else object)
    except (NameError, ValueError, TypeError):  # a name that only type checkers import
        return object


def _inside(hint: Any, name: str) -> Any:
    """The type of one entry of a mapping: of dataclasses, as they say it."""
    for kind in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(kind):
            return typing.get_type_hints(kind).get(name, object)
    return hint


def _of(hint: Any, kinds: tuple[Any, ...]) -> bool:
    """Whether values of this type are made of these kinds alone."""
    if typing.get_origin(hint) is typing.Literal:
        return True
    if parts := typing.get_args(hint):
        called = typing.get_origin(hint) is collections.abc.Callable
        return not called and all(_of(part, kinds) for part in parts if part is not ...)
    return hint in kinds


def _allow(path: str, modules: Iterable[str]) -> None:
    """Raise ``Untrusted`` unless it is a class of a trusted module, or anything that a module of
    the user's defines.
    """
    if not DOTTED.fullmatch(path):
        raise Untrusted(
            f"a config may not name {path!r}, which is not of the zoo; write a class path there"
        )
    trusted, module = (*OPEN, *modules), path.rpartition(".")[0]
    if not _within(path, trusted):
        raise Untrusted(
            f"a config may not name {path!r}, which is not of the zoo; if you trust that code, "
            f"add --import {module}"
        )
    if (found := _class(path)) is None:
        raise Untrusted(f"there is no {path}")
    home = getattr(found, "__module__", "") or module
    ours = inspect.isclass(found) or _within(path, modules)
    if not ours or not _within(f"{home}.", trusted):
        raise Untrusted(
            f"a config may not name {path!r}, which is of {home}; if you trust that code, add "
            f"--import {home}"
        )


def _within(path: str, modules: Iterable[str]) -> bool:
    return any(path.startswith(f"{module}.") for module in modules)
