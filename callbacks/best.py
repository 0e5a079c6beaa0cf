"""What "best" means: the metric that ``best.ckpt`` follows, and in which direction."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from zoo.metrics.meanings import HIGHER, LOWER, Meaning, meaning

WAYS = {"min": LOWER, "max": HIGHER}
# "auto" follows the first of these that validation has logged; a name ending in _ is a prefix.
PREFERENCES = ("val/nll_nats", "val/elbo", "val/fid", "val/fid_", "val/hq", "val/loss")


class Best:
    """The best score so far.

    Args:
        monitor: a logged metric, or "auto": the likelihood, else the first Fréchet distance, else
            the share of good samples.
        mode: "min", "max", or "auto" for what is better by the metric's meaning.

    Attributes:
        score: the best value, or None. metric: whose value it is.

    Raises:
        ValueError: another mode, a metric whose direction is not known, or a mode without a metric.
    """

    def __init__(self, monitor: str = "auto", mode: str = "auto") -> None:
        if mode not in ("min", "max", "auto"):
            raise ValueError(f"checkpoints.mode is min, max or auto, got {mode!r}")
        if monitor == "auto" and mode != "auto":
            raise ValueError(
                f"checkpoints.mode={mode} goes with a metric: --checkpoints.monitor=val/NAME; "
                f"monitor=auto knows the direction of what it follows"
            )
        if monitor != "auto" and mode == "auto" and meaning(monitor).better is None:
            raise ValueError(
                f"whether {monitor} is better when lower or when higher is not known: give "
                f"--checkpoints.mode=min or --checkpoints.mode=max"
            )
        self.monitor, self.mode = monitor, mode
        self.score: float | None = None
        self.metric = ""

    def found(self, metrics: Mapping[str, Any]) -> str:
        """The metric that is followed, if it is among these."""
        if self.monitor != "auto":
            return self.monitor if self.monitor in metrics else ""
        if self.metric in metrics:
            return self.metric
        for wanted in PREFERENCES:
            # A learned extractor comes before raw pixels.
            of = [m for m in metrics if _means(wanted, m)]
            if of:
                return min(of, key=lambda m: (m.endswith("_pixels"), m))
        return ""

    def beaten(self, metrics: Mapping[str, Any]) -> bool:
        """Whether these values are better than all before; if so, they are the best now."""
        if not (name := self.found(metrics)):
            return False
        score = float(metrics[name])
        cost = (meaning(name) if self.mode == "auto" else Meaning("", "", WAYS[self.mode])).cost
        if not math.isfinite(score):
            return False
        if self.score is not None and cost(score) >= cost(self.score):
            return False
        self.score, self.metric = score, name
        return True

    def missing(self, metrics: Mapping[str, Any]) -> str:
        """What to say where the metric asked for is not among these; "" where it is."""
        if self.monitor in ("auto", *metrics):
            return ""
        scores = sorted(m for m in metrics if m.startswith("val/"))
        stem = self.monitor.split("/")[-1].split("_")[0]
        near = difflib.get_close_matches(self.monitor, scores, 3) or [
            m for m in scores if stem in m
        ]
        near = near or scores
        hint = f"; it logged {', '.join(near)}" if near else "; it logged nothing"
        return (
            f"checkpoints.monitor={self.monitor} is not among what this validation logged, so "
            f"best.ckpt is not written{hint}"
        )


def _means(known: str, name: str) -> bool:
    return name == known or (known.endswith("_") and name.startswith(known))
