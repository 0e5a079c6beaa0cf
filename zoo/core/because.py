"""Errors in one line, for messages that name what went wrong elsewhere."""

from __future__ import annotations


def because(error: BaseException, limit: int = 160) -> str:
    """The kind of an error and the first line of what it says.

    >>> because(ValueError("too wide" + chr(10) + "by far"))
    'ValueError: too wide'
    """
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:limit]}"
