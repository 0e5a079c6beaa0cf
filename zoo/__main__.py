"""``zoo``: every command behind one name. ``zoo fit ...`` is ``python -m zoo.fit ...``.

zoo                             what there is
zoo fit --model began           the same as python -m zoo.fit --model began
zoo completion bash             completion for a shell; also zsh and fish
"""

from __future__ import annotations

import os
import runpy
import sys

from zoo import __version__, registry
from zoo.pipes import quietly

COMMANDS = {
    "fit": "train a model",
    "sample": "draw from a trained model, or let it complete images",
    "explore": "look into a trained model: paths, arithmetic, neighbours, filters",
    "probe": "measure what the features of a trained model are good for",
    "page": "write the page of a run again",
    "ls": "list the models, or say all that is known of one of them",
    "pretrain": "train the networks that models look through",
    "check": "check that a model keeps the contract",
    "completion": "print what makes bash, zsh or fish complete all of this",
}

EXAMPLES = {
    "zoo ls began": "what it is, its parameters, its data",
    "zoo fit --model began": "train it; the run ends with a page to look at",
    "zoo sample --ckpt last": "draw from the newest run",
}


def overview() -> str:
    """What the zoo is, and its commands."""
    models, data = len(registry.entries()), len(registry.data())
    wide = max(map(len, EXAMPLES))
    lines = [
        f"zoo {__version__}: {models} generative models of every family, one file each, and {data}",
        "kinds of data to train them on.",
        "",
        "usage: zoo COMMAND ...",
        "",
        *(f"  {name:<11} {said}" for name, said in COMMANDS.items()),
        "",
        *(f"  {line:<{wide}}   {said}" for line, said in EXAMPLES.items()),
        "",
        "zoo COMMAND --help has a command's options; zoo --version the version.",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command. A command of the zoo takes the process over, as ``python -m zoo.NAME`` would:
    Lightning starts its other processes from what ``__main__`` is.
    """
    name, *rest = sys.argv[1:] or ["--help"]
    if name not in COMMANDS or name == "completion":
        sys.exit(quietly(lambda: own(name, rest)))
    sys.argv[1:] = rest
    here = os.getcwd()
    if not sys.flags.safe_path and here not in sys.path:
        sys.path.insert(0, here)  # where modules of one's own lie, and not beside a script
    runpy.run_module(f"zoo.{name}", run_name="__main__", alter_sys=True)


def own(name: str, rest: list[str]) -> int:
    """What ``zoo`` answers itself; returns the exit status."""
    if name == "--complete":
        from zoo.complete import complete

        for word in complete(rest):
            print(word)
    elif name == "completion":
        from zoo.complete import stub

        return stub(rest)
    elif name in ("-h", "--help"):
        print(overview())
    elif name in ("-V", "--version"):
        print(f"zoo {__version__}")
    else:
        return _unknown(name)
    return 0


def _unknown(name: str) -> int:
    known = [e.name for e in registry.entries()]
    near = registry.suggest(name, COMMANDS, 1)
    if name in known:
        hint = f"it is a model: zoo ls {name}, or zoo fit --model {name}"
    elif near:
        hint = f"did you mean zoo {near[0]}?"
    else:
        hint = f"there are {', '.join(COMMANDS)}"
    print(f"zoo: error: there is no command {name!r}; {hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
