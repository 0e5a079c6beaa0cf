"""What was drawn once is kept for later runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import getsource
from types import ModuleType

from zoo.core.cache import Tensors, digest, folder, kept


def drawn_once(
    name: str, what: str, drawing: Iterable[ModuleType], draw: Callable[[], Tensors]
) -> Tensors:
    """Named tensors from the cache, or drawn and kept there.

    Args:
        name: how the file's name begins. what: says all that they depend on but the code: options,
            sizes, the seed. drawing: the modules that draw, whose text counts too.
    """
    of = digest(what, *map(getsource, drawing))
    return kept(folder() / f"{name}-{of}.pt", of, draw, f"drawn {name}", "are drawn")
