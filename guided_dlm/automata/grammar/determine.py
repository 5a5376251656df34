"""The subset construction over threads: a point of the unfolded grammar, and how much of a terminal is read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from guided_dlm.automata.dfa import DEAD, Mask, Table
from guided_dlm.automata.grammar.networks import Terminals
from guided_dlm.automata.grammar.terminals import Alphabet
from guided_dlm.automata.grammar.unfold import Unfolding
from guided_dlm.errors import AutomatonTooLarge

# A thread is (terminal, state of its automaton, point after it); a bundle is a set of threads and "the text may end".
Thread = tuple[int, int, int]
Bundle = tuple[frozenset[Thread], bool]

MAX_WORK = 5_000_000


class Determiniser:
    """Bundles reached from a text's start, explored breadth first."""

    def __init__(
        self,
        unfolding: Unfolding,
        alphabet: Alphabet,
        later: Mapping[Terminals, tuple[int, ...]],
        first: Mapping[Terminals, tuple[int, ...]],
        ignored: tuple[int, ...],
    ) -> None:
        """`later` and `first` number the automata of terminals: after others, and at the start of the text."""
        self.unfolding, self.alphabet = unfolding, alphabet
        self.later, self.first, self.ignored = later, first, ignored
        self.opened: dict[int, Bundle] = {}
        self.stepped: dict[Thread, Bundle] = {}
        self.work = 0

    def start(self) -> Bundle:
        """Return the bundle of the empty text."""
        unfolding = self.unfolding
        reads, accepts = unfolding.ready(unfolding.start)
        threads = [(terminal, 0, point) for terminals, point in reads for terminal in self.first[terminals]]
        # Ignored texts change nothing: they come back to the point that they started from.
        threads += [(terminal, 0, point) for terminal in self.ignored for point in unfolding.start]
        return frozenset(threads), accepts

    def open(self, point: int) -> Bundle:
        """Return the bundle of a point: everything that can be read next."""
        if point not in self.opened:
            reads, accepts = self.unfolding.ready([point])
            threads = [(terminal, 0, after) for terminals, after in reads for terminal in self.later[terminals]]
            if threads or accepts:
                threads += [(terminal, 0, point) for terminal in self.ignored]
            self.opened[point] = frozenset(threads), accepts
        return self.opened[point]

    def step(self, thread: Thread) -> Bundle:
        """Return what a thread has become once it is in its state: itself, and what is open if the terminal is read."""
        if thread not in self.stepped:
            terminal, state, point = thread
            self.work += 1
            onward = bool(self.alphabet.moves[terminal][state])
            itself = frozenset([thread]) if onward else frozenset()
            if self.alphabet.accepting[terminal][state]:
                threads, accepts = self.open(point)
                self.stepped[thread] = (itself | threads if onward else threads), accepts
            else:
                self.stepped[thread] = itself, False
        return self.stepped[thread]

    def moves(self, threads: frozenset[Thread]) -> dict[int, list[Bundle]]:
        """Return the bundles that the threads become after each class of characters."""
        by_class: dict[int, list[Bundle]] = {}
        for terminal, state, point in threads:
            for symbols, following in self.alphabet.moves[terminal][state]:
                bundle = self.step((terminal, following, point))
                self.work += len(symbols)
                for symbol in symbols:
                    by_class.setdefault(symbol, []).append(bundle)
        return by_class

    def run(self, max_states: int, max_work: int = MAX_WORK) -> tuple[Table, Mask]:
        """Return the deterministic automaton over the alphabet's classes.

        Raises:
            AutomatonTooLarge: more than `max_states` states are needed, or too many threads run side by side.
        """
        start = self.start()
        number: dict[Bundle, int] = {start: 0}
        order, rows = [start], []
        for threads, _ in order:
            row = [DEAD] * self.alphabet.size
            joined: dict[tuple[int, ...], int] = {}
            for symbol, bundles in self.moves(threads).items():
                key = tuple(map(id, bundles))
                if key not in joined:
                    self.work += sum(len(threads) for threads, _ in bundles)
                    union = bundles[0] if len(bundles) == 1 else _union(bundles)
                    if union not in number:
                        number[union] = len(order)
                        order.append(union)
                    joined[key] = number[union]
                row[symbol] = joined[key]
            rows.append(row)
            if len(order) > max_states or self.work > max_work:
                raise AutomatonTooLarge(
                    f"At a depth of {self.unfolding.depth} the grammar needs more than {len(order) - 1} states over "
                    f"{self.alphabet.size} kinds of characters. Lower depth=, shorten counted repeats, or make "
                    "alternatives start differently."
                )
        return np.array(rows, dtype=np.int32), np.array([accepts for _, accepts in order], dtype=bool)


def _union(bundles: list[Bundle]) -> Bundle:
    return frozenset().union(*(threads for threads, _ in bundles)), any(accepts for _, accepts in bundles)
