"""What source files say of a class without being run: its constructor's parameters, with type,
default and meaning, and the parts of a module's docstring. Imports no torch.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import runpy
import sys
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from zoo.registry import ROOT, Entry

OURS = ("zoo", "callbacks")  # packages beside each other
GROUPS = {  # of options, by the annotation of a parameter: the file that defines them
    "LoopOptions": ROOT / "bases" / "loop_options.py",
    "LookOptions": ROOT / "auxiliary" / "look.py",
}
WIDTH = 100  # of the lines of source files
NAMED = re.compile(r"\w+:$")  # "G:", whose loss begins here
INDENT = " " * 11  # of what a part says
PART = re.compile(r"([A-Z][\w ]{0,10}?) +(?<=.{11})(\S.*)")  # "Objective  D: ...", in column 12


@dataclass(frozen=True)
class Parameter:
    """One parameter of a constructor.

    Attributes:
        name: dotted for a field of a group of options: "loop.r1".
        type: in words, with its range: "int, at least 1", "mlp | conv", "float, positive | null".
        default: its value, or the expression where that is no literal.
        required: whether there is no default.
        doc: its sentence in the docstring. choices: all its values, where they are few.
    """

    name: str
    type: str
    default: Any = None
    required: bool = False
    doc: str = ""
    choices: tuple[str, ...] = ()


def parameters(entry: Entry) -> list[Parameter]:
    """The constructor's parameters of a model or of data, but ``spec``, those it inherits too."""
    return of_class(source(entry), entry.cls)


def source(entry: Entry) -> Path:
    """The file that defines it."""
    return ROOT.joinpath(*entry.module.split(".")[1:]).with_suffix(".py")


def of_callback(name: str) -> list[Parameter]:
    """The parameters of a callback, by the name that the package has for it."""
    package = ROOT.parent / "callbacks" / "__init__.py"
    found = _defined(ast.parse(package.read_text(encoding="utf-8")), package, name)
    return of_class(*found) if found else []


@functools.cache
def of_class(path: Path, name: str) -> list[Parameter]:
    """The parameters of the class of this name in a file: of its constructor, or, of a dataclass,
    its fields. A constructor that it has not is that of its first base, in the same file or in one
    that the file imports it from.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    made = next((f for f in node.body if getattr(f, "name", "") == "__init__"), None)
    fields = [f for f in node.body if isinstance(f, ast.AnnAssign)]
    if isinstance(made, ast.FunctionDef):
        found = _arguments(made)
    elif any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        found = [(ast.unparse(f.target), f.annotation, f.value) for f in fields]
    elif node.bases and (above := _defined(tree, path, ast.unparse(node.bases[0]))):
        return of_class(*above)
    else:
        return []
    docs = _docs(ast.get_docstring(node) or "", [n for n, _, _ in found])
    out: list[Parameter] = []
    for key, hint, default in found:
        said = ast.unparse(hint) if hint else ""
        if said in GROUPS:
            inside = of_class(GROUPS[said], said)
            out += [replace(p, name=f"{key}.{p.name}") for p in inside]
            continue
        kind = _type(said, tree, path)
        value = _value(default) if default else None
        doc = docs.get(key, "")
        out.append(Parameter(key, words(kind), value, default is None, doc, choices(kind)))
    return out


def _arguments(made: ast.FunctionDef) -> list[tuple[str, ast.expr | None, ast.expr | None]]:
    """(name, annotation, default) of a constructor's arguments but self and spec."""
    few = made.args.args
    defaults = [None] * (len(few) - len(made.args.defaults)) + made.args.defaults
    every = [*zip(few, defaults, strict=True)][1:]
    every += zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)
    return [(a.arg, a.annotation, d) for a, d in every if a.arg != "spec"]


