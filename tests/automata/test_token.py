"""Token automata: counting, lengths, distances, arcs and refusals, against enumeration."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.errors import AutomatonTooLarge, InvalidRequest, VocabularyMismatch
from guided_dlm.vocabulary import Vocabulary

TOKENS = [b"", b"", b"", b"a", b" b", b"ab", b"\xc3"]
VOCABULARY = Vocabulary.from_tokens(TOKENS, eos_id=0, pad_id=1, mask_id=2)
PATTERNS = ["a*", "(?:ab)*", ".{2,5}", "", "[^\\s\\S]", r"\w+( \w+){2,}", "a{3}|b", "(?:a b)*a?", "a{3,}b?"]


def accepted(automaton: TokenAutomaton, length: int) -> set[tuple[int, ...]]:
    every = itertools.product(range(len(automaton.vocabulary)), repeat=length)
    return {canvas for canvas in every if automaton.accepts(canvas)}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("specials", [(0, 1), (0, 0), (None, None)])
def test_feasible_lengths_are_those_with_a_canvas(pattern: str, specials: tuple[int | None, int | None]) -> None:
    vocabulary = Vocabulary.from_tokens(TOKENS, eos_id=specials[0], pad_id=specials[1], mask_id=2)
    lifted = ByteAutomaton.from_regex(pattern).lift(vocabulary)
    assert lifted.feasible_lengths(4).tolist() == [bool(accepted(lifted, n)) for n in range(5)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_arcs_rebuild_the_transitions(pattern: str) -> None:
    lifted = ByteAutomaton.from_regex(pattern).lift(VOCABULARY)
    source, target, group, groups = lifted.arcs()
    rebuilt = np.full_like(lifted.transitions, -1)
    for a, b, g in zip(source, target, group, strict=True):
        assert groups[g].any()
        assert (rebuilt[a, groups[g]] == -1).all()
        rebuilt[a, groups[g]] = b
    assert (rebuilt == lifted.transitions).all()
    assert len({(a, b) for a, b in zip(source.tolist(), target.tolist(), strict=True)}) == source.size
    assert len({row.tobytes() for row in groups}) == len(groups)
    assert set(group.tolist()) == set(range(len(groups)))
    assert lifted.num_edges == int((rebuilt >= 0).sum())


@pytest.mark.parametrize("keep", ["both", "either", "left", "soft"])
@given(st.sampled_from(PATTERNS), st.sampled_from(PATTERNS), st.integers(1, 4))
def test_a_product_for_a_canvas_is_right_on_that_canvas(keep: Any, first: str, second: str, length: int) -> None:
    left, right = (ByteAutomaton.from_regex(pattern).lift(VOCABULARY) for pattern in (first, second))
    whole, cut = left.combine(right, keep), left.combine(right, keep, length=length)
    assert accepted(cut, length) == accepted(whole, length)


def test_a_product_that_outgrows_its_limit_fits_where_the_canvas_leaves_little_room() -> None:
    count = TokenAutomaton.count_tokens(VOCABULARY, 100, None)
    characters = ByteAutomaton.from_regex("[ab]{200}").lift(VOCABULARY)
    with pytest.raises(AutomatonTooLarge, match=r"more than 3000 pairs of states\. "):
        count.combine(characters, "both", max_states=3000)
    with pytest.raises(AutomatonTooLarge, match="more than 3000 pairs of states in a canvas of 150 tokens"):
        count.combine(characters, "both", max_states=3000, length=150)
    close = count.combine(characters, "both", max_states=3000, length=105)
    assert close.feasible_lengths(105)[105]
    assert count.combine(characters, "both", max_states=3000, length=99).is_empty()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_distance_is_the_shortest_way_to_acceptance(pattern: str) -> None:
    lifted = ByteAutomaton.from_regex(pattern).lift(VOCABULARY)
    if lifted.is_empty():
        assert lifted.distance[0] > 10**9
        assert lifted.num_states == 1
        return
    assert ((lifted.distance == 0) == lifted.accepting).all()
    for state in np.flatnonzero(lifted.distance):
        after = lifted.transitions[state]
        assert lifted.distance[state] == 1 + lifted.distance[after[after >= 0]].min()


def well_shaped(canvas: tuple[int, ...]) -> int | None:
    size = canvas.index(0) if 0 in canvas else len(canvas)
    text, tail = canvas[:size], canvas[size + 1 :]
    return size if all(t > 2 for t in text) and all(t == 1 for t in tail) else None


@pytest.mark.parametrize(("least", "most"), [(0, 0), (0, 2), (1, 3), (2, 2), (0, None), (2, None), (3, None)])
def test_count_tokens_counts_the_tokens_before_the_tail(least: int, most: int | None) -> None:
    automaton = TokenAutomaton.count_tokens(VOCABULARY, least, most)
    for length in range(5):
        for canvas in itertools.product(range(len(VOCABULARY)), repeat=length):
            size = well_shaped(canvas)
            expected = size is not None and least <= size and (most is None or size <= most)
            assert automaton.accepts(canvas) == expected


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.sampled_from(PATTERNS), st.integers(0, 3), st.integers(0, 2))
def test_token_algebra_agrees_with_sets_of_canvases(pattern: str, least: int, more: int) -> None:
    counted = TokenAutomaton.count_tokens(VOCABULARY, least, least + more)
    lifted = ByteAutomaton.from_regex(pattern).lift(VOCABULARY)
    well_formed = TokenAutomaton.well_formed(VOCABULARY)
    for length in range(4):
        one, other = accepted(counted, length), accepted(lifted, length)
        assert accepted(counted & lifted, length) == one & other
        assert accepted(counted | lifted, length) == one | other
        assert accepted(counted - lifted, length) == one - other
        assert accepted(~counted, length) == accepted(well_formed, length) - one
    assert ~(counted & lifted) == (~counted | ~lifted)
    assert ~~lifted == lifted


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.sampled_from(PATTERNS), st.sampled_from(PATTERNS))
def test_tokens_that_act_alike_share_a_class_and_states_are_live(left: str, right: str) -> None:
    joined = ByteAutomaton.from_regex(left).lift(VOCABULARY) | ByteAutomaton.from_regex(right).lift(VOCABULARY)
    columns = {joined.transitions[:, c].tobytes() for c in range(joined.num_classes)}
    assert len(columns) == joined.num_classes
    assert (joined.transitions >= 0).any(axis=0).all()
    assert set(joined.token_class.tolist()) - {-1} == set(range(joined.num_classes))
    assert joined.is_empty() or (joined.distance < joined.num_states + 1).all()
    assert joined.transitions.dtype == joined.token_class.dtype == np.int32
    assert joined.start == 0


def test_equal_languages_are_equal_objects() -> None:
    one = ByteAutomaton.from_regex("(?:a|ab)*").lift(VOCABULARY)
    other = ByteAutomaton.from_regex("(?:ab?)*").lift(VOCABULARY) & TokenAutomaton.well_formed(VOCABULARY)
    assert one == other
    assert hash(one) == hash(other)
    assert one != ByteAutomaton.from_regex("a*").lift(VOCABULARY)


def test_different_vocabularies_are_refused() -> None:
    other = Vocabulary.from_tokens([*TOKENS, b"z"], eos_id=0, pad_id=1, mask_id=2)
    with pytest.raises(VocabularyMismatch, match="7 and 8 tokens"):
        TokenAutomaton.well_formed(VOCABULARY) & TokenAutomaton.well_formed(other)


def test_impossible_counts_and_exploding_products_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="from 3 to 2"):
        TokenAutomaton.count_tokens(VOCABULARY, 3, 2)
    counted = TokenAutomaton.count_tokens(VOCABULARY, 90, None)
    with pytest.raises(AutomatonTooLarge, match="more than 60 pairs"):
        counted.combine(ByteAutomaton.from_regex("(?:a{7})*").lift(VOCABULARY), "both", max_states=60)


@pytest.mark.parametrize("specials", [(0, 1), (0, 0), (None, None)])
def test_a_score_is_the_weight_of_the_level_that_a_text_ends_at(specials: tuple[int | None, int | None]) -> None:
    vocabulary = Vocabulary.from_tokens(TOKENS, eos_id=specials[0], pad_id=specials[1], mask_id=2)
    step = np.array([9, 9, 9, 1, -1, 2, 0])
    weights = np.array([-3.0, 0.5, 0.25, 7.0])
    automaton = TokenAutomaton.score(vocabulary, step, 1, weights)
    assert automaton.log_weight is not None
    expected = {}
    for canvas in itertools.product(range(3, 7), repeat=3):
        for length in range(4 if specials[0] is not None else 3, 0, -1):
            text = canvas[: length - 1] if specials[0] is not None else canvas
            level = 1
            for token in text:
                level = min(max(level + int(step[token]), 0), 3)
            tail = () if len(text) == 3 else (specials[0], *[specials[1]] * (2 - len(text)))
            expected[(*text, *tail)] = weights[level]
    found = {}
    for canvas in accepted(automaton, 3):
        state = automaton.start
        for token in canvas:
            state = int(automaton.transitions[state, automaton.token_class[token]])
        found[canvas] = float(automaton.log_weight[state])
    assert found == expected


def test_a_score_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"a step for each of 7 tokens"):
        TokenAutomaton.score(VOCABULARY, np.zeros(3, dtype=np.int64), 0, np.zeros(2))
    with pytest.raises(InvalidRequest, match=r"from 0 to 1; got 7 steps and 2"):
        TokenAutomaton.score(VOCABULARY, np.zeros(7, dtype=np.int64), 2, np.zeros(2))
