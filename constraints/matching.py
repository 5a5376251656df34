"""`re.fullmatch` that always answers: Python's own engine may take time exponential in the text.

Written on `re`'s parser, and on `re` itself for single characters and anchors; it shares nothing with the automata
whose outputs it checks.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

_parser: Any = importlib.import_module("re._parser")
_compiler: Any = importlib.import_module("re._compiler")
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")
_TYPE_FLAGS = int(re.ASCII | re.LOCALE | re.UNICODE)


def fullmatch(pattern: str, text: str, flags: int = 0) -> bool:
    """Return whether `re.fullmatch(pattern, text, flags)` would match; no back-references, no look-around.

    Asks `re` where every repeat holds a plain sequence, so that it cannot backtrack for long. Else follows the
    set of positions that each part of the pattern can end at.
    """
    program = _program(pattern, flags)
    if not program.backtracks:
        return re.fullmatch(pattern, text, flags) is not None
    return len(text) in ends(pattern, text, 0, flags)


def ends(pattern: str, text: str, start: int, flags: int = 0) -> frozenset[int]:
    """Return every position at which a match of the pattern that begins at `start` can end."""
    program = _program(pattern, flags)
    return program.ends(program.tree, program.tree.state.flags, text, frozenset([start]))


def _backtracks(items: Iterable[tuple[Any, Any]], repeated: bool) -> bool:
    """Return whether some repeat holds a repeat, an alternative or nothing: `re` may take for ever, or all memory."""
    for operation, argument in items:
        name = str(operation)
        if name in _REPEATS and (repeated or argument[2].getwidth()[1] == 0 or _backtracks(argument[2], True)):
            return True
        if name == "BRANCH" and (repeated or any(_backtracks(branch, repeated) for branch in argument[1])):
            return True
        if name == "SUBPATTERN" and _backtracks(argument[3], repeated):
            return True
    return False


class _Program:
    """A parsed pattern, its characters and anchors compiled as they are met."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.tree = _parser.parse(pattern, flags)
        self.backtracks = _backtracks(self.tree, False)
        self._leaves: dict[tuple[str, int], re.Pattern[str]] = {}

    def ends(self, items: Iterable[tuple[Any, Any]], flags: int, text: str, starts: frozenset[int]) -> frozenset[int]:
        """Return where a sequence of items that starts at one of these positions can end."""
        for operation, argument in items:
            starts = self._item_ends(operation, argument, flags, text, starts)
        return starts

    def _item_ends(
        self, operation: Any, argument: Any, flags: int, text: str, starts: frozenset[int]
    ) -> frozenset[int]:
        name = str(operation)
        if name == "BRANCH":
            return frozenset().union(*(self.ends(branch, flags, text, starts) for branch in argument[1]))
        if name == "SUBPATTERN":
            _, added, removed, body = argument
            if added & _TYPE_FLAGS:
                flags &= ~_TYPE_FLAGS
            return self.ends(body, (flags | added) & ~removed, text, starts)
        if name in _REPEATS:
            return self._repeat_ends(argument, flags, text, starts)
        leaf = self._leaf(operation, argument, flags)
        return frozenset(match.end() for start in starts if (match := leaf.match(text, start)))

    def _repeat_ends(self, repeat: Any, flags: int, text: str, starts: frozenset[int]) -> frozenset[int]:
        least, most, body = repeat
        # A body that can be empty only adds positions, another only moves on: soon nothing changes either way.
        for _ in range(least):
            after = self.ends(body, flags, text, starts)
            if after == starts:
                break
            starts = after
        reached, rounds = starts, 0
        while starts and (most is _parser.MAXREPEAT or rounds < most - least):
            starts = self.ends(body, flags, text, starts) - reached
            reached, rounds = reached | starts, rounds + 1
        return reached

    def _leaf(self, operation: Any, argument: Any, flags: int) -> re.Pattern[str]:
        key = (repr((operation, argument)), flags)
        if key not in self._leaves:
            item = _parser.SubPattern(_parser.State(), [(operation, argument)])
            self._leaves[key] = _compiler.compile(item, flags)
        return self._leaves[key]


@lru_cache(maxsize=256)
def _program(pattern: str, flags: int) -> _Program:
    return _Program(pattern, flags)
