"""What a run folder holds for the commands that look at a run afterwards: its model, and its
data.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from zoo.config import UsageError, layer


def checkpoint_of(given: Path) -> Path:
    """The checkpoint itself, or the last one of a run folder."""
    return given / "checkpoints" / "last.ckpt" if given.is_dir() else given


def model_of(given: Path, raw: bool = False, device: str = "cpu") -> Any:
    """The model of a checkpoint or run folder, with its averaged weights if it has any and they are
    wanted (not ``raw``).
    """
    from zoo.core import checkpoint

    return checkpoint.load(checkpoint_of(given), ema=not raw).to(device)


def data_of(checkpoint: Path) -> Any:
    """The data module of the run that wrote this checkpoint (or of this run folder), as its
    config.yaml has it.

    Raises:
        ValueError: there is no config.yaml beside it.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist, so the run's data are unknown; keep checkpoints in their run "
            f"folder"
        )
    try:
        data = layer(["--config", str(path)]).document["data"]
    except UsageError as error:
        raise ValueError(str(error)) from error
    module, _, name = data["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**data.get("init_args", {}))
