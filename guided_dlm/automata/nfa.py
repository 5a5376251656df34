"""Non-deterministic automata over character sets with zero-width anchors, and their determinisation."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from guided_dlm.automata.codepoints import CodepointSet, Partition, partition
from guided_dlm.automata.dfa import DEAD, Mask, Table
from guided_dlm.errors import AutomatonTooLarge

# Kinds of neighbour that anchors can tell apart. The first four classify characters.
OTHER, NEWLINE, UNICODE_WORD, ASCII_WORD, EDGE = range(5)

# A thread that passed `$` before a newline owes a final newline: nothing owed, newline owed, end of text owed.
FREE, OWES_NEWLINE, OWES_END = range(3)

Anchor = Callable[[int, int], bool]

# Until Python 3.13 `re` says that \B does not match in the empty text.
_EMPTY_IS_NO_BOUNDARY = re.fullmatch(r"\B", "") is not None


def _is_word(kind: int, ascii_only: bool) -> bool:
    return kind == ASCII_WORD or (kind == UNICODE_WORD and not ascii_only)


def boundary(ascii_only: bool) -> Anchor:
    r"""Return the test of `\b` on the kinds of the previous and the next character."""
    return lambda before, after: _is_word(before, ascii_only) != _is_word(after, ascii_only)


def non_boundary(ascii_only: bool) -> Anchor:
    r"""Return the test of `\B`."""
    return lambda before, after: (
        _is_word(before, ascii_only) == _is_word(after, ascii_only)
        and (_EMPTY_IS_NO_BOUNDARY or (before, after) != (EDGE, EDGE))
    )


def text_start(before: int, after: int) -> bool:
    r"""Test `\A`, and `^` without MULTILINE."""
    return before == EDGE


def line_start(before: int, after: int) -> bool:
    """Test `^` under MULTILINE."""
    return before in (EDGE, NEWLINE)


def text_end(before: int, after: int) -> bool:
    r"""Test `\Z`; also `$` without MULTILINE, which may besides leave a final newline owed."""
    return after == EDGE


def line_end(before: int, after: int) -> bool:
    """Test `$` under MULTILINE."""
    return after in (EDGE, NEWLINE)


class Nfa:
    """A Thompson automaton under construction: states with at most one character edge, empty edges and anchors."""

    def __init__(self, max_states: int, described: str) -> None:
        """Start with one state, 0; `described` names the pattern in errors."""
        self.sets: dict[CodepointSet, int] = {}
        self.label: list[int] = []
        self.target: list[int] = []
        self.empty: list[list[int]] = []
        self.anchors: dict[int, tuple[Anchor, int, bool]] = {}
        self.limit, self.described = max_states, described
        self.state()

    def state(self) -> int:
        """Add a state and return its number.

        Raises:
            AutomatonTooLarge: there are too many already.
        """
        if len(self.label) > 4 * self.limit:
            raise AutomatonTooLarge(
                f"{self.described} expands to more than {4 * self.limit} positions. Nested counted repeats multiply; "
                "lower the counts."
            )
        self.label.append(-1)
        self.target.append(-1)
        self.empty.append([])
        return len(self.label) - 1

    def read(self, entry: int, characters: CodepointSet) -> int:
        """Add an edge from `entry` on any of the characters; return the state after it."""
        before, after = self.state(), self.state()
        self.empty[entry].append(before)
        self.label[before] = self.sets.setdefault(characters, len(self.sets))
        self.target[before] = after
        return after

    def anchor(self, entry: int, test: Anchor, newline_may_follow: bool = False) -> int:
        """Add a zero-width edge from `entry` that needs the test; return the state after it."""
        before, after = self.state(), self.state()
        self.empty[entry].append(before)
        self.anchors[before] = (test, after, newline_may_follow)
        return after


class Subsets:
    """The subset construction of a finished Nfa; `final` is its only accepting state.

    A deterministic state is (set of threads, kind of the previous character); a thread is an NFA state and what it
    owes. Anchors are settled when the next character, or the end, is known.
    """

    def __init__(self, nfa: Nfa, final: int) -> None:
        """Classify the characters of the automaton."""
        self.nfa, self.final = nfa, final
        newline, word = CodepointSet.of("\n"), CodepointSet.word()
        short_word = word & CodepointSet.range(0, 127)
        marks = [newline, word, short_word] if nfa.anchors else []
        self.partition: Partition
        self.partition, members = partition([*nfa.sets, *marks])
        self.kind = np.zeros(self.partition.size, dtype=np.int64)
        for mark, kind in zip(range(len(nfa.sets), len(members)), (NEWLINE, UNICODE_WORD, ASCII_WORD), strict=False):
            self.kind[members[mark]] = kind
        self.kinds = sorted(set(self.kind.tolist()))
        self.classes = [
            {k: np.flatnonzero(row & (self.kind == k)).tolist() for k in self.kinds} for row in members[: len(nfa.sets)]
        ]
        self.closure = lru_cache(maxsize=None)(self._closure)
        self.skip = lru_cache(maxsize=None)(self._skip)

    def _skip(self, state: int) -> int:
        """Follow empty edges where there is no choice."""
        while len(self.nfa.empty[state]) == 1 and state not in self.nfa.anchors and state != self.final:
            state = self.nfa.empty[state][0]
        return state

    def _closure(self, thread: int, before: int, after: int) -> tuple[tuple[int, ...], bool]:
        """Return the threads ready to read that one thread leads to, and, if `after` is EDGE, whether it accepts."""
        stack, met, ready, ends = [thread], {thread}, [], False
        while stack:
            current = stack.pop()
            state, owed = divmod(current, 3)
            if self.nfa.label[state] >= 0:
                ready.append(current)
            ends = ends or state == self.final
            following = [3 * target + owed for target in self.nfa.empty[state]]
            if state in self.nfa.anchors:
                test, target, newline_may_follow = self.nfa.anchors[state]
                if test(before, after):
                    following.append(3 * target + owed)
                elif newline_may_follow and after == NEWLINE and owed != OWES_END:
                    following.append(3 * target + OWES_NEWLINE)
            fresh = [t for t in following if t not in met]
            met.update(fresh)
            stack += fresh
        return tuple(ready), ends

    def _moves(self, threads: frozenset[int], before: int, after: int) -> dict[int, frozenset[int]]:
        """Return, for every class of kind `after` that some thread reads, the set of threads after it."""
        by_label: dict[int, set[int]] = {}
        for thread in threads:
            for ready in self.closure(thread, before, after)[0]:
                state, owed = divmod(ready, 3)
                if owed == FREE or (owed == OWES_NEWLINE and after == NEWLINE):
                    owes = FREE if owed == FREE else OWES_END
                    target = 3 * self.skip(self.nfa.target[state]) + owes
                    by_label.setdefault(self.nfa.label[state], set()).add(target)
        readers: dict[int, tuple[int, ...]] = {}
        for label in by_label:
            for symbol in self.classes[label][after]:
                readers[symbol] = (*readers.get(symbol, ()), label)
        unions = {labels: frozenset().union(*(by_label[i] for i in labels)) for labels in set(readers.values())}
        return {symbol: unions[labels] for symbol, labels in readers.items()}

    def determinise(self) -> tuple[Table, Mask]:
        """Return the deterministic automaton over the classes of `self.partition`.

        Raises:
            AutomatonTooLarge: there are more than the limit of states, or they are too big together.
        """
        start = (frozenset([0]), EDGE if self.nfa.anchors else OTHER)
        number, order = {start: 0}, [start]
        rows: list[list[int]] = []
        accepting: list[bool] = []
        work = 0
        for threads, before in order:
            row = [DEAD] * self.partition.size
            for after in self.kinds:
                for symbol, target in self._moves(threads, before, after).items():
                    key = (target, after if self.nfa.anchors else OTHER)
                    if key not in number:
                        number[key] = len(order)
                        order.append(key)
                        work += len(target)
                    row[symbol] = number[key]
            rows.append(row)
            accepting.append(any(self.closure(thread, before, EDGE)[1] for thread in threads))
            if len(order) > self.nfa.limit or work > 50 * self.nfa.limit:
                raise AutomatonTooLarge(
                    f"{self.nfa.described} needs more than {len(order) - 1} states once made deterministic. "
                    "Ambiguous alternatives inside counted repeats cost most; make them exclusive or lower the counts."
                )
        return np.array(rows, dtype=np.int32).reshape(len(rows), self.partition.size), np.array(accepting, dtype=bool)
