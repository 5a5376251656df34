"""Lifting a byte automaton to the tokens of a vocabulary: the one place that decides what a canvas may look like.

A canvas is text tokens, then nothing or end-of-text and padding to the end. Its text is the bytes of the text tokens
with one leading space dropped, as `Vocabulary.decode` does. Any tokenisation of a text counts, also one that splits
characters. Masks, unknowns and other specials occur in no canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from guided_dlm.automata.cache import cached
from guided_dlm.automata.dfa import DEAD, Dfa, IntArray, Table
from guided_dlm.automata.token import Roles, TokenAutomaton
from guided_dlm.automata.trie import TokenTrie
from guided_dlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from guided_dlm.automata.byte import ByteAutomaton


@dataclass(frozen=True)
class _Key:
    """A vocabulary that caches compare by fingerprint."""

    fingerprint: str
    vocabulary: Vocabulary = field(compare=False)


class _Tries(NamedTuple):
    """The text tokens in two tries, by whether they begin inside a character; leading spaces stripped in a third."""

    whole: TokenTrie
    whole_ids: IntArray
    inside: TokenTrie
    inside_ids: IntArray
    stripped: TokenTrie
    is_stripped: IntArray


def lift(automaton: ByteAutomaton, vocabulary: Vocabulary) -> TokenAutomaton:
    """Return the canvases over the vocabulary whose text is in the automaton's language.

    The empty text is end-of-text and padding only. Results are cached by language and vocabulary fingerprint, in
    memory and, for a large vocabulary, on disk (`guided_dlm.automata.cache`).
    """
    return _lift(automaton, _Key(vocabulary.fingerprint, vocabulary))


@lru_cache(maxsize=4)
def _tries(key: _Key) -> _Tries:
    tokens = key.vocabulary.tokens
    ids = Roles.of(key.vocabulary).text_ids
    whole = [i for i in ids if not 0x80 <= tokens[i][0] < 0xC0]
    inside = [i for i in ids if 0x80 <= tokens[i][0] < 0xC0]
    spaced = [place for place, i in enumerate(whole) if tokens[i].startswith(b" ")]
    return _Tries(
        TokenTrie([tokens[i] for i in whole]),
        np.array(whole, dtype=np.int64),
        TokenTrie([tokens[i] for i in inside]),
        np.array(inside, dtype=np.int64),
        TokenTrie([tokens[whole[place]][1:] for place in spaced]),
        np.array(spaced, dtype=np.int64),
    )


@lru_cache(maxsize=64)
def _lift(automaton: ByteAutomaton, key: _Key) -> TokenAutomaton:
    return cached(automaton, key.vocabulary, lambda: _run(automaton, key))


def _run(automaton: ByteAutomaton, key: _Key) -> TokenAutomaton:
    dfa = Dfa(automaton.table, automaton.accepting, automaton.byte_class.astype(np.int64))
    tries = _tries(key)
    # In valid UTF-8 no state continues both at and inside a character, so each trie needs only its own states.
    splits = (automaton.table[:, np.unique(automaton.byte_class[0x80:0xC0])] >= 0).any(axis=1)
    between, amid = np.flatnonzero(~splits), np.flatnonzero(splits)
    upper, upper_column = tries.whole.columns(dfa, between)
    upper, upper_column = _with_start(upper, upper_column, tries, dfa)
    lower, lower_column = tries.inside.columns(dfa, amid)
    states = automaton.num_states
    table = np.full((states + 1, upper.shape[1] + lower.shape[1]), DEAD, dtype=np.int32)
    # Row 0 is "nothing read yet"; byte state s becomes row s + 1.
    table[np.append(0, between + 1)[:, None], np.arange(upper.shape[1])] = np.where(upper < 0, DEAD, upper + 1)
    table[(amid + 1)[:, None], upper.shape[1] + np.arange(lower.shape[1])] = np.where(lower < 0, DEAD, lower + 1)
    column_of = np.full(len(key.vocabulary), -1, dtype=np.int64)
    column_of[tries.whole_ids] = upper_column
    column_of[tries.inside_ids] = lower_column + upper.shape[1]
    accepting = np.append(automaton.accepting[0], automaton.accepting)
    return TokenAutomaton(Roles.of(key.vocabulary).close(Dfa(table, accepting, column_of)), key.vocabulary)


def _with_start(upper: Table, column: IntArray, tries: _Tries, dfa: Dfa) -> tuple[Table, IntArray]:
    """Put the row of the start first: as byte state 0, except that a token loses its leading space."""
    begin = upper[0][column]
    if tries.is_stripped.size:
        tokens, reached = tries.stripped.run(dfa, np.zeros(1, dtype=np.int64))
        begin[tries.is_stripped] = DEAD
        begin[tries.is_stripped[tokens]] = reached[:, 0]
    _, first, joint = np.unique(column * (dfa.table.shape[0] + 1) + begin + 1, return_index=True, return_inverse=True)
    return np.concatenate([begin[None, first], upper[:, column[first]]]), joint.reshape(-1)
