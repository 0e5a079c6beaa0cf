"""``python -m zoo.ls``: print the zoo as a table, or as the taxonomy tree. Imports no torch, so it
answers at once.

python -m zoo.ls                          every model
python -m zoo.ls '*gan*' --can encode     those that match
python -m zoo.ls --tree                   by taxonomy
python -m zoo.ls --markdown               the README's table
"""

from __future__ import annotations

import argparse
import sys

from zoo import registry
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
    parser = argparse.ArgumentParser(
        prog="python -m zoo.ls", description="List the models of the zoo."
    )
    parser.add_argument("pattern", nargs="?", default="*", help="glob on names, e.g. '*gan*'")
    parser.add_argument("--family", help=f"one of {', '.join(registry.FAMILIES)}")
    parser.add_argument("--taxonomy", help="a node or its beginning, e.g. explicit")
    parser.add_argument(
        "--can", action="append", default=[], help="a capability; repeat for several"
    )
    parser.add_argument("--tree", action="store_true", help="as the taxonomy tree")
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table")
    parser.add_argument("--data", action="store_true", help="list the data instead")
    args = parser.parse_args(argv)
    if args.data:
        print("\n".join(f"{e.name:<14} {e.about}" for e in registry.data()))
        return 0
    try:
        names = registry.list(
            args.pattern, family=args.family, taxonomy=args.taxonomy, can=args.can
        )
    except ValueError as error:
        print(f"zoo.ls: error: {error}", file=sys.stderr)
        return 2
    entries = [e for e in registry.entries() if e.name in names]
    if not entries:
        near = registry.suggest(args.pattern, registry.list())
        print(
            f"no model matches{'; did you mean ' + ', '.join(near) + '?' if near else ''}",
            file=sys.stderr,
        )
        return 1
    print((tree if args.tree else markdown if args.markdown else table)(entries))
    if not args.markdown:
        print(f"\n{len(entries)} model{'s' * (len(entries) != 1)}")
    return 0


if __name__ == "__main__":
    sys.exit(quietly(main))
