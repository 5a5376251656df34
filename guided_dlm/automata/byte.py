"""ByteAutomaton: a regular set of texts, as a minimal automaton over UTF-8 bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from guided_dlm.automata.codepoints import CodepointSet, partition
from guided_dlm.automata.dfa import DEAD, Dfa, Mask, Table, canonical, distances, minimise, normal_form, unique_rows
from guided_dlm.automata.lift import lift
from guided_dlm.automata.machine import explore
from guided_dlm.automata.product import MAX_STATES, Keep, product
from guided_dlm.automata.regex import regex_subsets
from guided_dlm.automata.subsets import concatenation, repetition
from guided_dlm.automata.utf8 import expand
from guided_dlm.errors import InvalidRequest

if TYPE_CHECKING:
    from guided_dlm.automata.codepoints import Partition
    from guided_dlm.automata.token import TokenAutomaton
    from guided_dlm.vocabulary import Vocabulary

State = TypeVar("State", bound=Hashable)


class ByteAutomaton:
    """An immutable set of valid UTF-8 texts: a minimal partial DFA over bytes, numbered canonically.

    `table` int32 `[S, K]` (-1 dead) over byte classes, `byte_class` int16 `[256]`, `accepting` bool `[S]`;
    state 0 starts.
    `==` is equality of languages. `& | ~ - +` are intersection, union, complement within valid UTF-8, difference and
    concatenation.
    """

    table: Table
    byte_class: np.ndarray[tuple[int], np.dtype[np.int16]]
    accepting: Mask

    def __init__(self, dfa: Dfa, minimal: bool = False) -> None:
        """Minimise (unless it is `minimal`) and number a byte-level DFA; the class methods only make valid UTF-8."""
        table, accepting, column_of = (canonical if minimal else normal_form)(dfa, drop_dead=False)
        self.table, self.byte_class, self.accepting = table, column_of.astype(np.int16), accepting
        for array in (self.table, self.byte_class, self.accepting):
            array.setflags(write=False)

    @classmethod
    def from_regex(cls, pattern: str, flags: int = 0, max_states: int = MAX_STATES) -> ByteAutomaton:
        """Return the texts that `re.fullmatch(pattern, text, flags)` matches.

        Raises:
            UnsupportedPattern: the pattern does not parse, or uses look-around, back-references, conditional or atomic
                groups, or possessive repeats.
            AutomatonTooLarge: more than `max_states` states are needed.
        """
        subsets = regex_subsets(pattern, flags, max_states)
        return cls._from_characters(*subsets.determinise(), subsets.partition, max_states)

    @staticmethod
    def check_regex(pattern: str, flags: int = 0) -> None:
        """Parse a pattern without building its automaton, so that mistakes show early.

        Raises:
            UnsupportedPattern: it does not parse, or uses a construct that is not regular.
        """
        regex_subsets(pattern, flags, MAX_STATES)

    @classmethod
    def from_machine(
        cls,
        classes: Sequence[CodepointSet],
        start: State,
        step: Callable[[State, int], State | None],
        accepting: Callable[[State], bool],
        max_states: int = MAX_STATES,
    ) -> ByteAutomaton:
        """Return the texts accepted by a Python state machine over disjoint classes of characters.

        `step(state, i)` gives the state after a character of `classes[i]`, or None where there is none;
        i = len(classes) stands for every other character. States must be hashable.

        Raises:
            InvalidRequest: two classes share a character.
            AutomatonTooLarge: more than `max_states` states can be reached.
        """
        return cls._from_characters(*explore(classes, start, step, accepting, max_states), max_states)

    @classmethod
    def literal(cls, text: str) -> ByteAutomaton:
        """Return the set holding one text.

        Raises:
            InvalidRequest: the text holds half of a surrogate pair, which UTF-8 cannot write.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"The text {text!r} holds a lone surrogate at position {error.start}, which is no character; remove it."
            ) from error
        table = np.full((len(data) + 1, 256), DEAD, dtype=np.int32)
        table[np.arange(len(data)), list(data)] = np.arange(1, len(data) + 1)
        return cls(Dfa(table, np.arange(len(data) + 1) == len(data), np.arange(256)))

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> ByteAutomaton:
        """Return the set of some texts; thousands of words take a moment where a pattern of them takes many."""
        nodes: list[dict[int, int]] = [{}]
        ends = []
        for text in texts:
            node = 0
            for byte in text.encode():
                if byte not in nodes[node]:
                    nodes[node][byte] = len(nodes)
                    nodes.append({})
                node = nodes[node][byte]
            ends.append(node)
        used = sorted({byte for node in nodes for byte in node})
        column_of = np.full(256, len(used), dtype=np.int64)
        column_of[used] = np.arange(len(used))
        table = np.full((len(nodes), len(used) + 1), DEAD, dtype=np.int32)
        for state, after in enumerate(nodes):
            table[state, column_of[list(after)]] = list(after.values())
        accepting = np.zeros(len(nodes), dtype=bool)
        accepting[ends] = True
        return cls(Dfa(table, accepting, column_of))

    @classmethod
    def any_text(cls) -> ByteAutomaton:
        """Return the set of all valid UTF-8 texts, the empty one included."""
        every, _ = partition([CodepointSet.any()])
        return cls._from_characters(np.zeros((1, 1), dtype=np.int32), np.ones(1, dtype=bool), every, MAX_STATES)

    @classmethod
    def empty(cls) -> ByteAutomaton:
        """Return the empty set, which has one state and accepts nothing."""
        return cls(Dfa(np.full((1, 1), DEAD, dtype=np.int32), np.zeros(1, dtype=bool), np.zeros(256, dtype=np.int64)))

    @classmethod
    def _from_characters(cls, table: Table, accepting: Mask, classes: Partition, max_states: int) -> ByteAutomaton:
        """Minimise over characters first: the expansion to bytes then meets few states and few classes."""
        table, accepting = minimise(table, accepting)
        first, kind = unique_rows(np.ascontiguousarray(table.T))
        return cls(expand(table[:, first], accepting, classes.relabel(kind), max_states), minimal=True)

    def accepts(self, data: bytes) -> bool:
        """Say whether the text with these bytes is in the set."""
        state = 0
        for byte in data:
            state = int(self.table[state, self.byte_class[byte]])
            if state == DEAD:
                return False
        return bool(self.accepting[state])

    @property
    def num_states(self) -> int:
        """Return S, the number of states of the minimal automaton."""
        return int(self.table.shape[0])

    def is_empty(self) -> bool:
        """Say whether no text is in the set."""
        return not self.accepting.any()

    @cached_property
    def distance(self) -> Table:
        """Int32 `[S]`: the least number of bytes from each state to acceptance."""
        return distances(self.table, self.accepting)

    def example(self) -> bytes | None:
        """Return the first in byte order of the shortest texts in the set, or None where there is none."""
        if self.is_empty():
            return None
        state, data = 0, b""
        while self.distance[state]:
            after = self.table[state][self.byte_class]
            closer = (after >= 0) & (self.distance[after] == self.distance[state] - 1)
            byte = int(np.flatnonzero(closer)[0])
            state, data = int(after[byte]), data + bytes([byte])
        return data

    def lift(self, vocabulary: Vocabulary) -> TokenAutomaton:
        """Return the canvases over a vocabulary whose text is in the set; see `guided_dlm.automata.lift`."""
        return lift(self, vocabulary)

    def __and__(self, other: ByteAutomaton) -> ByteAutomaton:
        """Return the intersection."""
        return self.combine(other, "both")

    def __or__(self, other: ByteAutomaton) -> ByteAutomaton:
        """Return the union."""
        return self.combine(other, "either")

    def __sub__(self, other: ByteAutomaton) -> ByteAutomaton:
        """Return the texts of this set that are not in the other."""
        return self.combine(other, "left")

    def __invert__(self) -> ByteAutomaton:
        """Return the valid UTF-8 texts that are not in the set."""
        return ByteAutomaton.any_text() - self

    def __add__(self, other: ByteAutomaton) -> ByteAutomaton:
        """Return the texts made of one text of this set, then one of the other."""
        return ByteAutomaton(concatenation(self._dfa, other._dfa, MAX_STATES))

    def after(self, prefix: bytes) -> ByteAutomaton:
        """Return what may follow a prefix: the rests of the texts in this set that begin with it."""
        state = 0
        for byte in prefix:
            state = int(self.table[state, self.byte_class[byte]])
            if state == DEAD:
                return ByteAutomaton.empty()
        swap = np.arange(self.num_states + 1)  # the start is state 0; the last entry keeps DEAD as it is
        swap[[0, state, -1]] = state, 0, DEAD
        table = swap[self.table][swap[:-1]].astype(np.int32)
        return ByteAutomaton(Dfa(table, self.accepting[swap[:-1]], self.byte_class.astype(np.int64)))

    def star(self) -> ByteAutomaton:
        """Return the texts made of any number of texts of this set, the empty text included."""
        return ByteAutomaton(repetition(self._dfa, MAX_STATES))

    def combine(self, other: ByteAutomaton, keep: Keep, max_states: int = MAX_STATES) -> ByteAutomaton:
        """Return the texts in both sets, in either, or in the left one only.

        Raises:
            AutomatonTooLarge: more than `max_states` pairs of states can be reached.
        """
        if not isinstance(other, ByteAutomaton):
            return NotImplemented
        return ByteAutomaton(product(self._dfa, other._dfa, keep, max_states))

    @property
    def _dfa(self) -> Dfa:
        return Dfa(self.table, self.accepting, self.byte_class.astype(np.int64))

    def __eq__(self, other: object) -> bool:
        """Say whether both sets hold the same texts."""
        if not isinstance(other, ByteAutomaton):
            return NotImplemented
        return self is other or self._digest == other._digest

    def __hash__(self) -> int:
        """Hash the set of texts."""
        return hash(self._digest)

    @cached_property
    def _digest(self) -> tuple[tuple[int, ...], bytes, bytes, bytes]:
        return self.table.shape, self.table.tobytes(), self.byte_class.tobytes(), self.accepting.tobytes()

    def __repr__(self) -> str:
        """Show the size and one text."""
        return (
            f"ByteAutomaton({self.num_states} states, {self.table.shape[1]} byte classes, example {self.example()!r})"
        )
