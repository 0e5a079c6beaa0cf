"""The only file that touches private names of Lightning; a test pins it to the version it was read
in.

Whatever else the zoo needs of Lightning is public.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Clock:
    """The optimisers of one training step under manual optimisation, all silent but for one tick.

    Lightning counts every ``LightningOptimizer.step`` as a global step; a cycle of many is to count
    one. Silenced optimisers step as ever and are not counted.

    Args:
        optimisers: of all players. ticking: the one whose last step counts.
    """

    def __init__(self, optimisers: Iterable[Any], ticking: Any) -> None:
        self._ticking = ticking
        self._hooks = (ticking._on_before_step, ticking._on_after_step)
        for optimiser in optimisers:
            optimiser._on_before_step = optimiser._on_after_step = _silent

    def tick(self) -> None:
        """Count the next step."""
        self._ticking._on_before_step, self._ticking._on_after_step = self._hooks


def attached(module: Any) -> bool:
    """Whether a module is in a trainer's hands; ``module.trainer`` raises where it is not."""
    return module._trainer is not None


def stop_after_this_step(trainer: Any) -> None:
    """As a signal to terminate would: the trainer saves, stops and says so."""
    trainer._signal_connector.received_sigterm = True


def _silent() -> None:
    pass
