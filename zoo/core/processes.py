"""What the first of several processes makes for all, and leaving them in good order: those of a
group, and loaders' workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def from_rank_zero(build: Callable[[], T]) -> T:
    """What ``build`` returns on the first process, on every process; an error there is an error
    everywhere.

    All processes call it; the others wait. The value travels between processes, so it must hold CPU
    tensors and plain values.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return build()
    box: list[Any] = [None, None]
    error: Exception | None = None
    if dist.get_rank() == 0:
        try:
            box[0] = build()
        except Exception as caught:
            error, box[1] = caught, f"{type(caught).__name__}: {caught}"
    dist.broadcast_object_list(box, src=0)
    if error is not None:
        raise error
    if box[1] is not None:
        raise RuntimeError(f"the first process failed: {box[1]}")
    return box[0]


def leave_group(together: bool = True) -> None:
    """Close the connections between processes before Python goes down: gloo's threads, left to the
    exit of the process, can abort it.

    Args:
        together: wait until every process is here; False after an error, when some may never come.
    """
    if dist.is_available() and dist.is_initialized():
        if together:
            dist.barrier()
        dist.destroy_process_group()


def own_group(worker: int) -> None:
    """Put a loader's worker in a process group of its own: a signal that ends a run and goes to all
    of a group is for its parent, which needs it to finish the step at hand.
    """
    os.setpgid(0, 0)
