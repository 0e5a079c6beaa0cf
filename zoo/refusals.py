"""What the parser, Lightning and torch refuse, in one line each: option, value and remedy."""

from __future__ import annotations

import inspect
import os
import re
from typing import Any

import torch
from jsonargparse import ArgumentError
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from zoo import registry
from zoo.config import KEYS, Layered, UsageError
from zoo.core.module import NonFiniteLoss

WHERE = "(ZOO_DEBUG=1 shows where)"
ALIASES = {  # what other programs call it
    "seed": "seed_everything",
    "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "gpus": "trainer.devices",
    "resume": "ckpt_path",
    "output_dir": "run_dir",
    "out": "run_dir",
}
AT_LEAST = {  # options of the Trainer, and what else they take
    "max_steps": (-1, "-1 for no limit"),
    "max_epochs": (-1, "-1 for no limit"),
    "accumulate_grad_batches": (1, ""),
    "log_every_n_steps": (1, ""),
    "num_nodes": (1, ""),
}
NOT_ANY = "Does not validate against any"
AUTOMATIC = ("accelerator", "strategy", "devices")
PLAIN_DDP = ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")


def mistakes() -> tuple[type[Exception], ...]:
    """Errors in the middle of training that are no programming error: each says what to do."""
    memory: Any = torch.OutOfMemoryError
    return (NonFiniteLoss, ValueError, OSError, MisconfigurationException, memory)


def check_trainer(options: dict[str, Any], name: str, game: bool) -> None:
    """Raise a ``UsageError`` for options of the Trainer that Lightning takes amiss, or not at all.

    Args:
        options: the Trainer's arguments. name: of the model. game: it steps its players itself.
    """
    for key, (least, more) in AT_LEAST.items():
        value = options.get(key)
        if isinstance(value, (int, float)) and value < least:
            raise UsageError(
                f"--trainer.{key} is at least {least}{f' ({more})' if more else ''}, got {value}"
            )
    interval, epochs = options.get("val_check_interval"), options.get("check_val_every_n_epoch")
    if interval is not None and epochs is None and (not isinstance(interval, int) or interval < 1):
        raise UsageError(
            f"--trainer.val_check_interval is a number of steps, at least 1, got {interval}"
        )
    devices = options.get("devices")
    numbered = isinstance(devices, str) and re.fullmatch(r"auto|-?\d+(,\d+)*,?", devices)
    if devices in (0, "0", []) or (isinstance(devices, str) and not numbered):
        raise UsageError(f"--trainer.devices is at least 1, or auto, got {devices}")
    if options.get("overfit_batches"):
        raise UsageError(
            "--trainer.overfit_batches does not apply: the data deal out their rows themselves; "
            "train on a folder of few images with --data image_folder --data.root=FOLDER"
        )
    if options.get("enable_checkpointing") is False:
        raise UsageError(
            "--trainer.enable_checkpointing=false does not apply: a run always keeps its last and "
            "best state; --checkpoints.every_n_steps=N saves less often"
        )
    if options.get("strategy") in PLAIN_DDP and game:
        raise UsageError(
            f"--trainer.strategy={options['strategy']} does not apply to {name}, whose phases each "
            "leave a player out; use --trainer.strategy=auto, or ddp_find_unused_parameters_true"
        )
    if game and options.get("gradient_clip_val"):
        raise UsageError(
            f"--trainer.gradient_clip_val does not apply to {name}, whose players are stepped one "
            "by one; use --model.loop.clip_d and --model.loop.clip_g"
        )
    if game and (options.get("accumulate_grad_batches") or 1) > 1:
        raise UsageError(
            f"--trainer.accumulate_grad_batches does not apply to {name}; use "
            "--model.loop.accumulate"
        )


def refused(options: dict[str, Any], error: Exception) -> UsageError:
    """What the Trainer's constructor objects to, with the option that its message speaks of."""
    said = " ".join(str(error).split())[:300]
    usual = {k: p.default for k, p in inspect.signature(Trainer).parameters.items()}
    given = {k: v for k, v in options.items() if k in usual and v not in (None, usual[k])}
    for key, value in given.items():
        if key in said or str(value) in said:
            auto = usual[key] == "auto" or key in AUTOMATIC
            hint = f"; --trainer.{key}=auto takes what there is" if auto else ""
            return UsageError(f"--trainer.{key}={value}: {said}{hint}")
    return UsageError(f"the Trainer refuses its options: {said}")


