"""Leaving processes in good order: those of a group, and loaders' workers."""

from __future__ import annotations

import os

import torch.distributed as dist


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
