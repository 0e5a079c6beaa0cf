"""Loading a model from a checkpoint: tensors and plain values only, and a clear error for anything
else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from zoo.core.module import check_format
from zoo.core.moment import Moment
from zoo.core.spec import Spec


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, or of a run folder's last one, on the CPU, unpickled with
    ``weights_only=True``.

    Raises:
        FileNotFoundError: no such file. ValueError: the file is damaged, holds code, or was not
            written by this zoo.
    """
    path = Path(path).expanduser()
    if path.is_dir():  # a run's
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        near = sorted(path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(p.name for p in near)}" if near else ""
        raise FileNotFoundError(f"no checkpoint at {path}{hint}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        reason = (
            str(error).strip().splitlines()[0][:150] if str(error).strip() else type(error).__name__
        )
        raise ValueError(
            f"{path} is not a readable checkpoint ({reason}); use another, e.g. last.ckpt or "
            f"best.ckpt of its folder"
        ) from None
    if not isinstance(content, dict) or "zoo" not in content:
        raise ValueError(
            f"{path} was not written by this zoo: it does not say which model it holds"
        )
    said = content["zoo"]
    try:
        check_format(said if isinstance(said, dict) else {})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for key, kind in (("model", str), ("params", dict), ("spec", dict)):
        if not isinstance(said.get(key), kind):
            raise ValueError(f"{path} is damaged: it does not say its {key}; use another")
    return content


def load(path: str | Path, *, ema: bool = True) -> Any:
    """The model a checkpoint holds, in evaluation mode on the CPU; its ``moment`` says after how
    many steps it was written, and which weights were taken.

    Args:
        ema: use the averaged weights where the checkpoint has them.
    """
    from zoo import registry

    content = read(path)
    said = content["zoo"]
    try:
        registry.entry(said["model"])
    except registry.UnknownName:
        raise ValueError(
            f"{path} holds {said['model']!r}, which is no model of the zoo; import the module that "
            "registers it first (--import MODULE)"
        ) from None
    try:
        model = registry.create(said["model"], Spec.of(said["spec"]), **said["params"])
        model.load_state_dict(content["state_dict"])
        averaged = bool(ema and content.get("ema"))
        if averaged:
            model.load_state_dict(content["ema"], strict=False)
        model.moment = Moment(int(content.get("global_step", 0)), averaged)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        about = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} holds no whole {said['model']}: {about}") from error
    return model.eval()
