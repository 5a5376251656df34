"""Texts whose last word, before closing punctuation, is one of a list, whatever its case."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import numpy as np

from constraints.meter import letter_classes, prefixes_of, silent_characters
from constraints.pronunciation import LETTERS, SILENT_MARKS, spelled
from guided_dlm.automata import ByteAutomaton, CodepointSet, TokenAutomaton
from guided_dlm.automata.dfa import Dfa
from guided_dlm.automata.token import Roles
from guided_dlm.vocabulary import Vocabulary

# Within a word, what was read of it; between words, whether a word of the list came last.
State = str | bool
LISTED, OTHER = "+", "-"  # a word that is on the list and ends here, and one that is not on it
SILENT, JOINED, REST = range(len(LETTERS), len(LETTERS) + 3)  # symbols after those of the letters
_AT_TOKENS: tuple[State, ...] = (False, True, LISTED, OTHER)


def _machine(words: Collection[str]) -> tuple[Callable[[State, int], State], Callable[[State], bool]]:
    prefixes, ending = prefixes_of(words), frozenset([*words, LISTED])

    def accepting(state: State) -> bool:
        return state in ending if isinstance(state, str) else state

    def step(state: State, symbol: int) -> State:
        if symbol < SILENT:
            run = (state if isinstance(state, str) else "") + LETTERS[symbol]
            return run if run in prefixes else OTHER
        return accepting(state) if symbol == SILENT else OTHER if symbol == JOINED else False

    return step, accepting


def byte_ending(words: Collection[str]) -> ByteAutomaton:
    """Return the texts that end in one of the words and silent characters; only non-word characters come before it."""
    joined = CodepointSet.word() - CodepointSet.of(LETTERS.upper() + LETTERS)
    start: State = False
    return ByteAutomaton.from_machine([*letter_classes(), silent_characters(), joined], start, *_machine(words))


def token_ending(words: Collection[str], vocabulary: Vocabulary) -> TokenAutomaton | None:
    """Return those canvases among them whose last word is within one token; None where no token holds such a word."""
    step, accepting = _machine(words)
    ids = Roles.of(vocabulary).text_ids
    after = np.array([[_follow(step, accepting, state, vocabulary.tokens[i]) for state in _AT_TOKENS] for i in ids])
    listed = (after[:, 0] == _AT_TOKENS.index(True)) | (after[:, 0] == _AT_TOKENS.index(LISTED))
    if not listed.any():
        return None
    kinds, kind = np.unique(after, axis=0, return_inverse=True)
    column_of = np.full(len(vocabulary), -1, dtype=np.int64)
    column_of[ids] = kind.reshape(-1)
    final = np.array([accepting(state) for state in _AT_TOKENS])
    dfa = Roles.of(vocabulary).close(Dfa(kinds.T.astype(np.int32), final, column_of))
    return TokenAutomaton(dfa, vocabulary) & TokenAutomaton.well_formed(vocabulary)


def _follow(step: Callable[[State, int], State], accepting: Callable[[State], bool], state: State, token: bytes) -> int:
    """Return the number of the state after a token; one with part of a character counts as part of another word."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return _AT_TOKENS.index(OTHER)
    for character in text:
        state = step(state, _symbol(character))
    if isinstance(state, str):
        state = LISTED if accepting(state) else OTHER
    return _AT_TOKENS.index(state)


def _symbol(character: str) -> int:
    letter = spelled(character) if character.isascii() or spelled(character) == "'" else ""
    if letter and letter in LETTERS:
        return LETTERS.index(letter)
    if character.isspace() or character in SILENT_MARKS:
        return SILENT
    return JOINED if re.match(r"\w", character) else REST
