"""Reading the values that constraints take: ranges, and lists of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guided_dlm.errors import InvalidRequest

Range = tuple[int, int | None]


def as_range(value: Any, where: str) -> Range | None:
    """Return (min, max) from an int, a pair, or None; max None is open.

    Raises:
        InvalidRequest: not whole numbers, negative, or min > max.
    """
    if value is None:
        return None
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise InvalidRequest(f"{where}={value!r}: give a whole number or a pair (min, max).")
    low, high = pair
    for bound in (low,) if high is None else (low, high):
        if not isinstance(bound, int) or isinstance(bound, bool) or bound < 0:
            raise InvalidRequest(f"{where}={value!r}: {bound!r} is no length; give whole numbers from 0 up.")
    if high is not None and low > high:
        raise InvalidRequest(f"{where}={value!r}: the minimum is larger than the maximum; swap them.")
    return (low, high)


def in_range(count: int, allowed: Range | None) -> bool:
    """Return whether a count is allowed; None allows every count."""
    return allowed is None or (allowed[0] <= count and (allowed[1] is None or count <= allowed[1]))


def show_range(allowed: Range) -> str:
    """Return a range as one would type it: an int where both ends are equal."""
    return repr(allowed[0] if allowed[0] == allowed[1] else allowed)


def as_texts(value: Any, where: str) -> tuple[str, ...]:
    """Return a tuple of texts, which may not be empty.

    Raises:
        InvalidRequest: a bare string, an empty list, or something that is not a text.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidRequest(f"{where}={value!r}: give a list of texts, for example [{str(value)!r}].")
    if not value:
        raise InvalidRequest(f"{where}=[] asks for nothing; leave it out or name at least one text.")
    for item in value:
        if not isinstance(item, str):
            raise InvalidRequest(f"{where}: {item!r} is a {type(item).__name__}, not a text.")
    return tuple(value)
