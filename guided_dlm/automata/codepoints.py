"""Sets of Unicode characters as sorted intervals, and partitions of the code point space."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guided_dlm.errors import InvalidRequest

LIMIT = 0x110000
SURROGATES = (0xD800, 0xE000)
SCALARS = (0, *SURROGATES, LIMIT)


class CodepointSet:
    """An immutable set of Unicode scalar values (no surrogates), closed under `| & - ~`.

    `bounds` is strictly increasing and alternates first-member, first-non-member: `(97, 100)` holds a, b and c.
    """

    __slots__ = ("_array", "bounds")
    bounds: tuple[int, ...]

    def __init__(self, bounds: Sequence[int] = ()) -> None:
        """Build from alternating bounds; code points that are not scalar values are left out."""
        raw = np.asarray(bounds, dtype=np.int64)
        if raw.size % 2 or (np.diff(raw) <= 0).any():
            raise InvalidRequest(f"Bounds must be an even number of increasing code points; got {tuple(bounds)[:8]}.")
        self._array = _combine(raw, np.array(SCALARS), np.logical_and)
        self.bounds = tuple(self._array.tolist())

    @classmethod
    def of(cls, characters: Iterable[str]) -> CodepointSet:
        """Return the set of the given characters: `CodepointSet.of("abc")`."""
        points = sorted({ord(c) for c in characters})
        return cls.from_intervals((p, p) for p in points)

    @classmethod
    def range(cls, first: str | int, last: str | int) -> CodepointSet:
        """Return all characters from `first` to `last`, both included."""
        low, high = (ord(end) if isinstance(end, str) else end for end in (first, last))
        if not 0 <= low <= high < LIMIT:
            raise InvalidRequest(
                f"The range {first!r} to {last!r} is empty or not in Unicode; give the lower end first."
            )
        return cls((low, high + 1))

    @classmethod
    def from_intervals(cls, intervals: Iterable[tuple[int, int]]) -> CodepointSet:
        """Return the union of closed intervals of code points, in any order, overlapping or not."""
        merged: list[int] = []
        for low, high in sorted(intervals):
            if merged and low <= merged[-1]:
                merged[-1] = max(merged[-1], high + 1)
            else:
                merged += [low, high + 1]
        return cls(merged)

    @classmethod
    def any(cls) -> CodepointSet:
        r"""Return every Unicode scalar value, newline included."""
        return cls(SCALARS)

    @classmethod
    def word(cls) -> CodepointSet:
        r"""Return what `\w` matches in `re`: letters, digits and the underscore."""
        return matching(r"\w", 0)

    @classmethod
    def space(cls) -> CodepointSet:
        r"""Return what `\s` matches in `re`, which is `str.isspace`."""
        return matching(r"\s", 0)

    @classmethod
    def digit(cls) -> CodepointSet:
        r"""Return what `\d` matches in `re`, which is `str.isdecimal`."""
        return matching(r"\d", 0)

    @classmethod
    def alnum(cls) -> CodepointSet:
        """Return letters and digits, which is `str.isalnum`."""
        return matching(r"[^\W_]", 0)

    def contains(self, character: str | int) -> bool:
        """Say whether a character, or a code point, is in the set."""
        point = ord(character) if isinstance(character, str) else character
        return bool(np.searchsorted(self._array, point, side="right") % 2)

    def members(self, points: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return bool, one per code point in `points`: is it in the set."""
        inside: NDArray[np.bool_] = np.searchsorted(self._array, points, side="right") % 2 == 1
        return inside

    def __contains__(self, character: str | int) -> bool:
        """Say whether a character, or a code point, is in the set."""
        return self.contains(character)

    def __bool__(self) -> bool:
        """Say whether the set has a member."""
        return bool(self.bounds)

    def __len__(self) -> int:
        """Return the number of code points in the set."""
        return int((self._array[1::2] - self._array[::2]).sum())

    def __or__(self, other: CodepointSet) -> CodepointSet:
        """Return the union."""
        return CodepointSet(_combine(self._array, other._array, np.logical_or).tolist())

    def __and__(self, other: CodepointSet) -> CodepointSet:
        """Return the intersection."""
        return CodepointSet(_combine(self._array, other._array, np.logical_and).tolist())

    def __sub__(self, other: CodepointSet) -> CodepointSet:
        """Return the members of this set that are not in the other."""
        return CodepointSet(_combine(self._array, other._array, np.greater).tolist())

    def __invert__(self) -> CodepointSet:
        """Return every scalar value that is not in the set."""
        return CodepointSet.any() - self

    def __eq__(self, other: object) -> bool:
        """Compare as sets."""
        return isinstance(other, CodepointSet) and self.bounds == other.bounds

    def __hash__(self) -> int:
        """Hash as a set."""
        return hash(self.bounds)

    def __repr__(self) -> str:
        """Show the size and the first intervals."""
        shown = ", ".join(f"{a:#x}-{b - 1:#x}" for a, b in zip(self.bounds[:8:2], self.bounds[1:8:2], strict=True))
        return f"CodepointSet({len(self)} code points: {shown}{', ...' if len(self.bounds) > 8 else ''})"


