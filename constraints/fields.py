"""Reading the values that constraints take: ranges, and lists of texts."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from guided_dlm.errors import InvalidRequest

Range = tuple[int, int | None]


def as_range(value: Any, where: str) -> Range | None:
    """Return (min, max) as ints, from a whole number of any type, a pair, or None; max None is open.

    Raises:
        InvalidRequest: not whole numbers, negative, or min > max.
    """
    if value is None:
        return None
    pair = value if isinstance(value, list | tuple) else (value, value)
    low, high = map(_as_count, pair) if len(pair) == 2 else (None, None)
    if low is None or (high is None and pair[1] is not None):
        raise InvalidRequest(
            f"{where}={value!r}: give a whole number from 0 up, or a pair (min, max) of them; max may be None."
        )
    if high is not None and low > high:
        raise InvalidRequest(f"{where}={value!r}: the minimum is larger than the maximum; swap them.")
    return (low, high)


def _as_count(value: Any) -> int | None:
    """Return a whole number from 0 up as an int, anything else as None; numpy's integers are numbers, bools are not."""
    try:
        count = operator.index(value)
    except TypeError:
        return None
    return None if isinstance(value, bool) or count < 0 else count


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
    if isinstance(value, str):
        raise InvalidRequest(f"{where}={value!r}: give a list of texts, here [{value!r}].")
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise InvalidRequest(f"{where}={value!r} is no list; give a list of texts, for example ['pub'].")
    if not value:
        raise InvalidRequest(f"{where}=[] asks for nothing; leave it out or name at least one text.")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise InvalidRequest(f"{where}[{index}]={item!r} is not a text; write it in quotes.")
    return tuple(value)
