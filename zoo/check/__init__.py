"""The contract that every model keeps, as plain functions chosen by kind of model and of data.

``python -m zoo.check NAME`` runs them, also on a class from outside the zoo; every check runs on
the model's own fields, so it holds for a kind of data that did not exist when it was written.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.check.command import main

if TYPE_CHECKING:
    from zoo.check.checks import CHECKS, check
    from zoo.check.run import applicable, run_check, waivers
    from zoo.check.subject import Given, Subject, fit

__all__ = [
    "CHECKS",
    "Given",
    "Subject",
    "applicable",
    "check",
    "fit",
    "main",
    "run_check",
    "waivers",
]


def __getattr__(name: str) -> Any:
    """The names above, once they are asked for: they bring torch, and ``--help`` needs none."""
    for module in ("run", "checks", "subject") if name in __all__ else ():
        if name in (found := vars(import_module(f"zoo.check.{module}"))):
            return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
