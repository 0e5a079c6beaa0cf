"""The registry: which models (and data) exist, and what each one is. Standard library only, so
listing never imports torch.

A model is a file ``zoo/FAMILY/NAME.py`` holding one class under ``@register("NAME", ...)``. The
decorator's arguments are literals, so the registry reads them from the source without running it;
``get`` imports that one file.

    from zoo import registry
    registry.list("*gan*", family="gan", can="sample")     # names
    registry.entry("began").paper.title                    # metadata
    registry.create("began", spec, gamma=0.7)              # an instance
"""

from __future__ import annotations

import ast
import builtins
import difflib
import fnmatch
import functools
import importlib
import inspect
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
FAMILIES = (
    "autoregressive flow variational markov baseline hybrid gan translation editing grounded "
    "video volume physics sequence"
).split()
TAXONOMY = (
    "explicit tractable",
    "explicit variational",
    "explicit markov chain",
    "implicit direct",
    "implicit markov chain",
    "baseline",
    "hybrid",
)
CAPABILITIES = (
    "sample log_prob elbo encode decode reconstruct interpolate inpaint classify translate score "
    "edit mix".split()
)
LIKELIHOODS = (
    "exact_mass",
    "exact_density",
    "dequantised_bound",
    "lower_bound",
    "estimate",
    "none",
)


@dataclass(frozen=True)
class Paper:
    """Where a model comes from; ``where`` is an arXiv number, or a venue for papers that have
    none.
    """

    authors: str
    title: str
    year: int
    where: str = ""

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.where}" if self.where[:4].isdigit() else ""


@dataclass(frozen=True)
class Entry:
    """What is known of a registered name without importing it.

    ``likelihood`` is the kind of number ``log_prob``/``elbo`` returns (docs/likelihood.md), ``can``
    the capabilities, ``learns`` the gates of the default run as (metric, "<" or ">", threshold),
    ``waive`` the contract checks that do not apply, each with its reason.
    """

    name: str
    family: str
    module: str
    cls: str
    paper: Paper | None = None
    about: str = ""
    taxonomy: str = ""
    likelihood: str = "none"
    can: frozenset[str] = frozenset()
    told: tuple[str, ...] = ()
    makes: tuple[str, ...] = ("x",)
    data: str = ""
    learns: tuple[tuple[str, str, float], ...] = ()
    waive: dict[str, str] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()

    @property
    def class_path(self) -> str:
        return f"{self.module}.{self.cls}"


class UnknownName(KeyError):
    """A name that is not registered; the message suggests the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


_added: dict[
    str, tuple[Entry, type]
] = {}  # registered from outside the package, by importing a user's module


def register(name: str, **metadata: Any):
    """Class decorator that names a model. Inside ``zoo`` the file's place says the rest; elsewhere
    pass ``family=``.

    Raises:
        ValueError: the name is taken, is not the file's name, or a value is outside the vocabulary.
    """

    def decorate(cls: type) -> type:
        module = cls.__module__
        inside = module.startswith("zoo.") and module.count(".") == 2
        family = module.split(".")[1] if inside else metadata.pop("family", "")
        entry = _make(name, family, module, cls.__qualname__, metadata)
        if inside and module.split(".")[2] != name:
            raise ValueError(
                f"{module} registers {name!r}: a model's file name is its registry name"
            )
        if not inside:
            known = _table().get(name) or (_added[name][0] if name in _added else None)
            if known and (known.module, known.cls) != (module, cls.__qualname__):
                raise ValueError(f"the name {name!r} is already taken by {known.class_path}")
            _added[name] = (replace(entry, parameters=parameters(cls)), cls)
        cls.entry = entry  # type: ignore[attr-defined]
        return cls

    return decorate


def list(
    pattern: str = "*",
    *,
    family: str | None = None,
    taxonomy: str | None = None,
    can: str | Iterable[str] = (),
) -> builtins.list[str]:
    """Names of the models that match a glob ``pattern`` and every filter given, sorted.

    Args:
        family: folder name, e.g. ``"gan"``. taxonomy: a node or its beginning, e.g. ``"explicit"``.
            can: capabilities, all required.

    Raises:
        ValueError: there is no such family, node or capability; with the nearest.
    """
    wanted = {can} if isinstance(can, str) else set(can)
    families = {*FAMILIES, *(e.family for e, _ in _added.values())}
    abilities = {*CAPABILITIES, *(c for e in entries() for c in e.can)}
    for kind, asked, known in (
        ("family", {family} if family is not None else (), families),
        ("taxonomy", {taxonomy} if taxonomy is not None else (), TAXONOMY),
        ("can", wanted, abilities),
    ):
        for name in sorted(asked):
            begun = kind == "taxonomy" and any(node.startswith(name) for node in known)
            if name not in known and not begun:
                near = suggest(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{kind}={name!r} is none of {', '.join(sorted(known))}{hint}")
    return sorted(
        e.name
        for e in entries()
        if fnmatch.fnmatch(e.name, pattern)
        and family in (None, e.family)
        and (taxonomy is None or e.taxonomy.startswith(taxonomy))
        and wanted <= e.can
    )


def entries() -> tuple[Entry, ...]:
    """Every model's entry, in the order of families and then names."""
    models = [e for e in _table().values() if e.family != "data"] + [e for e, _ in _added.values()]
    order = {f: i for i, f in enumerate(FAMILIES)}
    return tuple(sorted(models, key=lambda e: (order.get(e.family, 99), e.name)))


