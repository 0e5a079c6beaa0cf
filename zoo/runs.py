"""What a run folder says of its run: its data, for the commands that need some beside the model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from zoo.config import UsageError, layer


def data_of(checkpoint: Path) -> Any:
    """The data module of the run that wrote this checkpoint (or of this run folder), as its config.yaml has it.

    Raises:
        ValueError: there is no config.yaml beside it.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{path} does not exist, so the run's data are unknown; keep checkpoints in their run folder")
    try:
        data = layer(["--config", str(path)]).document["data"]
    except UsageError as error:
        raise ValueError(str(error)) from error
    module, _, name = data["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**data.get("init_args", {}))
