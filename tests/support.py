"""What the tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from zoo import check
from zoo.check import fit

__all__ = ["TOYS", "Given", "fit", "in_a_process"]

# Models of kinds of data that no model of the zoo has, each with its data module (tests/toys).
TOYS = ["toy_domains.TwoWay", "toy_clips.ClipGAN", "toy_graphs.GraphPainter"]


class Given(check.Given):
    """The contract's data module over given tensors, in minibatches of four."""

    def __init__(self, *tensors: Any, batch_size: int = 4, **options: Any) -> None:
        super().__init__(*tensors, batch_size=batch_size, **options)


def in_a_process(run: Callable[[], Any]) -> int:
    """The exit status of a function in a fork of this process; -N where signal N ended it."""
    if (child := os.fork()) == 0:
        status: Any = 99
        try:
            status = run()
        except SystemExit as error:
            status = error.code
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
