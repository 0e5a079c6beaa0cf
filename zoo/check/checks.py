"""The list of checks: plain functions of a subject, each for the models it applies to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo import registry
from zoo.bases import AdversarialModule, AutoregressiveModule
from zoo.check.subject import Subject

Applies = Callable[[Any, registry.Entry], bool]  # of a class and its entry
CHECKS: dict[str, tuple[Callable[[Subject], None], Applies, str]] = {}


def check(applies: Applies = lambda cls, entry: True, mark: str = ""):
    """Register a check; it raises AssertionError where the contract is broken.

    Args:
        mark: "slow" or "ddp".
    """

    def add(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        name = function.__name__.removeprefix("check_")
        CHECKS[name] = (function, applies, mark)
        return function

    return add


def can(*capabilities: str) -> Applies:
    """Models with all of these."""
    return lambda cls, entry: set(capabilities) <= entry.can


def likelihood(*kinds: str) -> Applies:
    """Models with ``log_prob`` of one of these kinds."""
    return lambda cls, entry: "log_prob" in entry.can and entry.likelihood in kinds


def plays(cls: Any, entry: registry.Entry) -> bool:
    """Models that play a game."""
    return issubclass(cls, AdversarialModule)


def autoregressive(cls: Any, entry: registry.Entry) -> bool:
    """Models of conditionals in an order."""
    return issubclass(cls, AutoregressiveModule)


def meets(value: float, sign: str, bound: float) -> bool:
    """Whether a value is on the right side of a gate's bound; ``sign`` is "<" or ">"."""
    return value < bound if sign == "<" else value > bound


def refusal(attempt: Callable[[], Any]) -> str:
    """What the ValueError of an attempt says; empty where it goes through."""
    try:
        attempt()
    except ValueError as error:
        return str(error)
    return ""