def one_line(error: BaseException, layered: Layered | None = None) -> str:
    """What an error is about, in one line. Of nested errors the innermost; for an unknown option
    the nearest one. Values that a config takes from the environment are not repeated.
    """
    chain = [error]
    while (cause := _cause(chain[-1])) is not None:
        chain.append(cause)
    text = _said(chain, layered)
    for asked in layered.asked().values() if layered else ():
        for name in re.findall(r"\$\{oc\.env:(\w+)", str(asked)):
            if value := os.environ.get(name):
                text = text.replace(value, f"${{oc.env:{name}}}")
    return text


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _said(chain: list[BaseException], layered: Layered | None) -> str:
    first, messages = chain[0], [str(e) for e in chain]
    every = " ".join(messages)
    if isinstance(first, ArgumentError):
        if unknown := re.search(r"nrecognized arguments: --([\w.]+)", every):
            return _unknown(unknown.group(1), layered)
        if typed := next(filter(None, map(_typed, messages[::-1])), ""):
            return typed.format(key=_key(messages))
        if option := re.search(r"Option '([\w.]+)' is not accepted", every):
            return _unknown(f"{_key(messages)}.{option.group(1)}", layered)
        if option := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", every):
            return _unknown(".".join(option.groups()), layered)
        return f"--{_key(messages)}: {_innermost(messages)}"
    if isinstance(first, OSError) and first.strerror:
        return f"{first.filename}: {first.strerror}" if first.filename else first.strerror
    if type(first).__name__ == "OutOfMemoryError":
        short = " ".join(messages[0].split())[:120]
        return f"{short}; lower --data.batch_size, or the model's width"
    said = _innermost(messages) if messages[0].startswith(NOT_ANY) else messages[0]
    return " ".join(said.split())[:600] or type(first).__name__


def _innermost(messages: list[str]) -> str:
    """What the parser's nested messages come down to: not that a value is of none of several types,
    nor that the document, taken for a path, is no file."""
    last = [m for m in messages if m and not m.startswith((NOT_ANY, "File does not exist"))]
    return " ".join((last or messages)[-1].split())[:300]


def _unknown(name: str, layered: Layered | None) -> str:
    from zoo.cli import options_of

    last = name.rpartition(".")[2]
    known = options_of(layered)
    if last in ALIASES and "." not in name:
        near = [ALIASES[last]]
    else:
        section = name.partition(".")[0]
        inside = [k for k in known if k.startswith(f"{section}.")]
        same = [k for k in known if k.rpartition(".")[2] == last]
        near = registry.suggest(name, inside) or same or registry.suggest(section, KEYS)
        if near and "." not in near[0] and "." in name:
            rest = name.partition(".")[2]
            again = f"{near[0]}.{rest}"
            near = [again if again in known else near[0]]
    hint = f"did you mean --{near[0]}?" if near else "see python -m zoo.fit --help"
    return f"unknown option --{name}; {hint}"


def _typed(message: str) -> str:
    """A refused value, with {key} for the option's name; "" for other messages."""
    typed = re.search(r"Expected an? (.+?)\. Got value: (.*)", message)
    if not typed or NOT_ANY in message:
        return ""
    got = repr(typed.group(2)).replace("{", "{{").replace("}", "}}")
    if choices := re.match(r"typing\.Literal\[(.*)\]$", typed.group(1)):
        words = ", ".join(re.findall(r"'([^']*)'", choices.group(1)))
        return f"--{{key}} is one of {words}, got {got}"
    wanted = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", typed.group(1))
    return f"--{{key}}: expected {wanted}, got {got}"


def _key(messages: list[str]) -> str:
    """The dotted option that nested messages speak of."""
    keys = [k for m in messages for k in re.findall(r'Parser key "([\w.]+)"', m)]
    path = ".".join(dict.fromkeys([keys[0], keys[-1]])) if keys else "a value"
    return path.replace(".init_args", "")


def parameters(kind: Any, section: str) -> list[str]:
    """A class's options, dotted."""
    return [f"{section}.{name}" for name in inspect.signature(kind).parameters]


TRAINER = parameters(Trainer, "trainer")
