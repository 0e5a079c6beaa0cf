"""Leaving a group of processes in good order."""

from __future__ import annotations

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
