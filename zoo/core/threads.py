"""Threads and the machine that they run on."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import threadpoolctl
import torch

CPUINFO = Path("/proc/cpuinfo")


def as_torch() -> threadpoolctl.threadpool_limits:
    """A context in which numpy, scipy and scikit-learn take as many threads as torch does (their
    own choice is all cores: on a busy machine they wait for one another, fifty times as long, and
    their sums depend on the machine).
    """
    return threadpoolctl.threadpool_limits(torch.get_num_threads())


def machine() -> str:
    """What numbers were computed on, "AMD EPYC, 2 threads", with the GPU's name where there is one:
    another kind of processor adds in another order.
    """
    said = CPUINFO.read_text(errors="replace") if CPUINFO.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", said, re.MULTILINE)
    names = [model[1].strip() if model else platform.processor() or platform.machine()]
    if torch.cuda.is_available():
        names.append(torch.cuda.get_device_name())
    n = torch.get_num_threads()
    return f"{', '.join(names)}, {n} thread{'s' * (n > 1)}"
