"""What took long to compute and is kept for later runs: $ZOO_CACHE, or ~/.cache/generative-zoo."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from zoo.core.because import because
from zoo.core.files import save_whole

Tensors = dict[str, Tensor]


def folder() -> Path:
    """Where it is kept."""
    return Path(os.environ.get("ZOO_CACHE") or Path.home() / ".cache" / "generative-zoo")


def digest(*parts: Tensor | str) -> str:
    """16 hexadecimal digits that name these tensors and strings."""
    h = hashlib.sha256()
    for part in parts:
        h.update(
            part.encode()
            if isinstance(part, str)
            else part.detach().cpu().contiguous().numpy().tobytes()
        )
    return h.hexdigest()[:16]


def checksum(of: str, state: Tensors) -> str:
    """Names tensors, by name, type and shape, and what they are of."""
    return digest(of, *(p for k, v in state.items() for p in (f"{k} {v.dtype} {[*v.shape]}", v)))


def kept(
    path: Path,
    of: str,
    make: Callable[[], Tensors],
    what: str,
    done: str,
    fits: Callable[[Tensors], object] = lambda state: None,
) -> Tensors:
    """Named tensors from a file, or made and kept there.

    A file that is damaged, or whose checksum is not that of its content and of ``of``, is refused
    with a warning; one that cannot be written costs a warning. Nothing in it is executed.

    Args:
        of: names all that they depend on. what, done: what they are, and what is done to make them,
            for warnings. fits: raises where they are not of the right kind.
    """
    if path.is_file():
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            state = content["state"]
            if content["checksum"] != checksum(of, state):
                raise ValueError("the checksum is another")
            fits(state)
            return state
        except Exception as error:  # what a file of any content may raise
            warnings.warn(
                f"{path} is damaged or was changed ({because(error)}): {what} {done} again",
                stacklevel=3,
            )
    state = make()
    try:
        save_whole({"state": state, "checksum": checksum(of, state)}, path)
    except OSError as error:
        warnings.warn(
            f"{what} cannot be kept in {path.parent} ({error}); set ZOO_CACHE to a folder",
            stacklevel=3,
        )
    return state
