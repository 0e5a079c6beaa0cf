"""What the type of a constructor's argument says that its value may be, tested once for every
model.

    def __init__(self, spec: Spec, arch: Literal["mlp", "conv"] = "mlp", k: Count = 1): ...

``check_options`` reads the annotations: a ``Literal`` lists the choices, an ``Annotated`` number
has a ``Range``, a dataclass of options is tested field by field. What no type can say (two
arguments that do not go together, data of another shape) is left to the constructor.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``, with or without the ends."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # low itself is outside
    below: bool = False  # high itself is outside

    def __contains__(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below else value <= self.high
        return math.isfinite(value) and over and under

    def __str__(self) -> str:
        if self.high < math.inf:
            left, right = "(" if self.above else "[", ")" if self.below else "]"
            return f"in {left}{self.low:g}, {self.high:g}{right}"
        if self.low == -math.inf:
            return "a number"
        if self.above:
            return "positive" if self.low == 0 else f"above {self.low:g}"
        return "not negative" if self.low == 0 else f"at least {self.low:g}"

    __repr__ = __str__


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Dropped = Annotated[float, Range(0, 1, below=True)]  # a share of what is dropped, forgotten
Decay = Annotated[float, Range(0, 1, below=True)]  # of a moving average, a momentum: what is kept
Factor = Annotated[float, Range(0, 1, above=True)]  # of a rate, at each step
Real = Annotated[float, Range()]  # any number, negative ones and 0 too
Prior = Literal["normal", "uniform", "sphere"]
Norm = Literal["none", "batch", "layer"]


def check_options(owner: str, function: Any, arguments: typing.Mapping[str, Any]) -> None:
    """Test values against the annotations of a function.

    Args:
        owner: whose options they are, as messages name it.

    Raises:
        ValueError: a value is outside; the message has the owner, the name, what there is, the
            value.
    """
    hints = _hints(function)
    for name, value in arguments.items():
        if name in hints and (said := fault(hints[name], value)):
            raise ValueError(f"{owner}: {name} is {said}, got {value!r}")


def fault(hint: Any, value: Any) -> str:
    """What a value should be and is not, by its annotation; "" if nothing is wrong."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is bool:
        return "" if isinstance(value, bool) else "true or false"
    if origin is Literal:
        return "" if value in inside else f"one of {', '.join(map(str, inside))}"
    if origin is Annotated:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        wanted = next((m for m in inside[1:] if isinstance(m, Range)), None)
        if wanted is None:
            return fault(inside[0], value)
        if not number or value not in wanted:
            return str(wanted)
        whole = inside[0] is not int or value == int(value)
        return "" if whole else f"a whole number, {wanted}"
    if origin in (typing.Union, types.UnionType):
        said = [fault(h, value) for h in inside if h is not type(None)]
        if (value is None and type(None) in inside) or not all(said):
            return ""
        return " or ".join([*said, *(["null"] if type(None) in inside else [])])
    if origin in (tuple, list, Sequence) and not isinstance(value, (tuple, list)):
        return "a list"
    if origin is tuple:
        kinds = inside[:1] * len(value) if inside[-1:] == (...,) else inside
        if len(kinds) != len(value):
            return f"{len(kinds)} values"
        return next(
            (f"each {s}" for h, v in zip(kinds, value, strict=True) if (s := fault(h, v))), ""
        )
    if origin in (list, Sequence):
        return next((f"each {s}" for v in value if (s := fault(inside[0], v))), "")
    return ""


def bound(cls: type, instance: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """A constructor's arguments by name, the defaults filled in."""
    start: Any = cls.__init__  # type: ignore[misc]
    arguments = inspect.signature(start).bind(instance, *args, **kwargs)
    arguments.apply_defaults()
    return dict([*arguments.arguments.items()][1:])


def check_fields(options: Any, prefix: str = "") -> None:
    """Test a dataclass of options against its annotations; for its ``__post_init__``.

    Args:
        prefix: of the names in messages, such as "loop.".
    """
    kind: Any = type(options)
    hints = _hints(kind)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if said := fault(hints[field.name], value):
            raise ValueError(f"{prefix}{field.name} is {said}, got {value!r}")


def ranges(kind: type) -> dict[str, str]:
    """The ranges of a class's arguments in words, by name: {"k": "at least 1", "loop.r1": ...}."""
    fields = dataclasses.is_dataclass(kind)
    found: dict[str, str] = {}
    for name, hint in _hints(kind if fields else kind.__init__).items():  # type: ignore[misc]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= {f"{name}.{k}": said for k, said in ranges(hint).items()}
        elif limits := [str(r) for r in _inside(hint) if isinstance(r, Range)]:
            found[name] = limits[0]
    return found


def _inside(hint: Any) -> typing.Iterator[Any]:
    for part in get_args(hint):
        yield part
        yield from _inside(part)


@functools.cache
def _hints(of: Any) -> dict[str, Any]:
    return typing.get_type_hints(of, include_extras=True)