def data() -> tuple[Entry, ...]:
    """Every data module's entry, by name."""
    return tuple(sorted((e for e in _table().values() if e.family == "data"), key=lambda e: e.name))


def entry(name: str, kind: str = "model") -> Entry:
    """The entry of a model (or, with ``kind="data"``, of a data module).

    Raises:
        UnknownName: with the nearest names. ImportError: the file of that name cannot be read.
    """
    known = {e.name: e for e in (entries() if kind == "model" else data())}
    if name in known:
        return known[name]
    if name in _broken():
        raise ImportError(f"{kind} {name!r} exists but its file is broken: {_broken()[name]}")
    near = suggest(str(name), known)
    hint = (
        f"did you mean: {', '.join(near)}?"
        if near
        else f"known: {', '.join(sorted(known)) or 'none'}"
    )
    raise UnknownName(f"unknown {kind} {name!r}; {hint}")


def get(name: str, kind: str = "model") -> type:
    """Import the one file that defines ``name`` and return its class."""
    if kind == "model" and name in _added:
        return _added[name][1]
    found = entry(name, kind)
    try:
        return getattr(importlib.import_module(found.module), found.cls)
    except Exception as error:
        raise ImportError(
            f"{kind} {name!r} ({found.module}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def create(name: str, spec: Any, **params: Any) -> Any:
    """Build a model for data of this ``DataSpec``.

    Raises:
        UnknownName: no such model. TypeError: no such parameter, with the nearest one. ValueError:
            a value or the data do not fit.
    """
    cls = get(name)
    known = [p for p in inspect.signature(cls).parameters if p != "spec"]
    for key in params:
        if key not in known:
            near = suggest(key, known)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise TypeError(f"{name} has no parameter {key!r}; {hint}")
    made = cls(spec, **params)
    made.check_told()
    return made


def parameters(cls: type) -> tuple[str, ...]:
    """A class's constructor parameters but ``spec``."""
    return tuple(p for p in inspect.signature(cls).parameters if p != "spec")


def search(text: str) -> builtins.list[str]:
    """Names of the models whose name, title, authors or summary contain ``text``, whatever the
    case.
    """
    text = text.lower()
    return [
        e.name for e in entries() if text in f"{e.name} {e.about} {e.paper} {e.taxonomy}".lower()
    ]


def suggest(name: str, known: Iterable[str], n: int = 3) -> builtins.list[str]:
    """The names nearest to a mistyped one, best first."""
    return difflib.get_close_matches(name, [*known], n=n, cutoff=0.55)


def _make(
    name: str,
    family: str,
    module: str,
    cls: str,
    metadata: dict[str, Any],
    parameters: tuple[str, ...] = (),
) -> Entry:
    metadata = {**metadata, "can": frozenset(metadata.get("can", ()))}
    for key in {"told", "makes"} & set(metadata):
        value = metadata[key]
        metadata[key] = (value,) if isinstance(value, str) else tuple(value)
    learns = metadata.get("learns", ())
    metadata["learns"] = (learns,) if learns and isinstance(learns[0], str) else tuple(learns)
    made = Entry(name, family, module, cls, parameters=parameters, **metadata)
    if family != "data":
        for value, vocabulary in ((made.taxonomy, TAXONOMY), (made.likelihood, LIKELIHOODS)):
            if value not in vocabulary:
                raise ValueError(f"{name}: {value!r} is not one of {', '.join(vocabulary)}")
    return made


@functools.cache
def _scan() -> tuple[dict[str, Entry], dict[str, str]]:
    table: dict[str, Entry] = {}
    broken: dict[str, str] = {}
    for path in sorted(
        p for folder in (*FAMILIES, "data") for p in (ROOT / folder).glob("[!_]*.py")
    ):
        try:
            found = _read(path)
        except (SyntaxError, ValueError, TypeError, OSError) as error:
            broken[path.stem] = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"{path.name} is left out of the registry: {broken[path.stem]}", stacklevel=2
            )
            continue
        if found is None:
            continue
        if found.name in table:
            raise ValueError(
                f"the name {found.name!r} is registered twice: {table[found.name].module} and "
                f"{found.module}"
            )
        table[found.name] = found
    return table, broken


def _table() -> dict[str, Entry]:
    return _scan()[0]


def _broken() -> dict[str, str]:
    return _scan()[1]


def _read(path: Path) -> Entry | None:
    """The entry that a file's ``@register(...)`` decorator states, read from its source."""
    family = path.parent.name
    for node in ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "register":
                name = _literal(call.args[0])
                if name != path.stem:
                    raise ValueError(
                        f"it registers {name!r}: a model's file name is its registry name"
                    )
                metadata = {k.arg: _literal(k.value) for k in call.keywords if k.arg}
                return _make(
                    name,
                    family,
                    f"zoo.{family}.{path.stem}",
                    node.name,
                    metadata,
                    _parameters(node),
                )
    return None


def _parameters(node: ast.ClassDef) -> tuple[str, ...]:
    """The constructor's parameters but ``spec``; none where it is inherited."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return tuple(
                a.arg for a in (*item.args.args[1:], *item.args.kwonlyargs) if a.arg != "spec"
            )
    return ()


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Paper":
        return Paper(
            *map(_literal, node.args), **{k.arg: _literal(k.value) for k in node.keywords if k.arg}
        )
    return ast.literal_eval(node)
