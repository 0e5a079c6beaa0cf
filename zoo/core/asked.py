"""What a model is asked for, tested once for every model: how many samples, and the rows of the
fields that it is told.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

ASKED = ("sample", "log_prob", "elbo", "inpaint")  # methods that are given rows of told fields


def checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """A model's method that tests its arguments where it is called from outside: not through
    ``super()``, and in training, where the loop calls with what the data module has tested, only
    ``sample``.
    """
    name = method.__name__

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        if (name == "sample" or not self.training) and getattr(type(self), name) is call:
            check_asked(self, name, args, options)
        return method(self, *args, **options)

    return call


def check_asked(model: Any, name: str, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Test the arguments of a call.

    Raises:
        TypeError: n is no whole number, or a field no tensor. ValueError: n is not positive, or
            rows are not those of their field.
    """
    told = {k: options[k] for k in model.told if options.get(k) is not None}
    if name == "sample":
        n = number(model, args[0] if args else options.get("n"))
    elif not told:
        return
    else:
        n = len(args[0] if args else options["x"])
    for key, value in told.items():
        check_rows(model, key, value, n)


def number(model: Any, n: Any) -> int:
    """How many samples are wanted."""
    try:
        wanted = operator.index(n)
    except TypeError:
        raise TypeError(f"{model.model_name}: n is a whole number of samples, got {n!r}") from None
    if wanted < 1:
        raise ValueError(f"{model.model_name}: n is at least 1, got {n}")
    return wanted


def check_rows(model: Any, name: str, value: Any, n: int) -> None:
    """Test rows of a field that a model is told."""
    field = model.spec[name]
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{model.model_name} is told {name} ({field}): a tensor of {n} rows, got {value!r:.60}"
        )
    if value.ndim == 0 or len(value) != n:
        rows = f"shape {tuple(value.shape)}" if value.ndim == 0 else f"{len(value)} rows"
        raise ValueError(f"{model.model_name} is told {name} of {n} rows, got {rows}")
    if said := model.told_faults(name, value):
        raise ValueError(f"{model.model_name} is told {name} ({field}), got {said}")