def _combine(left: NDArray[np.int64], right: NDArray[np.int64], operation: np.ufunc) -> NDArray[np.int64]:
    points = np.union1d(left, right)
    inside = operation(
        np.searchsorted(left, points, side="right") % 2 == 1, np.searchsorted(right, points, side="right") % 2 == 1
    )
    changes = np.diff(inside.astype(np.int8), prepend=0) != 0
    bounds: NDArray[np.int64] = points[changes].astype(np.int64)
    return bounds


@lru_cache(maxsize=1)
def _everything() -> str:
    return "".join(map(chr, builtins.range(LIMIT)))


@lru_cache(maxsize=2048)
def matching(one_character: str, flags: int) -> CodepointSet:
    """Return the characters that a one-character pattern of `re` matches, by asking `re` about every one of them.

    This is the definition of Unicode categories and of IGNORECASE used everywhere here: exact by construction.
    """
    spans = re.compile(f"(?:{one_character})+", flags).finditer(_everything())
    return CodepointSet([end for match in spans for end in match.span()])


class Partition(NamedTuple):
    """A labelling of all code points: those in `[starts[i], starts[i + 1])` have class `labels[i]`, -1 for none."""

    starts: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return the number of classes."""
        return max(self.labels) + 1

    def relabel(self, new_label: NDArray[np.int64]) -> Partition:
        """Return the partition with class c renamed to `new_label[c]`."""
        extended = np.append(new_label, -1)
        return Partition(self.starts, tuple(extended[np.array(self.labels)].tolist()))

    def dense(self) -> NDArray[np.int16]:
        """Return int16 `[0x110000]`: the class of every code point."""
        widths = np.diff(np.array([*self.starts, LIMIT]))
        return np.repeat(np.array(self.labels, dtype=np.int16), widths)


def partition(sets: Sequence[CodepointSet]) -> tuple[Partition, NDArray[np.bool_]]:
    """Return the coarsest partition of which every given set is a union, and bool `[sets, classes]` saying which.

    Code points in no set at all share a class too (unless there are none); surrogates have class -1.
    """
    starts = np.unique(np.concatenate([np.array(SCALARS[:-1]), *(np.array(s.bounds, dtype=np.int64) for s in sets)]))
    starts = starts[starts < LIMIT]
    inside = np.array([s.members(starts) for s in (CodepointSet.any(), *sets)])
    columns, labels = np.unique(inside, axis=1, return_inverse=True)
    labels = labels.reshape(-1)
    scalar = columns[0]
    new_label = np.where(scalar, np.cumsum(scalar) - 1, -1)
    return Partition(tuple(starts.tolist()), tuple(new_label[labels].tolist())), columns[1:, scalar]
