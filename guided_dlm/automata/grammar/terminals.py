"""Terminals as automata over one common partition of the characters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from guided_dlm.automata.codepoints import LIMIT, Partition
from guided_dlm.automata.dfa import DEAD, FAR, Mask, Table, distances, minimise, unique_rows
from guided_dlm.automata.grammar.rules import Terminal
from guided_dlm.automata.regex import regex_subsets
from guided_dlm.errors import AutomatonTooLarge, UnsupportedPattern, shorten

MAX_TERMINAL_STATES = 40_000
_FLAGS = re.compile(r"\(\?([a-zA-Z]+)\)")
# A named group, and what may look like one: an escape, a class.
_NAMED = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<\w+>", re.DOTALL)
EMPTY_PARTITION = Partition((0, 0xD800, 0xE000), (0, -1, 0))


class Lexeme(NamedTuple):
    """The automaton of a terminal over character classes; `shortest` is its least number of characters."""

    table: Table
    accepting: Mask
    classes: Partition
    shortest: int


def least_length(terminal: Terminal) -> float:
    """Return the least number of characters of a terminal's texts, infinity where it has none; raises as `lexeme`."""
    if terminal.literal is not None:
        return len(terminal.literal)
    item = lexeme(terminal)
    return float(item.shortest) if item.shortest >= 0 else float("inf")


@lru_cache(maxsize=4096)
def lexeme(terminal: Terminal) -> Lexeme:
    """Return the minimal automaton of one terminal.

    Raises:
        UnsupportedPattern: it does not parse, is not regular, or looks at what stands beside it.
        AutomatonTooLarge: it needs too many states.
    """
    try:
        subsets = regex_subsets(terminal.pattern, 0, MAX_TERMINAL_STATES)
        if subsets.nfa.anchors:
            raise UnsupportedPattern(
                "It has an anchor (^, $, \\b, \\B, \\A or \\Z), which looks at the text beside the terminal. Leave it "
                "out: a rule says what stands beside what."
            )
        table, accepting = subsets.determinise()
        if terminal.lazy:
            table = np.where(accepting[:, None], DEAD, table).astype(np.int32)
        table, accepting = minimise(table, accepting)
    except (UnsupportedPattern, AutomatonTooLarge) as error:
        raise type(error)(f"Terminal {terminal.name}: {error}") from error
    shortest = int(distances(table, accepting)[0])
    return Lexeme(table, accepting, subsets.partition, shortest if shortest < FAR else -1)


def merged(terminals: Iterable[Terminal], separator: str | None) -> list[Terminal]:
    """Return fewer terminals for many, each after the separator where there is one; lazy ones stay apart."""
    lazy = [terminal for terminal in terminals if terminal.lazy]
    eager = sorted((terminal for terminal in terminals if not terminal.lazy), key=lambda item: item.pattern)
    if len(eager) > 1:
        joined = "|".join(f"(?:{_part(terminal.pattern)})" for terminal in eager)
        eager = [Terminal(joined, shorten(" or ".join(terminal.name for terminal in eager)))]
    together = [*eager, *lazy]
    if separator is not None:
        together = [Terminal(f"(?:{_part(separator)})(?:{_part(item.pattern)})", item.name) for item in together]
    return together


def _part(pattern: str) -> str:
    """Return a pattern that may stand inside another: its leading flags for it alone, its groups without names."""
    flags = _FLAGS.match(pattern)
    body = _NAMED.sub(lambda found: "(" if found[0].startswith("(?P<") else found[0], pattern)
    if flags is None:
        return body
    end = "\n" if "x" in flags[1] else ""  # after a comment that runs to the end
    return f"(?{flags[1]}:{body[flags.end() :]}{end})"


class Alphabet(NamedTuple):
    """Tables of all terminals over common classes: `moves[t][s]` lists (classes, state), `accepting[t]`, `classes`."""

    moves: list[list[list[tuple[tuple[int, ...], int]]]]
    accepting: list[list[bool]]
    classes: Partition
    size: int


def alphabet(lexemes: Iterable[Lexeme]) -> Alphabet:
    """Put the automata of all terminals over the coarsest partition that tells apart what they tell apart."""
    lexemes = list(lexemes)
    if not lexemes:
        return Alphabet([], [], EMPTY_PARTITION, 1)
    starts = np.unique(np.concatenate([np.array(item.classes.starts) for item in lexemes]))
    starts = starts[starts < LIMIT]
    rows = []
    for item in lexemes:
        own = np.array(item.classes.labels)[np.searchsorted(item.classes.starts, starts, side="right") - 1]
        rows.append(np.where(own < 0, -2, np.pad(item.table, ((0, 0), (0, 1)))[:, own]))
    stacked = np.concatenate(rows)
    first, label = unique_rows(np.ascontiguousarray(stacked.T))
    scalar = stacked[0, first] != -2
    number = np.where(scalar, np.cumsum(scalar) - 1, -1)
    columns = stacked[:, first[scalar]]
    moves, offset = [], 0
    for item in lexemes:
        states = item.table.shape[0]
        moves.append([_grouped(row) for row in columns[offset : offset + states].tolist()])
        offset += states
    partition = Partition(tuple(starts.tolist()), tuple(number[label].tolist()))
    return Alphabet(moves, [item.accepting.tolist() for item in lexemes], partition, int(scalar.sum()))


def _grouped(row: list[int]) -> list[tuple[tuple[int, ...], int]]:
    groups: dict[int, list[int]] = {}
    for symbol, state in enumerate(row):
        if state >= 0:
            groups.setdefault(state, []).append(symbol)
    return [(tuple(symbols), state) for state, symbols in groups.items()]
