"""Lightning's remarks, out of the way of a check's one line."""

from __future__ import annotations

import logging
import warnings


def hush() -> None:
    """No warnings and no information in this process."""
    warnings.filterwarnings("ignore")
    for logger in ("pytorch", "fabric", "pytorch.utilities.rank_zero"):
        logging.getLogger(f"lightning.{logger}").setLevel(logging.ERROR)
