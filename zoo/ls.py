"""``python -m zoo.ls``: print the zoo as a table, as the taxonomy tree, or all that is known of one
model. Imports no torch, so it answers at once.

python -m zoo.ls                          every model
python -m zoo.ls began                    what it is, its parameters, its data
python -m zoo.ls '*gan*' --can encode     those that match
python -m zoo.ls --tree                   by taxonomy
python -m zoo.ls --markdown               the README's table
python -m zoo.ls --json                   for programs
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys

from zoo import registry
from zoo.card import card, facts
from zoo.pipes import quietly
from zoo.registry import Entry


def table(entries: list[Entry]) -> str:
    """One line a model: name, family, likelihood kind, capabilities, paper."""
    rows = [("name", "family", "likelihood", "can", "paper")]
    rows += [(e.name, e.family, e.likelihood, " ".join(sorted(e.can)), cite(e)) for e in entries]
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[4]]) for r in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in [*widths, 5]), *lines[1:]])


def tree(entries: list[Entry]) -> str:
    """The taxonomy, with the models under its nodes."""
    lines = ["generative models"]
    for node in registry.TAXONOMY:
        inside = [e for e in entries if e.taxonomy == node]
        lines.append(f"├─ {node}" + ("" if inside else "  (none)"))
        lines += [f"│   ├─ {e.name:<18} {e.about or cite(e)}" for e in inside]
    return "\n".join(lines)


def markdown(entries: list[Entry]) -> str:
    """The table of docs/models.md."""
    lines = ["| model | what it is | taxonomy | likelihood | paper |", "|---|---|---|---|---|"]
    for e in entries:
        paper = f"[{cite(e)}]({e.paper.url})" if e.paper and e.paper.url else cite(e)
        lines.append(
            f"| `{e.name}` | {e.about} | {e.taxonomy} | {e.likelihood.replace('_', ' ')} | "
            f"{paper} |"
        )
    return "\n".join(lines)


def families(entries: list[Entry]) -> str:
    """The names by family, as the README lists them."""
    lines = ["| family | models |", "|---|---|"]
    for family in dict.fromkeys(e.family for e in entries):
        lines.append(
            f"| {family} | {', '.join(f'`{e.name}`' for e in entries if e.family == family)} |"
        )
    return "\n".join(lines)


def cite(e: Entry) -> str:
    """First author and year, with the arXiv number or venue."""
    if e.paper is None:
        return ""
    names = e.paper.authors.split(", ")
    more = " et al." if len(names) > 2 else f" & {names[1]}" if len(names) == 2 else ""
    return f"{names[0]}{more} {e.paper.year}, {e.paper.where}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status. Errors are one line on stderr and status 2."""
    args = _parser().parse_args(argv)
    filters = {"family": args.family, "taxonomy": args.taxonomy, "can": args.can}
    given = [f"--{name}" for name, value in filters.items() if value]
    forms = [name for name in ("tree", "markdown", "json") if getattr(args, name)]
    if args.data and (off := [*given, *(f"--{f}" for f in forms if f != "json")]):
        print(f"zoo.ls: error: {off[0]} does not apply to data", file=sys.stderr)
        return 2
    try:
        names = registry.list(args.pattern, **filters)
    except ValueError as error:
        print(f"zoo.ls: error: {error}", file=sys.stderr)
        return 2
    kinds, shown = registry.data(), not given and not args.tree and not args.markdown
    if args.data or (shown and args.pattern in {e.name for e in kinds}):
        found = [e for e in kinds if fnmatch.fnmatch(e.name, args.pattern)]
    else:
        found = [e for e in registry.entries() if e.name in names]
    if args.json:
        print(json.dumps([facts(e) for e in found], indent=1, ensure_ascii=False))
    if not found:
        return _none(args.pattern, given)
    if args.json:
        return 0
    if shown and found[0].name == args.pattern:
        print(card(found[0]))
    elif found[0].family == "data":
        print("\n".join(f"{e.name:<14} {e.about}" for e in found))
    else:
        print((tree if args.tree else markdown if args.markdown else table)(found))
        if not args.markdown:
            print(f"\n{len(found)} model{'s' * (len(found) != 1)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.ls", description="List the models of the zoo, or show one of them."
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="NAME",
        help="a model or data: all that is known of it; a glob, e.g. '*gan*': a list",
    )
    parser.add_argument("--family", help=f"one of {', '.join(registry.FAMILIES)}")
    parser.add_argument("--taxonomy", help="a node or its beginning, e.g. explicit")
    parser.add_argument(
        "--can", action="append", default=[], help="a capability; repeat for several"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--tree", action="store_true", help="as the taxonomy tree")
    form.add_argument("--markdown", action="store_true", help="as a Markdown table")
    form.add_argument("--json", action="store_true", help="for programs (docs/command.md)")
    parser.add_argument("--data", action="store_true", help="the data instead of the models")
    return parser


def _none(pattern: str, given: list[str]) -> int:
    """Say that nothing matches, with the nearest names."""
    names = [*registry.list(), *(e.name for e in registry.data())]
    near = [] if pattern in names else registry.suggest(pattern, names)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    filters = f" with {' and '.join(given)}" if given else ""
    print(f"nothing matches {pattern!r}{filters}{hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(quietly(main))
