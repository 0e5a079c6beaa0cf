"""What a file may name. A config that somebody shares, or a run folder, is data: it chooses among
the zoo's own classes, Lightning's, and those of modules that the user names by ``--import``.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import os
import re
import sys
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo import registry

LIGHTNING = "lightning.pytorch"
OPEN = ("callbacks", *(f"{LIGHTNING}.{part}" for part in ("callbacks", "loggers", "profilers")))
OBJECTS = "accelerator callbacks logger plugins profiler strategy".split()  # of the Trainer
PLAIN = (int, float, bool, str, bytes, type(None), os.PathLike, Path, Any, list, tuple, dict)
DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
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
    """Raise ``Untrusted`` if a config file names a class or function that it may not. Nothing is
    imported but Lightning's and the zoo's.
    """
    for section, entries in (("model", registry.entries()), ("data", registry.data())):
        value = document.get(section) or {}
        path = value.get("class_path", "")
        known = {e.name: e.class_path for e in entries}
        if path and path not in (*known, *known.values()):
            _allow(path, modules)
        ours = known.get(path, path if path in known.values() else "")
        _objects(value.get("init_args") or {}, ours, modules)
    for key, value in (document.get("trainer") or {}).items():
        if key.rstrip("+") in OBJECTS:
            for item in value if isinstance(value, list) else [value]:
                _object(item, modules)


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


def _object(item: Any, modules: Iterable[str]) -> None:
    """One class-typed value: a class path, alone or with its arguments, or a plain name."""
    if isinstance(item, dict):
        path, args = item.get("class_path"), item.get("init_args") or {}
        if not isinstance(path, str) or not isinstance(args, dict):
            raise Untrusted(f"an object is given by class_path and init_args, got {item}")
        if "." in path:
            _allow(path, modules)
        _objects(args, path, modules)
    elif isinstance(item, str) and _nameable(item):
        _allow(item, modules)


def _objects(args: dict[str, Any], path: str, modules: Iterable[str]) -> None:
    """Arguments of a class: a string may not stand where an object or a function belongs."""
    for name, value in args.items():
        if isinstance(value, dict) and "class_path" in value:
            _object(value, modules)
        elif isinstance(value, dict):
            _objects(value, "", modules)
        elif isinstance(value, list):
            for item in value:
                _objects({name: item}, path, modules)
        elif isinstance(value, str) and _nameable(value) and not _plain(_hint(path, name)):
            _allow(value, modules)


def _nameable(text: str) -> bool:
    """Whether it reads as a dotted path, or may be resolved into one."""
    return "$" in text or DOTTED.fullmatch(text) is not None


def _hint(path: str, name: str) -> Any:
    """The type that a class gives a parameter; ``Any`` where it gives none."""
    module, _, cls = path.rpartition(".")
    found = getattr(importlib.import_module(module), cls, None) if module else None
    try:
        return typing.get_type_hints(found.__init__).get(name, Any) if found else Any
    except NameError:  # a name that only type checkers import
        return object


def _plain(hint: Any) -> bool:
    """Whether values of this type are numbers, words and paths, and no object is made of them."""
    if typing.get_origin(hint) is typing.Literal:
        return True
    if parts := typing.get_args(hint):
        called = typing.get_origin(hint) is collections.abc.Callable
        return not called and all(_plain(part) for part in parts if part is not ...)
    return hint in PLAIN


def _allow(path: str, modules: Iterable[str]) -> None:
    if DOTTED.fullmatch(path):
        module = path.rpartition(".")[0]
        for trusted in (*OPEN, *modules):
            if module == trusted or module.startswith(f"{trusted}."):
                return
        remedy = f"; if you trust that code, add --import {module}"
    else:
        remedy = "; write a class path there"
    raise Untrusted(f"a config may not name {path!r}, which is not of the zoo{remedy}")
