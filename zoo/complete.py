"""Completion of command lines in bash, zsh and fish: each shell asks ``zoo --complete WORDS...``
what the last word may become.

``zoo fit`` takes the options of the chosen model, data, Trainer and callbacks, which no parser
knows before it has imported torch; so they are read from source files, and a shell's own part is a
few lines that ask (``zoo completion SHELL`` prints them).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from zoo import registry, runs, sources
from zoo.__main__ import COMMANDS
from zoo.card import configs
from zoo.config import CALLBACKS
from zoo.pretrain import NETS
from zoo.sources import Parameter

LOOK = "--ckpt --raw --import --device --help"
OPTIONS = {  # of each command; those of fit that are in no group
    "fit": "--model --data --preset --config --ckpt_path --allow_changes --import --run_dir "
    "--threads --reuse_memory --compile --seed_everything --print_config --help --model.help "
    "--data.help",
    "sample": f"--n --seed --out --label --inpaint --source --size --back {LOOK}",
    "explore": f"--out --n --frames --seed --a --b --c {LOOK}",
    "probe": f"--labels --seeds --tune_seeds --steps --out {LOOK}",
    "page": "--ckpt --help",
    "ls": "--family --taxonomy --can --tree --markdown --json --data --help",
    "pretrain": "--net --help",
    "check": "--all --data --slow --only --help",
    "completion": "--help",
}
FLAGS = "--help --raw --all --slow --tree --markdown --json --print_config --allow_changes".split()
GROUPS = ("model", "data", "trainer", "wandb", *CALLBACKS)
PARTS = ("bottom", "top", "left", "right", "centre")
SHELLS = {  # where each reads it from
    "bash": "source <(zoo completion bash)              in ~/.bashrc",
    "zsh": "source <(zoo completion zsh)               in ~/.zshrc, after compinit",
    "fish": "zoo completion fish | source               in ~/.config/fish/config.fish",
}
TRAINER = ("pytorch", "trainer", "trainer.py")  # of Lightning
STUBS = Path(__file__).parent / "completion"


def complete(words: list[str]) -> list[str]:
    """What the last of the words after ``zoo`` may become; nothing where it is a file's name."""
    found: Iterable[str]
    *before, last = words or [""]
    key, equals, _ = last.partition("=")
    if not before:
        found = [*COMMANDS, "--help", "--version"] if last.startswith("-") else [*COMMANDS]
    elif before[0] not in OPTIONS:
        found = []
    elif last.startswith("-") and equals:
        found = [f"{key}={value}" for value in _values(before, key)]
    elif _waits(before):
        found = _values(before, before[-1])
    elif last.startswith("-"):
        found = _options(before, last)
    else:
        found = _positional(before) or _options(before, last)
    return [word for word in found if word.startswith(last)]


def _waits(before: list[str]) -> bool:
    """Whether the word before is an option whose value comes next."""
    word = before[-1]
    flag = word in FLAGS or (before[0] == "ls" and word == "--data")
    return word.startswith("-") and "=" not in word and not flag


def _options(before: list[str], last: str) -> list[str]:
    """Options of the command; of ``fit`` groups as "--trainer.", and within one its options."""
    own = OPTIONS[before[0]].split()
    if before[0] != "fit":
        return own
    group, dot, _ = last.removeprefix("--").partition(".")
    if not dot:
        return own + [f"--{group}." for group in GROUPS]
    return [f"--{group}.{p.name}=" for p in _group(before, group)] + own


def _values(before: list[str], option: str) -> Iterable[str]:
    """What an option of the command may be."""
    command, name = before[0], option.removeprefix("--")
    group, dot, inside = name.partition(".")
    if name in ("model", "model.help"):
        return registry.list()
    if name in ("data", "data.help"):
        return [e.name for e in registry.data()]
    if dot:
        return next((p.choices for p in _group(before, group) if p.name == inside), ())
    if name in ("ckpt", "ckpt_path"):
        of = _given(before, "model") if command == "fit" else ""
        return [*runs.KEPT, *map(str, reversed(runs.folders(of)))]
    if name == "preset":
        found = _entry(before, "model")
        return [n for some in configs(found) for n in some] if found else ()
    known: dict[str, Iterable[str]] = {
        "family": registry.FAMILIES,
        "taxonomy": sorted({node.split()[0] for node in registry.TAXONOMY}),
        "can": registry.CAPABILITIES,
        "inpaint": PARTS,
        "net": (*NETS, "all"),
        "device": ("cpu", "cuda"),
        "reuse_memory": ("true", "false"),
        "compile": ("true", "false"),
    }
    return known.get(name, ())


def _positional(before: list[str]) -> list[str]:
    """What the command takes without an option's name."""
    models, data = registry.list(), [e.name for e in registry.data()]
    if before[0] == "explore":
        from zoo.explore import TOOLS

        return [*TOOLS]
    if before[0] == "ls":
        return data if "--data" in before else models + data
    return {"check": models, "completion": [*SHELLS]}.get(before[0], [])


def _group(before: list[str], group: str) -> list[Parameter]:
    """The options of a group of ``fit``."""
    if group in ("model", "data"):
        found = _entry(before, group)
        return sources.parameters(found) if found else []
    if group == "trainer":
        spec = importlib.util.find_spec("lightning")  # imports nothing
        inside = spec.submodule_search_locations if spec else None
        return sources.of_class(Path(inside[0], *TRAINER), "Trainer") if inside else []
    if group == "wandb":
        return sources.of_class(registry.ROOT / "cli.py", "WandbOptions")
    return sources.of_callback(CALLBACKS[group].partition(".")[2]) if group in CALLBACKS else []


def _given(before: list[str], option: str) -> str:
    """The value that an option has on the command line, the last one; "" without one."""
    value = ""
    for word, after in zip(before, [*before[1:], ""], strict=True):
        key, equals, said = word.partition("=")
        if key == f"--{option}":
            value = said if equals else after
    return value


def _entry(before: list[str], kind: str) -> registry.Entry | None:
    """The model on the command line, or the data, by default those of the model."""
    name = _given(before, kind)
    if not name and kind == "data" and (model := _entry(before, "model")):
        name = model.data
    try:
        return registry.entry(name, kind)
    except (registry.UnknownName, ImportError):
        return None


def stub(rest: list[str]) -> int:
    """Print a shell's part; returns the exit status."""
    shell = rest[0] if len(rest) == 1 else ""
    if shell in SHELLS:
        print((STUBS / f"zoo.{shell}").read_text(encoding="utf-8"), end="")
        return 0
    if shell in ("-h", "--help"):
        print("usage: zoo completion bash|zsh|fish\n", *SHELLS.values(), sep="\n  ")
        return 0
    got = f"got {' '.join(rest)!r}" if rest else "say which"
    print(f"zoo: error: zoo completion takes {', '.join(SHELLS)}; {got}", file=sys.stderr)
    return 2
