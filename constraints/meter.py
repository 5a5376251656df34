"""Counting syllables line by line, as a state machine over words and silent characters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from constraints.fields import Range, in_range
from constraints.pronunciation import APOSTROPHES, LETTERS, SILENT_MARKS, spelled
from guided_dlm.automata import ByteAutomaton, CodepointSet, TokenAutomaton
from guided_dlm.automata.dfa import DEAD, Dfa
from guided_dlm.automata.product import MAX_STATES
from guided_dlm.automata.token import Roles
from guided_dlm.errors import AutomatonTooLarge
from guided_dlm.vocabulary import Vocabulary

RUN = re.compile(rf"[A-Za-z{APOSTROPHES}]+")
Piece = str | frozenset[int]  # silent characters, or a word: its numbers of syllables


class State(NamedTuple):
    """Where a text stands: which line, the counts that its words so far may have, how much of a separator was read."""

    line: int
    counts: frozenset[int]
    matched: int


@dataclass(frozen=True)
class Meter:
    """Ranges of syllables, one per line, and what parts the lines; a single line has no separator."""

    ranges: tuple[Range, ...]
    separator: str

    @property
    def start(self) -> State:
        """Nothing read yet."""
        return State(0, frozenset([0]), 0)

    def word(self, state: State, syllables: Collection[int]) -> State | None:
        """Read a word that has one of these numbers of syllables; None where it makes the line too long."""
        low, high = self.ranges[state.line]
        sums = {count + more for count in state.counts for more in syllables}
        if high is None:
            counts = frozenset(min(count, low) for count in sums)  # beyond an open minimum nothing changes
        else:
            counts = frozenset(count for count in sums if count <= high)
        return State(state.line, counts, 0) if counts else None

    def silent(self, state: State, character: str) -> State | None:
        """Read a character that is not spoken; None where it ends a line that is too short, or the last one."""
        if len(self.ranges) == 1:
            return state
        read = self.separator[: state.matched] + character
        matched = next(n for n in range(len(read), -1, -1) if self.separator.startswith(read[len(read) - n :]))
        if matched < len(self.separator):
            return state._replace(matched=matched)
        return State(state.line + 1, frozenset([0]), 0) if self._done(state) and not self._last(state) else None

    def accepts(self, state: State) -> bool:
        """Whether a text may end here."""
        return self._last(state) and self._done(state)

    def _last(self, state: State) -> bool:
        return state.line == len(self.ranges) - 1

    def _done(self, state: State) -> bool:
        return any(in_range(count, self.ranges[state.line]) for count in state.counts)

    @property
    def size(self) -> int:
        """How many counts there are to tell apart, over all lines."""
        return sum((low if high is None else high) + 1 for low, high in self.ranges)


def silent_characters() -> CodepointSet:
    """Return white space and punctuation: what is not spoken."""
    return CodepointSet.space() | CodepointSet.of(SILENT_MARKS)


def is_silent(text: str) -> bool:
    """Return whether nothing in a text is spoken."""
    return all(character.isspace() or character in SILENT_MARKS for character in text)


def letter_classes() -> list[CodepointSet]:
    """Return one class of characters for each of `LETTERS`: both cases, and both apostrophes."""
    return [CodepointSet.of(APOSTROPHES if c == "'" else c + c.upper()) for c in LETTERS]


def prefixes_of(words: Collection[str]) -> frozenset[str]:
    """Return all beginnings of the words, themselves included."""
    return frozenset(word[:size] for word in words for size in range(1, len(word) + 1))


def byte_meter(meter: Meter, syllables: Mapping[str, frozenset[int]]) -> ByteAutomaton:
    """Return the texts of these words that the meter accepts, over bytes.

    Raises:
        AutomatonTooLarge: the spellings times the counts are too many.
    """
    prefixes = prefixes_of(syllables)
    if len(prefixes) * meter.size > MAX_STATES:
        raise AutomatonTooLarge(
            f"The spellings of {len(syllables)} words have {len(prefixes)} beginnings, times {meter.size} counts of "
            f"syllables: more than {MAX_STATES} states. Name the words that may be written with words=[...], or use a "
            "model whose tokens are whole words."
        )
    marks = list(dict.fromkeys(meter.separator)) if len(meter.ranges) > 1 else []
    rest = silent_characters() - CodepointSet.of(marks)
    classes = [*letter_classes(), *map(CodepointSet.of, marks), rest]
    # The rest of the silent characters are in no separator, so that any one of them, "\0" say, stands for all.
    characters = [*LETTERS, *marks, "\0", ""]

    def close(state: State, run: str) -> State | None:
        return state if not run else meter.word(state, syllables[run]) if run in syllables else None

    def step(at: tuple[State, str], symbol: int) -> tuple[State, str] | None:
        (state, run), character = at, characters[symbol]
        if symbol < len(LETTERS):
            return (state, run + character) if run + character in prefixes else None
        closed = close(state, run)
        if closed is None or not character:
            return None
        after = meter.silent(closed, character)
        return None if after is None else (after, "")

    def accepting(at: tuple[State, str]) -> bool:
        closed = close(*at)
        return closed is not None and meter.accepts(closed)

    return ByteAutomaton.from_machine(classes, (meter.start, ""), step, accepting)


def token_pieces(
    vocabulary: Vocabulary, syllables: Mapping[str, frozenset[int]]
) -> Iterator[tuple[int, tuple[Piece, ...]]]:
    """Yield each text token that is made of whole words and silent characters, and what it is made of."""
    for index in Roles.of(vocabulary).text_ids.tolist():
        text = vocabulary.tokens[index].decode(errors="replace")
        words = [spelled(run) for run in RUN.findall(text)]
        gaps = RUN.split(text)
        if all(word in syllables for word in words) and all(map(is_silent, gaps)):
            pieces: list[Piece] = [gaps[0]]
            for word, gap in zip(words, gaps[1:], strict=True):
                pieces += [syllables[word], gap]
            yield index, tuple(piece for piece in pieces if piece != "")


def token_meter(
    meter: Meter, vocabulary: Vocabulary, pieces: Mapping[int, tuple[Piece, ...]], max_states: int = MAX_STATES
) -> TokenAutomaton:
    """Return the canvases of these tokens, each word within one token, that the meter accepts.

    Raises:
        AutomatonTooLarge: the words' several pronunciations make too many sets of counts.
    """
    kinds = list(dict.fromkeys(pieces.values()))
    begun = (meter.start, False)
    order, rows = [begun], list[list[int]]()
    number = {begun: 1}

    def row(at: tuple[State, bool], first: bool) -> list[int]:
        found = []
        for kind in kinds:
            after = _read(meter, at, _unspaced(kind) if first else kind)
            if after is not None and after not in number:
                number[after] = len(order) + 1
                order.append(after)
            found.append(DEAD if after is None else number[after])
        return found

    rows.append(row(begun, first=True))  # state 0 is the start of the text, which drops one leading space
    for at in order:
        rows.append(row(at, first=False))
        if len(order) > max_states:
            raise AutomatonTooLarge(
                f"Counting syllables up to {meter.size - 1} needs more than {max_states} sets of counts, because words "
                "have several pronunciations. Lower the counts."
            )
    accepting = [meter.accepts(state) for state, _ in (begun, *order)]
    column_of = np.full(len(vocabulary), -1, dtype=np.int64)
    place = {kind: column for column, kind in enumerate(kinds)}
    for index, kind in pieces.items():
        column_of[index] = place[kind]
    dfa = Dfa(np.array(rows, dtype=np.int32).reshape(len(rows), len(kinds)), np.array(accepting), column_of)
    return TokenAutomaton(Roles.of(vocabulary).close(dfa), vocabulary)


def _unspaced(kind: tuple[Piece, ...]) -> tuple[Piece, ...]:
    first, *rest = kind
    return (first[1:], *rest) if isinstance(first, str) and first.startswith(" ") else kind


def _read(meter: Meter, at: tuple[State, bool], kind: tuple[Piece, ...]) -> tuple[State, bool] | None:
    """Follow one token from a state and whether it is right after a word, which no other may touch."""
    state: State | None
    state, touching = at
    for piece in kind:
        if isinstance(piece, frozenset):
            state = None if touching else meter.word(state, piece)
            touching = True
        else:
            for character in piece:
                state = None if state is None else meter.silent(state, character)
                touching = False
        if state is None:
            return None
    return state, touching