def _defined(tree: ast.Module, path: Path, name: str) -> tuple[Path, str] | None:
    """The file in which a name that a module uses is defined, and its name there."""
    for node in tree.body:
        assigned = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
        if assigned or getattr(node, "name", "") == name:
            return path, name
        if isinstance(node, ast.ImportFrom) and name in [a.name for a in node.names]:
            package, *rest = str(node.module).split(".")
            file = (ROOT.parent / package).joinpath(*rest).with_suffix(".py")
            return (file, name) if package in OURS and file.is_file() else None
    return None


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _docs(text: str, names: list[str]) -> dict[str, str]:
    """What a docstring's Args say of each name; names may share a line."""
    text = text.partition("Args:\n")[2].partition("\n\n")[0]
    text = " ".join(text.split())
    one = rf"(?:{'|'.join(map(re.escape, names)) or '$'})"
    pieces = re.split(rf"(?:^|(?<=\s))({one}(?:, {one})*): ", text)[1:]
    said = zip(pieces[::2], pieces[1::2], strict=True)
    return {name: doc.strip() for group, doc in said for name in group.split(", ")}


# -- types ----------------------------------------------------------------------------------------
@functools.cache
def _vocabulary() -> dict[str, Any]:
    """The names that annotations are written in."""
    options = runpy.run_path(str(ROOT / "core" / "options.py"))
    return {**vars(typing), **options}


def _type(said: str, tree: ast.Module, path: Path) -> Any:
    """An annotation's type; names that are not common vocabulary are looked up where the module has
    them from. The annotation as it is written, where it speaks of classes.
    """
    known = dict(_vocabulary())
    for name in re.findall(r"\b[A-Z]\w+", said):
        if name not in known and (found := _defined(tree, path, name)):
            known[name] = _alias(*found)
    try:
        return eval(said, known) if said else Any
    except (NameError, TypeError):
        return said


def _alias(path: Path, name: str) -> Any:
    """The type that a module's ``Name = Literal[...]`` stands for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return eval(ast.unparse(node.value), dict(_vocabulary()))
    return name


def words(hint: Any) -> str:
    """A type in words: "int, at least 1", "mlp | conv", "list of int"."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is bool:
        return "true | false"
    if hint is NoneType:
        return "null"
    if origin is Literal:
        return " | ".join(map(str, inside))
    if origin is Annotated:
        return f"{words(inside[0])}, {inside[1]}"
    if origin in (Union, UnionType):
        return " | ".join(map(words, inside))
    if origin is tuple and inside[-1:] != (...,):
        each = dict.fromkeys(map(words, inside))
        return f"list of {len(inside)}: {'; '.join(each)}"
    if inside:
        return f"list of: {words(inside[0])}"
    return hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint)).lower()


def choices(hint: Any) -> tuple[str, ...]:
    """The values of a type that has few."""
    if hint is bool:
        return ("true", "false")
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        every = [("null",) if h is NoneType else choices(h) for h in get_args(hint)]
        return tuple(c for some in every for c in some) if all(every) else ()
    return ()


# -- docstrings -----------------------------------------------------------------------------------
def docstring(entry: Entry) -> str:
    """Of the model's file, which is read and not run; of one's own class, where it is imported."""
    if not entry.module.startswith("zoo."):
        return inspect.getdoc(sys.modules.get(entry.module)) or ""
    return ast.get_docstring(ast.parse(source(entry).read_text(encoding="utf-8"))) or ""


def parts(text: str) -> dict[str, list[str]]:
    """The lines of a module's docstring by the titles of its parts ("" is its first sentence),
    without the columns that titles stand in.
    """
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in text.splitlines():
        if part := PART.match(line):
            title, line = part[1], f"{INDENT}{part[2]}"
        found.setdefault(title, []).append(line.removeprefix(INDENT))
    return found


def sections(entry: Entry) -> dict[str, list[str]]:
    """The parts of the module's docstring by their titles: paragraphs, a line that was full in the
    source being one with the next.
    """
    found: dict[str, list[str]] = {}
    for title, lines in parts(docstring(entry)).items():
        paragraphs, full, margin = list[str](), 0, len(INDENT) if title else 0
        for line in lines:
            first = line.split(maxsplit=1)[0] if line.strip() else ""
            if first and full and full + 1 + len(first) > WIDTH and not NAMED.match(first):
                paragraphs[-1] += f" {line.strip()}"
            elif first:
                paragraphs.append(line)
            full = margin + len(line) if first else 0
        found[title] = paragraphs
    return found
