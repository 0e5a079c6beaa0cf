"""Threads of the libraries beside torch."""

from __future__ import annotations

import threadpoolctl
import torch


def as_torch() -> threadpoolctl.threadpool_limits:
    """A context in which numpy, scipy and scikit-learn take as many threads as torch does (their
    own choice is all cores: on a busy machine they wait for one another, fifty times as long, and
    their sums depend on the machine).
    """
    return threadpoolctl.threadpool_limits(torch.get_num_threads())
