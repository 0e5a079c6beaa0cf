"""The skeleton of the commands that look at a trained model: its options, its errors, its run
folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zoo import runs, start, trust
from zoo.config import UsageError, layer

MISTAKES = (
    ValueError,
    TypeError,
    KeyError,
    OSError,
    NotImplementedError,
    ImportError,
    UsageError,
)


def look(
    name: str,
    description: str,
    arguments: list[str] | None,
    options: Callable[[argparse.ArgumentParser], None],
    work: Callable[[argparse.Namespace], None],
) -> int:
    """Run a command on a checkpoint; returns the exit status. Errors are one line on stderr and
    status 2.

    Args:
        name: of the command. options: adds its own. work: does it; every mistake is an exception.
    """
    parser = argparse.ArgumentParser(prog=f"python -m zoo.{name}", description=description)
    parser.add_argument(
        "--ckpt",
        required=True,
        type=Path,
        help="a checkpoint that zoo.fit wrote, its run folder, or last: the newest run",
    )
    options(parser)
    parser.add_argument(
        "--raw",
        action="store_true",
        help="the raw weights even if the checkpoint has averaged ones",
    )
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of your own that registers the model; repeat for several",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    args = parser.parse_args(arguments)
    try:
        trust.bring(args.modules)
        args.ckpt = runs.checkpoint_of(args.ckpt)
        work(args)
    except MISTAKES as error:
        if os.environ.get("ZOO_DEBUG"):
            raise
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"zoo.{name}: error: {' '.join(str(said).split())}", file=sys.stderr)
        return 2
    return 0


def model_of(args: argparse.Namespace) -> Any:
    """The model of a checkpoint or run folder, with its averaged weights if it has any and they are
    wanted (not ``--raw``), on ``--device``.
    """
    from zoo.core import checkpoint

    model = checkpoint.load(args.ckpt, ema=not args.raw)
    start.running()
    try:
        return model.to(args.device)
    except (RuntimeError, AssertionError) as error:  # torch has both for a device that is not there
        said = " ".join(str(error).split())[:120]
        raise ValueError(f"--device={args.device}: {said}; --device=cpu works anywhere") from None


def folder_of(args: argparse.Namespace) -> Path:
    """The run folder of the checkpoint, or the folder that a lone one lies in."""
    return runs.folder_of(args.ckpt) or args.ckpt.parent


def data_of(args: argparse.Namespace, model: Any) -> Any:
    """The data module of the run that wrote the model's checkpoint, as its config.yaml has it.

    Raises:
        ValueError: there is no config.yaml beside it, it names a class that is neither the zoo's
            nor of an ``--import``, or its data are not those of the model.
    """
    data = data_in(folder_of(args), args.modules)
    if any(data.spec.get(name) != field for name, field in model.spec.items()):
        raise ValueError(
            f"{args.ckpt} was trained on {model.spec}, and the config.yaml of its folder speaks of "
            f"{data.spec}: they are not of one run"
        )
    return data


def data_in(folder: Path, modules: list[str] | None = None) -> Any:
    """The data module of the run in a folder; the rest as for ``data_of``."""
    modules = modules or []
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist, so the run's data are unknown; keep checkpoints in their run "
            "folder"
        )
    options = [f"--import={module}" for module in modules]
    document = layer(["--config", str(path), *options]).document
    data: Any = OmegaConf.to_container(OmegaConf.create(document).data, resolve=True)
    kind = trust.class_of(data["class_path"], "data", modules)
    return kind(**data.get("init_args", {}))
