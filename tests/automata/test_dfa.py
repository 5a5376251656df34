"""The table algorithms on random tables, and their fallbacks for collisions and for little memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_dlm.automata import ByteAutomaton, TokenAutomaton, trie
from guided_dlm.automata import dfa as tables
from guided_dlm.automata import product as products
from guided_dlm.automata.dfa import Dfa, distances, minimise, normal_form, unique_rows
from guided_dlm.vocabulary import Vocabulary


@st.composite
def automata(draw: st.DrawFn) -> Dfa:
    states, width = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    cells = draw(st.lists(st.integers(-1, states - 1), min_size=states * width, max_size=states * width))
    accepting = draw(st.lists(st.booleans(), min_size=states, max_size=states))
    return Dfa(np.array(cells, dtype=np.int32).reshape(states, width), np.array(accepting), np.arange(width))


def words(dfa: Dfa, state: int, length: int) -> frozenset[tuple[int, ...]]:
    """Return the accepted words of at most `length` symbols."""
    found = {()} if dfa.accepting[state] else set()
    if length:
        for symbol, column in enumerate(dfa.column_of):
            after = -1 if column < 0 else int(dfa.table[state, column])
            if after >= 0:
                found |= {(symbol, *word) for word in words(dfa, after, length - 1)}
    return frozenset(found)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(automata())
def test_minimising_keeps_the_language_and_leaves_no_two_equal_states(dfa: Dfa) -> None:
    table, accepting = minimise(dfa.table, dfa.accepting)
    small = Dfa(table, accepting, dfa.column_of)
    # Two states of automata with at most 7 states that differ do so on a word of at most 6 symbols.
    assert words(small, 0, 6) == words(dfa, 0, 6)
    kinds = {words(small, state, 6) for state in range(table.shape[0])}
    assert len(kinds) == table.shape[0]
    assert table.shape[0] == 1 or frozenset() not in kinds


@settings(derandomize=True, deadline=None, max_examples=100)
@given(automata(), st.randoms(use_true_random=False))
def test_the_normal_form_does_not_depend_on_numbering(dfa: Dfa, random: object) -> None:
    states = dfa.table.shape[0]
    shuffled = [0, *random.sample(range(1, states), states - 1)]  # type: ignore[attr-defined]
    number = np.append(np.argsort(shuffled), -1)
    other = Dfa(number[dfa.table[shuffled]].astype(np.int32), dfa.accepting[shuffled], dfa.column_of)
    for drop_dead in (True, False):
        one, two = normal_form(dfa, drop_dead), normal_form(other, drop_dead)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(automata())
def test_distances_are_lengths_of_shortest_words(dfa: Dfa) -> None:
    for state, distance in enumerate(distances(dfa.table, dfa.accepting)):
        shortest = min(map(len, words(dfa, state, 6)), default=None)
        assert distance == (tables.FAR if shortest is None else shortest)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), min_size=1))
def test_unique_rows_number_kinds_by_first_appearance(rows: list[tuple[int, int]]) -> None:
    first, kind = unique_rows(np.array(rows))
    assert [rows[i] for i in first] == list(dict.fromkeys(rows))
    assert [rows[first[k]] for k in kind] == rows


def test_colliding_hashes_do_not_merge_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_multipliers", lambda width: np.zeros(width, dtype=np.uint64))
    first, kind = unique_rows(np.array([[1, 2], [0, 1], [1, 2], [3, 3]]))
    assert first.tolist() == [0, 1, 3]
    assert kind.tolist() == [0, 1, 0, 2]


def test_small_batches_and_sorted_pairs_give_the_same_automata(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary.from_tokens([b"", b"a", b" b", b"ab", b"\xc3", b"\xa9", b"b\xc3"], eos_id=0)
    one, other = ByteAutomaton.from_regex(r".*\bb\b.*"), ByteAutomaton.from_regex(r"(?:a|b| |é){2,9}")
    both, lifted = one & other, (one | other).lift(vocabulary)
    monkeypatch.setattr(products, "_DENSE_PAIRS", 0)
    monkeypatch.setattr(products, "_BATCH_CELLS", 1)
    monkeypatch.setattr(trie, "_BATCH_CELLS", 1)
    again = Vocabulary.from_tokens([*vocabulary.tokens, b"\xff"], eos_id=0)
    assert one & other == both
    relifted = (one | other).lift(again)
    assert (relifted.transitions[:, relifted.token_class[:7]] == lifted.transitions[:, lifted.token_class]).all()
    assert (one.lift(again) & other.lift(again)) == both.lift(again)
    assert TokenAutomaton.well_formed(again) - lifted_difference(one, again) == one.lift(again)


def lifted_difference(automaton: ByteAutomaton, vocabulary: Vocabulary) -> TokenAutomaton:
    return (~automaton).lift(vocabulary)
